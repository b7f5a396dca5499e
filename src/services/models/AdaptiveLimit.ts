/**
 * A limit of concurrency that follows the latency and the rejections of a deployment. Pure: a state and a sample give
 * another state.
 *
 * **Details**
 *
 * The gradient of Netflix's concurrency-limits (`Gradient2Limit`): the limit is multiplied by the ratio of the latency
 * without a queue to the measured one, and raised by a headroom. Three parts differ.
 *
 * - The latency without a queue is measured, as Envoy's adaptive concurrency filter does, at a limit that is lower for one
 *   window (a check). `Gradient2Limit` takes a long average, which follows the queue that the limit itself causes.
 * - A rejection lowers the limit at once, as in TCP (AIMD). Above the limit that was rejected, it grows by 1 in a window.
 * - A lower limit that does not lower the latency is taken back: the deployment has become slower, not full.
 *
 * A window is as many samples as the limit, about the time of one answer, so that no setting depends on how long answers
 * take. A sample counts if its request began after the last change of the limit. A rejection while more requests are in flight
 * than the limit, because several processes give their slots back as requests end, is one of the limit before.
 *
 * Answers differ in length by a factor of 100 and more, so their duration does not show a queue. `Measure` has what does.
 */
import type { Bounds } from "../../domain/AdaptiveConcurrency.ts"

/**
 * What a latency is that does not depend on the length of the answer.
 *
 * - `firstToken`: ms from the slot to the first token of a streamed answer. A queue at the provider counts in full. Prompts
 *   differ in length, too: a window has the geometric mean.
 * - `perToken`: ms of a buffered answer and its tokens. A window has the sum of the ones over the sum of the others, because a
 *   short answer has few tokens for the time of its prompt.
 * - `whole`: ms of a call without tokens, such as an embedding. A window has the geometric mean.
 */
export type Measure = "firstToken" | "perToken" | "whole"

/** A request that has had its slot. */
export interface Begun {
  /** When it got its slot, monotonic ms. */
  readonly startedAt: number
  /** Requests that had a slot then, itself included. */
  readonly inFlight: number
}

/** What one request has shown. */
export type Sample =
  | Begun & { readonly type: "latency"; readonly measure: Measure; readonly ms: number; readonly tokens?: number }
  /** The deployment rejected it, because it has too many requests, or gave no first token in time. */
  | Begun & { readonly type: "overload" }

/** The samples of one measure in a window. */
interface Sum {
  readonly count: number
  readonly total: number
  /** Of the squares. */
  readonly squares: number
  readonly weight: number
}

type Sums = Readonly<Record<Measure, Sum>>

interface Lowered {
  readonly limit: number
  readonly latency: number
}

export interface State {
  /** With its fraction; `limitOf` is what applies. */
  readonly limit: number
  /** The limit grows fast below it: nothing has shown yet that the deployment is full. */
  readonly threshold: number
  /** The least limit that was rejected, until a window at that limit passes. */
  readonly rejectedAt: number | undefined
  /** The latencies without a queue. */
  readonly unqueued: Readonly<Partial<Record<Measure, number>>>
  /** The limit before it was lowered because of the latency, and that latency. */
  readonly lowered: Lowered | undefined
  /** Whether the limit is lower for one window, to measure the latency without a queue. */
  readonly isChecking: boolean
  /** Windows until the next check. */
  readonly checkIn: number
  /** Windows between the checks. */
  readonly checkEvery: number
  /** When the limit changed last, monotonic ms. */
  readonly changedAt: number
  readonly sums: Sums
  /** The most requests in flight in this window. */
  readonly mostInFlight: number
}

/** Times the latency without a queue from which the limit is lowered. */
const tolerance = 1.15
/** The most that one window lowers the limit to. */
const leastGradient = 0.8
/** Growth in one window: of the limit. */
const growth = 0.06
/** Growth below the threshold. */
const fastGrowth = 0.5
/** The part of the limit that stays after a rejection. */
const afterRejection = 0.9
/** The part of the limit that stays while the latency without a queue is measured. */
const checkedPart = 0.7
/** The fewest samples of a window, and the most that it waits for where latencies vary much. */
const fewest = 10
const most = 256
/** Standard error of the logarithm of a window's latency. */
const exactness = 0.08
/** Windows between checks: of a deployment that has just been measured, and at most. */
const checks = { first: 4, most: 32 } as const
/** Relative change of the latency without a queue after which it is measured again soon. */
const steady = 0.2
/** The part of a latency below which a lower limit has lowered it. */
const helped = 0.85

const emptySum: Sum = { count: 0, total: 0, squares: 0, weight: 0 }
const noSums: Sums = { firstToken: emptySum, perToken: emptySum, whole: emptySum }
const measures: ReadonlyArray<Measure> = ["firstToken", "perToken", "whole"]

export const make = ({ initial }: Bounds): State => ({
  limit: initial,
  threshold: Number.POSITIVE_INFINITY,
  rejectedAt: undefined,
  unqueued: {},
  lowered: undefined,
  isChecking: false,
  checkIn: checks.first,
  checkEvery: checks.first,
  changedAt: Number.NEGATIVE_INFINITY,
  sums: noSums,
  mostInFlight: 0
})

/** Requests that may be in flight: at least 1, so that a lone request is never held back. */
export const limitOf = ({ isChecking, limit }: State): number =>
  Math.max(1, Math.floor(isChecking ? limit * checkedPart : limit))

const clamp = (limit: number, { max, min }: Bounds): number => Math.min(max, Math.max(min, limit))

/** The state within other bounds. */
export const within = (state: State, bounds: Bounds): State => ({ ...state, limit: clamp(state.limit, bounds) })

/** A new window. */
const next = (state: State, change: Partial<State>): State => ({ ...state, sums: noSums, mostInFlight: 0, ...change })

const rejected = (state: State, bounds: Bounds, at: number): State => {
  const limit = clamp(state.limit * afterRejection, bounds)
  return next(state, {
    limit,
    threshold: Math.min(state.threshold, limit),
    rejectedAt: Math.min(state.rejectedAt ?? Number.POSITIVE_INFINITY, state.limit),
    lowered: undefined,
    isChecking: false,
    changedAt: at
  })
}

const added = (
  { count, squares, total, weight }: Sum,
  { measure, ms, tokens = 1 }: Extract<Sample, { readonly type: "latency" }>
): Sum => {
  if (measure === "perToken") return { count: count + 1, total: total + ms, squares, weight: weight + tokens }
  const log = Math.log(Math.max(1, ms))
  return { count: count + 1, total: total + log, squares: squares + log * log, weight: weight + 1 }
}

const latencyOf = (measure: Measure, { total, weight }: Sum): number =>
  measure === "perToken" ? total / weight : Math.exp(total / weight)

/** The samples after which the mean is exact enough. */
const enoughOf = (measure: Measure, { squares, total, weight }: Sum): number =>
  measure === "perToken" || weight === 0
    ? fewest
    : Math.max(fewest, Math.min(most, (squares / weight - (total / weight) ** 2) / exactness ** 2))

/** The measure that most samples of the window have. */
const mainOf = (sums: Sums): Measure =>
  measures.reduce((main, measure) => sums[measure].count > sums[main].count ? measure : main)

/** Falls at once, and rises by half. */
const followed = (known: number | undefined, latency: number): number =>
  known === undefined || latency < known ? latency : Math.sqrt(known * latency)

/** The end of a window at a limit, or a use of it, that is too low for a queue. */
const checked = (state: State, measure: Measure, latency: number, at: number): State => {
  const before = state.unqueued[measure]
  const unqueued = followed(before, latency)
  const isSteady = before !== undefined && Math.abs(unqueued / before - 1) < steady
  const checkEvery = isSteady ? Math.min(checks.most, state.checkEvery * 2) : checks.first
  return next(state, {
    unqueued: { ...state.unqueued, [measure]: unqueued },
    isChecking: false,
    checkEvery,
    checkIn: checkEvery,
    changedAt: state.isChecking ? at : state.changedAt
  })
}

const stepOf = ({ limit, rejectedAt, threshold }: State): number => {
  if (rejectedAt !== undefined && limit >= rejectedAt * afterRejection) return 1
  return Math.max(1, limit * (limit < threshold ? fastGrowth : growth))
}

/** The latency is near that without a queue. */
const raised = (state: State, bounds: Bounds, at: number): State => {
  const passed = state.rejectedAt !== undefined && state.limit > state.rejectedAt
  const known = passed ? { ...state, rejectedAt: undefined } : state
  const limit = clamp(known.limit + stepOf(known), bounds)
  const checkIn = known.checkIn - 1
  const isChecking = checkIn <= 0 && limit * checkedPart >= 1
  return next(known, { limit, lowered: undefined, checkIn, isChecking, changedAt: at })
}

/** There is a queue, or the deployment is slower. */
const lowered = (state: State, bounds: Bounds, measure: Measure, latency: number, at: number): State => {
  const before = state.lowered
  if (before !== undefined && state.limit <= before.limit * checkedPart && latency > before.latency * helped) {
    return next(state, {
      limit: clamp(before.limit, bounds),
      unqueued: { ...state.unqueued, [measure]: latency },
      lowered: undefined,
      checkEvery: checks.first,
      checkIn: checks.first,
      changedAt: at
    })
  }
  const gradient = Math.max(leastGradient, tolerance * state.unqueued[measure]! / latency)
  const limit = clamp(state.limit * gradient + Math.max(1, state.limit * growth), bounds)
  const checkIn = state.checkIn - 1
  return next(state, {
    limit,
    threshold: Math.min(state.threshold, limit),
    lowered: before ?? { limit: state.limit, latency },
    checkIn,
    isChecking: checkIn <= 0,
    changedAt: at
  })
}

/** The end of a window. */
const ended = (state: State, measure: Measure, bounds: Bounds, at: number): State => {
  const { isChecking, limit, mostInFlight, sums, unqueued } = state
  const latency = latencyOf(measure, sums[measure])
  const known = unqueued[measure]
  // A use that is this low shows the latency without a queue, too.
  if (isChecking || known === undefined || mostInFlight <= limit * checkedPart) {
    return checked(state, measure, latency, at)
  }
  if (latency > known * tolerance) return lowered(state, bounds, measure, latency, at)
  const faster = latency < known * helped ? { ...unqueued, [measure]: latency } : unqueued
  return raised({ ...state, unqueued: faster }, bounds, at)
}

/** @param now monotonic ms */
export const update = (state: State, bounds: Bounds, sample: Sample, now: number): State => {
  if (sample.startedAt < state.changedAt) return state
  if (sample.type === "overload") return sample.inFlight > limitOf(state) ? state : rejected(state, bounds, now)
  // Requests of before the check are still in flight.
  if (state.isChecking && sample.inFlight > limitOf(state)) return state
  const sums = { ...state.sums, [sample.measure]: added(state.sums[sample.measure], sample) }
  const mostInFlight = Math.max(state.mostInFlight, sample.inFlight)
  const filled = { ...state, sums, mostInFlight }
  const count = sums.firstToken.count + sums.perToken.count + sums.whole.count
  const measure = mainOf(sums)
  return count < Math.max(limitOf(state), enoughOf(measure, sums[measure]))
    ? filled
    : ended(filled, measure, bounds, now)
}
