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
 * Failures, refusals and times without an answer have a second bet, with half of the stake: that half of the candidate's
 * requests fail. It finds a candidate that is broken before there is anything to learn from.
 *
 * Times without an answer are counted at each level when a request reaches it, whether it has ended or not: the shares of
 * both versions are then those of requests that were known to be above or below the level.
 *
 * Each of the `n` metrics has to reach `n / alpha` (Bonferroni), so that `alpha` bounds the error of all together.
 */
import type { Capital, Compared, Evidence, MetricEvidence, Proportion } from "./Rollout.ts"
import type { ComparisonPlan, Metric } from "./RolloutSettings.ts"
import type { Pair } from "./SequentialTest.ts"
import * as SequentialTest from "./SequentialTest.ts"
import type { Scale, Tally } from "./Tally.ts"
import * as Tallies from "./Tally.ts"

type Capitals = Compared["capital"]

const none: Capital = { learned: 0, severe: 0 }

/** Before the first batch. */
const noEvidence: Capitals = { errors: none, refusals: none, firstToken: none, speed: none, score: none, hanging: none }

/** Requests of each version in a batch: with fewer, a comparison would waste those of the other. */
const leastInBatch = 2

const bothEmpty = (): Pair<Tally> => ({ stable: Tallies.empty(), candidate: Tallies.empty() })

const addBoth = (a: Pair<Tally>, b: Pair<Tally>): Pair<Tally> => ({
  stable: Tallies.add(a.stable, b.stable),
  candidate: Tallies.add(a.candidate, b.candidate)
})

/** A comparison without observations. */
export const fresh = (): Compared => ({ totals: bothEmpty(), pending: bothEmpty(), capital: noEvidence })

/** Metrics of a histogram; of a higher time is worse, of the others a lower value. */
type Graded = "firstToken" | "speed" | "score" | "hanging"

/** Metrics that bet on a severe regression, too. */
const severeMetrics: ReadonlySet<Metric> = new Set(["errors", "refusals", "hanging"])

const isGraded = (metric: Metric): metric is Graded => metric !== "errors" && metric !== "refusals"

const shiftOf = (metric: Graded, tolerance: number): number => {
  if (metric === "hanging") return Tallies.bucketsOfWait(tolerance)
  return metric === "score" ? Tallies.bucketsOfScore(tolerance) : Tallies.bucketsOfFactor(tolerance)
}

/** For each level, of the requests that have an answer before it or none at it, those that have none. */
const withoutAnswer = ({ answered, waiting }: Tally): ReadonlyArray<Proportion> => {
  let above = 0
  let below = 0
  for (const [bucket, value] of answered.entries()) above += value + (bucket === 0 ? 0 : waiting[bucket]!)
  return Tallies.scales.hanging.levels.map((_, level) => {
    above -= answered[level]! + (level === 0 ? 0 : waiting[level]!)
    below += answered[level]!
    return { count: above, of: above + below }
  })
}

const unknown: Proportion = { count: 0, of: 0 }

/** For each level, how many values are worse than the level that is `shift` further in the direction of worse. */
const worseThan = (tally: Tally, metric: Graded, shift: number): ReadonlyArray<Proportion> => {
  if (metric === "hanging") {
    const levels = withoutAnswer(tally)
    return levels.map((_, level) => levels[level + shift] ?? unknown)
  }
  const buckets = tally[metric]
  // below[i]: values below level i.
  const below: Array<number> = []
  let of = 0
  for (const value of buckets) below.push(of += value)
  below.pop()
  return below.map((_, index) => ({
    count: metric === "firstToken" ? of - (below[index + shift] ?? of) : below[index - shift] ?? 0,
    of
  }))
}

/** The proportions of a metric, one pair for each level. */
const proportions = (
  metric: Metric,
  { candidate, stable }: Pair<Tally>,
  tolerance: number
): ReadonlyArray<Pair<Proportion>> => {
  if (isGraded(metric)) {
    const shifted = worseThan(candidate, metric, shiftOf(metric, tolerance))
    return worseThan(stable, metric, 0).map((stable, level) => ({ stable, candidate: shifted[level]! }))
  }
  const field = metric === "errors" ? "failures" : "refusals"
  return [{
    stable: { count: stable[field], of: stable.requests },
    candidate: { count: candidate[field], of: candidate.requests }
  }]
}

/** The tolerance of a proportion: that of a histogram is in its levels. */
const toleranceOf = (metric: Metric, { tolerance }: ComparisonPlan): number => isGraded(metric) ? 0 : tolerance[metric]

/** Whether the observations differ: where all are the same, there is nothing to learn from. */
const differ = ({ candidate, stable }: Pair<Proportion>): boolean => {
  const count = stable.count + candidate.count
  return count > 0 && count < stable.of + candidate.of
}

/** The bet at a level by what was measured before; undefined for none. */
type BetOf = (before: Pair<Proportion>) => Pair<number> | undefined

const learned: BetOf = (before) => differ(before) ? SequentialTest.learned(before) : undefined

/** The factor of the bets at all levels: their mean, weighted by what each is expected to gain. */
const factorOf = (
  before: ReadonlyArray<Pair<Proportion>>,
  batch: ReadonlyArray<Pair<Proportion>>,
  tolerance: number,
  betOf: BetOf
): number => {
  const factors: Array<number> = []
  const growths: Array<number> = []
  for (const [level, each] of batch.entries()) {
    const bet = betOf(before[level]!)
    if (bet === undefined) continue
    const growth = SequentialTest.growth({ stable: each.stable.of, candidate: each.candidate.of }, bet, tolerance)
    if (growth <= 0) continue
    factors.push(SequentialTest.factor(each, bet, tolerance))
    growths.push(growth)
  }
  return factors.length === 0 ? 0 : SequentialTest.logMean(factors, growths)
}

const grown = (
  metric: Metric,
  capital: Capital,
  before: Pair<Tally>,
  batch: Pair<Tally>,
  plan: ComparisonPlan
): Capital => {
  const earlier = proportions(metric, before, plan.tolerance[metric])
  const now = proportions(metric, batch, plan.tolerance[metric])
  const tolerance = toleranceOf(metric, plan)
  return {
    learned: capital.learned + factorOf(earlier, now, tolerance, learned),
    severe: severeMetrics.has(metric) ? capital.severe + factorOf(earlier, now, tolerance, SequentialTest.severe) : 0
  }
}

/**
 * The evidence after a batch.
 *
 * @param before all that was measured before the batch
 */
const withBatch = (
  capital: Capitals,
  before: Pair<Tally>,
  batch: Pair<Tally>,
  plan: ComparisonPlan
): Capitals => ({
  ...capital,
  ...Object.fromEntries(plan.metrics.map((metric) => [metric, grown(metric, capital[metric], before, batch, plan)]))
})

const logE = (metric: Metric, { learned, severe }: Capital): number =>
  severeMetrics.has(metric) ? SequentialTest.logMean([learned, severe], [1, 1]) : learned

/** What a metric has to reach. */
const neededBy = ({ alpha, metrics }: ComparisonPlan): number => Math.log(metrics.length / alpha)

const difference = ({ candidate, stable }: Pair<Proportion>): number =>
  stable.of === 0 || candidate.of === 0 ? 0 : candidate.count / candidate.of - stable.count / stable.of

const typicalValue = (metric: Metric, tally: Tally): number | null => {
  if (isGraded(metric)) {
    return Tallies.median(metric === "hanging" ? tally.answered : tally[metric], scaleOf(metric)) ?? null
  }
  if (tally.requests === 0) return null
  return (metric === "errors" ? tally.failures : tally.refusals) / tally.requests
}

/** The share of failures and refusals, and medians; null without observations. */
export const typicalOf = (tally: Tally): Readonly<Record<Metric, number | null>> => ({
  errors: typicalValue("errors", tally),
  refusals: typicalValue("refusals", tally),
  firstToken: typicalValue("firstToken", tally),
  speed: typicalValue("speed", tally),
  score: typicalValue("score", tally),
  hanging: typicalValue("hanging", tally)
})

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
    typical: { stable: typicalValue(metric, totals.stable), candidate: typicalValue(metric, totals.candidate) }
  }
}

/** The share of the stable version's requests that have an answer when a candidate without one is taken to hang. */
const usualAnswer = 0.9

/**
 * Requests of the candidate in the batch: those that have ended, or those that have waited for longer than the stable version
 * usually takes. Until then a batch goes on, because the stable version may have no requests later: callers that wait send none.
 */
const candidatesIn = ({ pending, totals }: Compared, tolerance: number): number => {
  const { candidate, stable } = pending
  const usual = Tallies.quantile(Tallies.add(totals.stable, stable).answered, usualAnswer)
  const known = usual === undefined ? undefined : worseThan(candidate, "hanging", shiftOf("hanging", tolerance))[usual]
  return Math.max(candidate.requests, known?.of ?? 0)
}

/** The comparison with more observations, which the next evaluation takes as one batch. */
export const observed = ({ capital, pending, totals }: Compared, batch: Pair<Tally>): Compared => ({
  totals,
  pending: addBoth(pending, batch),
  capital
})

/** The comparison after the batch since the last evaluation; the same while there is too little of one version. */
export const evaluated = (compared: Compared, plan: ComparisonPlan): Compared => {
  const { capital, pending, totals } = compared
  return Math.min(pending.stable.requests, candidatesIn(compared, plan.tolerance.hanging)) < leastInBatch
    ? { totals, pending, capital }
    : {
      totals: addBoth(totals, pending),
      pending: bothEmpty(),
      capital: withBatch(capital, totals, pending, plan)
    }
}

/** What is known of every metric, for people and for the decision. */
export const metricsOf = (
  { capital, pending, totals }: Compared,
  plan: ComparisonPlan
): ReadonlyArray<MetricEvidence> => {
  const all = addBoth(totals, pending)
  return plan.metrics.map((metric) => metricEvidence(metric, capital[metric], all, plan))
}

/** The metric with the most evidence, where that is enough. */
export const worst = (metrics: Evidence["metrics"]): MetricEvidence | undefined =>
  metrics.filter(({ logE, needed }) => logE >= needed).toSorted((a, b) => b.logE - a.logE)[0]
