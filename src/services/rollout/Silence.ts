/**
 * A candidate that answers none of its requests.
 *
 * **Details**
 *
 * Where the callers are a fixed number, all of them wait for such a candidate in the end. Then no request begins, the
 * evidence of `Comparison` stands still, and time decides: the candidate hangs if, since its last answer or for as long as
 * requests wait at it,
 *
 * - the time is longer than `plan.hangsMs`, and than what the stable version's slowest requests take and the tolerance;
 * - at least `leastWaiting` requests have waited for the candidate on average, at least one of them in a slot: while an
 *   engine loads, none has one;
 * - the stable version has answered a request meanwhile, or none waits at it;
 * - chance does not explain that so many of the waiting requests are at the candidate: an outage of something that both
 *   versions use leaves those of the stable version waiting, too.
 *
 * Requests are counted by the time for which they wait, which processes add: one that was killed leaves nothing behind.
 *
 * **Gotchas**
 *
 * With all requests at the candidate, the stable version's say nothing of an outage: nothing is decided then.
 */
import { Schema } from "effect"
import type { RolloutPlan } from "./RolloutSettings.ts"
import type { Pair } from "./SequentialTest.ts"
import type { Tally } from "./Tally.ts"
import * as Tallies from "./Tally.ts"

/** A time in which requests wait for the candidate and none has an answer. Epoch ms; ms of all requests together. */
export const Silence = Schema.Struct({
  since: Schema.Finite,
  /** When the last report said that requests wait. */
  waitedAt: Schema.Finite,
  candidateMs: Schema.Finite,
  /** Of requests that have a slot. */
  heldMs: Schema.Finite,
  stableMs: Schema.Finite,
  /** Of the stable version. */
  answers: Schema.Int
})
export type Silence = typeof Silence.Type

/** Requests that wait for the candidate on average. */
const leastWaiting = 5

/** Answers of the stable version, to know how long its slowest requests take. */
const leastAnswers = 5

const slowest = 0.99

/** ms without a report: longer than it takes another process to lead. */
const mostGapMs = 4_000

const gapOf = ({ evaluateMs }: RolloutPlan): number => Math.max(mostGapMs, 2 * evaluateMs)

const nothing = { candidateMs: 0, heldMs: 0, stableMs: 0, answers: 0 }

/** The silence after more observations, which begin at `from`. */
export const observed = (
  silence: Silence | null,
  { candidate, stable }: Pair<Tally>,
  plan: RolloutPlan,
  from: number,
  now: number
): Silence | null => {
  if (Tallies.sizeOf(candidate.answered) > 0) return null
  const known = silence !== null && now - silence.waitedAt <= gapOf(plan) ? silence : null
  if (candidate.unansweredMs === 0) return known
  const before = known ?? { ...nothing, since: from }
  return {
    since: before.since,
    waitedAt: now,
    candidateMs: before.candidateMs + candidate.unansweredMs,
    heldMs: before.heldMs + candidate.heldMs,
    stableMs: before.stableMs + stable.unansweredMs,
    answers: before.answers + Tallies.sizeOf(stable.answered)
  }
}

/** The probability that at least `count` of `of` requests are at a version with this share of them. */
export const tailOf = (count: number, of: number, share: number): number => {
  if (count <= 0 || share >= 1) return 1
  const odds = Math.log(share / (1 - share))
  let term = of * Math.log1p(-share)
  let sum = 0
  for (let at = 0; at <= of; at++) {
    if (at >= count) sum += Math.exp(term)
    term += odds + Math.log((of - at) / (at + 1))
  }
  return sum
}

/** What is known of a candidate that hangs. */
export interface Hanging {
  /** Requests that wait, on average. */
  readonly candidate: number
  readonly stable: number
  readonly forMs: number
  /** A time in which the stable version's slowest requests have an answer. */
  readonly usualMs: number
}

/** A time in which the slowest requests have an answer; undefined if too few have one. */
const usualOf = ({ answered }: Tally): number | undefined => {
  const bucket = Tallies.sizeOf(answered) < leastAnswers ? undefined : Tallies.quantile(answered, slowest)
  return bucket === undefined ? undefined : Tallies.scales.hanging.levels[bucket]
}

/** Whether the stable version answers none of its requests, either. */
const isShared = ({ answers }: Silence, stable: number): boolean => stable > 0 && answers === 0

/** Whether too few wait, or chance explains where they do. */
const isChance = (candidate: number, stable: number, share: number, { alpha, metrics }: RolloutPlan): boolean =>
  candidate < leastWaiting || tailOf(candidate, candidate + stable, share) > alpha / Math.max(1, metrics.length)

/**
 * Undefined unless the candidate hangs.
 *
 * @param stable all that is known of the stable version
 * @param share of the requests that the candidate gets
 */
export const hangingOf = (
  silence: Silence | null,
  stable: Tally,
  plan: RolloutPlan,
  share: number,
  now: number
): Hanging | undefined => {
  const usualMs = usualOf(stable)
  if (silence === null || plan.hangsMs === null || usualMs === undefined) return undefined
  const forMs = now - silence.since
  const leastMs = Math.max(plan.hangsMs, usualMs * (1 + plan.tolerance.hanging))
  if (forMs < leastMs || now - silence.waitedAt > gapOf(plan) || silence.heldMs < leastMs) return undefined
  const candidate = Math.floor(silence.candidateMs / forMs)
  const stableWaits = Math.round(silence.stableMs / forMs)
  return isShared(silence, stableWaits) || isChance(candidate, stableWaits, share, plan)
    ? undefined
    : { candidate, stable: stableWaits, forMs, usualMs }
}
