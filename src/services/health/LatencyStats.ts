/**
 * Measurements of deployments: latency, speed, share of failures and load. `make` keeps the current measurement of each
 * deployment in memory; the functions before it are pure: each takes a measurement and the time, and returns another.
 *
 * **Details**
 *
 * Times are peak averages: a slower answer counts at once and whole, faster ones little by little, by an exponentially
 * weighted moving average (the peak EWMA of Twitter's Finagle). A failure changes the share of failures only, so that one
 * who fails fast does not look fast; unless it took longer than answers do.
 *
 * Measurements age. `confidence` falls from 1 towards 0 while nothing new comes, and who reads a figure takes that much of
 * it: a deployment that was slow an hour ago is tried again.
 *
 * **Gotchas**
 *
 * What has not been measured is `undefined`, which is not 0.
 */
import type { Measurement } from "../../domain/Measurement.ts"
import { unmeasured } from "../../domain/Measurement.ts"
import type { Verdict } from "./Circuit.ts"

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

/** One attempt at a deployment, while it is measured. */
export interface LatencySample {
  /** A loaded engine has given it a slot: what follows counts as latency, and the engine will have its prompt. */
  readonly granted: () => void
  /** The first content of its answer has come. */
  readonly content: () => void
  /**
   * The attempt has ended.
   *
   * @param tokens generated
   */
  readonly end: (verdict: Verdict, tokens: number) => void
}

/** The measurements of all deployments: attempts write them, the router reads them. */
export interface LatencyStats {
  readonly of: (deployment: string) => Measurement
  readonly begin: (deployment: string) => LatencySample
}

/** @param now ms of `Monotonic` */
export const make = (now: () => number): LatencyStats => {
  const measured = new Map<string, Measurement>()
  const of = (deployment: string): Measurement => measured.get(deployment) ?? unmeasured
  return {
    of,
    begin: (deployment) => {
      let grantedAt: number | undefined
      let firstTokenMs: number | undefined
      measured.set(deployment, started(of(deployment)))
      return {
        granted: () => {
          grantedAt ??= now()
        },
        content: () => {
          if (grantedAt !== undefined) firstTokenMs ??= now() - grantedAt
        },
        end: (verdict, tokens) => {
          const at = now()
          // Without a slot it has taken no time of the deployment's.
          const sample = { ok: verdict === "success", tookMs: at - (grantedAt ?? at), firstTokenMs, tokens }
          const known = of(deployment)
          measured.set(deployment, verdict === "left" ? left(known) : ended(known, sample, at))
        }
      }
    }
  }
}
