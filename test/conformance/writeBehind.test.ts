/** Rows that are written in groups, on each database. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import * as Migrations from "../../src/services/persistence/Migrations.ts"
import * as WriteBehind from "../../src/services/persistence/WriteBehind.ts"
import { onEachDatabase } from "./databases.ts"

type Row = { readonly id: number; readonly text: string }

const tables = Migrations.make("rows", [
  { name: "create", run: (sql) => sql`CREATE TABLE troupe_rows (id BIGINT PRIMARY KEY, text TEXT NOT NULL)` }
])

const open = Effect.gen(function*() {
  yield* Migrations.apply(tables)
  const sql = yield* SqlClient
  return yield* WriteBehind.make<Row>({
    name: "rows",
    insert: (rows) => sql`INSERT INTO troupe_rows ${sql.insert(rows)}`
  })
})

const ids = Effect.gen(function*() {
  const sql = yield* SqlClient
  const rows = yield* sql<{ id: number }>`SELECT id FROM troupe_rows ORDER BY id`
  return rows.map(({ id }) => id)
})

const range = (count: number) => Array.from({ length: count }, (_, index) => index)

onEachDatabase("rows that are written in groups", (test) => {
  test("are all written, in any number", (database) =>
    Effect.gen(function*() {
      const rows = yield* open
      for (const id of range(1234)) assert.isTrue(rows.add({ id, text: "x" }))
      yield* rows.flush
      assert.deepStrictEqual(yield* ids, range(1234))
      assert.deepStrictEqual([rows.waiting, rows.lost], [0, 0])
    }).pipe(Effect.scoped, Effect.provide(database.layer())))

  test("are in the database once they are acknowledged", (database) =>
    Effect.gen(function*() {
      const rows = yield* open
      yield* Effect.forEach(range(20), (id) => rows.write({ id, text: "x" }), { concurrency: "unbounded" })
      assert.deepStrictEqual(yield* ids, range(20))
    }).pipe(Effect.scoped, Effect.provide(database.layer())))

  test("are written when the scope ends", (database) =>
    Effect.gen(function*() {
      yield* Effect.scoped(Effect.gen(function*() {
        const rows = yield* open
        for (const id of range(7)) rows.add({ id, text: "x" })
      }))
      assert.deepStrictEqual(yield* ids, range(7))
    }).pipe(Effect.provide(database.layer())))

  test("are lost alone if the database rejects their values", (database) =>
    Effect.gen(function*() {
      const rows = yield* open
      yield* rows.write({ id: 3, text: "first" })
      for (const id of range(5)) rows.add({ id, text: "x" })
      rows.add({ id: 5, text: null as unknown as string })
      rows.add({ id: 6, text: (() => "x") as unknown as string })
      const refused = yield* Effect.flip(rows.write({ id: 3, text: "again" }))
      assert.strictEqual(refused.message, "A row of rows is not stored: the database rejects its values.")
      assert.deepStrictEqual(yield* ids, range(5))
      assert.deepStrictEqual([rows.waiting, rows.lost], [0, 4])
    }).pipe(Effect.scoped, Effect.provide(database.layer())))
})
