/**
 * Copies of requests for a deployment that is not in use yet: which requests are copied, how the answers are compared,
 * and what the comparison has found.
 *
 * **Details**
 *
 * No caller gets the answer to a copy. Original and copy are compared twice: the answers with each other (`agreement`), and
 * the failures, times and refusals as in a rollout (`Comparison`, with the original as the stable version). Original and
 * copy of one request fail together more often than two requests do, which makes the evidence weaker, never wrong.
 *
 * A process collects pairs in a batch of its own, and the batches of several are added to one state, which is JSON.
 */
import { Schema } from "effect"
import { combine, draw } from "../../domain/Hashing.ts"
import * as Comparison from "./Comparison.ts"
import type { MetricEvidence } from "./Rollout.ts"
import { Compared } from "./Rollout.ts"
import { ShadowPlan } from "./RolloutSettings.ts"
import type { Observation } from "./Tally.ts"
import * as Tally from "./Tally.ts"

const Count = Schema.mutableKey(Schema.Int)

/** Counts of pairs; `record` and `skip` change them in place. */
const Counts = Schema.Struct({
  /** Pairs whose answers were compared, and those that agreed. */
  compared: Count,
  agreed: Count,
  /** Agreement, by the levels of `Tally.scales.score`. */
  agreement: Schema.mutable(Schema.Array(Schema.Int)),
  onlyOriginalFailed: Count,
  onlyCopyFailed: Count,
  /** Requests that were drawn and not copied: under pressure, and of tenants that are excepted. */
  underPressure: Count,
  optedOut: Count
})
export type Counts = typeof Counts.Type

/** What a process has collected. */
export interface Batch {
  readonly original: Tally.Tally
  readonly copy: Tally.Tally
  readonly counts: Counts
}

export const Shadow = Schema.Struct({ plan: ShadowPlan, ...Compared.fields, counts: Counts })
export type Shadow = typeof Shadow.Type

/** Separates these draws from others over the same seed. */
const purpose = 0x73686477

/**
 * Whether a request is copied.
 *
 * @param index of the request, from a counter
 */
export const copies = (
  { exceptTenants, share }: ShadowPlan,
  seed: number,
  index: number,
  tenant: string | undefined
): "copied" | "notDrawn" | "optedOut" => {
  if (draw(combine(seed, purpose), index) >= share) return "notDrawn"
  return tenant !== undefined && exceptTenants.includes(tenant) ? "optedOut" : "copied"
}

/** 1 for equal texts, else 0. White space at the ends does not count. */
export const exact = (original: string, copy: string): number => original.trim() === copy.trim() ? 1 : 0

/** The cosine of two embeddings, at least 0; 0 where they have different dimensions or no direction. */
export const similarity = (original: ArrayLike<number>, copy: ArrayLike<number>): number => {
  if (original.length !== copy.length) return 0
  let [product, squares, others] = [0, 0, 0]
  for (let index = 0; index < original.length; index++) {
    product += original[index]! * copy[index]!
    squares += original[index]! ** 2
    others += copy[index]! ** 2
  }
  const cosine = product / Math.sqrt(squares * others)
  return cosine > 0 ? Math.min(1, cosine) : 0
}

const noCounts = (): Counts => ({
  compared: 0,
  agreed: 0,
  agreement: Tally.empty().score,
  onlyOriginalFailed: 0,
  onlyCopyFailed: 0,
  underPressure: 0,
  optedOut: 0
})

/** A batch without pairs, to be changed by `record` and `skip`. */
export const emptyBatch = (): Batch => ({ original: Tally.empty(), copy: Tally.empty(), counts: noCounts() })

/**
 * Adds a request and its copy, in place.
 *
 * @param agreement of the two answers, from 0 to 1; undefined where they were not compared
 */
export const record = (
  { copy, counts, original }: Batch,
  plan: ShadowPlan,
  originalOne: Observation,
  copyOne: Observation,
  agreement?: number
): void => {
  Tally.record(original, originalOne)
  Tally.record(copy, copyOne)
  if (originalOne.failed && !copyOne.failed) counts.onlyOriginalFailed++
  if (copyOne.failed && !originalOne.failed) counts.onlyCopyFailed++
  if (agreement === undefined) return
  counts.compared++
  if (agreement >= plan.agreesFrom) counts.agreed++
  const bucket = Tally.scales.score.bucketOf(agreement)
  counts.agreement[bucket] = counts.agreement[bucket]! + 1
}

/** Adds a request that was drawn and is not copied, in place. */
export const skip = ({ counts }: Batch, reason: "underPressure" | "optedOut"): void => {
  counts[reason]++
}

/** The state without pairs. */
export const start = (plan: ShadowPlan): Shadow => ({ plan, ...Comparison.fresh(), counts: noCounts() })

const addCounts = (a: Counts, b: Counts): Counts => ({
  compared: a.compared + b.compared,
  agreed: a.agreed + b.agreed,
  agreement: a.agreement.map((count, bucket) => count + b.agreement[bucket]!),
  onlyOriginalFailed: a.onlyOriginalFailed + b.onlyOriginalFailed,
  onlyCopyFailed: a.onlyCopyFailed + b.onlyCopyFailed,
  underPressure: a.underPressure + b.underPressure,
  optedOut: a.optedOut + b.optedOut
})

/** The state with the pairs of a process. */
export const observed = (shadow: Shadow, { copy, counts, original }: Batch): Shadow => ({
  ...shadow,
  ...Comparison.observed(shadow, { stable: original, candidate: copy }),
  counts: addCounts(shadow.counts, counts)
})

/** The state after a comparison of what came since the last one. */
export const evaluated = (shadow: Shadow): Shadow => ({ ...shadow, ...Comparison.evaluated(shadow, shadow.plan) })

/** What the copies have shown. */
export interface Report extends Omit<Counts, "agreement"> {
  /** Requests with a copy. */
  readonly pairs: number
  /** The median, to 0.05; null where no answers were compared. */
  readonly medianAgreement: number | null
  /** `stable` is the original, `candidate` the copy. */
  readonly metrics: ReadonlyArray<MetricEvidence>
}

export const report = (shadow: Shadow): Report => {
  const { counts: { agreement, ...counts }, pending, plan, totals } = shadow
  return {
    ...counts,
    pairs: totals.candidate.requests + pending.candidate.requests,
    medianAgreement: Tally.median(agreement, Tally.scales.score) ?? null,
    metrics: Comparison.metricsOf(shadow, plan)
  }
}
