/**
 * Numbered changes of the tables of one concern, applied when its store is built.
 *
 * **Details**
 *
 * Each concern has its own list and its own numbers: step 1 is the first. `troupe_migrations` records the steps that a
 * database has. All pending steps of a concern run in one transaction, under a lock: two processes that start at once
 * apply them once. A database that has a step that this version does not know was used by a newer Troupe, and is refused.
 *
 * **Gotchas**
 *
 * A released step is never changed or removed; a change is a new step. Steps run on SQLite and Postgres: whole numbers are
 * `BIGINT` (milliseconds, tokens, nano-dollars), texts are `TEXT`, truth values are `SMALLINT` 0 or 1, and there are no
 * floating-point numbers in sums.
 *
 * **Example**
 *
 * ```ts
 * const tables = Migrations.make("keys", [
 *   { name: "create", run: (sql) => sql`CREATE TABLE troupe_keys (id TEXT PRIMARY KEY, created_at BIGINT NOT NULL)` }
 * ])
 * const store = Effect.gen(function*() {
 *   yield* Migrations.apply(tables)
 *   return makeStore(yield* SqlClient)
 * })
 * ```
 */
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { StorageError } from "./StorageError.ts"

/** One change of the tables. */
export interface Step {
  readonly name: string
  readonly run: (sql: SqlClient) => Effect.Effect<unknown, SqlError>
}

/** The changes of one concern, oldest first. */
export interface Migrations {
  readonly concern: string
  readonly steps: ReadonlyArray<Step>
}

/**
 * The changes of one concern.
 *
 * @param concern the name in `troupe_<concern>`, with which the names of its tables begin
 */
export const make = (concern: string, steps: ReadonlyArray<Step>): Migrations => ({ concern, steps })

/** The lock of Postgres for migrations: "trpe" as a number. */
const lock = 0x74727065

const ensureTable = (sql: SqlClient) =>
  sql`CREATE TABLE IF NOT EXISTS troupe_migrations (
    concern TEXT NOT NULL, step BIGINT NOT NULL, name TEXT NOT NULL, applied_at BIGINT NOT NULL,
    PRIMARY KEY (concern, step)
  )`

const newer = ({ concern, steps }: Migrations, found: number): StorageError =>
  new StorageError({
    place: `troupe_${concern}`,
    message: `The database was used by a newer Troupe (step ${found} of ${concern}; this version knows ` +
      `${steps.length}). Update Troupe, or configure another database under storage.`
  })

/**
 * Applies the steps that the database does not have. Fails with a `StorageError` if it has more than this version knows.
 *
 * @returns the names of the steps that were applied
 */
export const apply = Effect.fnUntraced(function*(migrations: Migrations) {
  const { concern, steps } = migrations
  const sql = yield* SqlClient
  const now = yield* Clock.currentTimeMillis
  return yield* sql.withTransaction(Effect.gen(function*() {
    // SQLite's transactions hold the lock from their begin.
    yield* sql.onDialectOrElse({
      pg: () => Effect.asVoid(sql`SELECT pg_advisory_xact_lock(${lock})`),
      orElse: () => Effect.void
    })
    yield* ensureTable(sql)
    const rows = yield* sql<{ step: number }>`
      SELECT step FROM troupe_migrations WHERE concern = ${concern} ORDER BY step DESC LIMIT 1`
    const found = rows[0]?.step ?? 0
    if (found > steps.length) return yield* newer(migrations, found)
    const pending = steps.slice(found)
    for (const [index, { name, run }] of pending.entries()) {
      yield* run(sql)
      const step = found + index + 1
      yield* sql`INSERT INTO troupe_migrations ${sql.insert({ concern, step, name, applied_at: now })}`
    }
    return pending.map(({ name }) => name)
  }))
})
