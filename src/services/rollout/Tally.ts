/**
 * What was measured of one version: counts of requests, failures and refusals, and histograms of time to first token,
 * speed and score.
 *
 * **Details**
 *
 * Everything in a tally is a count, so that the memory is constant and the tallies of several processes or periods are
 * added. The levels of the histograms are fixed: they do not depend on the data, which the sequential test requires.
 * Those of times and speeds are powers of 1.1, so that a quantile is exact to 10 %.
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

const growth = 1.1

const logarithmic = (first: number, count: number): Scale => ({
  levels: Array.from({ length: count }, (_, index) => first * growth ** index),
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

/** From 5 ms to 69 s; tokens per second from 0.5 to 4,500; scores in steps of 0.05. */
export const scales = {
  firstToken: logarithmic(5, 101),
  speed: logarithmic(0.5, 97),
  score: linear(19)
} as const satisfies Record<string, Scale>

/** The number of buckets that a relative difference spans, rounded up. */
export const bucketsOfFactor = (difference: number): number =>
  Math.max(0, Math.ceil(Math.log1p(difference) / Math.log(growth) - 1e-9))

/** The number of buckets that a difference of scores spans, rounded up. */
export const bucketsOfScore = (difference: number): number =>
  Math.max(0, Math.ceil(difference * (scales.score.levels.length + 1) - 1e-9))

const Count = Schema.Int.check(Schema.isGreaterThanOrEqualTo(0))

const histogram = ({ levels }: Scale) =>
  Schema.mutable(Schema.Array(Count)).check(Schema.isBetweenLength(levels.length + 1, levels.length + 1))

export const Tally = Schema.Struct({
  requests: Schema.mutableKey(Count),
  failures: Schema.mutableKey(Count),
  /** Failures because of a rate limit. */
  rateLimited: Schema.mutableKey(Count.pipe(Schema.withDecodingDefaultKey(Effect.succeed(0)))),
  refusals: Schema.mutableKey(Count),
  firstToken: histogram(scales.firstToken),
  speed: histogram(scales.speed),
  score: histogram(scales.score)
})
export type Tally = typeof Tally.Type

const zeros = ({ levels }: Scale): Array<number> => [0, ...levels.map(() => 0)]

/** A tally without observations, to be changed by `record`. */
export const empty = (): Tally => ({
  requests: 0,
  failures: 0,
  rateLimited: 0,
  refusals: 0,
  firstToken: zeros(scales.firstToken),
  speed: zeros(scales.speed),
  score: zeros(scales.score)
})

const count = (buckets: Array<number>, { bucketOf }: Scale, value: number | undefined): void => {
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
  score: sums(a.score, b.score)
})

/** The highest level that is not above the median, or the first; undefined without values. */
export const median = (buckets: ReadonlyArray<number>, { levels }: Scale): number | undefined => {
  const total = buckets.reduce((sum, value) => sum + value, 0)
  if (total === 0) return undefined
  let below = 0
  for (const [bucket, value] of buckets.entries()) {
    below += value
    if (below * 2 >= total) return levels[Math.max(0, bucket - 1)]
  }
  return undefined
}
