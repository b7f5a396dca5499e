/** An engine from its load to its end, and the events of it. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, Logger, Scope } from "effect"
import { TestClock } from "effect/testing"
import type { ActorEvent } from "../../../src/services/models/Actor.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { deployment } from "../../support/Deployments.ts"
import type { ScriptedEngines } from "../../support/ScriptedEngines.ts"
import {
  crashed,
  hold,
  indexOf,
  listen,
  loadFailed,
  scriptedEngines,
  settle,
  statusOf,
  using,
  workFor
} from "../../support/ScriptedEngines.ts"

const once = (chosen = deployment(), keepAlive?: Duration.Duration) =>
  using(chosen, (engine) => Effect.succeed(indexOf(engine)), { keepAlive })

const load = (chosen = deployment()) => Models.use(({ load }) => load(chosen))

const unload = (chosen = deployment()) => Models.use(({ unload }) => unload(chosen))

const openOf = ({ engines }: ScriptedEngines) => engines.map(({ open }) => open)

const statesOf = (events: ReadonlyArray<ActorEvent>) => events.map(({ state }) => state)

describe("the events of an engine instance", () => {
  it.effect("are loading, ready, draining, gone, each with its time", () => {
    const setup = scriptedEngines({ load: () => Effect.sleep("1 second"), close: () => Effect.sleep("2 seconds") })
    return Effect.gen(function*() {
      const received = yield* listen
      const caller = yield* workFor(deployment(), "1 minute")
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(caller)
      assert.deepStrictEqual(received, [
        { deployment: "a", state: "loading", at: 0 },
        { deployment: "a", state: "ready", capabilities: ["generate", "embed"], contextWindow: 4096, at: 1_000 },
        { deployment: "a", state: "draining", at: 661_000 },
        { deployment: "a", state: "gone", at: 663_000 }
      ])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of a crash are loading again, with its cause, and ready", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const received = yield* listen
      const caller = yield* hold(deployment())
      yield* settle
      yield* setup.engines[0]!.crash("Exit code 134.")
      yield* TestClock.adjust("100 millis")
      assert.deepStrictEqual(received, [
        { deployment: "a", state: "loading", at: 0 },
        { deployment: "a", state: "ready", capabilities: ["generate", "embed"], contextWindow: 4096, at: 0 },
        { deployment: "a", state: "loading", cause: crashed("Exit code 134.").message, at: 0 },
        { deployment: "a", state: "ready", capabilities: ["generate", "embed"], contextWindow: 4096, at: 100 }
      ])
      yield* Fiber.interrupt(caller)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("leave a load that has not begun without progress: one that waits for its restart", () => {
    const setup = scriptedEngines({ load: () => Effect.sleep("1 second") })
    const loading = Models.use((models) => models.loading(deployment().id))
    return Effect.gen(function*() {
      const caller = yield* hold(deployment())
      yield* settle
      yield* TestClock.adjust("1 second")
      yield* setup.engines[0]!.crash("Exit code 134.")
      yield* TestClock.adjust("50 millis")
      assert.deepStrictEqual(yield* loading, { state: "loading", progress: null })
      yield* TestClock.adjust("300 millis")
      assert.deepStrictEqual(yield* loading, { state: "loading", progress: 0.25 })
      yield* Fiber.interrupt(caller)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of crashes are logged once each, with what happens next", () => {
    const setup = scriptedEngines()
    const lines: Array<string> = []
    const logger = Logger.make(({ logLevel, message }) => {
      if (logLevel === "Warn") lines.push(String(message))
    })
    return Effect.gen(function*() {
      const caller = yield* hold(deployment())
      yield* settle
      for (let index = 0; index < 6; index++) {
        yield* setup.engines[index]!.crash("Exit code 134.")
        yield* TestClock.adjust("10 seconds")
        yield* settle
      }
      const crash = "The engine of \"a\" crashed. Exit code 134."
      assert.deepStrictEqual(lines, [
        ...["100ms", "200ms", "400ms", "800ms", "1s 600ms"].map((wait) => `${crash} It starts again in ${wait}.`),
        `${crash} Its 5 restarts are used up: the next load follows a later request.`
      ])
      yield* Fiber.interrupt(caller)
    }).pipe(Effect.provide(Layer.provideMerge(setup.layer, Logger.layer([logger]))))
  })

  it.effect("of a load that fails are loading and failed, with its cause", () => {
    const setup = scriptedEngines({ load: () => Effect.fail(loadFailed) })
    return Effect.gen(function*() {
      const received = yield* listen
      yield* Effect.flip(once())
      yield* settle
      assert.deepStrictEqual(received, [
        { deployment: "a", state: "loading", at: 0 },
        { deployment: "a", state: "failed", cause: loadFailed.message, at: 0 }
      ])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("reach every subscriber from its subscription on", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const first = yield* listen
      yield* once(deployment("a"))
      yield* settle
      const second = yield* listen
      yield* once(deployment("b"))
      yield* settle
      assert.deepStrictEqual(first.map(({ deployment }) => deployment), ["a", "a", "b", "b"])
      assert.deepStrictEqual(second.map(({ deployment }) => deployment), ["b", "b"])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("load", () => {
  it.effect("is shared by all callers, for a slot or only for the model", () => {
    const setup = scriptedEngines({ load: () => Effect.sleep("1 second") })
    return Effect.gen(function*() {
      const fibers = yield* Effect.forEach(
        Array.from({ length: 20 }),
        (_, index) => Effect.forkChild(index % 2 === 0 ? load() : Effect.asVoid(once()))
      )
      yield* TestClock.adjust("1 second")
      yield* Fiber.joinAll(fibers)
      assert.strictEqual(setup.tries.length, 1)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("stops when its last caller has disconnected, and continues for those that remain", () => {
    const setup = scriptedEngines({ load: () => Effect.sleep("1 minute") })
    return Effect.gen(function*() {
      const first = yield* Effect.forkChild(load())
      const second = yield* Effect.forkChild(load())
      const third = yield* hold(deployment())
      yield* settle
      yield* Fiber.interrupt(first)
      yield* Fiber.interrupt(third)
      assert.strictEqual((yield* statusOf(deployment())).state, "loading")
      yield* Fiber.interrupt(second)
      assert.strictEqual((yield* statusOf(deployment())).state, "cold")
      assert.deepStrictEqual(openOf(setup), [false])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("waits for an engine that restarts", () => {
    const setup = scriptedEngines({ load: () => Effect.sleep("1 second") })
    return Effect.gen(function*() {
      const first = yield* Effect.forkChild(load())
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(first)
      yield* setup.engines[0]!.crash("Gone.")
      yield* settle
      const again = yield* Effect.forkChild(load())
      yield* TestClock.adjust("1 second")
      assert.isUndefined(again.pollUnsafe())
      yield* TestClock.adjust("100 millis")
      yield* Fiber.join(again)
      assert.strictEqual((yield* statusOf(deployment())).state, "ready")
    }).pipe(Effect.provide(setup.layer))
  })

  const unloaded = "The load of \"a\" was stopped: the model was unloaded meanwhile."
  const hangs = () => Effect.never

  it.effect("fails if the model is unloaded meanwhile, and the model is not loaded again", () => {
    const setup = scriptedEngines({ load: hangs })
    return Effect.gen(function*() {
      const loading = yield* Effect.forEach([1, 2], () => Effect.forkChild(Effect.flip(load())))
      yield* TestClock.adjust("500 millis")
      yield* unload()
      assert.deepStrictEqual((yield* Fiber.joinAll(loading)).map(({ message }) => message), [unloaded, unloaded])
      assert.strictEqual((yield* statusOf(deployment())).state, "cold")
      yield* TestClock.adjust("1 hour")
      assert.strictEqual(setup.tries.length, 1)
      assert.deepStrictEqual(openOf(setup), [false])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("fails if the model is unloaded while requests wait, and the requests load the model again", () => {
    const setup = scriptedEngines({ load: (index) => index === 0 ? hangs() : Effect.sleep("1 second") })
    return Effect.gen(function*() {
      const loading = yield* Effect.forkChild(Effect.flip(load()))
      const waits = yield* workFor(deployment(), 0)
      yield* TestClock.adjust("500 millis")
      yield* unload()
      assert.strictEqual((yield* Fiber.join(loading)).message, unloaded)
      assert.deepInclude(yield* statusOf(deployment()), { state: "loading", queued: 1 })
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(waits), 1)
    }).pipe(Effect.provide(setup.layer))
  })

  for (const served of [true, false]) {
    it.effect(`of a new version fails if the model is unloaded meanwhile, where the old one ${served ? "serves" : "does not"}`, () => {
      const setup = scriptedEngines({ load: (index) => served && index === 0 ? Effect.void : hangs() })
      return Effect.gen(function*() {
        if (served) yield* once()
        const replacing = yield* Effect.forkChild(Effect.flip(Models.use(({ replace }) => replace(deployment()))))
        yield* TestClock.adjust("500 millis")
        yield* unload()
        assert.strictEqual((yield* Fiber.join(replacing)).message, unloaded)
        assert.strictEqual((yield* statusOf(deployment())).state, "cold")
        yield* TestClock.adjust("1 hour")
        assert.isEmpty(openOf(setup).filter((open) => open))
      }).pipe(Effect.provide(setup.layer))
    })
  }

  it.effect("that begins while the model is being unloaded loads it again", () => {
    const setup = scriptedEngines({ close: (index) => index === 0 ? Effect.sleep("1 second") : Effect.void })
    return Effect.gen(function*() {
      yield* load()
      const unloading = yield* Effect.forkChild(unload())
      yield* settle
      yield* load()
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(unloading)
      assert.strictEqual((yield* statusOf(deployment())).state, "ready")
      assert.deepStrictEqual(openOf(setup), [false, true])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is followed by the idle time, like a job", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* load()
      yield* TestClock.adjust(Duration.millis(10 * 60_000 - 1))
      assert.deepStrictEqual(openOf(setup), [true])
      yield* TestClock.adjust("1 millis")
      assert.deepStrictEqual(openOf(setup), [false])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("the idle time", () => {
  const cases: ReadonlyArray<readonly [name: string, keepAlive: Duration.Duration, ms: number]> = [
    ["longer", Duration.hours(1), 3_600_000],
    ["shorter", Duration.seconds(3), 3_000]
  ]
  for (const [name, keepAlive, ms] of cases) {
    it.effect(`is that of a request if it is ${name}`, () => {
      const setup = scriptedEngines()
      return Effect.gen(function*() {
        yield* once(deployment(), keepAlive)
        yield* TestClock.adjust(ms - 1)
        assert.deepStrictEqual(openOf(setup), [true])
        yield* TestClock.adjust(1)
        assert.deepStrictEqual(openOf(setup), [false])
      }).pipe(Effect.provide(setup.layer))
    })
  }

  it.effect("of zero ends the engine with the job", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* once(deployment(), Duration.zero)
      yield* settle
      assert.deepStrictEqual(openOf(setup), [false])
      // And again, in the next life, also when time has passed.
      yield* TestClock.adjust("1 minute")
      yield* once(deployment(), Duration.zero)
      yield* settle
      assert.deepStrictEqual(openOf(setup), [false, false])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("without a limit keeps the engine until a request sets another", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* once(deployment(), Duration.infinity)
      yield* TestClock.adjust("365 days")
      assert.deepStrictEqual(openOf(setup), [true])
      yield* once()
      yield* TestClock.adjust("10 minutes")
      assert.deepStrictEqual(openOf(setup), [false])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is that of the last request: longer or shorter than the one before", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* once(deployment(), Duration.seconds(10))
      yield* TestClock.adjust("5 seconds")
      yield* once(deployment(), Duration.seconds(30))
      yield* TestClock.adjust("29 seconds")
      assert.deepStrictEqual(openOf(setup), [true])
      yield* once(deployment(), Duration.seconds(2))
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(openOf(setup), [false])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("does not end a pinned model, whatever a request says", () => {
    const setup = scriptedEngines()
    const pinned = deployment("a", { pinned: true })
    return Effect.gen(function*() {
      yield* once(pinned, Duration.zero)
      yield* TestClock.adjust("365 days")
      assert.deepStrictEqual(openOf(setup), [true])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("that began before the model was pinned does not end it", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* once()
      yield* Models.use(({ replace }) => replace(deployment("a", { pinned: true })))
      yield* TestClock.adjust("1 day")
      assert.deepStrictEqual(openOf(setup), [false, true])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("begins when the last waiting caller has disconnected, even if none was served", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* once()
      yield* setup.engines[0]!.crash("Gone.")
      yield* settle
      const waiting = yield* hold(deployment())
      yield* settle
      yield* Fiber.interrupt(waiting)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* statusOf(deployment())).state, "cold")
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("unload", () => {
  it.effect("waits for running jobs, and the next engine serves waiting callers", () => {
    const setup = scriptedEngines()
    const chosen = deployment("a", { options: { engine: "fake", slots: 1 } })
    return Effect.gen(function*() {
      const received = yield* listen
      const runs = yield* workFor(chosen, "10 seconds")
      const waits = yield* workFor(chosen, "1 second")
      yield* settle
      const unloading = yield* Effect.forkChild(unload(chosen))
      yield* settle
      assert.strictEqual((yield* statusOf(chosen)).state, "draining")
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(unloading.pollUnsafe())
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(unloading)
      assert.strictEqual(yield* Fiber.join(runs), 0)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(waits), 1)
      assert.deepStrictEqual(statesOf(received), ["loading", "ready", "draining", "gone", "loading", "ready"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("starts another engine for a new caller beside the draining one", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const runs = yield* workFor(deployment(), "10 seconds")
      yield* settle
      const unloading = yield* Effect.forkChild(unload())
      yield* settle
      assert.strictEqual(yield* once(), 1)
      assert.deepStrictEqual(openOf(setup), [true, true])
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(unloading)
      yield* Fiber.join(runs)
      assert.deepStrictEqual(openOf(setup), [false, true])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("emits its events once for any number of callers", () => {
    const setup = scriptedEngines({ close: () => Effect.sleep("1 second") })
    return Effect.gen(function*() {
      const received = yield* listen
      yield* once()
      const unloading = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(unload()))
      yield* TestClock.adjust("1 second")
      yield* Fiber.joinAll(unloading)
      yield* unload()
      assert.deepStrictEqual(statesOf(received), ["loading", "ready", "draining", "gone"])
      assert.strictEqual((yield* statusOf(deployment())).state, "cold")
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("continues when its caller disconnects", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const runs = yield* workFor(deployment(), "10 seconds")
      yield* settle
      const unloading = yield* Effect.forkChild(unload())
      yield* settle
      yield* Fiber.interrupt(unloading)
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(runs)
      assert.deepStrictEqual(openOf(setup), [false])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of an engine that crashes meanwhile starts no other, and serves every waiting caller", () => {
    const setup = scriptedEngines({ load: (index) => index === 0 ? Effect.void : Effect.sleep("1 second") })
    const chosen = deployment("a", { options: { engine: "fake", slots: 1 } })
    return Effect.gen(function*() {
      const received = yield* listen
      const runs = yield* workFor(chosen, "1 minute")
      const waits = yield* workFor(chosen, "1 second")
      yield* settle
      yield* Effect.forkChild(unload(chosen))
      yield* settle
      yield* setup.engines[0]!.crash("Gone.")
      yield* TestClock.adjust("59 seconds")
      assert.strictEqual(setup.tries.length, 1)
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(runs)
      assert.strictEqual(yield* Fiber.join(waits), 1)
      assert.deepStrictEqual(statesOf(received), ["loading", "ready", "draining", "gone", "loading", "ready"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("that is interrupted meanwhile serves every later caller", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const runs = yield* hold(deployment())
      yield* settle
      yield* Effect.forkChild(unload())
      yield* settle
      yield* Models.use(({ stop }) => stop)
      yield* Fiber.interrupt(runs)
      yield* settle
      assert.strictEqual((yield* statusOf(deployment())).state, "cold")
      assert.strictEqual(yield* once(), 1)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of a model that is not loaded does nothing", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      yield* unload()
      assert.deepStrictEqual(yield* Models.use(({ statuses }) => statuses), [])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("unloadIdle", () => {
  it.effect("unloads unused models that are not pinned and have been idle for the time, and returns their number", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const unloadIdle = (seconds: number) => Models.use(({ unloadIdle }) => unloadIdle(Duration.seconds(seconds)))
      yield* once(deployment("old"))
      yield* once(deployment("pinned", { pinned: true }))
      const runs = yield* hold(deployment("busy"))
      yield* TestClock.adjust("1 minute")
      yield* once(deployment("new"))
      assert.strictEqual(yield* unloadIdle(61), 0)
      assert.strictEqual(yield* unloadIdle(60), 1)
      assert.deepStrictEqual(openOf(setup), [false, true, true, true])
      assert.strictEqual(yield* unloadIdle(0), 1)
      assert.deepStrictEqual(openOf(setup), [false, true, true, false])
      yield* Fiber.interrupt(runs)
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("a deployment that is down", () => {
  it.effect("is tried by one request after the wait, for all callers", () => {
    let broken = true
    const setup = scriptedEngines({
      load: () => Effect.suspend(() => broken ? Effect.fail(crashed("Always.")) : Effect.void)
    })
    return Effect.gen(function*() {
      const failing = yield* Effect.forkChild(Effect.flip(once()))
      yield* TestClock.adjust("3100 millis")
      yield* Fiber.join(failing)
      const { reason } = yield* Effect.flip(once())
      assert.deepInclude(reason, { _tag: "DeploymentDown", retryAfterMs: 30_000 })
      yield* TestClock.adjust("29999 millis")
      assert.deepInclude((yield* Effect.flip(once())).reason, { _tag: "DeploymentDown", retryAfterMs: 1 })
      broken = false
      const tries = setup.tries.length
      yield* TestClock.adjust("1 millis")
      const probes = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(once()))
      yield* settle
      assert.deepStrictEqual(new Set(yield* Fiber.joinAll(probes)).size, 1)
      assert.strictEqual(setup.tries.length, tries + 1)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("serves again where another version of it loads", () => {
    let broken = true
    const setup = scriptedEngines({
      load: () => Effect.suspend(() => broken ? Effect.fail(crashed("Always.")) : Effect.void)
    })
    return Effect.gen(function*() {
      const failing = yield* Effect.forkChild(Effect.flip(once()))
      yield* TestClock.adjust("3100 millis")
      yield* Fiber.join(failing)
      broken = false
      yield* Models.use(({ replace }) => replace(deployment("a", { queueLimit: 9 })))
      assert.strictEqual(yield* once(), setup.tries.length - 1)
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("the layer's end", () => {
  it.effect("ends every engine, including those that drain or load", () => {
    const setup = scriptedEngines({ load: (_, { id }) => id === "slow" ? Effect.never : Effect.void })
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const context = yield* Layer.buildWithScope(setup.layer, scope)
      const callers = yield* Effect.gen(function*() {
        const draining = yield* hold(deployment("draining"))
        const loading = yield* hold(deployment("slow"))
        const running = yield* hold(deployment("running"))
        yield* settle
        yield* Effect.forkChild(unload(deployment("draining")))
        yield* settle
        return [draining, loading, running]
      }).pipe(Effect.provide(context))
      assert.deepStrictEqual(openOf(setup), [true, true, true])
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
      assert.deepStrictEqual(openOf(setup), [false, false, false])
      yield* Fiber.interruptAll(callers)
    })
  })
})
