/**
 * Shared counters in a database: reservations and ends in transactions, those that wait together in one.
 *
 * **Details**
 *
 * Requests that count in the same counter wait for each other, so that a transaction for each would be slow.
 *
 * A transaction first writes the rows of its counters in the order of their names. That locks them, so that the next
 * statement sees every reservation that was made before, and two transactions never wait for each other. What is reserved
 * is the sum of the rows of reservations: deleting those of an instance that has ended releases them.
 *
 * **Gotchas**
 *
 * Instances compare their own clocks: these must agree within `deadAfterMs`.
 */
import { Array, Clock, Effect, FiberSet, Order } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Migrations from "../persistence/Migrations.ts"
import type { Counters, CounterState, Hold, Outcome, Spend } from "./Counters.ts"
import { beatMs, CountersLost, deadAfterMs, fits } from "./Counters.ts"

const migrations = Migrations.make("counters", [
  {
    name: "create",
    run: (sql) =>
      Effect.all([
        sql`CREATE TABLE troupe_counters (
          name TEXT PRIMARY KEY, spent BIGINT NOT NULL, ends_at BIGINT NOT NULL
        )`,
        sql`CREATE TABLE troupe_counters_reserved (
          id TEXT NOT NULL, counter TEXT NOT NULL, instance TEXT NOT NULL, amount BIGINT NOT NULL,
          PRIMARY KEY (id, counter)
        )`,
        sql`CREATE INDEX troupe_counters_reserved_counter ON troupe_counters_reserved (counter)`,
        sql`CREATE INDEX troupe_counters_reserved_instance ON troupe_counters_reserved (instance)`,
        sql`CREATE TABLE troupe_counters_instances (id TEXT PRIMARY KEY, seen_at BIGINT NOT NULL)`
      ], { discard: true })
  }
])

/** How long counters are kept after their period, ms. */
const keptMs = 86_400_000

/** Reservations and ends in one transaction. */
const batch = 50

type Asked =
  & { readonly id: string }
  & (
    | {
      readonly type: "reserve"
      readonly holds: ReadonlyArray<Hold>
      readonly resume: (outcome: Effect.Effect<Outcome, CountersLost>) => void
    }
    | {
      readonly type: "settle"
      readonly spends: ReadonlyArray<Spend>
      readonly resume: (spent: Effect.Effect<ReadonlyArray<number>, CountersLost>) => void
    }
  )
type Reserve = Extract<Asked, { readonly type: "reserve" }>
type Settle = Extract<Asked, { readonly type: "settle" }>

interface Row {
  readonly name: string
  readonly amount: number | string
}

const amountsOf = (rows: ReadonlyArray<Row>): Map<string, number> =>
  new Map(rows.map(({ amount, name }) => [name, Number(amount)]))

const add = (sums: Map<string, number>, name: string, amount: number): number => {
  const sum = (sums.get(name) ?? 0) + amount
  sums.set(name, sum)
  return sum
}

/** Writes the rows of all counters, which locks them. Returns what is spent. */
const lock = (sql: SqlClient, reserves: ReadonlyArray<Reserve>, settles: ReadonlyArray<Settle>) => {
  const found = new Map<string, { readonly name: string; readonly spent: number; readonly ends_at: number }>()
  for (const { counter, endsAt, floor } of reserves.flatMap(({ holds }) => holds)) {
    found.set(counter, { name: counter, spent: Math.max(floor, found.get(counter)?.spent ?? 0), ends_at: endsAt })
  }
  for (const { counter, endsAt } of settles.flatMap(({ spends }) => spends)) {
    if (!found.has(counter)) found.set(counter, { name: counter, spent: 0, ends_at: endsAt })
  }
  const rows = Array.sort(found.values(), Order.mapInput(Order.String, ({ name }: { readonly name: string }) => name))
  return Array.isArrayNonEmpty(rows)
    ? Effect.map(
      sql<Row>`INSERT INTO troupe_counters ${sql.insert(rows)} ON CONFLICT (name) DO UPDATE SET spent =
        CASE WHEN troupe_counters.spent < excluded.spent THEN excluded.spent ELSE troupe_counters.spent END
        RETURNING name, spent AS amount`,
      amountsOf
    )
    : Effect.succeed(new Map<string, number>())
}

const makeReserve = (sql: SqlClient, instance: string) =>
  Effect.fnUntraced(function*(reserves: ReadonlyArray<Reserve>, spent: ReadonlyMap<string, number>) {
    if (reserves.length === 0) return []
    const reserved = amountsOf(
      yield* sql<Row>`SELECT counter AS name, SUM(amount) AS amount FROM troupe_counters_reserved
        WHERE ${sql.in("counter", [...spent.keys()])} GROUP BY counter`
    )
    const added = new Map<string, { id: string; counter: string; instance: string; amount: number }>()
    const outcomes = reserves.map(({ holds, id }): Outcome => {
      const states = holds.map(({ counter }): CounterState => ({
        spent: spent.get(counter) ?? 0,
        reserved: reserved.get(counter) ?? 0
      }))
      const isReserved = holds.every((hold, index) => fits(hold, states[index]!))
      if (!isReserved) return { isReserved, states }
      for (const { amount, counter } of holds) {
        add(reserved, counter, amount)
        const name = `${id} ${counter}`
        added.set(name, { id, counter, instance, amount: amount + (added.get(name)?.amount ?? 0) })
      }
      return { isReserved, states }
    })
    const rows = [...added.values()]
    if (Array.isArrayNonEmpty(rows)) {
      yield* sql`INSERT INTO troupe_counters_reserved ${sql.insert(rows)} ON CONFLICT (id, counter)
        DO UPDATE SET amount = troupe_counters_reserved.amount + excluded.amount`
    }
    return outcomes
  })

const makeSettle = (sql: SqlClient) =>
  Effect.fnUntraced(function*(settles: ReadonlyArray<Settle>, spent: Map<string, number>) {
    if (settles.length === 0) return []
    const added = new Map<string, number>()
    const ends = new Map<string, number>()
    const after = settles.map(({ spends }) =>
      spends.map(({ amount, counter, endsAt }) => {
        add(added, counter, amount)
        ends.set(counter, endsAt)
        return add(spent, counter, amount)
      })
    )
    const rows = Array.fromIterable(added).map(([name, amount]) => ({ name, spent: amount, ends_at: ends.get(name)! }))
    if (Array.isArrayNonEmpty(rows)) {
      yield* sql`INSERT INTO troupe_counters ${sql.insert(rows)} ON CONFLICT (name)
        DO UPDATE SET spent = troupe_counters.spent + excluded.spent`
    }
    yield* sql`DELETE FROM troupe_counters_reserved WHERE ${sql.in("id", settles.map(({ id }) => id))}`
    return after
  })

/** What waits, in transactions one after another: those that arrive during one are in the next. */
class Transactions {
  readonly #execute: (asked: ReadonlyArray<Asked>) => Effect.Effect<void, SqlError>
  readonly #run: (effect: Effect.Effect<void>) => void
  #waiting: Array<Asked> = []
  #isRunning = false

  constructor(sql: SqlClient, instance: string, run: (effect: Effect.Effect<void>) => void) {
    const reserve = makeReserve(sql, instance)
    const settle = makeSettle(sql)
    this.#run = run
    // Reservations are first: a request that leaves at once reserves and settles in the same transaction.
    this.#execute = Effect.fnUntraced(function*(asked) {
      const reserves = asked.filter((one) => one.type === "reserve")
      const settles = asked.filter((one) => one.type === "settle")
      const [outcomes, after] = yield* sql.withTransaction(Effect.gen(function*() {
        const spent = yield* lock(sql, reserves, settles)
        return [yield* reserve(reserves, spent), yield* settle(settles, spent)] as const
      }))
      reserves.forEach(({ resume }, index) => resume(Effect.succeed(outcomes[index]!)))
      settles.forEach(({ resume }, index) => resume(Effect.succeed(after[index]!)))
    })
  }

  add(asked: Asked): void {
    this.#waiting.push(asked)
    if (this.#isRunning) return
    this.#isRunning = true
    this.#run(this.#drain)
  }

  readonly #drain: Effect.Effect<void> = Effect.gen({ self: this }, function*() {
    while (this.#waiting.length > 0) {
      const asked = this.#waiting.splice(0, batch)
      yield* this.#execute(asked).pipe(Effect.catch((cause) =>
        Effect.sync(() => {
          const lost = Effect.fail(new CountersLost({ cause }))
          for (const { resume } of asked) resume(lost)
        })
      ))
    }
    this.#isRunning = false
  })
}

/** Says that this instance runs, and removes what those that have ended have left. */
const beat = (sql: SqlClient, instance: string): Effect.Effect<void, SqlError> =>
  Effect.gen(function*() {
    const now = Math.round(yield* Clock.currentTimeMillis)
    yield* sql`INSERT INTO troupe_counters_instances ${sql.insert({ id: instance, seen_at: now })}
      ON CONFLICT (id) DO UPDATE SET seen_at = excluded.seen_at`
    yield* sql`DELETE FROM troupe_counters_instances WHERE seen_at < ${now - deadAfterMs}`
    yield* sql`DELETE FROM troupe_counters_reserved WHERE instance NOT IN (SELECT id FROM troupe_counters_instances)`
    yield* sql`DELETE FROM troupe_counters WHERE ends_at < ${now - keptMs}`
  })

const leave = (sql: SqlClient, instance: string): Effect.Effect<void, SqlError> =>
  Effect.andThen(
    sql`DELETE FROM troupe_counters_reserved WHERE instance = ${instance}`,
    sql`DELETE FROM troupe_counters_instances WHERE id = ${instance}`
  )

/**
 * The counters in the database of `SqlClient`. The end of the scope releases the reservations of the instance.
 *
 * @param instance another for each process
 */
export const make = Effect.fnUntraced(function*(instance: string) {
  yield* Migrations.apply(migrations)
  const sql = yield* SqlClient
  yield* beat(sql, instance)
  yield* Effect.addFinalizer(() => Effect.ignore(leave(sql, instance)))
  yield* Effect.forkScoped(Effect.forever(Effect.delay(Effect.ignore(beat(sql, instance)), beatMs)))
  const fork = yield* FiberSet.makeRuntime()
  const transactions = new Transactions(sql, instance, (effect) => void fork(effect))
  const counters: Counters = {
    place: "the database",
    reserve: (id, holds) => Effect.callback((resume) => transactions.add({ type: "reserve", id, holds, resume })),
    settle: (id, spends) => Effect.callback((resume) => transactions.add({ type: "settle", id, spends, resume }))
  }
  return counters
})
