/** The circuits of several processes: each has a `Breaker`; the supervisor passes messages on and grants probes. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Deferred, Effect, Fiber, Layer, Logger, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as Breaker from "../../../src/services/health/Breaker.ts"
import { endingOf } from "../../../src/services/health/Circuit.ts"
import { CircuitsOfOthers, SharedCircuits } from "../../../src/services/health/SharedCircuits.ts"
import { Probes } from "../../../src/services/processes/Probes.ts"

type Circuits = Breaker.Breaker["Service"]

/** Processes whose messages are delivered at once. */
const makeProcesses = Effect.fnUntraced(function*(count: number) {
  const probes = new Probes()
  const shared: Array<SharedCircuits> = []
  const breakers: Array<Circuits> = []
  for (let index = 0; index < count; index++) {
    const circuits = new SharedCircuits((message) => {
      if (message.type === "probe") {
        circuits.receive({ type: "probe", isGranted: probes.take(index, message.most) })
      } else if (message.type === "probed") probes.release(index)
      else if (message.type === "news") {
        for (const other of shared) if (other !== circuits) other.receive({ type: "news", news: message.news })
      }
    })
    shared.push(circuits)
    const layer = Layer.fresh(Breaker.layer).pipe(Layer.provide(Layer.succeed(CircuitsOfOthers, circuits)))
    breakers.push(yield* Effect.map(Layer.build(layer), (context) => Context.get(context, Breaker.Breaker)))
  }
  return { breakers, probes }
})

const failure = InferenceError.make(new InferenceError.EngineFailed({ deployment: "a", detail: "It broke." }))

const call = (breaker: Circuits, effect: Effect.Effect<void, InferenceError.InferenceError>, alone = false) =>
  Effect.scoped(
    Effect.flatMap(
      Deferred.make<void, InferenceError.InferenceError>(),
      (ended) =>
        breaker.enter("a", () => endingOf(Effect.runSyncExit(Deferred.await(ended))), alone).pipe(
          Effect.andThen(Effect.onExit(effect, (exit) => Deferred.done(ended, exit))),
          Effect.exit
        )
    )
  )

const open = (breaker: Circuits) =>
  Effect.forEach([1, 2, 3, 4, 5], () => Effect.exit(call(breaker, Effect.fail(failure))))

const phases = (breakers: ReadonlyArray<Circuits>) =>
  Effect.forEach(breakers, ({ states }) => Effect.map(states, ([state]) => state?.phase))

/** A call in progress, and how it ends. */
const begin = Effect.fnUntraced(function*(breaker: Circuits, alone = false) {
  const end = yield* Deferred.make<void, InferenceError.InferenceError>()
  const fiber = yield* Effect.forkScoped(call(breaker, Deferred.await(end), alone), { startImmediately: true })
  return { end, fiber, isRunning: Effect.sync(() => fiber.pollUnsafe() === undefined) }
})

describe("SharedCircuits", () => {
  it.effect("opens a circuit in every process, each of which shows the change once", () => {
    const lines: Array<unknown> = []
    return Effect.gen(function*() {
      const { breakers } = yield* makeProcesses(3)
      const seen = yield* Effect.forkScoped(
        Stream.runCollect(Stream.take(breakers[2]!.transitions, 2)),
        { startImmediately: true }
      )
      yield* open(breakers[0]!)
      assert.deepStrictEqual(yield* phases(breakers), ["open", "open", "open"])
      assert.isAbove(breakers[1]!.closedFor("a", 0), 0)
      assert.strictEqual(breakers[1]!.failures("a"), 5)
      yield* breakers[1]!.reset("a")
      assert.deepStrictEqual(yield* phases(breakers), ["closed", "closed", "closed"])
      assert.deepStrictEqual((yield* Fiber.join(seen)).map(({ to }) => to), ["open", "closed"])
      assert.lengthOf(lines, 2)
    }).pipe(Effect.provide(Logger.layer([Logger.make(({ message }) => lines.push(message))])))
  })

  it.effect("lets one call of all processes probe, and several where no other deployment can take them", () =>
    Effect.gen(function*() {
      const { breakers: [first, second, third], probes } = yield* makeProcesses(3)
      yield* open(first!)
      yield* TestClock.adjust("61 seconds")
      const probe = yield* begin(second!)
      assert.isTrue(yield* probe.isRunning)
      const refused = yield* begin(third!)
      assert.isFalse(yield* refused.isRunning)
      const more = yield* Effect.forEach([first!, third!, first!, third!], (breaker) => begin(breaker, true))
      const running = yield* Effect.forEach(more, ({ isRunning }) => isRunning)
      assert.strictEqual(running.filter(Boolean).length, 3)
      assert.strictEqual(probes.held, 4)
      yield* Effect.forEach([probe, ...more], ({ end }) => Deferred.succeed(end, undefined))
      yield* Effect.forEach([probe, ...more], ({ fiber }) => Fiber.await(fiber))
      assert.strictEqual(probes.held, 0)
    }))

  it.effect("closes a circuit in every process when it has closed in one", () =>
    Effect.gen(function*() {
      const { breakers, probes } = yield* makeProcesses(2)
      yield* open(breakers[0]!)
      yield* TestClock.adjust("61 seconds")
      yield* Effect.forEach([1, 2, 3], () => call(breakers[1]!, Effect.void))
      assert.deepStrictEqual(yield* phases(breakers), ["closed", "closed"])
      assert.isTrue((yield* Effect.exit(call(breakers[0]!, Effect.void)))._tag === "Success")
      assert.strictEqual(probes.held, 0)
    }))

  it.effect("returns the permit of a probe whose circuit another process has opened meanwhile", () =>
    Effect.gen(function*() {
      const { breakers: [first, second], probes } = yield* makeProcesses(2)
      yield* open(first!)
      yield* TestClock.adjust("61 seconds")
      const probe = yield* begin(first!, true)
      const other = yield* begin(second!, true)
      yield* Deferred.fail(other.end, failure)
      yield* Fiber.await(other.fiber)
      assert.deepStrictEqual(yield* phases([first!, second!]), ["open", "open"])
      assert.strictEqual(probes.held, 1)
      yield* Deferred.succeed(probe.end, undefined)
      yield* Fiber.await(probe.fiber)
      assert.strictEqual(probes.held, 0)
      // The success of a call that began before the circuit opened does not close it.
      assert.deepStrictEqual(yield* phases([first!, second!]), ["open", "open"])
    }))
})
