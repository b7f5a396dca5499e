/** Instances that share the jobs of a deployment. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
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
  MiB,
  scriptedEngines,
  settle,
  statusOf,
  using,
  workFor
} from "../../support/ScriptedEngines.ts"

const chat = deployment("a", { options: { engine: "fake", slots: 2 } })

const once = (chosen = chat) => using(chosen, (engine) => Effect.succeed(indexOf(engine)))
const add = (chosen: Deployment = chat) => Models.use(({ addReplica }) => addReplica(chosen))
const remove = (chosen: Deployment = chat) => Models.use(({ removeReplica }) => removeReplica(chosen))
const occupancy = (chosen: Deployment = chat) => Models.use((models) => models.occupancy(chosen.id))
const openOf = ({ engines }: ScriptedEngines) => engines.map(({ open }) => open)

/** Every load but the first takes a second. */
const slow = { load: (index: number) => index === 0 ? Effect.void : Effect.sleep("1 second") }

describe("an added replica", () => {
  it.effect("loads beside, takes waiting callers, and then the jobs that it has most room for", () => {
    const setup = scriptedEngines(slow)
    return Effect.gen(function*() {
      assert.isFalse(yield* add())
      yield* hold(chat)
      yield* hold(chat)
      const waiting = yield* workFor(chat, "1 second")
      yield* settle
      assert.deepStrictEqual(yield* occupancy(), { demand: 3, slots: 2, replicas: 1, isLoading: false })
      const adding = yield* Effect.forkChild(add())
      yield* TestClock.adjust("500 millis")
      assert.deepStrictEqual(yield* occupancy(), { demand: 3, slots: 2, replicas: 1, isLoading: true })
      yield* TestClock.adjust("500 millis")
      assert.isTrue(yield* Fiber.join(adding))
      assert.deepStrictEqual(yield* occupancy(), { demand: 3, slots: 4, replicas: 2, isLoading: false })
      assert.strictEqual(yield* once(), 1)
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(waiting), 1)
      assert.deepInclude(yield* statusOf(chat), { state: "ready", running: 2, queued: 0 })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is removed after its last job, and gets no new one before", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const received = yield* listen
      yield* hold(chat)
      yield* settle
      yield* add()
      const job = yield* workFor(chat, "10 seconds")
      yield* settle
      assert.isTrue(yield* remove())
      assert.deepInclude(yield* occupancy(), { replicas: 1, slots: 2, isLoading: false })
      assert.strictEqual(yield* once(), 0)
      yield* TestClock.adjust("9 seconds")
      assert.deepStrictEqual(openOf(setup), [true, true])
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Fiber.join(job), 1)
      assert.deepStrictEqual(openOf(setup), [true, false])
      assert.isFalse(yield* remove())
      assert.deepStrictEqual(received.map(({ state }) => state), ["loading", "ready"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("serves alone while the first one restarts, and takes its place for good", () => {
    const setup = scriptedEngines({ load: (index) => index < 2 ? Effect.void : Effect.fail(crashed("Always.")) })
    return Effect.gen(function*() {
      yield* once()
      yield* add()
      yield* setup.engines[0]!.crash("Once.")
      assert.strictEqual((yield* statusOf(chat)).state, "ready")
      assert.strictEqual(yield* once(), 1)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual(yield* once(), 1)
      assert.deepInclude(yield* occupancy(), { replicas: 1, slots: 2 })
      yield* Models.use(({ unload }) => unload(chat))
      assert.isTrue(openOf(setup).every((open) => !open))
      assert.strictEqual((yield* statusOf(chat)).state, "cold")
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("that has taken the place of the first one is unloaded after the idle time", () => {
    const setup = scriptedEngines({ budget: 1_000, hold: Duration.zero })
    const [first, other] = [large("a", 400, { idleUnload: Duration.minutes(1) }), large("b", 300)]
    return Effect.gen(function*() {
      yield* once(first)
      yield* add(first)
      // One of the two is evicted.
      assert.strictEqual(yield* once(other), 2)
      assert.deepInclude(yield* occupancy(first), { replicas: 1 })
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(openOf(setup), [false, false, true])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("restarts after a crash of its own", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const received = yield* listen
      yield* once()
      yield* add()
      yield* setup.engines[1]!.crash("Once.")
      assert.deepInclude(yield* occupancy(), { replicas: 1, isLoading: true })
      yield* TestClock.adjust("1 second")
      assert.deepInclude(yield* occupancy(), { replicas: 2, isLoading: false })
      assert.deepStrictEqual(received.map(({ state }) => state), ["loading", "ready"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of a replaced deployment ends, and the new one gets as many", () => {
    const setup = scriptedEngines(slow)
    const next = deployment("a", { options: { engine: "fake", slots: 3 } })
    return Effect.gen(function*() {
      yield* once()
      yield* Effect.forkChild(add())
      yield* TestClock.adjust("1 second")
      const busy = yield* Effect.forEach([1, 2, 3], () => workFor(chat, "10 seconds"))
      yield* settle
      const replacing = yield* Effect.forkChild(Models.use(({ replace }) => replace(next)))
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(replacing)
      assert.deepInclude(yield* occupancy(), { replicas: 2, slots: 6 })
      yield* TestClock.adjust("8 seconds")
      assert.sameMembers([...yield* Fiber.joinAll(busy)], [0, 1, 0])
      assert.deepStrictEqual(openOf(setup), [false, false, true, true])
      assert.deepStrictEqual(yield* occupancy(), { demand: 0, slots: 6, replicas: 2, isLoading: false })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is one of a given number, whatever loads, also where the first one has more than the one before", () => {
    const setup = scriptedEngines(slow)
    return Effect.gen(function*() {
      const { keepReplicas, replace } = yield* Models
      yield* once()
      yield* keepReplicas(chat, 4)
      yield* keepReplicas(chat, 3)
      yield* TestClock.adjust("2 seconds")
      assert.deepInclude(yield* occupancy(), { replicas: 3, isLoading: false })
      const replacing = yield* Effect.forkChild(
        replace(deployment("a", { options: { engine: "fake", slots: 2, replicas: 2 } }))
      )
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(replacing)
      assert.deepInclude(yield* occupancy(), { replicas: 3, isLoading: false })
      yield* keepReplicas(chat, 2)
      yield* settle
      assert.deepInclude(yield* occupancy(), { replicas: 2, isLoading: false })
      assert.strictEqual(openOf(setup).filter(Boolean).length, 1)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is unloaded with its deployment after the idle time, and by its retirement", () => {
    const setup = scriptedEngines()
    const short = { ...chat, idleUnload: Duration.minutes(1) }
    return Effect.gen(function*() {
      yield* once(short)
      yield* add(short)
      const long = yield* workFor(short, "3 minutes")
      yield* TestClock.adjust("2 minutes")
      assert.deepStrictEqual(openOf(setup), [true, true])
      yield* TestClock.adjust("2 minutes")
      yield* Fiber.join(long)
      assert.deepStrictEqual(openOf(setup), [false, false])
      yield* once(short)
      yield* add(short)
      const held = yield* hold(short)
      const last = yield* workFor(short, "10 seconds")
      yield* settle
      const retiring = yield* Effect.forkChild(Models.use(({ retire }) => retire(short)))
      yield* Fiber.interrupt(held)
      yield* TestClock.adjust("9 seconds")
      assert.isUndefined(retiring.pollUnsafe())
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(last)
      yield* Fiber.join(retiring)
      assert.isTrue(openOf(setup).every((open) => !open))
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("that has no job is unloaded under memory pressure, also of a pinned model in use", () => {
    const setup = scriptedEngines()
    const pinned = { ...chat, pinned: true }
    return Effect.gen(function*() {
      yield* hold(pinned)
      yield* settle
      yield* add(pinned)
      assert.strictEqual(yield* Models.use(({ unloadIdle }) => unloadIdle(Duration.zero)), 1)
      assert.deepStrictEqual(openOf(setup), [true, false])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("the memory of an added replica", () => {
  const [first, other] = [large("a", 400), large("b", 300)]

  it.effect("is refused where it is not free: no other model is unloaded", () => {
    const setup = scriptedEngines({ budget: 1_000, hold: Duration.zero })
    return Effect.gen(function*() {
      yield* once(first)
      yield* once(other)
      const error = yield* Effect.flip(add(first))
      assert.deepInclude(error.reason, {
        _tag: "InsufficientMemory",
        neededBytes: 400 * MiB,
        availableBytes: 300 * MiB
      })
      assert.deepStrictEqual(openOf(setup), [true, true])
      assert.strictEqual((yield* statusOf(first)).state, "ready")
      yield* Models.use(({ unload }) => unload(other))
      assert.isTrue(yield* add(first))
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("goes to a model that needs it, also from a pinned deployment", () => {
    const setup = scriptedEngines({ budget: 1_000, hold: Duration.zero })
    const pinned = { ...first, pinned: true }
    return Effect.gen(function*() {
      yield* hold(pinned)
      yield* settle
      yield* add(pinned)
      assert.strictEqual(yield* once(other), 2)
      assert.deepStrictEqual(openOf(setup), [true, false, true])
      assert.deepInclude(yield* occupancy(pinned), { replicas: 1 })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is not taken while another model waits for memory", () => {
    const setup = scriptedEngines({ budget: 1_000, hold: Duration.zero })
    return Effect.gen(function*() {
      yield* hold(first)
      yield* settle
      const huge = yield* Effect.forkChild(once(large("c", 800)))
      yield* settle
      assert.strictEqual((yield* Effect.flip(add(first))).reason._tag, "InsufficientMemory")
      yield* Fiber.interrupt(huge)
      assert.isTrue(yield* add(first))
    }).pipe(Effect.provide(setup.layer))
  })
})
