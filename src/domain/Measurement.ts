/**
 * What is measured of one deployment: latency, speed, share of failures and load. Pure: each update takes a measurement and
 * the time, and returns another.
 *
 * **Details**
 *
 * Times are peak averages: a slower answer counts at once and whole, faster ones little by little, by an exponentially
 * weighted moving average (the peak EWMA of Twitter's Finagle). A failure changes the share of failures only, so that a
 * deployment that fails fast does not look fast; unless it took longer than answers do.
 *
 * Measurements age. `confidence` falls from 1 towards 0 while nothing new comes, and a strategy weights a figure by it: a
 * deployment that was slow an hour ago is tried again.
 *
 * **Gotchas**
 *
 * What has not been measured is `undefined`, which is not 0.
 */

export interface Measurement {
  /** Answers and failures that have been measured. */
  readonly samples: number
  /** When the last one ended, ms of `Monotonic`. */
  readonly at: number
  /** Of whole answers, ms. */
  readonly latencyMs: number | undefined
  /** From the slot to the first token, ms; not of answers that came in one piece. */
  readonly firstTokenMs: number | undefined
  /** Of one answer, once it has begun; of one that came in one piece, over all of its time. */
  readonly tokensPerSecond: number | undefined
  /** Share of failures, from 0 to 1. */
  readonly errorRate: number
  /** Requests that it works on now. */
  readonly inFlight: number
  /** The last times to a first token, ms, the newest last. */
  readonly firstTokens: ReadonlyArray<number>
}

/** Of a deployment that has not answered yet. */
export const unmeasured: Measurement = {
  samples: 0,
  at: 0,
  latencyMs: undefined,
  firstTokenMs: undefined,
  tokensPerSecond: undefined,
  errorRate: 0,
  inFlight: 0,
  firstTokens: []
}

/** How one request went. */
export interface Sample {
  readonly ok: boolean
  /** From when it had its slot to its end, ms: neither the queue nor a load counts. */
  readonly tookMs: number
  readonly firstTokenMs?: number | undefined
  /** Tokens generated. */
  readonly tokens?: number | undefined
}

/** ms in which what was measured before loses all but 1/e of its weight to what is measured after. */
const averageOver = 30_000

/** The weight of a new sample at least, since those of a burst have no time between them. */
const leastWeight = 0.1

/** ms without a sample after which a measurement is worth half. */
const halfWorthAfter = 5 * 60_000

/** First-token times that are kept, for percentiles. */
const kept = 64

/** First-token times without which there is no percentile. */
const fewestForPercentile = 10

const weightOf = ({ at, samples }: Measurement, now: number): number =>
  samples === 0 ? 1 : Math.max(leastWeight, 1 - Math.exp(-Math.max(0, now - at) / averageOver))

const average = (old: number | undefined, value: number, weight: number): number =>
  old === undefined ? value : old + (value - old) * weight

/** Up at once, down by and by. */
const peak = (old: number | undefined, value: number, weight: number): number =>
  old === undefined || value > old ? value : average(old, value, weight)

/** Up only. */
const raised = (old: number | undefined, value: number): number | undefined =>
  old === undefined ? undefined : Math.max(old, value)

/** A request has begun. */
export const started = (measurement: Measurement): Measurement => ({
  ...measurement,
  inFlight: measurement.inFlight + 1
})

/** A request has ended without saying anything of the deployment: its caller has left, or was wrong. */
export const left = (measurement: Measurement): Measurement => ({
  ...measurement,
  inFlight: Math.max(0, measurement.inFlight - 1)
})

const speedOf = ({ firstTokenMs, tokens = 0, tookMs }: Sample): number | undefined => {
  const [ms, written] = firstTokenMs === undefined ? [tookMs, tokens] : [tookMs - firstTokenMs, tokens - 1]
  return ms > 0 && written > 0 ? written * 1000 / ms : undefined
}

/** A request has ended. */
export const ended = (measurement: Measurement, sample: Sample, now: number): Measurement => {
  const weight = weightOf(measurement, now)
  const common = {
    ...left(measurement),
    samples: measurement.samples + 1,
    at: Math.max(measurement.at, now),
    errorRate: average(measurement.samples === 0 ? undefined : measurement.errorRate, sample.ok ? 0 : 1, weight)
  }
  if (!sample.ok) return { ...common, latencyMs: raised(measurement.latencyMs, sample.tookMs) }
  const { firstTokenMs } = sample
  const speed = speedOf(sample)
  return {
    ...common,
    latencyMs: peak(measurement.latencyMs, sample.tookMs, weight),
    ...(firstTokenMs === undefined ? {} : {
      firstTokenMs: peak(measurement.firstTokenMs, firstTokenMs, weight),
      firstTokens: [...measurement.firstTokens, firstTokenMs].slice(-kept)
    }),
    ...(speed === undefined ? {} : { tokensPerSecond: average(measurement.tokensPerSecond, speed, weight) })
  }
}

/** How far a measurement can still be believed: 0 of none, 1 of a fresh one. */
export const confidence = ({ at, samples }: Measurement, now: number): number =>
  samples === 0 ? 0 : halfWorthAfter / (halfWorthAfter + Math.max(0, now - at))

/** ms in which all but every twentieth first token came; `undefined` until enough have come to tell. */
export const slowestFirstToken = ({ firstTokens }: Measurement): number | undefined => {
  if (firstTokens.length < fewestForPercentile) return undefined
  const sorted = firstTokens.toSorted((a, b) => a - b)
  return sorted[Math.ceil(sorted.length * 0.95) - 1]
}

/**
 * ms that an answer of so many tokens is expected to take until it succeeds, failures counted in; `undefined` where
 * nothing is known.
 */
export const expectedMs = (
  { errorRate, firstTokenMs, latencyMs, tokensPerSecond }: Measurement,
  tokens: number
): number | undefined => {
  const once = tokensPerSecond === undefined ? latencyMs : (firstTokenMs ?? 0) + tokens * 1000 / tokensPerSecond
  return once === undefined ? undefined : once / Math.max(0.01, 1 - errorRate)
}
