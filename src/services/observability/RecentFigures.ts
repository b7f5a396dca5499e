/**
 * How requests went lately, by deployment and by model: numbers, latencies, speed and cost of the last minute, five minutes and
 * hour. Pure.
 *
 * **Details**
 *
 * Times are counted in buckets whose bounds are quarter powers of two, so that the figures of several processes can be added; a
 * quantile is at most 9 % off. Figures are kept in slots of 15 s: a window ends now and begins with a slot.
 */
import { Schema } from "effect"
import { LRUCache } from "lru-cache"
import type { AttemptDraft, Draft } from "../routing/DecisionLog.ts"

/** Times in ms. */
export const Distribution = Schema.Struct({
  count: Schema.Int,
  /** Left out where nothing was measured. */
  p50: Schema.optionalKey(Schema.Finite),
  p95: Schema.optionalKey(Schema.Finite),
  /** Upper bounds of the buckets that are not empty, and the number in each. */
  buckets: Schema.Array(Schema.Tuple([Schema.Finite, Schema.Int]))
})
export type Distribution = typeof Distribution.Type

/** The windows, ms. */
export const windows = { "1m": 60_000, "5m": 300_000, "1h": 3_600_000 } as const
export type WindowName = keyof typeof windows

/** One window. Of a deployment, requests are attempts. */
export const Figures = Schema.Struct({
  window: Schema.Literals(["1m", "5m", "1h"]),
  /** The time that it covers: less than its name after a start. */
  seconds: Schema.Int,
  requests: Schema.Int,
  failed: Schema.Int,
  /** The caller disconnected, or another attempt was faster. */
  left: Schema.Int,
  firstTokenMs: Distribution,
  /** Of complete answers. */
  durationMs: Distribution,
  outputTokens: Schema.Int,
  /** After the first token of an answer, of all answers together; left out where none was streamed. */
  tokensPerSecond: Schema.optionalKey(Schema.Finite),
  /** USD; left out, unknown. With `unpriced`, the known part. */
  usd: Schema.optionalKey(Schema.Finite),
  /** Attempts that used tokens and whose cost is unknown; left out, none. */
  unpriced: Schema.optionalKey(Schema.Int)
})
export type Figures = typeof Figures.Type

/** What happened in one slot, and in a window. */
interface Tally {
  requests: number
  failed: number
  left: number
  outputTokens: number
  /** Tokens after the first one of streams, and their time. */
  ratedTokens: number
  ratedMs: number
  usd: number | undefined
  unpriced: number
  readonly firstToken: Map<number, number>
  readonly duration: Map<number, number>
}

const makeTally = (): Tally => ({
  requests: 0,
  failed: 0,
  left: 0,
  outputTokens: 0,
  ratedTokens: 0,
  ratedMs: 0,
  usd: undefined,
  unpriced: 0,
  firstToken: new Map(),
  duration: new Map()
})

const perDoubling = 4

const bucketOf = (ms: number): number => ms <= 1 ? 0 : Math.ceil(perDoubling * Math.log2(ms))

const boundOf = (bucket: number): number => Math.round(100 * 2 ** (bucket / perDoubling)) / 100

const countIn = (buckets: Map<number, number>, ms: number): void => {
  const bucket = bucketOf(ms)
  buckets.set(bucket, (buckets.get(bucket) ?? 0) + 1)
}

const addAll = (to: Map<number, number>, from: Iterable<readonly [number, number]>): void => {
  for (const [bucket, count] of from) to.set(bucket, (to.get(bucket) ?? 0) + count)
}

/** The value below which a share of the counted times is, with equal distances inside a bucket. */
const quantileOf = (sorted: ReadonlyArray<readonly [number, number]>, count: number, share: number): number => {
  let before = 0
  for (const [bucket, own] of sorted) {
    if (before + own >= share * count) {
      const upper = boundOf(bucket)
      const lower = bucket === 0 ? 0 : boundOf(bucket - 1)
      return Math.round(10 * (lower + (upper - lower) * (share * count - before) / own)) / 10
    }
    before += own
  }
  return boundOf(sorted.at(-1)?.[0] ?? 0)
}

const distributionOf = (buckets: ReadonlyMap<number, number>): Distribution => {
  const sorted = [...buckets].toSorted(([one], [other]) => one - other)
  const count = sorted.reduce((sum, [, own]) => sum + own, 0)
  return {
    count,
    ...(count === 0 ? {} : { p50: quantileOf(sorted, count, 0.5), p95: quantileOf(sorted, count, 0.95) }),
    buckets: sorted.map(([bucket, own]) => [boundOf(bucket), own])
  }
}

/** What was paid. */
interface Cost {
  /** USD; undefined, unknown. */
  readonly usd: number | undefined
  readonly unpriced?: number | undefined
}

const addCost = (to: Tally, { unpriced = 0, usd }: Cost): void => {
  to.unpriced += unpriced
  if (usd !== undefined) to.usd = (to.usd ?? 0) + usd
}

const addTally = (to: Tally, from: Tally): void => {
  to.requests += from.requests
  to.failed += from.failed
  to.left += from.left
  to.outputTokens += from.outputTokens
  to.ratedTokens += from.ratedTokens
  to.ratedMs += from.ratedMs
  addCost(to, from)
  addAll(to.firstToken, from.firstToken)
  addAll(to.duration, from.duration)
}

/** What a request has generated. */
interface Output {
  readonly tokens: number
  /** The time in which the tokens after the first one came, ms; 0, unknown. */
  readonly ratedMs: number
}

const addOutput = (tally: Tally, { ratedMs, tokens }: Output): void => {
  tally.outputTokens += tokens
  if (ratedMs <= 0 || tokens < 2) return
  tally.ratedTokens += tokens - 1
  tally.ratedMs += ratedMs
}

/** Counts an attempt for its deployment. */
const addAttempt = (tally: Tally, { firstTokenMs, isUnpriced, outcome, tookMs = 0, usd }: AttemptDraft): void => {
  tally.requests++
  if (outcome === "failed") tally.failed++
  if (outcome === "left") tally.left++
  addCost(tally, { usd, unpriced: isUnpriced === true ? 1 : 0 })
  if (firstTokenMs !== undefined) countIn(tally.firstToken, firstTokenMs)
  if (outcome === "answered") countIn(tally.duration, tookMs)
}

/** Counts a request for its model, and for the service. */
const addRequest = (tally: Tally, { end, tookMs = 0 }: Draft, firstTokenMs: number | undefined): void => {
  tally.requests++
  if (end === "failure") tally.failed++
  if (end === "interruption") tally.left++
  if (firstTokenMs !== undefined) countIn(tally.firstToken, firstTokenMs)
  if (end === "success") countIn(tally.duration, tookMs)
}

/** The attempt that answered, and its times: from the request's arrival to the first token, and from there to the end. */
const answerOf = ({ answeredBy, attempts }: Draft) => {
  const attempt = attempts.findLast(({ deployment, outcome }) => outcome === "answered" && deployment === answeredBy)
  if (attempt?.firstTokenMs === undefined) return { attempt, firstTokenMs: undefined, ratedMs: 0 }
  const { firstTokenMs, startedMs, tookMs = 0 } = attempt
  return { attempt, firstTokenMs: startedMs + firstTokenMs, ratedMs: tookMs - firstTokenMs }
}

const slotMs = 15_000

/** The slots of the last hour, the oldest first. */
class Series {
  readonly #slots: Array<{ readonly slot: number; readonly tally: Tally }> = []

  at(now: number): Tally {
    const slot = Math.floor(now / slotMs)
    const last = this.#slots.at(-1)
    if (last?.slot === slot) return last.tally
    const tally = makeTally()
    this.#slots.push({ slot, tally })
    while (this.#slots[0]!.slot <= slot - windows["1h"] / slotMs) this.#slots.shift()
    return tally
  }

  since(window: WindowName, now: number): Tally {
    const first = Math.floor(now / slotMs) - windows[window] / slotMs
    const sum = makeTally()
    for (const { slot, tally } of this.#slots) if (slot > first) addTally(sum, tally)
    return sum
  }
}

const figuresOf = (window: WindowName, seconds: number, tally: Tally): Figures => ({
  window,
  seconds,
  requests: tally.requests,
  failed: tally.failed,
  left: tally.left,
  firstTokenMs: distributionOf(tally.firstToken),
  durationMs: distributionOf(tally.duration),
  outputTokens: tally.outputTokens,
  ...(tally.ratedMs === 0 ? {} : { tokensPerSecond: Math.round(10_000 * tally.ratedTokens / tally.ratedMs) / 10 }),
  ...(tally.usd === undefined ? {} : { usd: tally.usd }),
  ...(tally.unpriced === 0 ? {} : { unpriced: tally.unpriced })
})

const names = Object.keys(windows) as ReadonlyArray<WindowName>

/** Reloads can bring any number of names: the ones with the latest requests are kept. */
const mostSeries = 1_000

/** The names by which models and deployments are counted. */
export interface Names {
  readonly model: (name: string) => string
  readonly deployment: (id: string) => string
}

const ownNames: Names = { model: (name) => name, deployment: (id) => id }

/** Counts records of requests that have ended. */
export class RecentFigures {
  readonly #deployments = new LRUCache<string, Series>({ max: mostSeries })
  readonly #models = new LRUCache<string, Series>({ max: mostSeries })
  readonly #all = new Series()
  readonly #startedAt: number
  readonly #names: Names

  /**
   * @param now monotonic ms
   * @param names default: their own
   */
  constructor(now: number, names = ownNames) {
    this.#startedAt = now
    this.#names = names
  }

  add(request: Draft, now: number): void {
    const { attempts, model, outputTokens = 0, unpriced, usd } = request
    const { attempt, firstTokenMs, ratedMs } = answerOf(request)
    // Without an attempt that has answered, 0 does not mean that there is a price.
    const cost: Cost = { usd: usd === 0 && attempt === undefined ? undefined : usd, unpriced }
    const output: Output = { tokens: outputTokens, ratedMs }
    for (const one of attempts) addAttempt(this.#ofDeployment(one.deployment).at(now), one)
    const payer = (attempt ?? attempts.at(-1))?.deployment
    if (payer !== undefined) addOutput(this.#ofDeployment(payer).at(now), output)
    for (const tally of [this.#all.at(now), this.#of(this.#models, this.#names.model(model)).at(now)]) {
      addRequest(tally, request, firstTokenMs)
      addCost(tally, cost)
      addOutput(tally, output)
    }
  }

  #ofDeployment(id: string): Series {
    return this.#of(this.#deployments, this.#names.deployment(id))
  }

  #of(all: LRUCache<string, Series>, name: string): Series {
    const known = all.get(name)
    if (known !== undefined) return known
    const made = new Series()
    all.set(name, made)
    return made
  }

  #report(series: Series | undefined, now: number): ReadonlyArray<Figures> {
    const seconds = Math.round((now - this.#startedAt) / 1000)
    return names.map((name) =>
      figuresOf(name, Math.min(windows[name] / 1000, seconds), series?.since(name, now) ?? makeTally())
    )
  }

  ofDeployment(id: string, now: number): ReadonlyArray<Figures> {
    return this.#report(this.#deployments.peek(id), now)
  }

  ofModel(name: string, now: number): ReadonlyArray<Figures> {
    return this.#report(this.#models.peek(name), now)
  }

  ofAll(now: number): ReadonlyArray<Figures> {
    return this.#report(this.#all, now)
  }
}

const tallyOf = (
  { durationMs, failed, firstTokenMs, left, outputTokens, requests, unpriced = 0, usd }: Figures
): Tally => {
  const bucketsOf = ({ buckets }: Distribution) =>
    new Map(buckets.map(([bound, count]) => [bucketOf(bound * (1 - 1e-3)), count]))
  return {
    ...makeTally(),
    requests,
    failed,
    left,
    outputTokens,
    usd,
    unpriced,
    firstToken: bucketsOf(firstTokenMs),
    duration: bucketsOf(durationMs)
  }
}

/** The speed of both, by the tokens of each. */
const speedOf = (one: Figures, other: Figures): Pick<Figures, "tokensPerSecond"> => {
  const rated = [one, other].flatMap(({ outputTokens, tokensPerSecond = 0 }) =>
    tokensPerSecond === 0 ? [] : [{ outputTokens, seconds: outputTokens / tokensPerSecond }]
  )
  const seconds = rated.reduce((sum, own) => sum + own.seconds, 0)
  const tokens = rated.reduce((sum, own) => sum + own.outputTokens, 0)
  return seconds === 0 ? {} : { tokensPerSecond: Math.round(10 * tokens / seconds) / 10 }
}

/** The figures of two processes together, by window. */
export const sumOf = (one: ReadonlyArray<Figures>, other: ReadonlyArray<Figures>): ReadonlyArray<Figures> =>
  one.map((figures) => {
    const same = other.find(({ window }) => window === figures.window)
    if (same === undefined) return figures
    const tally = tallyOf(figures)
    addTally(tally, tallyOf(same))
    return {
      ...figuresOf(figures.window, Math.max(figures.seconds, same.seconds), tally),
      ...speedOf(figures, same)
    }
  })
