/** Shared counters: in memory, in each database and in Redis. */
import { assert } from "@effect/vitest"
import type { Scope } from "effect"
import { Clock, Effect, Layer } from "effect"
import { describe, it } from "vitest"
import type { Counters, Hold } from "../../src/services/admission/Counters.ts"
import { deadAfterMs, never } from "../../src/services/admission/Counters.ts"
import { CounterTable } from "../../src/services/admission/CounterTable.ts"
import * as RedisCounters from "../../src/services/admission/RedisCounters.ts"
import * as SqlCounters from "../../src/services/admission/SqlCounters.ts"
import { onEachDatabase, onRedis } from "./databases.ts"

const hold = (counter: string, amount: number, most?: number, floor = 0): Hold => ({
  counter,
  amount,
  most,
  floor,
  endsAt: never
})
const spend = (counter: string, amount: number) => ({ counter, amount, endsAt: never })

/** A member of those that share the counters, until the scope ends. */
type Join = (instance: string) => Effect.Effect<Counters, unknown, Scope.Scope>

const expectReserved = Effect.fnUntraced(function*(counters: Counters, id: string, holds: ReadonlyArray<Hold>) {
  assert.isTrue((yield* counters.reserve(id, holds)).isReserved, id)
})

const states = ({ reserve }: Counters, ...names: ReadonlyArray<string>) =>
  Effect.map(
    reserve("look", names.map((name) => hold(name, 0))),
    ({ states }) => states.map(({ reserved, spent }) => [spent, reserved])
  )

/** What every implementation does. */
const suite: Readonly<Record<string, (join: Join) => Effect.Effect<void, unknown, Scope.Scope>>> = {
  "reserves in all counters or in none": Effect.fnUntraced(function*(join) {
    const one = yield* join("one")
    const other = yield* join("other")
    yield* expectReserved(one, "a", [hold("wide", 60, 100), hold("narrow", 6, 10)])
    const refused = yield* other.reserve("b", [hold("wide", 40, 100), hold("narrow", 5, 10)])
    assert.deepStrictEqual(refused, {
      isReserved: false,
      states: [{ spent: 0, reserved: 60 }, { spent: 0, reserved: 6 }]
    })
    assert.deepStrictEqual(yield* states(other, "narrow", "wide"), [[0, 6], [0, 60]])
    yield* expectReserved(other, "b", [hold("wide", 40, 100), hold("narrow", 4, 10)])
  }),

  "spends what was used, and refunds the rest once": Effect.fnUntraced(function*(join) {
    const counters = yield* join("one")
    yield* expectReserved(counters, "a", [hold("usd", 80, 100), hold("tokens", 500)])
    assert.deepStrictEqual(yield* counters.settle("a", [spend("usd", 30), spend("tokens", 200)]), [30, 200])
    assert.deepStrictEqual(yield* states(counters, "usd", "tokens"), [[30, 0], [200, 0]])
    // A late attempt.
    assert.deepStrictEqual(yield* counters.settle("a", [spend("usd", 5)]), [35])
    yield* expectReserved(counters, "b", [hold("usd", 65, 100)])
    yield* counters.settle("b", [])
    yield* counters.settle("b", [])
    assert.deepStrictEqual(yield* states(counters, "usd"), [[35, 0]])
  }),

  "extends a reservation only where there is room": Effect.fnUntraced(function*(join) {
    const counters = yield* join("one")
    yield* expectReserved(counters, "a", [hold("usd", 60, 100)])
    assert.isFalse((yield* counters.reserve("a", [hold("usd", 41, 100)])).isReserved)
    yield* expectReserved(counters, "a", [hold("usd", 40, 100)])
    assert.deepStrictEqual(yield* states(counters, "usd"), [[0, 100]])
    yield* counters.settle("a", [spend("usd", 70)])
    assert.deepStrictEqual(yield* states(counters, "usd"), [[70, 0]])
  }),

  "knows what was spent before, and never less": Effect.fnUntraced(function*(join) {
    const counters = yield* join("one")
    assert.isFalse((yield* counters.reserve("a", [hold("usd", 11, 100, 90)])).isReserved)
    yield* expectReserved(counters, "b", [hold("usd", 10, 100, 20)])
    assert.deepStrictEqual(yield* states(counters, "usd"), [[90, 10]])
  }),

  "holds amounts of money that are larger than 32 bits": Effect.fnUntraced(function*(join) {
    const counters = yield* join("one")
    const most = 8e15
    yield* expectReserved(counters, "a", [hold("usd", most - 1, most)])
    yield* counters.settle("a", [spend("usd", most - 1)])
    assert.isFalse((yield* counters.reserve("b", [hold("usd", 2, most)])).isReserved)
    assert.deepStrictEqual(yield* states(counters, "usd"), [[most - 1, 0]])
  }),

  "200 at once over several instances never overspend, and use all": Effect.fnUntraced(function*(join) {
    const all = yield* Effect.all([join("one"), join("two"), join("three")])
    const outcomes = yield* Effect.forEach(
      Array.from({ length: 200 }, (_, index) => index),
      (index) => {
        const counters = all[index % all.length]!
        // The order of the names differs: no two wait for each other.
        const holds = [hold("a", 10, 1_000), hold("b", 10), hold("c", 10, 2_000)]
        return counters.reserve(`r${index}`, index % 2 === 0 ? holds : holds.toReversed()).pipe(
          Effect.tap(({ isReserved }) =>
            isReserved && index % 3 === 0
              ? counters.settle(`r${index}`, [spend("c", 10), spend("a", 10)])
              : Effect.void
          )
        )
      },
      { concurrency: "unbounded" }
    )
    assert.lengthOf(outcomes.filter(({ isReserved }) => isReserved), 100)
    const [a] = yield* states(all[0], "a")
    assert.strictEqual(a![0]! + a![1]!, 1_000)
  }),

  "releases the reservations of an instance that leaves": Effect.fnUntraced(function*(join) {
    const one = yield* join("one")
    yield* Effect.scoped(Effect.flatMap(join("other"), (other) => expectReserved(other, "b", [hold("usd", 60, 100)])))
    yield* expectReserved(one, "a", [hold("usd", 100, 100)])
  })
}

/** A clock that stands still: timers never fire. */
const clockAt = (now: number): Clock.Clock => ({
  currentTimeMillisUnsafe: () => now,
  currentTimeMillis: Effect.succeed(now),
  currentTimeNanosUnsafe: () => BigInt(now) * 1_000_000n,
  currentTimeNanos: Effect.succeed(BigInt(now) * 1_000_000n),
  monotonicTimeNanosUnsafe: () => BigInt(now) * 1_000_000n,
  monotonicTimeNanos: Effect.succeed(BigInt(now) * 1_000_000n),
  sleep: () => Effect.never
})

/** Of counters that outlive their instances. */
const storedSuite: typeof suite = {
  ...suite,

  "releases the reservations of an instance that gives no sign, and not those of others": Effect.fnUntraced(
    function*(join) {
      const joinAt = (instance: string, now: number) => Effect.provideService(join(instance), Clock.Clock, clockAt(now))
      const dead = yield* joinAt("dead", 0)
      const alive = yield* joinAt("alive", 1_000)
      yield* expectReserved(dead, "a", [hold("usd", 60, 100)])
      yield* expectReserved(alive, "b", [hold("usd", 30, 100)])
      const other = yield* joinAt("other", deadAfterMs + 1)
      assert.deepStrictEqual(yield* states(other, "usd"), [[0, 30]])
      // It was not dead: what it has used counts.
      yield* dead.settle("a", [spend("usd", 7)])
      assert.deepStrictEqual(yield* states(other, "usd"), [[7, 30]])
    }
  )
}

describe("shared counters in memory", () => {
  for (const [name, run] of Object.entries(suite)) {
    // oxlint-disable-next-line vitest/expect-expect
    it(name, () => {
      const table = new CounterTable(() => 0)
      let owners = 0
      const join: Join = () =>
        Effect.acquireRelease(
          Effect.sync(() => {
            const owner = owners++
            table.join(owner)
            return owner
          }),
          (owner) => Effect.sync(() => table.leave(owner))
        ).pipe(Effect.map((owner): Counters => ({
          place: "memory",
          reserve: (id, holds) => Effect.sync(() => table.reserve(owner, id, holds)),
          settle: (id, spends) => Effect.sync(() => table.settle(id, spends))
        })))
      return Effect.runPromise(Effect.scoped(run(join)))
    })
  }
})

onEachDatabase("shared counters", (test) => {
  for (const [name, run] of Object.entries(storedSuite)) {
    test(name, (database) =>
      Effect.scoped(Effect.gen(function*() {
        // Memory is a database of one client.
        const shared = yield* Layer.build(database.layer())
        const join: Join = (instance) =>
          database.location.type === "memory"
            ? Effect.provide(SqlCounters.make(instance), shared)
            : Effect.flatMap(
              Layer.build(Layer.fresh(database.layer())),
              (own) => Effect.provide(SqlCounters.make(instance), own)
            )
        yield* run(join)
      })))
  }
})

onRedis("shared counters", (test) => {
  for (const [name, run] of Object.entries(storedSuite)) {
    test(name, (redis) =>
      Effect.scoped(Effect.gen(function*() {
        const client = yield* Layer.build(redis.layer())
        yield* run((instance) => Effect.provide(RedisCounters.make(redis.location.prefix, instance), client))
      })))
  }
})
