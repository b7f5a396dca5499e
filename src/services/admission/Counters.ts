/**
 * Counters of limits and budgets that several processes or instances share.
 *
 * **Details**
 *
 * A request reserves an amount in several counters at once, or in none. Its end spends what it has used, and releases the
 * reservation. The sum of what is spent and reserved in a counter never exceeds its limit, whoever reserves. A process that
 * ends without releasing its reservations loses them.
 *
 * The name of a counter contains the begin of its period, so that a late amount counts where it was reserved. Amounts are
 * whole numbers: requests, tokens or nano-dollars.
 *
 * **Gotchas**
 *
 * Reservations are identified by the caller. A second `reserve` with the same id adds to the first.
 */
import type { Effect } from "effect"
import { Context, Predicate, Schema } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { SqlError } from "effect/sql/SqlError"
import { summaryOf } from "../persistence/StorageError.ts"

/** What a request reserves in one counter. */
export interface Hold {
  readonly counter: string
  /** The limit; undefined if nothing is rejected. */
  readonly most?: number | undefined
  readonly amount: number
  /** What has been spent at least: a counter that knows less is raised. */
  readonly floor: number
  /** When nothing reserves in the counter any more, ms since 1970. */
  readonly endsAt: number
}

/** What a request has used, of one counter. */
export interface Spend {
  readonly counter: string
  readonly amount: number
  /** ms since 1970 */
  readonly endsAt: number
}

/** A counter without the new reservation. */
export interface CounterState {
  readonly spent: number
  readonly reserved: number
}

export interface Outcome {
  /** Otherwise nothing was reserved. */
  readonly isReserved: boolean
  /** In the order of the holds. */
  readonly states: ReadonlyArray<CounterState>
}

/** Whether an amount can be reserved. */
export const fits = ({ amount, most }: Hold, { reserved, spent }: CounterState): boolean =>
  most === undefined || spent + reserved + amount <= most

/** The end of what has no end: a date that JSON and databases can hold. */
export const never = Number.MAX_SAFE_INTEGER

const isStorageError = (cause: unknown): cause is RedisError | SqlError =>
  Predicate.isTagged(cause, "RedisError") || Predicate.isTagged(cause, "SqlError")

/** The counters cannot be reached. Whether they have changed is unknown. */
export class CountersLost extends Schema.TaggedError<CountersLost>()("CountersLost", { cause: Schema.Defect() }) {
  override get message(): string {
    const { cause } = this
    if (isStorageError(cause)) return summaryOf(cause)
    return cause instanceof Error ? cause.message : String(cause)
  }
}

export interface Counters {
  /** Where they are, for logs. */
  readonly place: string
  readonly reserve: (id: string, holds: ReadonlyArray<Hold>) => Effect.Effect<Outcome, CountersLost>
  /** Spends, and ends the reservation. Returns what is spent in each counter then. */
  readonly settle: (id: string, spends: ReadonlyArray<Spend>) => Effect.Effect<ReadonlyArray<number>, CountersLost>
}

/** How often an instance says that it runs, ms. */
export const beatMs = 10_000

/** How long after its last sign an instance loses its reservations, ms. */
export const deadAfterMs = 60_000

/** The shared counters; undefined where this process has all requests. */
export const SharedCounters = Context.Reference<Counters | undefined>("troupe/services/admission/SharedCounters", {
  defaultValue: () => undefined
})
