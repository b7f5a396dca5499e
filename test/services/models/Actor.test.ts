/** The mailbox and the slots. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { deployment } from "../../support/Deployments.ts"
import type { ScriptedEngines } from "../../support/ScriptedEngines.ts"
import {
  crashed,
  finished,
  generation,
  hold,
  scriptedEngines,
  settle,
  statusOf,
  using,
  workFor
} from "../../support/ScriptedEngines.ts"

const withSlots = (slots: number, queueLimit = 512) =>
  deployment("a", { options: { engine: "fake", slots }, queueLimit })

const reasonOf = (chosen = deployment()) =>
  Effect.map(Effect.flip(using(chosen, () => Effect.void)), ({ reason }) => reason)

/** As the front door uses an engine. */
const answer = (chosen = deployment()) =>
  Models.use(({ lease }) =>
    Effect.scoped(Effect.flatMap(lease(chosen, {}), (engine) => Stream.runCollect(engine.generate(generation))))
  )

const jobsOf = ({ engines }: ScriptedEngines) => engines.flatMap(({ jobs }) => jobs)

const turns = Effect.forEach(Array.from({ length: 20 }), () => Effect.yieldNow, { discard: true })

describe("the mailbox", () => {
  it.effect("serves 200 callers on 4 slots: all are answered, and at most 4 run at once", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      let running = 0
      let most = 0
      const work = (index: number) =>
        Effect.acquireUseRelease(
          Effect.sync(() => {
            most = Math.max(most, ++running)
          }),
          () => Effect.as(Effect.sleep(100 + index % 7), index),
          () => Effect.sync(() => running--)
        )
      const callers = yield* Effect.forEach(
        Array.from({ length: 200 }, (_, index) => index),
        (index) => Effect.forkChild(using(deployment(), () => work(index)))
      )
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(yield* Fiber.joinAll(callers), Array.from({ length: 200 }, (_, index) => index))
      assert.strictEqual(most, 4)
      assert.deepInclude(yield* statusOf(deployment()), { running: 0, queued: 0 })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("has the slots of every replica", () => {
    const setup = scriptedEngines()
    const replicated = deployment("a", { options: { engine: "fake", slots: 2, replicas: 3 } })
    return Effect.gen(function*() {
      const callers = yield* Effect.forEach(Array.from({ length: 10 }), () => hold(replicated))
      yield* settle
      assert.deepInclude(yield* statusOf(replicated), { running: 6, queued: 4 })
      yield* Fiber.interruptAll(callers)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is bounded: a caller beyond the limit is refused at once, with the limit and the wait", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1, 2)
    return Effect.gen(function*() {
      // A job of 10 s, from which the wait is estimated.
      const first = yield* workFor(chosen, "10 seconds")
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(first)
      const callers = yield* Effect.forEach([1, 2, 3], () => hold(chosen))
      yield* settle
      assert.deepInclude(yield* statusOf(chosen), { running: 1, queued: 2 })
      assert.deepInclude(yield* reasonOf(chosen), { _tag: "QueueFull", limit: 2, retryAfterMs: 20_000 })
      yield* Fiber.interruptAll(callers)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("reports a wait of at least a second, even before a job has ended", () => {
    const setup = scriptedEngines({ load: () => Effect.sleep("1 minute") })
    const chosen = withSlots(1, 1)
    return Effect.gen(function*() {
      const waiting = yield* hold(chosen)
      yield* settle
      assert.deepInclude(yield* reasonOf(chosen), { _tag: "QueueFull", retryAfterMs: 1_000 })
      yield* Fiber.interrupt(waiting)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("fails the newest caller of a flood for another tenant, and no other caller", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1, 3)
    return Effect.gen(function*() {
      const flood = yield* Effect.forEach(
        [0, 1, 2, 3],
        () => Effect.forkChild(using(chosen, () => Effect.sleep("1 second"), { tenant: "flood" }))
      )
      yield* settle
      const other = yield* workFor(chosen, "1 second", { tenant: "other" })
      yield* settle
      const displaced = yield* Effect.flip(Fiber.join(flood[3]!))
      assert.strictEqual(displaced.reason._tag, "QueueFull")
      // It is the other's turn as soon as the flood has had one.
      yield* TestClock.adjust("3 seconds")
      assert.strictEqual(yield* Fiber.join(other), 0)
      yield* TestClock.adjust("1 second")
      yield* Fiber.joinAll(flood.slice(0, 3))
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("has capacity again when a waiting caller disconnects", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1, 1)
    return Effect.gen(function*() {
      const runs = yield* hold(chosen)
      yield* settle
      const leaves = yield* hold(chosen)
      yield* settle
      assert.strictEqual((yield* reasonOf(chosen))._tag, "QueueFull")
      yield* Fiber.interrupt(leaves)
      assert.deepInclude(yield* statusOf(chosen), { running: 1, queued: 0 })
      const stays = yield* workFor(chosen, 0)
      yield* settle
      yield* Fiber.interrupt(runs)
      yield* settle
      assert.strictEqual(yield* Fiber.join(stays), 0)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("serves by priority", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1)
    return Effect.gen(function*() {
      const order: Array<string> = []
      const runs = yield* hold(chosen)
      yield* settle
      for (const priority of ["low", "normal", "high"] as const) {
        yield* Effect.forkChild(using(chosen, () => Effect.sync(() => order.push(priority)), { priority }))
        yield* settle
      }
      yield* Fiber.interrupt(runs)
      yield* settle
      assert.deepStrictEqual(order, ["high", "normal", "low"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("keeps its limit for another version", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const runs = yield* hold(withSlots(1, 1))
      yield* settle
      yield* Models.use(({ replace }) => replace(withSlots(1, 3)))
      const callers = yield* Effect.forEach([1, 2, 3, 4], () => hold(withSlots(1, 3)))
      yield* settle
      assert.deepInclude(yield* statusOf(deployment()), { queued: 3 })
      assert.deepInclude(yield* reasonOf(), { _tag: "QueueFull", limit: 3 })
      yield* Fiber.interruptAll([runs, ...callers])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("a slot", () => {
  it.effect("is held until the engine has ended the job, however long ago its caller disconnected", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1)
    return Effect.gen(function*() {
      const first = yield* Effect.forkChild(answer(chosen))
      yield* settle
      yield* Fiber.interrupt(first)
      const second = yield* Effect.forkChild(answer(chosen))
      yield* settle
      const jobs = jobsOf(setup)
      assert.strictEqual(jobs.length, 1)
      assert.deepStrictEqual(jobs[0]?.commands, [{ type: "cancel" }])
      assert.deepInclude(yield* statusOf(chosen), { running: 1, queued: 1 })
      jobs[0]!.emit({ type: "cancelled" })
      yield* settle
      jobsOf(setup)[1]!.emit(finished)
      assert.strictEqual((yield* Fiber.join(second)).length, 1)
      assert.deepInclude(yield* statusOf(chosen), { running: 0, queued: 0 })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is held in the same way by a job with a buffered answer", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1)
    return Effect.gen(function*() {
      const first = yield* Effect.forkChild(using(chosen, (engine) => engine.embed(["Hello"])))
      yield* settle
      yield* Fiber.interrupt(first)
      assert.deepInclude(yield* statusOf(chosen), { running: 1, queued: 0 })
      jobsOf(setup)[0]!.emit({ type: "cancelled" })
      yield* settle
      assert.deepInclude(yield* statusOf(chosen), { running: 0, queued: 0 })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is held until the scope of its lease closes, even if the engine is done earlier", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const scope = yield* Scope.make()
      const engine = yield* Models.use(({ lease }) => Scope.provide(lease(deployment(), {}), scope))
      const streaming = yield* Effect.forkChild(Stream.runDrain(engine.generate(generation)))
      yield* settle
      jobsOf(setup)[0]!.emit(finished)
      yield* Fiber.join(streaming)
      assert.deepInclude(yield* statusOf(deployment()), { running: 1 })
      yield* Scope.close(scope, yield* Effect.exit(Effect.void))
      assert.deepInclude(yield* statusOf(deployment()), { running: 0 })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is released when the engine rejects the job", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const caller = yield* Effect.forkChild(Effect.flip(answer()))
      yield* settle
      jobsOf(setup)[0]!.emit({ type: "failed", failure: { kind: "failed", message: "No." } })
      yield* Fiber.join(caller)
      assert.deepInclude(yield* statusOf(deployment()), { running: 0 })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is released after an interruption at any moment", () => {
    const setup = scriptedEngines()
    const chosen: Deployment = { ...withSlots(1), pinned: true }
    return Effect.gen(function*() {
      yield* using(chosen, () => Effect.void)
      // Effect yields between operations; the number of those before the slot is taken decides where that falls.
      for (let operations = 0; operations < 300; operations++) {
        const fiber = yield* Effect.forkChild(
          Effect.andThen(
            Effect.forEach(Array.from({ length: 1900 + operations }), () => Effect.void, { discard: true }),
            answer(chosen)
          )
        )
        yield* Effect.yieldNow
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber))
        yield* turns
        for (const job of jobsOf(setup)) job.emit({ type: "cancelled" })
        yield* Fiber.join(interrupting)
        yield* turns
        assert.deepInclude(yield* statusOf(chosen), { running: 0, queued: 0 }, `after ${operations} operations`)
      }
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is released after an interruption of a waiting caller before, during or after its lease", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1)
    return Effect.gen(function*() {
      for (let yields = 0; yields < 12; yields++) {
        for (const givesFirst of [true, false]) {
          const runs = yield* hold(chosen)
          yield* settle
          const waits = yield* hold(chosen)
          yield* settle
          const later = Effect.forEach(Array.from({ length: yields }), () => Effect.yieldNow, { discard: true })
          const [first, second] = givesFirst ? [runs, waits] : [waits, runs]
          yield* Effect.all([
            Fiber.interrupt(first),
            Effect.andThen(later, Fiber.interrupt(second))
          ], { concurrency: "unbounded" })
          assert.deepInclude(yield* statusOf(chosen), { running: 0, queued: 0 }, `after ${yields} yields`)
        }
      }
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of an engine that crashes during the lease fails its job with a typed error", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1)
    return Effect.gen(function*() {
      const runs = yield* hold(chosen)
      yield* settle
      const waits = yield* Effect.forkChild(Effect.flip(answer(chosen)))
      yield* settle
      // The slot is given in this turn, and the engine dies before its borrower's is.
      const leaving = yield* Effect.forkChild(Fiber.interrupt(runs))
      yield* setup.engines[0]!.crash("Gone.")
      yield* settle
      yield* Fiber.join(leaving)
      yield* TestClock.adjust("1 second")
      for (const job of jobsOf(setup)) job.emit({ type: "failed", failure: { kind: "crashed", message: "Gone." } })
      assert.strictEqual((yield* Fiber.join(waits)).reason._tag, "EngineCrashed")
      assert.deepInclude(yield* statusOf(chosen), { running: 0, queued: 0 })
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of an engine that has ended is never leased: the next engine serves waiting callers", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(1)
    return Effect.gen(function*() {
      const fails = yield* Effect.forkChild(Effect.flip(answer(chosen)))
      yield* settle
      const waits = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(answer(chosen)))
      yield* settle
      yield* setup.engines[0]!.crash("Gone.")
      // Another caller arrives before the actor has seen the end.
      const comes = yield* Effect.forkChild(answer(chosen))
      assert.strictEqual((yield* Fiber.join(fails)).reason._tag, "EngineCrashed")
      for (let count = 0; count < 4; count++) {
        yield* TestClock.adjust("100 millis")
        for (const { ended, emit } of jobsOf(setup)) if (!ended) emit(finished)
      }
      yield* Fiber.joinAll([...waits, comes])
      assert.deepStrictEqual(setup.engines.map(({ jobs }) => jobs.length), [1, 4])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("of a crashed engine counts until it is released", () => {
    const setup = scriptedEngines()
    const chosen = withSlots(2)
    return Effect.gen(function*() {
      const keeps = yield* hold(chosen)
      yield* settle
      yield* setup.engines[0]!.crash("Gone.")
      yield* TestClock.adjust("1 second")
      const others = yield* Effect.forEach([1, 2], () => hold(chosen))
      yield* settle
      assert.deepInclude(yield* statusOf(chosen), { running: 2, queued: 1 })
      yield* Fiber.interrupt(keeps)
      assert.deepInclude(yield* statusOf(chosen), { running: 2, queued: 0 })
      yield* Fiber.interruptAll(others)
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("a waiting caller when everything is stopped", () => {
  it.effect("fails with a typed error, for a load or for a slot", () => {
    const setup = scriptedEngines({ load: (_, { id }) => id === "slow" ? Effect.sleep("1 hour") : Effect.void })
    return Effect.gen(function*() {
      const chosen = withSlots(1)
      const runs = yield* hold(chosen)
      yield* settle
      const queued = yield* Effect.forkChild(reasonOf(chosen))
      const loading = yield* Effect.forkChild(reasonOf(deployment("slow")))
      const watching = yield* Effect.forkChild(
        Effect.flip(Models.use(({ load }) => load(deployment("slow"))))
      )
      yield* settle
      yield* Models.use(({ stop }) => stop)
      yield* settle
      assert.strictEqual((yield* Fiber.join(queued))._tag, "EngineStopped")
      assert.strictEqual((yield* Fiber.join(loading))._tag, "EngineStopped")
      assert.strictEqual((yield* Fiber.join(watching)).reason._tag, "EngineStopped")
      yield* Fiber.interrupt(runs)
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(setup.tries.length, 2)
      assert.isFalse(setup.engines.some(({ open }) => open))
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("fails at once when loads are stopped, while a loaded engine continues", () => {
    const setup = scriptedEngines({ load: (_, { model }) => model === "ready" ? Effect.void : Effect.sleep("1 hour") })
    return Effect.gen(function*() {
      const { load, replace, statuses, stopLoads } = yield* Models
      const ready = { ...withSlots(1), id: "ready", model: "ready" }
      const runs = yield* hold(ready)
      yield* settle
      const queued = yield* Effect.forkChild(using(ready, () => Effect.void))
      const waiting = yield* Effect.forEach(
        [reasonOf(deployment("slow")), Effect.map(Effect.flip(load(deployment("slow"))), ({ reason }) => reason)],
        (call) => Effect.forkChild(call)
      )
      const replacing = yield* Effect.forkChild(Effect.flip(replace({ ...ready, model: "slow" })))
      yield* settle
      yield* stopLoads
      for (const call of waiting) assert.strictEqual((yield* Fiber.join(call))._tag, "EngineStopped")
      assert.strictEqual((yield* Fiber.join(replacing)).reason._tag, "EngineStopped")
      for (const id of ["slow", "other"]) {
        assert.strictEqual((yield* reasonOf(deployment(id)))._tag, "EngineStopped")
        assert.strictEqual((yield* Effect.flip(load(deployment(id)))).reason._tag, "EngineStopped")
      }
      assert.isUndefined(queued.pollUnsafe())
      yield* Fiber.interrupt(runs)
      yield* Fiber.join(queued)
      yield* settle
      assert.isTrue((yield* statuses).every(({ queued }) => queued === 0))
      yield* TestClock.adjust("2 hours")
      assert.strictEqual(setup.tries.length, 3)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("does not get another engine after a crash if loads were stopped", () => {
    const setup = scriptedEngines()
    return Effect.gen(function*() {
      const { stopLoads } = yield* Models
      const chosen = withSlots(1)
      const runs = yield* hold(chosen)
      yield* settle
      const queued = yield* Effect.forkChild(reasonOf(chosen))
      yield* settle
      yield* stopLoads
      yield* setup.engines[0]!.crash("gone")
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(queued))._tag, "EngineStopped")
      yield* Fiber.interrupt(runs)
      assert.strictEqual(setup.tries.length, 1)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("fails with a typed error at the layer's end too", () => {
    const setup = scriptedEngines({ load: () => Effect.never })
    return Effect.gen(function*() {
      const scope = yield* Effect.scope
      const waiting = yield* Effect.gen(function*() {
        const caller = yield* Effect.forkIn(reasonOf(), scope)
        yield* settle
        return caller
      }).pipe(Effect.provide(setup.layer))
      assert.strictEqual((yield* Fiber.join(waiting))._tag, "EngineStopped")
    }).pipe(Effect.timeoutOption(Duration.hours(1)), Effect.scoped)
  })

  it.effect("fails with a typed error after a crash whose restarts are used up", () => {
    const setup = scriptedEngines({ load: () => Effect.fail(crashed("Always.")) })
    return Effect.gen(function*() {
      const waiting = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(reasonOf()))
      const watching = yield* Effect.forkChild(Effect.flip(Models.use(({ load }) => load(deployment()))))
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(
        (yield* Fiber.joinAll(waiting)).map(({ _tag }) => _tag),
        ["EngineCrashed", "EngineCrashed", "EngineCrashed"]
      )
      assert.strictEqual((yield* Fiber.join(watching)).reason._tag, "EngineCrashed")
    }).pipe(Effect.provide(setup.layer))
  })
})
