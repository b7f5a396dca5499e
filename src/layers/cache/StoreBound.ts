/**
 * The greatest number of values in a database: above it, those that end first are deleted.
 *
 * **Details**
 *
 * The table is the one of Effect's `Persistence`, which has no bound. It is counted at the first write of a process and
 * whenever a hundredth of the bound has been written since, so that it may be above the bound by as much for each
 * process. Values are deleted in batches, since SQLite blocks the event loop.
 *
 * **Gotchas**
 *
 * Values without an end are counted and never deleted.
 */
import { Effect } from "effect"
import type { BackingPersistence, BackingPersistenceStore } from "effect/persistence/Persistence"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

type Backing = BackingPersistence["Service"]

/** Values that are deleted at a time. */
const batch = 500

/** Deletes what is above the bound. */
const trim = Effect.fnUntraced(function*(sql: SqlClient, storeId: string, most: number, kept: string) {
  const [found] = yield* sql<{ readonly count: number | string }>`
    SELECT COUNT(*) AS count FROM effect_persistence WHERE store_id = ${storeId}`
  for (let excess = Number(found?.count ?? 0) - most; excess > 0; excess -= batch) {
    yield* sql`DELETE FROM effect_persistence WHERE store_id = ${storeId} AND id IN (
      SELECT id FROM effect_persistence WHERE store_id = ${storeId} AND id <> ${kept} AND expires IS NOT NULL
      ORDER BY expires, id LIMIT ${Math.min(excess, batch)})`
    yield* Effect.yieldNow
  }
})

const boundedStore = (store: BackingPersistenceStore, trimmed: Effect.Effect<void, SqlError>, most: number) => {
  const interval = Math.max(1, Math.floor(most / 100))
  let untilTrim = 1
  const afterWrites = (count: number) =>
    Effect.suspend(() => {
      untilTrim -= count
      if (untilTrim > 0) return Effect.void
      untilTrim = interval
      // `AnswerStore` logs every cause.
      return Effect.orDie(trimmed)
    })
  return {
    ...store,
    set: (key, value, ttl) => Effect.andThen(store.set(key, value, ttl), afterWrites(1)),
    setMany: (entries) => Effect.andThen(store.setMany(entries), afterWrites(entries.length))
  } satisfies BackingPersistenceStore
}

/**
 * Bounds the stores of a database.
 *
 * @param most values of one store, above 0
 * @param kept the key that is never deleted
 */
export const bounded = ({ make }: Backing, client: SqlClient, most: number, kept: string): Backing => ({
  make: (storeId) =>
    Effect.map(
      make(storeId),
      (store) => boundedStore(store, trim(client.withoutTransforms(), storeId, most, kept), most)
    )
})
