import { assert, describe, it } from "@effect/vitest"
import { Clock, Deferred, Duration, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Engine } from "../../../src/services/engines/Engine.ts"
import { Engines } from "../../../src/services/engines/Engine.ts"
import { layerUnbounded, Models } from "../../../src/services/models/Models.ts"
import * as Deployments from "../../support/Deployments.ts"
import { pendingTimers } from "../../support/Timers.ts"

const deployment = (id = "fake/a#0", idleUnload = Duration.minutes(10)) => Deployments.deployment(id, { idleUnload })

const loadFailed = InferenceError.make(
  new InferenceError.ModelLoadFailed({ deployment: "fake/a#0", detail: "No such file." })
)

const stopped = InferenceError.make(new InferenceError.EngineStopped({ deployment: "fake/a#0" }))

const crashed = (detail: string) =>
  InferenceError.make(new InferenceError.EngineCrashed({ deployment: "fake/a#0", detail }))

/** An engine of the test, and the way to crash it. */
interface Started {
  readonly engine: Engine
  readonly deployment: Deployment
  readonly crash: (detail: string) => Effect.Effect<void>
  open: boolean
}

interface House {
  /** When each start was tried, ms. */
  readonly tries: Array<number>
  /** Those that were loaded, in order. */
  readonly started: Array<Started>
  readonly layer: Layer.Layer<Models>
}

interface Behaviour {
  /** Loads the engine, given how many starts were tried before. */
  readonly load?: (index: number) => Effect.Effect<void, InferenceError.InferenceError>
  /** Unloads the engine, given how many starts were tried before it. */
  readonly close?: (index: number) => Effect.Effect<void>
}

const house = ({ close = () => Effect.void, load = () => Effect.void }: Behaviour = {}): House => {
  const tries: Array<number> = []
  const started: Array<Started> = []

  const start = Effect.fnUntraced(function*(deployment: Deployment) {
    const index = tries.length
    tries.push(yield* Clock.currentTimeMillis)
    yield* load(index)
    const crash = yield* Deferred.make<never, InferenceError.InferenceError>()
    const made: Started = {
      engine: Deployments.engine({
        describe: { details: { start: index } },
        memoryBytes: Effect.succeed(3),
        stop: Deferred.fail(crash, stopped),
        generate: () => Stream.empty,
        crashed: Deferred.await(crash)
      }),
      deployment,
      crash: (detail) => Deferred.fail(crash, crashed(detail)),
      open: true
    }
    return yield* Effect.acquireRelease(
      Effect.sync(() => {
        started.push(made)
        return made.engine
      }),
      () =>
        Effect.andThen(
          close(index),
          Effect.sync(() => {
            made.open = false
          })
        )
    )
  })

  const engines = Layer.succeed(Engines, Engines.of({ start }))
  return { tries, started, layer: Layer.provide(layerUnbounded, engines) }
}

/** Borrows for as long as the fiber lives. */
const hold = (deployment: Deployment) =>
  Models.use(({ lease }) => Effect.andThen(lease(deployment, {}), Effect.never)).pipe(Effect.scoped, Effect.forkChild)

/** The identity of an engine. */
const leaseOnce = (deployment: Deployment) =>
  Effect.scoped(Effect.map(Models.use(({ lease }) => lease(deployment, {})), ({ describe }) => describe))

const reasonOf = (deployment: Deployment) => Effect.map(Effect.flip(leaseOnce(deployment)), ({ reason }) => reason)

const statusOf = (deployment: Deployment) => Models.use(({ status }) => status(deployment))

const stateOf = (deployment: Deployment) => Effect.map(statusOf(deployment), ({ state }) => state)

const openOf = ({ started }: House) => started.map(({ open }) => open)

const slowly = (duration: Duration.Input) => ({ load: () => Effect.sleep(duration) })

/** Lets every fiber run as far as it gets at this time. */
const settle = TestClock.adjust(0)

describe("Models", () => {
  describe("loading", () => {
    it.effect("happens once for any number of concurrent leases", () => {
      const actors = house(slowly("1 second"))
      return Effect.gen(function*() {
        const fibers = yield* Effect.forEach(
          Array.from({ length: 50 }),
          () => Effect.forkChild(leaseOnce(deployment()))
        )
        yield* TestClock.adjust("1 second")
        const engines = yield* Fiber.joinAll(fibers)
        assert.deepStrictEqual(new Set(engines), new Set([actors.started[0]?.engine.describe]))
        assert.strictEqual(actors.tries.length, 1)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("waits for the first lease", () => {
      const actors = house()
      return Effect.gen(function*() {
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(actors.tries, [])
        yield* leaseOnce(deployment())
        assert.deepStrictEqual(actors.tries, [3_600_000])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("is separate for each deployment", () => {
      const actors = house()
      return Effect.gen(function*() {
        const one = yield* leaseOnce(deployment("fake/a#0"))
        const two = yield* leaseOnce(deployment("fake/a#1"))
        assert.notStrictEqual(one, two)
        assert.deepStrictEqual(actors.started.map(({ deployment }) => deployment.id), ["fake/a#0", "fake/a#1"])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("gives later leases the loaded engine", () => {
      const actors = house()
      return Effect.gen(function*() {
        const first = yield* leaseOnce(deployment())
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* leaseOnce(deployment()), first)
      }).pipe(Effect.provide(actors.layer))
    })
  })

  describe("unloading", () => {
    it.live("ends the timer that would unload an idle engine with the engine", () => {
      const actors = house()
      return Effect.gen(function*() {
        const timers = yield* pendingTimers
        yield* leaseOnce(deployment("fake/a#0"))
        yield* leaseOnce(deployment("fake/b#0"))
        assert.strictEqual(timers(), 2)
        yield* Models.use(({ unloadIdle }) => unloadIdle(Duration.millis(0)))
        assert.deepStrictEqual(openOf(actors), [false, false])
        assert.strictEqual(timers(), 0)
      }).pipe(Effect.provide(actors.layer))
    })

    const idle = deployment("fake/a#0", Duration.minutes(10))

    it.effect("comes after exactly the idle time without a lease", () => {
      const actors = house()
      return Effect.gen(function*() {
        yield* leaseOnce(idle)
        yield* TestClock.adjust(Duration.toMillis(idle.idleUnload) - 1)
        assert.deepStrictEqual(openOf(actors), [true])
        yield* TestClock.adjust("1 millis")
        assert.deepStrictEqual(openOf(actors), [false])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("does not come during a lease", () => {
      const actors = house()
      return Effect.gen(function*() {
        const one = yield* hold(idle)
        const two = yield* hold(idle)
        yield* TestClock.adjust("1 day")
        yield* Fiber.interrupt(one)
        yield* TestClock.adjust("1 day")
        assert.deepStrictEqual(openOf(actors), [true])
        yield* Fiber.interrupt(two)
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(openOf(actors), [false])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("is postponed by a lease meanwhile", () => {
      const actors = house()
      return Effect.gen(function*() {
        yield* leaseOnce(idle)
        yield* TestClock.adjust("9 minutes")
        yield* leaseOnce(idle)
        yield* TestClock.adjust("9 minutes")
        assert.deepStrictEqual(openOf(actors), [true])
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(openOf(actors), [false])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("applies the idle time of each deployment", () => {
      const actors = house()
      return Effect.gen(function*() {
        yield* leaseOnce(deployment("fake/a#0", Duration.minutes(1)))
        yield* leaseOnce(deployment("fake/a#1", Duration.minutes(2)))
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(openOf(actors), [false, true])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("is followed by another load for the next lease", () => {
      const actors = house()
      return Effect.gen(function*() {
        const first = yield* leaseOnce(idle)
        yield* TestClock.adjust("10 minutes")
        const second = yield* leaseOnce(idle)
        assert.notStrictEqual(second, first)
        assert.deepStrictEqual(openOf(actors), [false, true])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("comes for all engines at the end of the layer", () => {
      const actors = house()
      return Effect.gen(function*() {
        yield* Effect.andThen(leaseOnce(idle), leaseOnce(deployment("fake/a#1"))).pipe(Effect.provide(actors.layer))
        assert.deepStrictEqual(openOf(actors), [false, false])
      })
    })

    it.effect("of an engine that waits for its restart starts no other", () => {
      const actors = house()
      const hasty = deployment("fake/a#0", Duration.millis(50))
      return Effect.gen(function*() {
        yield* leaseOnce(hasty)
        yield* actors.started[0]!.crash("Gone.")
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(actors.tries, [0])
        assert.strictEqual(yield* stateOf(hasty), "cold")
      }).pipe(Effect.provide(actors.layer))
    })
  })

  describe("leases", () => {
    it.effect("that are interrupted during use release the engine", () => {
      const actors = house()
      return Effect.gen(function*() {
        const fiber = yield* hold(deployment())
        yield* settle
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(openOf(actors), [false])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("that are interrupted while the engine loads release it", () => {
      const actors = house(slowly("1 minute"))
      return Effect.gen(function*() {
        const fiber = yield* hold(deployment())
        yield* settle
        assert.strictEqual(yield* stateOf(deployment()), "loading")
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust("10 minutes")
        assert.notInclude(openOf(actors), true)
        assert.strictEqual(yield* stateOf(deployment()), "cold")
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("fail after a stop, which is not a crash", () => {
      const place = house()
      return Effect.gen(function*() {
        const holder = yield* hold(deployment())
        yield* settle
        yield* Models.use(({ stop }) => stop)
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(place.tries.length, 1)
        assert.strictEqual(yield* stateOf(deployment()), "failed")
        yield* Fiber.interrupt(holder)
      }).pipe(Effect.provide(place.layer))
    })

    it.effect("stop the load when the last of them is interrupted", () => {
      const place = house(slowly("1 minute"))
      return Effect.gen(function*() {
        const first = yield* hold(deployment())
        const second = yield* hold(deployment())
        yield* settle
        yield* Fiber.interrupt(first)
        yield* Fiber.interrupt(second)
        assert.strictEqual(yield* stateOf(deployment()), "cold")
        yield* TestClock.adjust("2 minutes")
        assert.deepStrictEqual(place.started, [])
      }).pipe(Effect.provide(place.layer))
    })

    it.effect("that are interrupted while the engine loads do not stop the load of others", () => {
      const actors = house(slowly("1 minute"))
      return Effect.gen(function*() {
        const leaving = yield* hold(deployment())
        const staying = yield* Effect.forkChild(leaseOnce(deployment()))
        yield* TestClock.adjust("30 seconds")
        yield* Fiber.interrupt(leaving)
        yield* TestClock.adjust("30 seconds")
        assert.strictEqual(yield* Fiber.join(staying), actors.started[0]?.engine.describe)
        assert.deepStrictEqual(actors.tries, [0])
      }).pipe(Effect.provide(actors.layer))
    })
  })

  describe("a crash", () => {
    it.effect("is followed by a restart, and waiting callers get the new engine", () => {
      const actors = house(slowly("1 second"))
      return Effect.gen(function*() {
        const holder = yield* hold(deployment())
        yield* TestClock.adjust("1 second")
        yield* actors.started[0]!.crash("Exit code 134.")
        yield* settle
        const waiting = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(leaseOnce(deployment())))
        yield* TestClock.adjust("100 millis")
        assert.deepStrictEqual(actors.tries, [0, 1100])
        yield* TestClock.adjust("1 second")
        const engines = yield* Fiber.joinAll(waiting)
        assert.deepStrictEqual(new Set(engines), new Set([actors.started[1]?.engine.describe]))
        assert.deepStrictEqual(openOf(actors), [false, true])
        yield* Fiber.interrupt(holder)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("while the model loads fails no waiting caller as long as there are restarts", () => {
      const actors = house({ load: (index) => index < Defaults.restarts ? Effect.fail(crashed("Gone.")) : Effect.void })
      return Effect.gen(function*() {
        const waiting = yield* Effect.forkChild(leaseOnce(deployment()))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* Fiber.join(waiting), actors.started[0]?.engine.describe)
        assert.strictEqual(actors.tries.length, 1 + Defaults.restarts)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("is followed by restarts after 0.1 s, doubling, up to the limit", () => {
      const actors = house({ load: () => Effect.fail(crashed("Gone.")) })
      return Effect.gen(function*() {
        const waiting = yield* Effect.forkChild(reasonOf(deployment()))
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(actors.tries, [0, 100, 300, 700, 1500, 3100])
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "EngineCrashed")
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("counts even if the engine was used between its crashes", () => {
      const actors = house()
      return Effect.gen(function*() {
        yield* leaseOnce(deployment())
        for (let index = 0; index <= Defaults.restarts; index++) {
          yield* actors.started[index]!.crash(`Crash ${index}.`)
          yield* TestClock.adjust("20 seconds")
        }
        assert.strictEqual(actors.tries.length, 1 + Defaults.restarts)
        const { lastFailure, state } = yield* statusOf(deployment())
        assert.strictEqual(state, "failed")
        assert.include(lastFailure, `Crash ${Defaults.restarts}.`)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("of an engine with a long uptime begins a new series of restarts", () => {
      const actors = house()
      return Effect.gen(function*() {
        const holder = yield* hold(deployment())
        yield* settle
        for (let index = 0; index <= 3 * Defaults.restarts; index++) {
          yield* TestClock.adjust(Defaults.stableAfter)
          yield* actors.started[index]!.crash("Now and then.")
          yield* TestClock.adjust("20 seconds")
        }
        assert.strictEqual(yield* stateOf(deployment()), "ready")
        assert.deepStrictEqual(openOf(actors).filter((open) => open), [true])
        yield* Fiber.interrupt(holder)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("of one deployment does not affect another", () => {
      const actors = house()
      return Effect.gen(function*() {
        yield* leaseOnce(deployment("fake/a#0"))
        const other = yield* leaseOnce(deployment("fake/a#1"))
        yield* actors.started[0]!.crash("Gone.")
        yield* settle
        assert.strictEqual(yield* stateOf(deployment("fake/a#0")), "loading")
        assert.strictEqual(yield* stateOf(deployment("fake/a#1")), "ready")
        assert.strictEqual(yield* leaseOnce(deployment("fake/a#1")), other)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("leases no crashed engine while it is being unloaded", () => {
      const actors = house({ close: (index) => index === 0 ? Effect.sleep("5 seconds") : Effect.void })
      return Effect.gen(function*() {
        const holder = yield* hold(deployment())
        yield* settle
        yield* actors.started[0]!.crash("Gone.")
        yield* TestClock.adjust("1 second")
        const waiting = yield* Effect.forkChild(leaseOnce(deployment()))
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual((yield* Fiber.join(waiting)).details["start"], 1)
        yield* Fiber.interrupt(holder)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("of an engine with a long load uses up a restart", () => {
      const actors = house({
        load: () => Effect.andThen(Effect.sleep("2 minutes"), Effect.fail(crashed("Out of memory.")))
      })
      return Effect.gen(function*() {
        const waiting = yield* Effect.forkChild(reasonOf(deployment()))
        yield* TestClock.adjust("1 hour")
        assert.strictEqual(actors.tries.length, 1 + Defaults.restarts)
        assert.strictEqual((yield* Fiber.join(waiting))._tag, "EngineCrashed")
      }).pipe(Effect.provide(actors.layer))
    })
  })

  describe("after the restarts are used up", () => {
    /** Crashes as often as there are restarts, and then does not. */
    const crashing = () =>
      house({ load: (index) => index <= Defaults.restarts ? Effect.fail(crashed(`Crash ${index}.`)) : Effect.void })

    it.effect("every waiting caller fails with the last crash", () => {
      const actors = crashing()
      return Effect.gen(function*() {
        const waiting = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(reasonOf(deployment())))
        yield* TestClock.adjust("1 minute")
        for (const reason of yield* Fiber.joinAll(waiting)) {
          assert.strictEqual(reason._tag, "EngineCrashed")
          assert.include(reason.message, `Crash ${Defaults.restarts}.`)
        }
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("the next lease begins a new series", () => {
      const actors = crashing()
      return Effect.gen(function*() {
        const waiting = yield* Effect.forkChild(reasonOf(deployment()))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(waiting)
        assert.strictEqual(yield* stateOf(deployment()), "failed")
        assert.strictEqual(yield* leaseOnce(deployment()), actors.started[0]?.engine.describe)
        assert.strictEqual(yield* stateOf(deployment()), "ready")
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("a waiting caller's immediate retry is refused, with the wait", () => {
      const actors = crashing()
      return Effect.gen(function*() {
        const asksAgain = yield* Effect.forkChild(
          leaseOnce(deployment()).pipe(Effect.catch(() => reasonOf(deployment())))
        )
        yield* TestClock.adjust(3100)
        const refused = yield* Fiber.join(asksAgain)
        assert.deepInclude(refused, { _tag: "DeploymentDown", retryAfterMs: Duration.toMillis(Defaults.probeAfter) })
        yield* TestClock.adjust(Defaults.probeAfter)
        assert.strictEqual(yield* leaseOnce(deployment()), actors.started[0]?.engine.describe)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("a load by an operator tries again at once", () => {
      const actors = crashing()
      return Effect.gen(function*() {
        const waiting = yield* Effect.forkChild(reasonOf(deployment()))
        yield* TestClock.adjust(3100)
        yield* Fiber.join(waiting)
        yield* Models.use(({ load }) => load(deployment()))
        assert.strictEqual(yield* leaseOnce(deployment()), actors.started[0]?.engine.describe)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("immediate retries share one load, even without an idle time", () => {
      const actors = crashing()
      const unkept = deployment("fake/a#0", Duration.zero)
      return Effect.gen(function*() {
        const again = Models.use(({ lease }) => Effect.andThen(lease(unkept, {}), Effect.never)).pipe(Effect.scoped)
        const asksAgain = yield* Effect.forkChild(
          leaseOnce(unkept).pipe(Effect.catch(() => Effect.andThen(Effect.sleep(Defaults.probeAfter), again)))
        )
        yield* TestClock.adjust("1 minute")
        const other = yield* Effect.forkChild(again)
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual(openOf(actors), [true])
        yield* Fiber.interruptAll([asksAgain, other])
      }).pipe(Effect.provide(actors.layer))
    })
  })

  describe("a model that does not load", () => {
    it.effect("fails its callers at once and is not tried again", () => {
      const actors = house({ load: () => Effect.fail(loadFailed) })
      return Effect.gen(function*() {
        const waiting = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(Effect.flip(leaseOnce(deployment()))))
        yield* settle
        assert.deepStrictEqual(yield* Fiber.joinAll(waiting), [loadFailed, loadFailed, loadFailed])
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(actors.tries, [0])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("is tried again by the next lease", () => {
      const actors = house({ load: (index) => index === 0 ? Effect.fail(loadFailed) : Effect.void })
      return Effect.gen(function*() {
        assert.deepStrictEqual(yield* Effect.flip(leaseOnce(deployment())), loadFailed)
        yield* settle
        assert.strictEqual(yield* leaseOnce(deployment()), actors.started[0]?.engine.describe)
        assert.strictEqual(actors.tries.length, 2)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("is not tried again if the engine's package is missing", () => {
      const missing = InferenceError.make(
        new InferenceError.EngineMissing({ deployment: "fake/a#0", packageName: "node-llama-cpp" })
      )
      const actors = house({ load: () => Effect.fail(missing) })
      return Effect.gen(function*() {
        assert.deepStrictEqual(yield* Effect.flip(leaseOnce(deployment())), missing)
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(actors.tries, [0])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("fails its callers after a load of any length", () => {
      const actors = house({ load: () => Effect.andThen(Effect.sleep("2 minutes"), Effect.fail(loadFailed)) })
      return Effect.gen(function*() {
        const waiting = yield* Effect.forkChild(leaseOnce(deployment()))
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(waiting.pollUnsafe(), Exit.fail(loadFailed))
        assert.deepStrictEqual(actors.tries, [0])
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("fails its callers after a defect of the engine", () => {
      const actors = house({ load: () => Effect.die(new Error("Unforeseen.")) })
      return Effect.gen(function*() {
        const waiting = yield* Effect.forkChild(leaseOnce(deployment()))
        yield* TestClock.adjust("10 minutes")
        assert.isDefined(waiting.pollUnsafe())
      }).pipe(Effect.provide(actors.layer))
    })
  })

  describe("statuses", () => {
    const nothing = { running: 0, queued: 0, memoryBytes: 0 }

    it.effect("follow an engine: cold, loading, ready, loading after a crash, ready, cold", () => {
      const actors = house(slowly("1 second"))
      return Effect.gen(function*() {
        assert.deepStrictEqual(yield* statusOf(deployment()), { deployment: "fake/a#0", state: "cold", ...nothing })

        const holder = yield* hold(deployment())
        yield* settle
        assert.deepStrictEqual(yield* statusOf(deployment()), {
          deployment: "fake/a#0",
          state: "loading",
          ...nothing,
          queued: 1,
          oldestWaitMs: 0
        })

        yield* TestClock.adjust("1 second")
        const load = { running: 1, queued: 0, memoryBytes: 3, slots: 4, replicas: 1 }
        assert.deepStrictEqual(yield* statusOf(deployment()), { deployment: "fake/a#0", state: "ready", ...load })

        yield* actors.started[0]!.crash("Exit code 134.")
        yield* settle
        const lastFailure = crashed("Exit code 134.").message
        assert.deepStrictEqual(yield* statusOf(deployment()), {
          deployment: "fake/a#0",
          state: "loading",
          ...nothing,
          running: 1,
          lastFailure,
          restarts: 1
        })

        yield* TestClock.adjust("2 seconds")
        assert.deepStrictEqual(yield* statusOf(deployment()), {
          deployment: "fake/a#0",
          state: "ready",
          ...load,
          lastFailure,
          restarts: 1
        })

        yield* Fiber.interrupt(holder)
        yield* TestClock.adjust("10 minutes")
        assert.deepStrictEqual(yield* statusOf(deployment()), { deployment: "fake/a#0", state: "cold", ...nothing })
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("have a failure and its reason until the next load", () => {
      const actors = house({ load: (index) => index === 0 ? Effect.fail(loadFailed) : Effect.sleep("1 second") })
      return Effect.gen(function*() {
        yield* reasonOf(deployment())
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* statusOf(deployment()), {
          deployment: "fake/a#0",
          state: "failed",
          ...nothing,
          lastFailure: loadFailed.message
        })
        const holder = yield* hold(deployment())
        yield* settle
        assert.strictEqual(yield* stateOf(deployment()), "loading")
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* stateOf(deployment()), "ready")
        yield* Fiber.interrupt(holder)
      }).pipe(Effect.provide(actors.layer))
    })

    it.effect("exist for every deployment that has an actor", () => {
      const actors = house()
      const all = Models.use(({ statuses }) => statuses)
      return Effect.gen(function*() {
        assert.deepStrictEqual(yield* all, [])
        yield* leaseOnce(deployment("fake/a#0"))
        yield* leaseOnce(deployment("fake/a#1", Duration.minutes(1)))
        assert.deepStrictEqual(
          (yield* all).map(({ deployment, state }) => [deployment, state]),
          [["fake/a#0", "ready"], ["fake/a#1", "ready"]]
        )
        yield* TestClock.adjust("1 minute")
        assert.deepStrictEqual((yield* all).map(({ deployment }) => deployment), ["fake/a#0"])
      }).pipe(Effect.provide(actors.layer))
    })
  })

  it.effect("a leased engine is open until its scope ends", () => {
    const actors = house()
    const unkept = deployment("fake/a#0", Duration.zero)
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const engine = yield* Models.use(({ lease }) => Scope.provide(lease(unkept, {}), scope))
      assert.strictEqual(engine.describe, actors.started[0]?.engine.describe)
      yield* TestClock.adjust("1 hour")
      assert.deepStrictEqual(openOf(actors), [true])
      yield* Scope.close(scope, Exit.void)
      assert.deepStrictEqual(openOf(actors), [false])
    }).pipe(Effect.provide(actors.layer))
  })
})
