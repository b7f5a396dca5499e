/**
 * Inserts many rows in one transaction: with one prepared statement for drivers in which that costs less than a statement
 * with a place for every value.
 *
 * **Details**
 *
 * Effect's `SqlClient` builds a new statement for each number of rows, and a transaction adds three statements to it. SQLite runs in this process: a call for each row costs no more than one for all.
 *
 * **Gotchas**
 *
 * Not for use within `withTransaction`: it is a transaction of its own.
 */
import { Array, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"

export type BulkValue = string | number | null

/** The values of the columns. */
export type BulkRow = ReadonlyArray<BulkValue>

/**
 * Inserts all rows or none.
 *
 * @param statement that inserts one row, with a `?` for each value
 */
export type InsertAll = (statement: string, rows: ReadonlyArray<BulkRow>) => Effect.Effect<void, SqlError>

const insertAll: unique symbol = Symbol.for("troupe/services/persistence/BulkInsert")

/** The client, with a driver's own way to insert many rows. */
export const provide = (client: SqlClient, insert: InsertAll): SqlClient =>
  Object.assign(client, { [insertAll]: insert })

/** Inserts rows into a table. Rows that are there already stay as they are. */
export const into = (
  sql: SqlClient,
  table: string,
  columns: ReadonlyArray<string>
): (rows: ReadonlyArray<BulkRow>) => Effect.Effect<unknown, SqlError> => {
  const own = (sql as { readonly [insertAll]?: InsertAll })[insertAll]
  if (own !== undefined) {
    const places = columns.map(() => "?").join(", ")
    const statement = `INSERT INTO ${table} (${columns.join(", ")}) VALUES (${places}) ON CONFLICT DO NOTHING`
    return (rows) => own(statement, rows)
  }
  const recordOf = (row: BulkRow) => Object.fromEntries(columns.map((column, at) => [column, row[at]]))
  return (rows) =>
    Array.isReadonlyArrayNonEmpty(rows)
      ? sql`INSERT INTO ${sql(table)} ${sql.insert(Array.map(rows, recordOf))} ON CONFLICT DO NOTHING`
      : Effect.void
}
