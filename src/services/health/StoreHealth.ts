/**
 * Whether the stores of a service answer: its database, and Redis.
 *
 * **Details**
 *
 * Most requests need no store: keys are in memory, and rows wait there until they can be written. A store is needed where it has
 * the counters of an enforced budget for all requests: they are rejected while it does not answer.
 *
 * **Gotchas**
 *
 * A store that hangs counts as lost after `answerWithin`. One that is needed and lost makes the service unavailable, so nothing
 * but these questions finds out that it is back.
 */
import { Context, Duration, Effect, Schema } from "effect"
import type { Resolved } from "../settings/Settings.ts"

/** How long a store may take to answer. */
const answerWithin = Duration.seconds(2)

/** A store of the service. */
export interface Store {
  readonly name: "database" | "redis"
  /** Whether it has the counters of budgets. */
  readonly hasCounters: boolean
  /** Succeeds if it answers. */
  readonly ask: Effect.Effect<unknown, unknown>
}

/** The stores of the service; without a layer that provides them, none. */
export const Stores = Context.Reference<ReadonlyArray<Store>>("troupe/services/health/StoreHealth/Stores", {
  defaultValue: () => []
})

/** The state of a store, in reports. */
export const StoreState = Schema.Struct({
  store: Schema.Literals(["database", "redis"]),
  /** Whether it answers. */
  available: Schema.Boolean,
  /** Whether requests are rejected while it does not. */
  needed: Schema.Boolean
})
export type StoreState = typeof StoreState.Type

/** Whether every request has an enforced budget. */
export const hasBudgetForAll = ({ admission: { budgets } }: Pick<Resolved, "admission">): boolean =>
  budgets.some(({ rule: { applies, mode } }) => mode === "enforced" && applies === undefined)

/** Asks all stores at once. */
export const ask = (
  stores: ReadonlyArray<Store>,
  settings: Pick<Resolved, "admission">
): Effect.Effect<ReadonlyArray<StoreState>> =>
  Effect.forEach(
    stores,
    ({ ask, hasCounters, name }) =>
      Effect.map(Effect.exit(Effect.timeout(ask, answerWithin)), ({ _tag }) => ({
        store: name,
        available: _tag === "Success",
        needed: hasCounters && hasBudgetForAll(settings)
      })),
    { concurrency: "unbounded" }
  )

/** Whether a store that requests need does not answer. */
export const isMissing = (states: ReadonlyArray<StoreState>): boolean =>
  states.some(({ available, needed }) => needed && !available)
