/**
 * Whether the stores of a service answer: its database, and Redis.
 *
 * **Details**
 *
 * Most requests need no store: keys are in memory, and rows wait there until they can be written. A store is needed where it has
 * the counters of an enforced budget for all requests: they are rejected while it does not answer. Budgets of some requests, such as
 * those of a key, do not make it needed: only these requests are rejected, which `problem` says.
 *
 * **Gotchas**
 *
 * A store that hangs counts as lost after `answerWithin`. One that is needed and lost makes the service unavailable, so nothing
 * but these questions finds out that it is back.
 */
import { Context, Duration, Effect, Schema } from "effect"
import type { NewEvent } from "../observability/OperatorEvents.ts"
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
  /** Whether all requests are rejected while it does not. */
  needed: Schema.Boolean,
  /** One sentence: what its loss does to requests. Left out while it answers. */
  problem: Schema.optionalKey(Schema.String),
  /** When it was found lost, ms since 1970. Left out while it answers. */
  since: Schema.optionalKey(Schema.Finite)
})
export type StoreState = typeof StoreState.Type

/** Whether every request has an enforced budget. */
export const hasBudgetForAll = ({ admission: { budgets } }: Pick<Resolved, "admission">): boolean =>
  budgets.some(({ rule: { applies, mode } }) => mode === "enforced" && applies === undefined)

const isEnforced = ({ rule: { mode } }: Resolved["admission"]["budgets"][number]): boolean => mode === "enforced"

/** The name of a store in sentences. */
export const nameOf = (store: Store["name"]): string => store === "redis" ? "Redis" : "The database"

const problemOf = ({ hasCounters, name }: Store, needed: boolean, hasBudgets: boolean): string => {
  const effect = needed
    ? "all requests get 503"
    : hasCounters && hasBudgets
    ? "requests with a budget get 503"
    : "requests are answered without it"
  return `${nameOf(name)} is lost: ${effect}.`
}

/**
 * Asks all stores at once.
 *
 * @param keysHaveBudgets whether a key has a budget of its own
 */
export const ask = (
  stores: ReadonlyArray<Store>,
  settings: Pick<Resolved, "admission">,
  keysHaveBudgets: Effect.Effect<boolean> = Effect.succeed(false)
): Effect.Effect<ReadonlyArray<StoreState>> =>
  Effect.forEach(
    stores,
    Effect.fnUntraced(function*(store) {
      const { _tag } = yield* Effect.exit(Effect.timeout(store.ask, answerWithin))
      const needed = store.hasCounters && hasBudgetForAll(settings)
      if (_tag === "Success") return { store: store.name, available: true, needed }
      const hasBudgets = settings.admission.budgets.some(isEnforced) || (yield* keysHaveBudgets)
      return { store: store.name, available: false, needed, problem: problemOf(store, needed, hasBudgets) }
    }),
    { concurrency: "unbounded" }
  )

/**
 * The states with the times since when stores are lost.
 *
 * @param now ms since 1970
 */
export const dated = (
  before: ReadonlyArray<StoreState>,
  asked: ReadonlyArray<StoreState>,
  now: number
): ReadonlyArray<StoreState> =>
  asked.map((one) =>
    one.available ? one : { ...one, since: before.find(({ store }) => store === one.store)?.since ?? now }
  )

/** The events of the stores that are lost or back since the last answers. */
export const eventsOf = (
  before: ReadonlyArray<StoreState>,
  now: ReadonlyArray<StoreState>
): ReadonlyArray<NewEvent> => {
  const lost = new Set(before.filter(({ available }) => !available).map(({ store }) => store))
  return now.filter(({ available, store }) => available === lost.has(store)).map(({ available, problem, store }) => ({
    kind: "store",
    severity: available ? "info" : "critical",
    message: problem ?? `${nameOf(store)} answers again.`,
    details: { store, available }
  }))
}

/** Whether a store that requests need does not answer. */
export const isMissing = (states: ReadonlyArray<StoreState>): boolean =>
  states.some(({ available, needed }) => needed && !available)
