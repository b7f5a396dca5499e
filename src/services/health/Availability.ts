/**
 * How the service did in the last five minutes, hour and day: the share of failed requests, and the share of the time in which it
 * could answer. Pure.
 *
 * **Details**
 *
 * Samples are kept for a day: all of the last five minutes, of the time before one a minute. A window that is longer than the samples
 * reach begins with the first one.
 */
import { Schema } from "effect"

/** What the service should reach. */
export const targets = { availability: 0.999, errorRate: 0.001 } as const

const minute = 60_000

/** The windows, ms. */
export const windows = { "5m": 5 * minute, "1h": 60 * minute, "1d": 1_440 * minute } as const
export type WindowName = keyof typeof windows

/** The state of the service at one time. */
export interface Sample {
  /** monotonic ms */
  readonly at: number
  /** Requests until then that were answered, and that failed. */
  readonly answered: number
  readonly failed: number
  /** Time until then in which it could answer, ms. */
  readonly availableMs: number
}

/** One window of the report. */
export const Window = Schema.Struct({
  window: Schema.Literals(["5m", "1h", "1d"]),
  /** The time that it covers: less than its name after a start. */
  seconds: Schema.Int,
  requests: Schema.Int,
  failed: Schema.Int,
  /** Failed of all requests; left out without requests. */
  errorRate: Schema.optionalKey(Schema.Finite),
  /** Share of the time in which a request could be answered. */
  availability: Schema.Finite,
  /** Whether both are within the targets. */
  meetsTargets: Schema.Boolean
})
export type Window = typeof Window.Type

interface Counts {
  readonly requests: number
  readonly failed: number
  readonly availability: number
}

const judged = (window: WindowName, seconds: number, { availability, failed, requests }: Counts): Window => {
  const errorRate = requests === 0 ? 0 : failed / requests
  return {
    window,
    seconds,
    requests,
    failed,
    ...(requests === 0 ? {} : { errorRate }),
    availability,
    meetsTargets: availability >= targets.availability && errorRate <= targets.errorRate
  }
}

/**
 * The same window of several processes: their requests together, and the availability of their mean. The time that each covers
 * is its weight, so that a process that has just started again counts little.
 */
export const sumOf = (own: Window, others: ReadonlyArray<Window>): Window => {
  const all = [own, ...others]
  const sum = (of: (one: Window) => number) => all.reduce((total, one) => total + of(one), 0)
  const time = sum(({ seconds }) => seconds)
  return judged(own.window, Math.max(...all.map(({ seconds }) => seconds)), {
    requests: sum(({ requests }) => requests),
    failed: sum(({ failed }) => failed),
    availability: time === 0
      ? sum(({ availability }) => availability) / all.length
      : sum(({ availability, seconds }) => availability * seconds) / time
  })
}

/** Keeps samples. */
export class Availability {
  #samples: Array<Sample> = []

  /** Begins again with this sample. */
  begin({ answered, at, failed }: Omit<Sample, "availableMs">): void {
    this.#samples = [{ at, answered, failed, availableMs: 0 }]
  }

  /** Adds a sample; whether the service could answer holds for the time since the sample before. */
  add({ answered, at, failed, isAvailable }: Omit<Sample, "availableMs"> & { readonly isAvailable: boolean }): void {
    const last = this.#samples.at(-1)
    const availableMs = (last?.availableMs ?? 0) + (last !== undefined && isAvailable ? at - last.at : 0)
    this.#samples.push({ at, answered, failed, availableMs })
    this.#thin(at)
  }

  /** One a minute of those that are older than the shortest window. */
  #thin(now: number): void {
    const [first] = this.#samples
    if (first === undefined) return
    let kept = Number.NEGATIVE_INFINITY
    this.#samples = this.#samples.filter(({ at }) => {
      if (at > now - windows["5m"] - minute) return true
      if (at < now - windows["1d"] - minute || at - kept < minute) return false
      kept = at
      return true
    })
  }

  /** The window that ends with the latest sample. */
  over(window: WindowName): Window {
    const last = this.#samples.at(-1) ?? { at: 0, answered: 0, failed: 0, availableMs: 0 }
    const begin = last.at - windows[window]
    const first = this.#samples.findLast(({ at }) => at <= begin) ?? this.#samples[0] ?? last
    const failed = last.failed - first.failed
    const requests = last.answered - first.answered + failed
    const time = last.at - first.at
    const availability = time === 0 ? 1 : (last.availableMs - first.availableMs) / time
    return judged(window, Math.round(time / 1000), { requests, failed, availability })
  }
}
