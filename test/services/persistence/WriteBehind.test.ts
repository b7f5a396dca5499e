/** Rows that wait for a database that fails. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer, Logger, Scope } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import { SqlError, UnknownError } from "effect/sql/SqlError"
import { TestClock } from "effect/testing"
import * as Storage from "../../../src/layers/persistence/Storage.ts"
import * as WriteBehind from "../../../src/services/persistence/WriteBehind.ts"

const full = new SqlError({ reason: new UnknownError({ cause: Object.assign(new Error("full"), { errcode: 13 }) }) })

/** A database that fails while `isFull`, and what it has. */
class Database {
  isFull = false
  readonly groups: Array<ReadonlyArray<number>> = []

  insert(rows: ReadonlyArray<number>): Effect.Effect<void, SqlError> {
    return Effect.suspend(() => {
      if (this.isFull) return Effect.fail(full)
      this.groups.push(rows)
      return Effect.void
    })
  }
}

const withRows = (
  use: (
    rows: WriteBehind.WriteBehind<number>,
    database: Database,
    log: Array<string>
  ) => Effect.Effect<unknown, unknown>,
  options: { readonly capacity?: number; readonly groupSize?: number } = {}
) => {
  const database = new Database()
  const log: Array<string> = []
  return Effect.gen(function*() {
    const rows = yield* WriteBehind.make({
      name: "ledger",
      insert: (rows: ReadonlyArray<number>) => database.insert(rows),
      ...options
    })
    yield* use(rows, database, log)
  }).pipe(
    Effect.scoped,
    Effect.provide(Layer.merge(
      Storage.layerAt({ type: "memory" }),
      Logger.layer([Logger.make(({ message }) => void log.push(String(message)))])
    )),
    Effect.as({ database, log })
  )
}

describe("rows that are written behind", () => {
  it.effect("are one group within a few milliseconds, and at most a group's size", () =>
    withRows((rows, { groups }) =>
      Effect.gen(function*() {
        for (let row = 0; row < 7; row++) rows.add(row)
        yield* TestClock.adjust(4)
        assert.deepStrictEqual(groups, [])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(groups, [[0, 1, 2, 3, 4]])
        yield* TestClock.adjust(5)
        assert.deepStrictEqual(groups, [[0, 1, 2, 3, 4], [5, 6]])
      }), { groupSize: 5 }))

  it.effect("wait for a full disk, and beyond the bound they are lost and counted", () =>
    withRows((rows, database, log) =>
      Effect.gen(function*() {
        database.isFull = true
        for (let row = 0; row < 3; row++) assert.isTrue(rows.add(row))
        yield* TestClock.adjust("1 minute")
        assert.isTrue(rows.add(3))
        assert.isFalse(rows.add(4))
        const refused = yield* Effect.flip(rows.write(5))
        assert.strictEqual(refused.message, "A row of ledger is not stored: too many rows wait.")
        assert.deepStrictEqual([rows.waiting, rows.lost], [4, 2])
        database.isFull = false
        yield* TestClock.adjust("5 seconds")
        assert.deepStrictEqual(database.groups, [[0, 1, 2, 3]])
        assert.deepStrictEqual(log, [
          "ledger cannot be written: the database cannot grow: the disk is full. Requests go on. Up to 4 rows wait for the " +
          "next attempt; more are lost.",
          "ledger is written again; 2 rows lost."
        ])
      }), { capacity: 4 }))

  it.effect("are lost by number where more arrive at once than can wait", () =>
    Effect.gen(function*() {
      const { log } = yield* withRows((rows, database) =>
        Effect.gen(function*() {
          for (let row = 0; row < 5; row++) rows.add(row)
          yield* TestClock.adjust(5)
          database.isFull = true
          for (let row = 0; row < 6; row++) rows.add(row)
          yield* TestClock.adjust(5)
          database.isFull = false
          yield* TestClock.adjust("5 seconds")
        }), { capacity: 4 })
      assert.deepStrictEqual(log.filter((_, index) => index !== 1), [
        "1 row of ledger lost: 4 waited.",
        "ledger is written again; 2 rows lost."
      ])
    }))

  it.effect("are acknowledged after the failures", () =>
    withRows((rows, database) =>
      Effect.gen(function*() {
        database.isFull = true
        const acknowledged = yield* Effect.forkChild(rows.write(1))
        yield* TestClock.adjust("1 minute")
        assert.isUndefined(acknowledged.pollUnsafe())
        database.isFull = false
        yield* TestClock.adjust("5 seconds")
        yield* Fiber.join(acknowledged)
        assert.deepStrictEqual(database.groups, [[1]])
      })
    ))

  it.effect("are not waited for beyond the next attempt, which is made at once", () =>
    withRows((rows, database) =>
      Effect.gen(function*() {
        database.isFull = true
        rows.add(1)
        const flushed = yield* Effect.forkChild(rows.flush)
        yield* TestClock.adjust(5)
        yield* Fiber.join(flushed)
        yield* TestClock.adjust("1 minute")
        const again = yield* Effect.forkChild(rows.flush)
        yield* TestClock.adjust(5)
        yield* Fiber.join(again)
        database.isFull = false
        const last = yield* Effect.forkChild(rows.flush)
        yield* TestClock.adjust(5)
        yield* Fiber.join(last)
        assert.deepStrictEqual(database.groups, [[1]])
      })
    ))

  it.effect("are lost by name if the database still fails at the end", () =>
    Effect.gen(function*() {
      const { database, log } = yield* withRows((rows, database) =>
        Effect.sync(() => {
          database.isFull = true
          rows.add(1)
          rows.add(2)
        })
      )
      assert.deepStrictEqual(database.groups, [])
      assert.deepStrictEqual(log, [
        "ledger cannot be written: the database cannot grow: the disk is full.",
        "2 rows of ledger could not be written and are lost."
      ])
    }))

  it.effect("hold the end up for at most 5 s", () =>
    Effect.gen(function*() {
      const scope = yield* Scope.make()
      const rows = yield* WriteBehind.make({ name: "ledger", insert: () => Effect.never }).pipe(Scope.provide(scope))
      const refused = yield* Effect.forkChild(Effect.flip(rows.write(1)))
      yield* TestClock.adjust("1 second")
      const closed = yield* Effect.forkChild(Scope.close(scope, Exit.void))
      yield* TestClock.adjust("4999 millis")
      assert.isUndefined(closed.pollUnsafe())
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(closed)
      assert.strictEqual((yield* Fiber.join(refused)).message, "A row of ledger is not stored: Troupe stops.")
    }).pipe(Effect.provide(Storage.layerAt({ type: "memory" }))))

  it.effect("of an insertion with a defect are lost, and later ones are written", () =>
    withRows((rows, { groups }) =>
      Effect.gen(function*() {
        const sql = yield* SqlClient
        const broken = yield* WriteBehind.make({
          name: "broken",
          insert: (values: ReadonlyArray<string>) => {
            if (values.includes("bad")) throw new Error("defect")
            return sql`SELECT 1`
          }
        })
        broken.add("bad")
        const good = yield* Effect.forkChild(broken.write("good"))
        yield* TestClock.adjust(5)
        yield* Fiber.join(good)
        assert.strictEqual(broken.lost, 1)
        assert.deepStrictEqual(groups, [])
        assert.strictEqual(rows.lost, 0)
      }).pipe(Effect.scoped, Effect.provide(Storage.layerAt({ type: "memory" })))
    ))
})
