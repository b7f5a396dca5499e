/**
 * How a service moves its connections from one generation of its processes to the next. Pure.
 *
 * **Details**
 *
 * Each step gives the new generation a share of the new connections, and lasts for a time. A connection that is open stays where
 * it is. The new generation fails when more than `maxErrorRate` of its answers have a status from 500; a single failure does not
 * decide that.
 */
import type { Tally } from "./ProcessGroup.ts"

/** When the new generation gets which share, and when it has failed. */
export interface Steps {
  /** Shares of the new connections, up to 1, in the order of the steps. */
  readonly shares: ReadonlyArray<number>
  /** Duration of a step, ms. */
  readonly stepMs: number
  /** Of the answers of the new generation. */
  readonly maxErrorRate: number
  /** Fewer failures than these do not decide. */
  readonly minFailures: number
}

export const defaultSteps: Steps = { shares: [0.1, 0.3, 0.7, 1], stepMs: 300_000, maxErrorRate: 0.05, minFailures: 2 }

/**
 * Divides connections by a share, as evenly as whole connections allow: of any n consecutive ones, the new generation gets
 * `share * n`, rounded up or down.
 */
export class Divider {
  #share = 0
  /** What the new generation has not got of its share, connections. */
  #due = 0

  get share(): number {
    return this.#share
  }

  set share(share: number) {
    this.#share = share
    this.#due = 0
  }

  /** Whether the next connection is for the new generation. */
  next(): boolean {
    this.#due += this.#share
    // A sum of tenths may be a little below 1.
    const isNew = this.#due > 1 - 1e-9
    if (isNew) this.#due -= 1
    return isNew
  }
}

/** Adds up what the processes of a generation have counted. */
export const sum = (tallies: ReadonlyArray<Tally>): Tally =>
  tallies.reduce(
    (all, { answers, failures }) => ({ answers: all.answers + answers, failures: all.failures + failures }),
    { answers: 0, failures: 0 }
  )

/** A rate as a percentage: 0.053 is 5.3 %. */
export const percent = (rate: number): string => `${Math.round(rate * 1000) / 10} %`

/** Why a generation with these answers has failed; undefined if it has not. */
export const problemOf = (
  { answers, failures }: Tally,
  { maxErrorRate, minFailures }: Pick<Steps, "maxErrorRate" | "minFailures">
): string | undefined =>
  failures >= minFailures && failures > maxErrorRate * answers
    ? `${failures} of its ${answers} answers failed (${percent(failures / answers)}; the limit is ${
      percent(maxErrorRate)
    })`
    : undefined
