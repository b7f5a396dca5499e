/**
 * The makers of signed reasoning in a database: a row for each signature, by its hash.
 *
 * **Details**
 *
 * A row is kept for `Defaults.reasoningMakers.keptMs`. Older ones are deleted at the first write of a process and after each
 * thousand that it has written, in groups, because SQLite blocks the event loop.
 */
import type { Array as Arr } from "effect"
import { Clock, Effect } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Defaults from "../../domain/Defaults.ts"
import * as BulkInsert from "../persistence/BulkInsert.ts"
import * as Migrations from "../persistence/Migrations.ts"
import * as WriteBehind from "../persistence/WriteBehind.ts"
import type { Made, Shared } from "./ReasoningMakers.ts"

const migrations = Migrations.make("makers", [
  {
    name: "create",
    run: (sql) =>
      Effect.andThen(
        sql`CREATE TABLE troupe_makers (mark BIGINT PRIMARY KEY, maker TEXT NOT NULL, noted_at BIGINT NOT NULL)`,
        sql`CREATE INDEX troupe_makers_noted_at ON troupe_makers (noted_at)`
      )
  }
])

/** Rows that are written until old ones are deleted. */
const interval = 1_000

/** Rows that are deleted at a time. */
const batch = 500

const deleteUntil = Effect.fnUntraced(function*(sql: SqlClient, until: number) {
  for (let count = batch; count === batch;) {
    const deleted = yield* sql`DELETE FROM troupe_makers WHERE mark IN (
      SELECT mark FROM troupe_makers WHERE noted_at < ${until} ORDER BY noted_at LIMIT ${batch}
    ) RETURNING mark`
    count = deleted.length
    yield* Effect.yieldNow
  }
})

const makeInsert = (sql: SqlClient) => {
  const insert = BulkInsert.into(sql, "troupe_makers", ["mark", "maker", "noted_at"])
  let untilDeletion = 0
  return Effect.fnUntraced(function*(rows: Arr.NonEmptyReadonlyArray<Made>) {
    const now = yield* Clock.currentTimeMillis
    yield* insert(rows.map((made) => [...made, now]))
    untilDeletion -= rows.length
    if (untilDeletion > 0) return
    untilDeletion = interval
    yield* deleteUntil(sql, now - Defaults.reasoningMakers.keptMs)
  })
}

const find = (sql: SqlClient) => (keys: ReadonlyArray<number>): Effect.Effect<ReadonlyArray<Made>, SqlError> =>
  Effect.map(
    sql<{ readonly mark: number | string; readonly maker: string }>`
      SELECT mark, maker FROM troupe_makers WHERE ${sql.in("mark", keys)}`,
    (found) => found.map(({ maker, mark }): Made => [Number(mark), maker])
  )

/** Creates the table if it does not exist. What waits is written at the end of the scope. */
export const make = Effect.gen(function*() {
  yield* Migrations.apply(migrations)
  const sql = yield* SqlClient
  const rows = yield* WriteBehind.make({ name: "the makers of signed reasoning", insert: makeInsert(sql) })
  const shared: Shared = { add: (made) => void rows.add(made), find: find(sql) }
  return shared
})
