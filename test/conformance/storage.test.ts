/** What every store relies on, on each database. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import * as Migrations from "../../src/services/persistence/Migrations.ts"
import { onEachDatabase } from "./databases.ts"

const rows = Migrations.make("test", [
  { name: "create", run: (sql) => sql`CREATE TABLE troupe_test (id BIGINT PRIMARY KEY, text TEXT, flag SMALLINT)` }
])

const twoSteps = Migrations.make("test", [
  ...rows.steps,
  { name: "index", run: (sql) => sql`CREATE INDEX troupe_test_text ON troupe_test (text)` }
])

/** Times in ms since 1970 and nano-dollars do not fit into 32 bits. */
const large = Number.MAX_SAFE_INTEGER

onEachDatabase("storage", (test) => {
  test("keeps whole numbers up to 2^53, texts and nothing, and sums numbers to a number", (database) =>
    Effect.gen(function*() {
      yield* Migrations.apply(rows)
      const sql = yield* SqlClient
      yield* sql`INSERT INTO troupe_test ${
        sql.insert([{ id: large, text: "ä\u{1F600}'\"\\", flag: 1 }, { id: -1, text: null, flag: 0 }])
      }`
      const found = yield* sql`SELECT id, text, flag FROM troupe_test ORDER BY id`
      assert.deepStrictEqual(found.map((row) => ({ ...row })), [
        { id: -1, text: null, flag: 0 },
        { id: large, text: "ä\u{1F600}'\"\\", flag: 1 }
      ])
      const [totals] = yield* sql`SELECT SUM(id) AS sum, COUNT(*) AS count, MAX(id) AS max FROM troupe_test`
      assert.deepStrictEqual({ ...totals }, { sum: large - 1, count: 2, max: large })
    }).pipe(Effect.provide(database.layer())))

  test("rolls a failed transaction back", (database) =>
    Effect.gen(function*() {
      yield* Migrations.apply(rows)
      const sql = yield* SqlClient
      const failed = sql.withTransaction(
        Effect.andThen(sql`INSERT INTO troupe_test (id) VALUES (1)`, Effect.fail("no"))
      )
      assert.strictEqual(yield* Effect.flip(failed), "no")
      assert.lengthOf(yield* sql`SELECT id FROM troupe_test`, 0)
    }).pipe(Effect.provide(database.layer())))

  test("classifies a duplicate", (database) =>
    Effect.gen(function*() {
      yield* Migrations.apply(rows)
      const sql = yield* SqlClient
      const insert = sql`INSERT INTO troupe_test (id) VALUES (1)`
      yield* insert
      assert.strictEqual((yield* Effect.flip(insert)).reason._tag, "UniqueViolation")
    }).pipe(Effect.provide(database.layer())))

  test("applies each step once, and the new steps of a newer version", (database) =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* Migrations.apply(rows), ["create"])
      assert.deepStrictEqual(yield* Migrations.apply(rows), [])
      assert.deepStrictEqual(yield* Migrations.apply(twoSteps), ["index"])
    }).pipe(Effect.provide(database.layer())))

  test("is refused by an older version", (database) =>
    Effect.gen(function*() {
      yield* Migrations.apply(twoSteps)
      const refused = yield* Effect.flip(Migrations.apply(rows))
      assert.strictEqual(
        refused.message,
        "The database was used by a newer Troupe (step 2 of test; this version knows 1). Update Troupe, or configure " +
          "another database under storage."
      )
    }).pipe(Effect.provide(database.layer())))

  test("keeps nothing of a step that fails", (database) =>
    Effect.gen(function*() {
      const broken = Migrations.make("test", [...rows.steps, { name: "broken", run: (sql) => sql`NOT SQL` }])
      yield* Effect.flip(Migrations.apply(broken))
      assert.deepStrictEqual(yield* Migrations.apply(rows), ["create"])
    }).pipe(Effect.provide(database.layer())))

  test("is changed once by processes that start at once", (database) =>
    Effect.gen(function*() {
      const apply = Migrations.apply(twoSteps).pipe(Effect.provide(database.layer()))
      const applied = yield* Effect.all(Array.from({ length: 5 }, () => apply), { concurrency: "unbounded" })
      const expected = database.location.type === "memory" ? 10 : 2
      assert.lengthOf(applied.flat(), expected)
    }))

  test("has a number of steps for each concern", (database) =>
    Effect.gen(function*() {
      yield* Migrations.apply(twoSteps)
      assert.deepStrictEqual(yield* Migrations.apply(Migrations.make("other", [])), [])
      const refused = yield* Effect.flip(Migrations.apply(Migrations.make("test", [])))
      assert.include(refused, { _tag: "StorageError", place: "troupe_test" })
    }).pipe(Effect.provide(database.layer())))
})
