/**
 * Inserts many rows in one transaction with one prepared statement, for drivers in which that costs less than a statement with
 * a place for every value.
 *
 * **Details**
 *
 * Effect's `SqlClient` writes such a statement anew for every number of rows, and a transaction around it is three
 * statements. SQLite runs in this process: a call for each row costs no more than one for all.
 *
 * **Gotchas**
 *
 * Not for use within `withTransaction`: it is a transaction of its own.
 */
import type { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

export type BulkValue = string | number | null

/**
 * Inserts all rows or none.
 *
 * @param statement that inserts one row, with a `?` for each value
 */
export type InsertAll = (
  statement: string,
  rows: ReadonlyArray<ReadonlyArray<BulkValue>>
) => Effect.Effect<void, SqlError>

const insertAll: unique symbol = Symbol.for("troupe/services/persistence/BulkInsert")

/** The client, with a driver's own way to insert many rows. */
export const provide = (client: SqlClient, insert: InsertAll): SqlClient =>
  Object.assign(client, { [insertAll]: insert })

/** Undefined if the client's driver has none. */
export const of = (client: SqlClient): InsertAll | undefined =>
  (client as { readonly [insertAll]?: InsertAll })[insertAll]
