/** What is measured of one deployment: latency, speed, errors and load. See `services/health/LatencyStats`. */
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
