/**
 * Measurements of deployments: latency, speed, error rate and load. A measurement is immutable: each update takes one and
 * the time, and returns another; `LatencyStats` keeps the latest of each deployment.
 *
 * **Details**
 *
 * Times are peak averages: a slower answer counts at once and in full, faster ones gradually, by an exponentially weighted
 * moving average (the peak EWMA of Twitter's Finagle). A failure changes the error rate only, so that a deployment that
 * fails fast does not look fast; a failure that took longer than the answers also raises the latency.
 *
 * Measurements age. `confidence` falls from 1 towards 0 while there are no new samples, and a strategy weights a figure by
 * it: a deployment that was slow an hour ago is tried again.
 *
 * **Gotchas**
 *
 * What has not been measured is `undefined`, which is not 0.
 */

export interface Measurement {
  /** Answers and failures that have been measured. */
  readonly samples: number
  /** When the last sample ended, monotonic ms. */
  readonly at: number
  /** Latency of complete answers, ms. */
  readonly latencyMs: number | undefined
  /** From the slot to the first token, ms; buffered answers do not count. */
  readonly firstTokenMs: number | undefined
  /** Of one answer after its first token; of a buffered answer, over its whole duration. */
  readonly tokensPerSecond: number | undefined
  /** Share of failures, from 0 to 1. */
  readonly errorRate: number
  /** Requests that are running. */
  readonly inFlight: number
  /** The latest times to first token, ms, the newest last. */
  readonly firstTokens: ReadonlyArray<number>
}

/** The measurement of a deployment without samples. */
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

/** The outcome of one request. */
export interface Sample {
  readonly ok: boolean
  /** From the slot to the end, ms: neither the queue nor a load counts. */
  readonly tookMs: number
  readonly firstTokenMs?: number | undefined
  /** Tokens generated. */
  readonly tokens?: number | undefined
}

/** The time constant of the average, ms: after it, older samples keep 1/e of their weight. */
const averageOver = 30_000

/** The least weight of a new sample: the samples of a burst have no time between them. */
const leastWeight = 0.1

/** ms without a sample after which the confidence is 0.5. */
const halfWorthAfter = 5 * 60_000

/** Times to first token that are kept, for percentiles. */
const kept = 64

/** The fewest times to first token for a percentile. */
const fewestForPercentile = 10

const weightOf = ({ at, samples }: Measurement, now: number): number =>
  samples === 0 ? 1 : Math.max(leastWeight, 1 - Math.exp(-Math.max(0, now - at) / averageOver))

const average = (old: number | undefined, value: number, weight: number): number =>
  old === undefined ? value : old + (value - old) * weight

/** Rises at once, falls gradually. */
const peak = (old: number | undefined, value: number, weight: number): number =>
  old === undefined || value > old ? value : average(old, value, weight)

/** Rises only. */
const raised = (old: number | undefined, value: number): number | undefined =>
  old === undefined ? undefined : Math.max(old, value)

/** A request has begun. */
export const started = (measurement: Measurement): Measurement => ({
  ...measurement,
  inFlight: measurement.inFlight + 1
})

/** A request has ended without a result that counts: its caller has disconnected, or the request was wrong. */
export const left = (measurement: Measurement): Measurement => ({
  ...measurement,
  inFlight: Math.max(0, measurement.inFlight - 1)
})

/** The latest `kept`, with one more. */
const withLast = (times: ReadonlyArray<number>, last: number): ReadonlyArray<number> => {
  const latest = times.length < kept ? times.slice() : times.slice(1)
  latest.push(last)
  return latest
}

const speedOf = ({ firstTokenMs, tokens = 0, tookMs }: Sample): number | undefined => {
  const [ms, written] = firstTokenMs === undefined ? [tookMs, tokens] : [tookMs - firstTokenMs, tokens - 1]
  return ms > 0 && written > 0 ? written * 1000 / ms : undefined
}

/** A request has ended. */
export const ended = (measurement: Measurement, sample: Sample, now: number): Measurement => {
  const { at, errorRate, firstTokens, inFlight, latencyMs, samples } = measurement
  const { firstTokenMs, ok, tookMs } = sample
  const weight = weightOf(measurement, now)
  const speed = ok ? speedOf(sample) : undefined
  const isFirst = ok && firstTokenMs !== undefined
  return {
    samples: samples + 1,
    at: Math.max(at, now),
    latencyMs: ok ? peak(latencyMs, tookMs, weight) : raised(latencyMs, tookMs),
    firstTokenMs: isFirst ? peak(measurement.firstTokenMs, firstTokenMs, weight) : measurement.firstTokenMs,
    tokensPerSecond: speed === undefined
      ? measurement.tokensPerSecond
      : average(measurement.tokensPerSecond, speed, weight),
    errorRate: average(samples === 0 ? undefined : errorRate, ok ? 0 : 1, weight),
    inFlight: Math.max(0, inFlight - 1),
    firstTokens: isFirst ? withLast(firstTokens, firstTokenMs) : firstTokens
  }
}

/** How recent a measurement is: 1 at its latest sample, falling towards 0; 0 without samples. */
export const confidence = ({ at, samples }: Measurement, now: number): number =>
  samples === 0 ? 0 : halfWorthAfter / (halfWorthAfter + Math.max(0, now - at))

/** The 95th percentile of the times to first token, ms; `undefined` until there are enough. */
export const slowestFirstToken = ({ firstTokens }: Measurement): number | undefined => {
  if (firstTokens.length < fewestForPercentile) return undefined
  const sorted = firstTokens.toSorted((a, b) => a - b)
  return sorted[Math.ceil(sorted.length * 0.95) - 1]
}

/**
 * The expected duration of an answer of this many tokens, ms, including repeated attempts after failures; `undefined` if
 * nothing was measured.
 */
export const expectedMs = (
  { errorRate, firstTokenMs, latencyMs, tokensPerSecond }: Measurement,
  tokens: number
): number | undefined => {
  const once = tokensPerSecond === undefined ? latencyMs : (firstTokenMs ?? 0) + tokens * 1000 / tokensPerSecond
  return once === undefined ? undefined : once / Math.max(0.01, 1 - errorRate)
}

/** What the end of an attempt means for its deployment; `left`: nothing, since the caller has left or the request was wrong. */
export type Verdict = "success" | "failure" | "left"

/** One attempt at a deployment, while it is measured. */
export interface LatencySample {
  /** A loaded engine has granted a slot: the time from here on counts as latency, and the engine will have the prompt. */
  granted(): void
  /** The first content of the answer has arrived. */
  content(): void
  /**
   * The attempt has ended.
   *
   * @param tokens generated
   */
  end(verdict: Verdict, tokens: number): void
}

/** The measurements of all deployments, in memory: attempts write them, the router reads them. */
export interface LatencyStats {
  readonly of: (deployment: string) => Measurement
  readonly begin: (deployment: string) => LatencySample
}

class RunningSample implements LatencySample {
  readonly #measured: Map<string, Measurement>
  readonly #now: () => number
  readonly #deployment: string
  #grantedAt: number | undefined
  #firstTokenMs: number | undefined

  constructor(measured: Map<string, Measurement>, now: () => number, deployment: string) {
    this.#measured = measured
    this.#now = now
    this.#deployment = deployment
    measured.set(deployment, started(measured.get(deployment) ?? unmeasured))
  }

  granted(): void {
    this.#grantedAt ??= this.#now()
  }

  content(): void {
    if (this.#grantedAt !== undefined) this.#firstTokenMs ??= this.#now() - this.#grantedAt
  }

  end(verdict: Verdict, tokens: number): void {
    const known = this.#measured.get(this.#deployment) ?? unmeasured
    this.#measured.set(this.#deployment, verdict === "left" ? left(known) : this.#ended(known, verdict, tokens))
  }

  #ended(known: Measurement, verdict: Verdict, tokens: number): Measurement {
    const at = this.#now()
    // Without a slot, the attempt has taken no time of the deployment.
    const tookMs = at - (this.#grantedAt ?? at)
    return ended(known, { ok: verdict === "success", tookMs, firstTokenMs: this.#firstTokenMs, tokens }, at)
  }
}

/** @param now monotonic ms */
export const makeStats = (now: () => number): LatencyStats => {
  const measured = new Map<string, Measurement>()
  return {
    of: (deployment) => measured.get(deployment) ?? unmeasured,
    begin: (deployment) => new RunningSample(measured, now, deployment)
  }
}
