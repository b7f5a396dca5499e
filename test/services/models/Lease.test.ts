/** The exchange of one engine for another. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { deployment } from "../../support/Deployments.ts"
import type { ScriptedEngines } from "../../support/ScriptedEngines.ts"
import {
  crashed,
  hold,
  indexOf,
  large,
  listen,
  loadFailed,
  scriptedEngines,
  settle,
  statusOf,
  using,
  workFor
} from "../../support/ScriptedEngines.ts"

const blue = deployment("a", { options: { engine: "fake", reply: "blue", slots: 2 } })
const green = deployment("a", { options: { engine: "fake", reply: "green", slots: 2 } })

const once = (chosen = blue) => using(chosen, (engine) => Effect.succeed(indexOf(engine)))

const replace = (chosen: Deployment = green) => Models.use(({ replace }) => replace(chosen))

const openOf = ({ engines }: ScriptedEngines) => engines.map(({ open }) => open)

const repliesOf = ({ engines }: ScriptedEngines) =>
  engines.map(({ deployment: { options } }) => options.engine === "fake" ? options.reply : "")

/** Every load but the first takes a second. */
const slowGreen = { load: (index: number) => index === 0 ? Effect.void : Effect.sleep("1 second") }

describe("replace", () => {
  it.effect("loads the new one beside the old, moves new requests to it, and ends the old after its last job", () => {
    const setup = scriptedEngines(slowGreen)
    return Effect.gen(function*() {
      const received = yield* listen
      const before = yield* workFor(blue, "10 seconds")
      yield* settle
      const replacing = yield* Effect.forkChild(replace())
      yield* TestClock.adjust("500 millis")
      assert.strictEqual(yield* once(), 0)
      assert.strictEqual((yield* statusOf(blue)).state, "ready")
      yield* TestClock.adjust("500 millis")
      yield* Fiber.join(replacing)
      assert.strictEqual(yield* once(), 1)
      assert.deepStrictEqual(openOf(setup), [true, true])
      assert.deepInclude(yield* statusOf(blue), { state: "ready", running: 1 })
      yield* TestClock.adjust("9 seconds")
      assert.strictEqual(yield* Fiber.join(before), 0)
      assert.deepStrictEqual(openOf(setup), [false, true])
      assert.deepStrictEqual(repliesOf(setup), ["blue", "green"])
      assert.deepStrictEqual(received.map(({ at, state }) => [at, state]), [
        [0, "loading"],
        [0, "ready"],
        [0, "loading"],
        [1_000, "ready"],
        [1_000, "draining"],
        [10_000, "gone"]
      ])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("fails no request in flight", () => {
    const setup = scriptedEngines(slowGreen)
    return Effect.gen(function*() {
      const callers = yield* Effect.forEach(
        Array.from({ length: 60 }, (_, index) => index),
        (index) =>
          Effect.forkChild(
            Effect.andThen(Effect.sleep(index * 50), using(blue, (one) => Effect.as(Effect.sleep(130), indexOf(one))))
          )
      )
      yield* TestClock.adjust("1 second")
      const replacing = yield* Effect.forkChild(replace())
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(replacing)
      const engines = yield* Fiber.joinAll(callers)
      assert.deepStrictEqual(engines, engines.toSorted((one, other) => one - other))
      assert.deepStrictEqual(new Set(engines), new Set([0, 1]))
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("keeps the old one if the new one does not load, and its caller gets the error", () => {
    const setup = scriptedEngines({ load: (index) => index === 1 ? Effect.fail(loadFailed) : Effect.void })
    return Effect.gen(function*() {
      const runs = yield* hold(blue)
      yield* settle
      assert.strictEqual(yield* Effect.flip(replace()), loadFailed)
      assert.strictEqual(yield* once(), 0)
      assert.deepInclude(yield* statusOf(blue), { state: "ready", lastFailure: loadFailed.message })
      yield* Fiber.interrupt(runs)
      // Also what loads next is the old version, at once.
      yield* Models.use(({ unload }) => unload(blue))
      assert.strictEqual(yield* once(), 2)
      assert.deepStrictEqual(repliesOf(setup), ["blue", "green", "blue"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("keeps the old one if the new one crashes at every start", () => {
    const setup = scriptedEngines({ load: (index) => index === 0 ? Effect.void : Effect.fail(crashed("Always.")) })
    return Effect.gen(function*() {
      yield* once()
      const replacing = yield* Effect.forkChild(Effect.flip(replace()))
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(replacing)).reason._tag, "EngineCrashed")
      assert.strictEqual(yield* once(), 0)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("whose caller disconnects stops the new load and keeps the old one", () => {
    const setup = scriptedEngines(slowGreen)
    return Effect.gen(function*() {
      yield* once()
      const replacing = yield* Effect.forkChild(replace())
      yield* TestClock.adjust("500 millis")
      yield* Fiber.interrupt(replacing)
      assert.deepStrictEqual(openOf(setup), [true, false])
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(setup.tries.length, 2)
      const waits = yield* workFor(blue, 0)
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(waits)
      assert.deepStrictEqual(repliesOf(setup), ["blue", "green", "blue"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("whose caller disconnects as the new one begins to serve keeps exactly one of the two", () => {
    return Effect.forEach([0, 1, 2, 3, 4, 5, 6, 7], (yields) => {
      const setup = scriptedEngines(slowGreen)
      return Effect.gen(function*() {
        yield* once()
        const replacing = yield* Effect.forkChild(replace())
        yield* TestClock.adjust("999 millis")
        const leaving = yield* Effect.forkChild(Effect.gen(function*() {
          yield* Effect.sleep("1 millis")
          for (let count = 0; count < yields; count++) yield* Effect.yieldNow
          yield* Fiber.interrupt(replacing)
        }))
        yield* TestClock.adjust("1 millis")
        yield* Fiber.join(leaving)
        yield* settle
        // Either of them serves, and the other is no more.
        const index = yield* once()
        assert.deepStrictEqual(openOf(setup), [index === 0, index === 1], `after ${yields} yields`)
      }).pipe(Effect.provide(setup.layer))
    })
  })

  it.effect("applies after an unload too, even to callers of the old one", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* once(blue)
      yield* replace()
      yield* Models.use(({ unload }) => unload(blue))
      assert.strictEqual((yield* statusOf(blue)).state, "cold")
      yield* once(blue)
      yield* Models.use(({ unload }) => unload(blue))
      yield* Models.use(({ load }) => load(blue))
      assert.deepStrictEqual(repliesOf(setup), ["blue", "green", "green", "green"])
      // Which is no bar to the way back.
      yield* replace(blue)
      yield* Models.use(({ unload }) => unload(blue))
      yield* once(blue)
      assert.deepStrictEqual(repliesOf(setup).slice(4), ["blue", "blue"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of a model that is not loaded loads it", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* replace()
      assert.strictEqual((yield* statusOf(blue)).state, "ready")
      assert.strictEqual(yield* once(), 0)
      assert.deepStrictEqual(repliesOf(setup), ["green"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of a model that is not loaded serves callers that arrive meanwhile, by the old one if it fails", () => {
    return Effect.forEach([true, false], (fails) => {
      const setup = scriptedEngines({
        load: (index) =>
          Effect.andThen(Effect.sleep("1 second"), fails && index === 0 ? Effect.fail(loadFailed) : Effect.void)
      })
      return Effect.gen(function*() {
        const replacing = yield* Effect.forkChild(Effect.exit(replace()))
        yield* TestClock.adjust("500 millis")
        const waits = yield* workFor(blue, 0)
        assert.strictEqual((yield* statusOf(blue)).state, "loading")
        yield* TestClock.adjust("2 seconds")
        assert.strictEqual(Exit.isFailure(yield* Fiber.join(replacing)), fails)
        assert.strictEqual(yield* Fiber.join(waits), fails ? 1 : 0)
        assert.deepStrictEqual(repliesOf(setup), fails ? ["green", "blue"] : ["green"])
      }).pipe(Effect.provide(setup.layer))
    })
  })

  it.effect("during a load serves waiting callers by the engine that is ready first", () => {
    const setup = scriptedEngines({ load: (index) => Effect.sleep(index === 0 ? "10 seconds" : "1 second") })
    return Effect.gen(function*() {
      const waits = yield* workFor(blue, 0)
      yield* TestClock.adjust("1 second")
      const replacing = yield* Effect.forkChild(replace())
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(replacing)
      assert.strictEqual(yield* Fiber.join(waits), 1)
      assert.deepStrictEqual(openOf(setup), [false, true])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("serves by the new one if the old one crashes meanwhile", () => {
    const setup = scriptedEngines(slowGreen)
    return Effect.gen(function*() {
      yield* once()
      const replacing = yield* Effect.forkChild(replace())
      yield* TestClock.adjust("950 millis")
      yield* setup.engines[0]!.crash("Gone.")
      const waits = yield* workFor(blue, 0)
      yield* TestClock.adjust("50 millis")
      yield* Fiber.join(replacing)
      assert.strictEqual(yield* Fiber.join(waits), 1)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(openOf(setup).filter((open) => open), [true])
      assert.strictEqual(yield* once(), 1)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("serves by the new one if the old one's restarts are used up meanwhile", () => {
    const setup = scriptedEngines({
      load: (index) => index === 0 ? Effect.void : index === 1 ? Effect.sleep("1 minute") : Effect.fail(loadFailed)
    })
    return Effect.gen(function*() {
      yield* once()
      const replacing = yield* Effect.forkChild(replace())
      yield* settle
      yield* setup.engines[0]!.crash("Gone.")
      const waits = yield* workFor(blue, 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual((yield* statusOf(blue)).state, "loading")
      yield* TestClock.adjust("1 minute")
      yield* Fiber.join(replacing)
      assert.strictEqual(yield* Fiber.join(waits), 1)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("by a third version ends the load of the second", () => {
    const setup = scriptedEngines(slowGreen)
    const red = deployment("a", { options: { engine: "fake", reply: "red" } })
    return Effect.gen(function*() {
      yield* once()
      const first = yield* Effect.forkChild(Effect.flip(replace()))
      yield* TestClock.adjust("500 millis")
      const second = yield* Effect.forkChild(replace(red))
      yield* TestClock.adjust("1 second")
      assert.strictEqual(
        (yield* Fiber.join(first)).message,
        "The load of \"a\" was stopped: another version of it is loaded instead."
      )
      yield* Fiber.join(second)
      assert.deepStrictEqual(openOf(setup), [false, false, true])
      assert.strictEqual(yield* once(), 2)
    }).pipe(Effect.provide(setup.layer))
  })

  for (const fails of [false, true]) {
    it.effect(`by the same deployment again loads it again, and both have its outcome: ${fails ? "error" : "ready"}`, () => {
      const setup = scriptedEngines({
        load: (index) =>
          index === 0
            ? Effect.void
            : Effect.andThen(Effect.sleep("1 second"), fails && index === 3 ? Effect.fail(loadFailed) : Effect.void)
      })
      return Effect.gen(function*() {
        yield* once()
        const callers = []
        for (let count = 0; count < 3; count++) {
          callers.push(yield* Effect.forkChild(Effect.exit(replace({ ...green, options: { ...green.options } }))))
          yield* TestClock.adjust("500 millis")
        }
        yield* TestClock.adjust("500 millis")
        const outcome = fails ? Exit.fail(loadFailed) : Exit.void
        assert.deepStrictEqual(yield* Fiber.joinAll(callers), [outcome, outcome, outcome])
        assert.deepStrictEqual(openOf(setup), [fails, false, false, !fails])
        assert.strictEqual(yield* once(), fails ? 0 : 3)
      }).pipe(Effect.provide(setup.layer))
    })
  }

  it.effect("by the same deployment again continues while one caller is left, and stops with the last", () => {
    return Effect.forEach([[0], [1], [0, 1], [1, 0]], (leaving) => {
      const setup = scriptedEngines(slowGreen)
      return Effect.gen(function*() {
        yield* once()
        const callers = [yield* Effect.forkChild(Effect.exit(replace()))]
        yield* TestClock.adjust("500 millis")
        callers.push(yield* Effect.forkChild(Effect.exit(replace())))
        yield* settle
        for (const index of leaving) yield* Fiber.interrupt(callers[index]!)
        yield* TestClock.adjust("1 second")
        const left = callers.find((_, index) => !leaving.includes(index))
        if (left !== undefined) assert.deepStrictEqual(yield* Fiber.join(left), Exit.void)
        assert.strictEqual(yield* once(), left === undefined ? 0 : 2, String(leaving))
      }).pipe(Effect.provide(setup.layer))
    })
  })

  it.effect("applies the new one's idle time", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* once()
      yield* replace(deployment("a", { idleUnload: Duration.minutes(1) }))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(openOf(setup), [false, false])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of models that do not fit together fails no request: the old one ends first", () => {
    const setup = scriptedEngines({ budget: 10, ...slowGreen })
    const old = large("a", 6)
    const next = large("a", 7)
    return Effect.gen(function*() {
      const runs = yield* workFor(old, "10 seconds")
      yield* settle
      const replacing = yield* Effect.forkChild(replace(next))
      yield* TestClock.adjust("6 seconds")
      const waits = yield* workFor(old, 0)
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* Fiber.join(runs), 0)
      assert.deepStrictEqual(openOf(setup), [false, true])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(replacing)
      assert.strictEqual(yield* Fiber.join(waits), 1)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("by one that can never fit keeps the old one", () => {
    const setup = scriptedEngines({ budget: 10 })
    return Effect.gen(function*() {
      yield* using(large("a", 6), () => Effect.void)
      const error = yield* Effect.flip(replace(large("a", 11)))
      assert.strictEqual(error.reason._tag, "InsufficientMemory")
      assert.deepStrictEqual(openOf(setup), [true])
      assert.strictEqual((yield* statusOf(blue)).state, "ready")
    }).pipe(Effect.provide(setup.layer))
  })
})
