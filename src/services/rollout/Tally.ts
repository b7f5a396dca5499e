/**
 * What was measured of one version: counts of requests, failures and refusals, and histograms of time to first token,
 * speed and score, and of the time without an answer.
 *
 * **Details**
 *
 * Everything in a tally is a count, so that the memory is constant and the tallies of several processes or periods are
 * added. The levels of the histograms are fixed: they do not depend on the data, which the sequential test requires.
 * Those of times and speeds are powers of 1.1, so that a quantile is exact to 10 %.
 *
 * The time without an answer is also known of requests that still run: `waiting` has how many levels they have passed.
 * What a later report, or the answer, adds to a request is its difference: the sums of all reports count each request once
 * at each level that it has reached, and not at levels that it has not reached (a censored observation).
 *
 * **Gotchas**
 *
 * An answer without a time to first token (a buffered one, a failed one) is in no histogram of that metric.
 */
import { Effect, Schema } from "effect"

/** The outcome of one request. Mistakes of the caller and cancellations are not observations. */
export interface Observation {
  /** It failed by the fault of the deployment: what its circuit counts as a failure, and a rate limit. */
  readonly failed: boolean
  /** It failed because of a rate limit. */
  readonly isRateLimited?: boolean
  /** The model refused to answer, or its content filter ended the answer. */
  readonly refused: boolean
  /** From the slot to the first token, ms; of a streamed answer. */
  readonly firstTokenMs?: number | undefined
  readonly tokensPerSecond?: number | undefined
  /** A score of the answer, from 0 (bad) to 1 (good). */
  readonly score?: number | undefined
}

/** The levels of a histogram, ascending. Bucket `i` counts the values from level `i - 1` to below level `i`. */
export interface Scale {
  readonly levels: ReadonlyArray<number>
  /** The bucket of a value. */
  readonly bucketOf: (value: number) => number
}

/** The ratio of neighboring levels of times to first token and speeds. */
export const growth = 1.1

/** Of times without an answer. */
const waitGrowth = Math.SQRT2

/** Levels from the first on, each `growth` times the one before. */
export const logarithmic = (first: number, count: number, growth: number): Scale => ({
  // Rounded: 100 times the fourth power of the square root of 2 is 400.
  levels: Array.from({ length: count }, (_, index) => Number((first * growth ** index).toPrecision(12))),
  bucketOf: (value) => {
    if (!(value > first)) return value === first ? 1 : 0
    // The addend makes a level itself belong to the bucket above it.
    return Math.min(count, Math.floor(Math.log(value / first) / Math.log(growth) + 1e-9) + 1)
  }
})

const linear = (count: number): Scale => ({
  levels: Array.from({ length: count }, (_, index) => (index + 1) / (count + 1)),
  bucketOf: (value) => value > 0 ? Math.min(count, Math.floor(value * (count + 1) + 1e-9)) : 0
})

/** From 5 ms to 69 s; tokens per second from 0.5 to 4,500; scores in steps of 0.05; waits from 100 ms to 19 minutes. */
export const scales = {
  firstToken: logarithmic(5, 101, growth),
  speed: logarithmic(0.5, 97, growth),
  score: linear(19),
  hanging: logarithmic(100, 28, waitGrowth)
} as const satisfies Record<string, Scale>

const bucketsOf = (difference: number, growth: number): number =>
  Math.max(0, Math.ceil(Math.log1p(difference) / Math.log(growth) - 1e-9))

/** The number of buckets that a relative difference spans, rounded up. */
export const bucketsOfFactor = (difference: number): number => bucketsOf(difference, growth)

/** The same, of times without an answer. */
export const bucketsOfWait = (difference: number): number => bucketsOf(difference, waitGrowth)

/** The number of buckets that a difference of scores spans, rounded up. */
export const bucketsOfScore = (difference: number): number =>
  Math.max(0, Math.ceil(difference * (scales.score.levels.length + 1) - 1e-9))

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

/** A histogram without values. */
export const zeros = ({ levels }: Scale): Array<number> => [0, ...levels.map(() => 0)]

const histogram = ({ levels }: Scale, each: Schema.Codec<number> = Count) =>
  Schema.mutable(Schema.Array(each)).check(Schema.isBetweenLength(levels.length + 1, levels.length + 1))

/** A histogram that states of earlier versions do not have. */
const added = (scale: Scale, each: Schema.Codec<number>) =>
  histogram(scale, each).pipe(Schema.withDecodingDefaultKey(Effect.sync(() => zeros(scale))))

const Milliseconds = Schema.Finite.pipe(Schema.withDecodingDefaultKey(Effect.succeed(0)))

export const Tally = Schema.Struct({
  requests: Schema.mutableKey(Count),
  failures: Schema.mutableKey(Count),
  /** Failures because of a rate limit. */
  rateLimited: Schema.mutableKey(Count.pipe(Schema.withDecodingDefaultKey(Effect.succeed(0)))),
  refusals: Schema.mutableKey(Count),
  firstToken: histogram(scales.firstToken),
  speed: histogram(scales.speed),
  score: histogram(scales.score),
  /** Times to the first token, or to the answer that is not streamed. */
  answered: added(scales.hanging, Count),
  /** Levels of `hanging` that requests without an answer have passed; a reported request that goes on is taken away here. */
  waiting: added(scales.hanging, Schema.Int),
  /** ms of all requests while they had no answer, up to the last report; those that wait for a slot included. */
  unansweredMs: Schema.mutableKey(Milliseconds),
  /** The same, of those that had a slot at a report. */
  heldMs: Schema.mutableKey(Milliseconds)
})
export type Tally = typeof Tally.Type

/** A tally without observations, to be changed by `record`. */
export const empty = (): Tally => ({
  requests: 0,
  failures: 0,
  rateLimited: 0,
  refusals: 0,
  firstToken: zeros(scales.firstToken),
  speed: zeros(scales.speed),
  score: zeros(scales.score),
  answered: zeros(scales.hanging),
  waiting: zeros(scales.hanging),
  unansweredMs: 0,
  heldMs: 0
})

/** Counts a value in its bucket, in place. */
export const count = (buckets: Array<number>, { bucketOf }: Scale, value: number | undefined): void => {
  if (value === undefined || Number.isNaN(value)) return
  const bucket = bucketOf(value)
  buckets[bucket] = buckets[bucket]! + 1
}

/** Adds an observation in place. */
export const record = (tally: Tally, observation: Observation): void => {
  tally.requests++
  if (observation.failed) tally.failures++
  if (observation.isRateLimited === true) tally.rateLimited++
  if (observation.refused) tally.refusals++
  count(tally.firstToken, scales.firstToken, observation.firstTokenMs)
  count(tally.speed, scales.speed, observation.tokensPerSecond)
  count(tally.score, scales.score, observation.score)
}

/** A request that had passed `from` levels of waiting has passed `to`, and has no answer yet. */
export const waited = ({ waiting }: Tally, from: number, to: number): void => {
  if (to <= from) return
  waiting[from] = waiting[from]! - 1
  waiting[to] = waiting[to]! + 1
}

/** A request has had no answer for so much longer. */
export const unanswered = (tally: Tally, ms: number, hasSlot: boolean): void => {
  tally.unansweredMs += ms
  if (hasSlot) tally.heldMs += ms
}

/** A request that had passed `from` levels of waiting has its first token, or its answer, after `tookMs`. */
export const answered = (tally: Tally, from: number, tookMs: number): void => {
  const bucket = Math.max(from, scales.hanging.bucketOf(tookMs))
  tally.waiting[from] = tally.waiting[from]! - 1
  tally.answered[bucket] = tally.answered[bucket]! + 1
}

const sums = (a: ReadonlyArray<number>, b: ReadonlyArray<number>): Array<number> => {
  const sum = a.slice()
  for (let index = 0; index < sum.length; index++) sum[index] = sum[index]! + b[index]!
  return sum
}

/** The sum of two tallies, which stay as they are. */
export const add = (a: Tally, b: Tally): Tally => ({
  requests: a.requests + b.requests,
  failures: a.failures + b.failures,
  rateLimited: a.rateLimited + b.rateLimited,
  refusals: a.refusals + b.refusals,
  firstToken: sums(a.firstToken, b.firstToken),
  speed: sums(a.speed, b.speed),
  score: sums(a.score, b.score),
  answered: sums(a.answered, b.answered),
  waiting: sums(a.waiting, b.waiting),
  unansweredMs: a.unansweredMs + b.unansweredMs,
  heldMs: a.heldMs + b.heldMs
})

/** Whether nothing was observed, neither of a request that still runs. */
export const isEmpty = ({ answered, heldMs, requests, unansweredMs, waiting }: Tally): boolean =>
  requests === 0 && unansweredMs === 0 && heldMs === 0 && [...answered, ...waiting].every((value) => value === 0)

/** The number of values. */
export const sizeOf = (buckets: ReadonlyArray<number>): number => buckets.reduce((sum, value) => sum + value, 0)

/** The bucket of a quantile, such as 0.5 for the median; undefined without values. */
export const quantile = (buckets: ReadonlyArray<number>, share: number): number | undefined => {
  const total = sizeOf(buckets)
  if (total === 0) return undefined
  let below = 0
  return buckets.findIndex((value) => (below += value) >= total * share)
}

/** The highest level that is not above the median, or the first; undefined without values. */
export const median = (buckets: ReadonlyArray<number>, { levels }: Scale): number | undefined => {
  const bucket = quantile(buckets, 0.5)
  return bucket === undefined ? undefined : levels[Math.max(0, bucket - 1)]
}
