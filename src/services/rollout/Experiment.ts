/**
 * An A/B test: deployments with fixed shares of requests, each compared with the first one in both directions.
 *
 * **Details**
 *
 * The comparison is that of a rollout (`Comparison`): a variant is worse, or better, where a metric has the evidence for a
 * difference beyond its tolerance. `alpha` bounds the probability that any variant without such a difference is ever
 * called worse or better, all variants, metrics and evaluations together.
 *
 * The state is JSON. `Assignment.variantOf` says which variant gets a request.
 */
import { Schema } from "effect"
import * as Comparison from "./Comparison.ts"
import type { MetricEvidence } from "./Rollout.ts"
import { Compared } from "./Rollout.ts"
import type { ComparisonPlan, Metric } from "./RolloutSettings.ts"
import { ExperimentPlan } from "./RolloutSettings.ts"
import type { Tally } from "./Tally.ts"
import * as Tallies from "./Tally.ts"

export const Experiment = Schema.Struct({
  plan: ExperimentPlan,
  /** Of every variant but the first. The pairs are the first one and the variant. */
  comparisons: Schema.Array(Schema.Struct({
    ...Compared.fields,
    /** The evidence that the variant is better; `capital` is that it is worse. */
    betterCapital: Compared.fields.capital
  }))
})
export type Experiment = typeof Experiment.Type

/** `mixed`: worse in one metric, better in another. */
export type Verdict = "control" | "worse" | "better" | "mixed" | "undecided"

/** What is known of a variant. */
export interface VariantReport {
  readonly deployment: string
  readonly weight: number
  /** Requests, and their share of those of all variants. */
  readonly requests: number
  readonly share: number
  /** The share of failures or refusals, or the median; null without observations. */
  readonly typical: Readonly<Record<Metric, number | null>>
  /** The evidence against the first variant; empty for the first. In `better`, `candidate` is the first variant. */
  readonly worse: ReadonlyArray<MetricEvidence>
  readonly better: ReadonlyArray<MetricEvidence>
  readonly verdict: Verdict
}

/** The test without observations. */
export const start = (plan: ExperimentPlan): Experiment => ({
  plan,
  comparisons: plan.variants.slice(1).map(() => {
    const compared = Comparison.fresh()
    return { ...compared, betterCapital: compared.capital }
  })
})

/** The test with more observations, a tally for each variant, which the next evaluation takes as one batch. */
export const observed = (experiment: Experiment, [control, ...variants]: ReadonlyArray<Tally>): Experiment => ({
  ...experiment,
  comparisons: experiment.comparisons.map((compared, index) => ({
    ...compared,
    ...Comparison.observed(compared, {
      stable: control ?? Tallies.empty(),
      candidate: variants[index] ?? Tallies.empty()
    })
  }))
})

/** `alpha` is divided among the variants and the two directions. */
const planOfOne = ({ plan }: Experiment): ComparisonPlan => ({
  ...plan,
  alpha: plan.alpha / (2 * (plan.variants.length - 1))
})

type ComparedVariant = Experiment["comparisons"][number]

/** The same comparison with the versions exchanged. */
const reversed = ({ betterCapital, pending, totals }: ComparedVariant): Compared => ({
  totals: { stable: totals.candidate, candidate: totals.stable },
  pending: { stable: pending.candidate, candidate: pending.stable },
  capital: betterCapital
})

/** The test after the batch since the last evaluation. */
export const evaluated = (experiment: Experiment): Experiment => {
  const plan = planOfOne(experiment)
  return {
    ...experiment,
    comparisons: experiment.comparisons.map((compared) => ({
      ...Comparison.evaluated(compared, plan),
      betterCapital: Comparison.evaluated(reversed(compared), plan).capital
    }))
  }
}

const isFound = ({ logE, needed }: MetricEvidence): boolean => logE >= needed

const verdictOf = (worse: ReadonlyArray<MetricEvidence>, better: ReadonlyArray<MetricEvidence>): Verdict => {
  const [isWorse, isBetter] = [worse.some(isFound), better.some(isFound)]
  if (isWorse && isBetter) return "mixed"
  if (isWorse) return "worse"
  return isBetter ? "better" : "undecided"
}

/** What is known of every variant, in their order. */
export const report = (experiment: Experiment): ReadonlyArray<VariantReport> => {
  const { comparisons, plan } = experiment
  const planEach = planOfOne(experiment)
  const tallies = [
    Tallies.add(comparisons[0]!.totals.stable, comparisons[0]!.pending.stable),
    ...comparisons.map(({ pending, totals }) => Tallies.add(totals.candidate, pending.candidate))
  ]
  const all = tallies.reduce((sum, { requests }) => sum + requests, 0)
  return plan.variants.map(({ deployment, weight }, index) => {
    const { requests } = tallies[index]!
    const compared = comparisons[index - 1]
    const worse = compared === undefined ? [] : Comparison.metricsOf(compared, planEach)
    const better = compared === undefined ? [] : Comparison.metricsOf(reversed(compared), planEach)
    return {
      deployment,
      weight,
      requests,
      share: all === 0 ? 0 : requests / all,
      typical: Comparison.typicalOf(tallies[index]!),
      worse,
      better,
      verdict: compared === undefined ? "control" : verdictOf(worse, better)
    }
  })
}
