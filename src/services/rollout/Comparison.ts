/**
 * Compares two versions metric by metric, by the test of `SequentialTest`.
 *
 * **Details**
 *
 * Each metric is a comparison of proportions: of failures, of refusals, and for times, speeds and scores of the answers
 * that are worse than a level, for every level of a histogram. The candidate's level is shifted by the tolerance: with one
 * of 20 %, its answers above 240 ms are compared with the stable version's above 200 ms. A batch bets on all levels at
 * once, most on those where the batches before have shown the largest difference. So a slower tail is found like a slower
 * median, and the evidence is one number.
 *
 * Failures and refusals have a second bet, with half of the stake: that half of the candidate's requests fail. It finds a
 * candidate that is broken before there is anything to learn from.
 *
 * Each of the `n` metrics has to reach `n / alpha` (Bonferroni), so that `alpha` bounds the error of all together.
 */
import type { Capital, Evidence, MetricEvidence, Proportion, Rollout } from "./Rollout.ts"
import type { ComparisonPlan, Metric } from "./RolloutSettings.ts"
import type { Pair } from "./SequentialTest.ts"
import * as SequentialTest from "./SequentialTest.ts"
import type { Scale, Tally } from "./Tally.ts"
import * as Tallies from "./Tally.ts"

type Capitals = Rollout["capital"]

const none: Capital = { learned: 0, severe: 0 }

/** Before the first batch. */
export const noEvidence: Capitals = { errors: none, refusals: none, firstToken: none, speed: none, score: none }

/** Metrics of a histogram; of a higher time is worse, of the others a lower value. */
type Graded = "firstToken" | "speed" | "score"

const isGraded = (metric: Metric): metric is Graded => metric !== "errors" && metric !== "refusals"

const shiftOf = (metric: Graded, tolerance: number): number =>
  metric === "score" ? Tallies.bucketsOfScore(tolerance) : Tallies.bucketsOfFactor(tolerance)

/** For each level, how many values are worse than the level that is `shift` further in the direction of worse. */
const worseThan = (buckets: ReadonlyArray<number>, metric: Graded, shift: number): ReadonlyArray<Proportion> => {
  const of = buckets.reduce((sum, value) => sum + value, 0)
  let below = 0
  // below[i]: values below level i.
  const belowLevel = buckets.slice(0, -1).map((value) => below += value)
  return belowLevel.map((_, index) => {
    const count = metric === "firstToken"
      ? of - (belowLevel[index + shift] ?? of)
      : belowLevel[index - shift] ?? 0
    return { count, of }
  })
}

/** The proportions of a metric, one pair for each level. */
const proportions = (
  metric: Metric,
  { candidate, stable }: Pair<Tally>,
  tolerance: number
): ReadonlyArray<Pair<Proportion>> => {
  if (isGraded(metric)) {
    const shifted = worseThan(candidate[metric], metric, shiftOf(metric, tolerance))
    return worseThan(stable[metric], metric, 0).map((stable, level) => ({ stable, candidate: shifted[level]! }))
  }
  const field = metric === "errors" ? "failures" : "refusals"
  return [{
    stable: { count: stable[field], of: stable.requests },
    candidate: { count: candidate[field], of: candidate.requests }
  }]
}

/** The tolerance of a proportion: that of a histogram is in its levels. */
const toleranceOf = (metric: Metric, { tolerance }: ComparisonPlan): number => isGraded(metric) ? 0 : tolerance[metric]

/** The factor of the learned bets at all levels: their mean, weighted by what each is expected to gain. */
const learnedFactor = (
  before: ReadonlyArray<Pair<Proportion>>,
  batch: ReadonlyArray<Pair<Proportion>>,
  tolerance: number
): number => {
  const factors: Array<number> = []
  const growths: Array<number> = []
  for (const [level, each] of batch.entries()) {
    const bet = SequentialTest.learned(before[level]!)
    const growth = SequentialTest.growth({ stable: each.stable.of, candidate: each.candidate.of }, bet, tolerance)
    if (growth <= 0) continue
    factors.push(SequentialTest.factor(each, bet, tolerance))
    growths.push(growth)
  }
  return factors.length === 0 ? 0 : SequentialTest.logMean(factors, growths)
}

const grown = (
  metric: Metric,
  { learned, severe }: Capital,
  before: Pair<Tally>,
  batch: Pair<Tally>,
  plan: ComparisonPlan
): Capital => {
  const earlier = proportions(metric, before, plan.tolerance[metric])
  const now = proportions(metric, batch, plan.tolerance[metric])
  const tolerance = toleranceOf(metric, plan)
  return {
    learned: learned + learnedFactor(earlier, now, tolerance),
    severe: isGraded(metric)
      ? 0
      : severe + SequentialTest.factor(now[0]!, SequentialTest.severe(earlier[0]!), tolerance)
  }
}

/**
 * The evidence after a batch.
 *
 * @param before all that was measured before the batch
 */
export const withBatch = (
  capital: Capitals,
  before: Pair<Tally>,
  batch: Pair<Tally>,
  plan: ComparisonPlan
): Capitals => ({
  ...capital,
  ...Object.fromEntries(plan.metrics.map((metric) => [metric, grown(metric, capital[metric], before, batch, plan)]))
})

const logE = (metric: Metric, { learned, severe }: Capital): number =>
  isGraded(metric) ? learned : SequentialTest.logMean([learned, severe], [1, 1])

/** What a metric has to reach. */
const neededBy = ({ alpha, metrics }: ComparisonPlan): number => Math.log(metrics.length / alpha)

const difference = ({ candidate, stable }: Pair<Proportion>): number =>
  stable.of === 0 || candidate.of === 0 ? 0 : candidate.count / candidate.of - stable.count / stable.of

const typicalOf = (metric: Metric, tally: Tally): number | null => {
  if (isGraded(metric)) return Tallies.median(tally[metric], scaleOf(metric)) ?? null
  if (tally.requests === 0) return null
  return (metric === "errors" ? tally.failures : tally.refusals) / tally.requests
}

const scaleOf = (metric: Graded): Scale => Tallies.scales[metric]

const metricEvidence = (
  metric: Metric,
  capital: Capital,
  totals: Pair<Tally>,
  plan: ComparisonPlan
): MetricEvidence => {
  const levels = proportions(metric, totals, plan.tolerance[metric])
  const differences = levels.map(difference)
  const level = differences.indexOf(Math.max(...differences))
  return {
    metric,
    ...levels[level]!,
    level: isGraded(metric) ? scaleOf(metric).levels[level]! : null,
    logE: logE(metric, capital),
    needed: neededBy(plan),
    typical: { stable: typicalOf(metric, totals.stable), candidate: typicalOf(metric, totals.candidate) }
  }
}

/** What is known of every metric, for people and for the decision. */
export const evidenceOf = (
  capital: Capitals,
  totals: Pair<Tally>,
  plan: ComparisonPlan,
  at: number,
  step: number
): Evidence => ({
  at,
  step,
  requests: { stable: totals.stable.requests, candidate: totals.candidate.requests },
  metrics: plan.metrics.map((metric) => metricEvidence(metric, capital[metric], totals, plan))
})

/** The metric with the most evidence, where that is enough. */
export const worst = ({ metrics }: Evidence): MetricEvidence | undefined =>
  metrics.filter(({ logE, needed }) => logE >= needed).toSorted((a, b) => b.logE - a.logE)[0]
