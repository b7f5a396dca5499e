import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import type { Caller } from "../../../src/domain/Caller.ts"
import { HopCount } from "../../../src/domain/Caller.ts"
import * as Defaults from "../../../src/domain/Defaults.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Meter } from "../../../src/services/engines/Engine.ts"
import { TaskMeter } from "../../../src/services/engines/Engine.ts"
import * as EmbeddingBatcher from "../../../src/services/inference/EmbeddingBatcher.ts"
import type { Models } from "../../../src/services/models/Models.ts"
import * as Deployments from "../../support/Deployments.ts"

const deployment = Deployments.deployment("fake/a#0")

const down = InferenceError.make(
  new InferenceError.DeploymentDown({ deployment: "fake/a#0", detail: "It crashed.", retryAfterMs: 1 })
)
const wrongAt = (index: number) =>
  InferenceError.make(new InferenceError.InvalidRequest({ detail: "Too long", path: `inputs[${index}]` }))

const attemptOf = (): EmbeddingBatcher.BatchedAttempt => ({
  deployment,
  caller: {},
  admit: Effect.void,
  meter: { isSent: false, reporter: undefined },
  movedOn: () => false
})

/** Models whose engine takes a second a job; its vectors contain the text's length. */
const stage = (borrow: Effect.Effect<void, InferenceError.InferenceError> = Effect.void) => {
  const batches: Array<ReadonlyArray<string>> = []
  const standings: Array<Caller> = []
  const models = {
    lease: (_, caller) =>
      Effect.as(
        Effect.andThen(Effect.sync(() => standings.push(caller)), borrow),
        Deployments.engine({
          embed: (inputs) =>
            Effect.as(
              Effect.andThen(Effect.sync(() => batches.push(inputs.map(String))), Effect.sleep("1 second")),
              inputs.map((text, index) =>
                text === "wrong"
                  ? Result.fail(wrongAt(index))
                  : Result.succeed({ vector: Float32Array.of(text.length), promptTokens: text.length })
              )
            )
        })
      )
  } as Partial<Models["Service"]> as Models["Service"]
  const embed = EmbeddingBatcher.make(models)
  const askWith = (attempt: Partial<EmbeddingBatcher.BatchedAttempt>, ...inputs: ReadonlyArray<string>) =>
    Effect.forkChild(embed({ ...attemptOf(), ...attempt }, inputs))
  const askAs = (caller: Caller, ...inputs: ReadonlyArray<string>) => askWith({ caller }, ...inputs)
  return { batches, standings, askWith, askAs, ask: (...inputs: ReadonlyArray<string>) => askAs({}, ...inputs) }
}

/** A batch of two requests, whose provider refuses it after a second. */
const metered = () => {
  const meters: ReadonlyArray<Meter> = [0, 1].map(() => ({ isSent: false, reporter: undefined }))
  const models = {
    lease: () =>
      Effect.succeed(Deployments.engine({
        embed: (inputs) =>
          Effect.gen(function*() {
            const meter = (yield* TaskMeter)!
            meter.isSent = true
            yield* Effect.sleep("1 second")
            meter.isSent = false
            return inputs.map(() => Result.succeed({ vector: Float32Array.of(1), promptTokens: 1 }))
          })
      }))
  } as Partial<Models["Service"]> as Models["Service"]
  const embed = EmbeddingBatcher.make(models)
  const askMetered = (index: number) => Effect.forkChild(embed({ ...attemptOf(), meter: meters[index]! }, ["a"]))
  return { meters, askMetered }
}

const lengths = <E>(fiber: Fiber.Fiber<ReadonlyArray<{ readonly vector: Float32Array }>, E>) =>
  Effect.map(Fiber.join(fiber), (embeddings) => embeddings.map(({ vector }) => vector[0]))

describe("EmbeddingBatcher", () => {
  it.effect("says to each of its requests that the batch was sent, or refused", () => {
    const { meters, askMetered } = metered()
    return Effect.gen(function*() {
      const fibers = [yield* askMetered(0), yield* askMetered(1)]
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(meters.map(({ isSent }) => isSent), [true, true])
      yield* TestClock.adjust("1 second")
      yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(meters.map(({ isSent }) => isSent), [false, false])
    })
  })

  it.effect("has the size and the wait of its options", () => {
    const sizes: Array<number> = []
    const models = {
      lease: () =>
        Effect.succeed(Deployments.engine({
          embed: (inputs) => {
            sizes.push(inputs.length)
            return Effect.as(
              Effect.sleep("1 hour"),
              inputs.map(() => Result.succeed({ vector: Float32Array.of(1), promptTokens: 1 }))
            )
          }
        }))
    } as Partial<Models["Service"]> as Models["Service"]
    const embed = EmbeddingBatcher.make(models, { size: 2, wait: Duration.seconds(3) })
    const ask = Effect.forkChild(embed(attemptOf(), ["a"]))
    return Effect.gen(function*() {
      yield* ask
      yield* TestClock.adjust(0)
      yield* Effect.replicateEffect(ask, 3)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(sizes, [1, 2])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(sizes, [1, 2, 1])
    })
  })

  it.effect("begins at once if the engine is idle, with all requests of the same turn", () => {
    const { ask, batches } = stage()
    return Effect.gen(function*() {
      const one = yield* ask("a", "bb")
      const two = yield* ask("ccc")
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(batches, [["a", "bb", "ccc"]])
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* lengths(one), [1, 2])
      assert.deepStrictEqual(yield* lengths(two), [3])
    })
  })

  it.effect("leaves out requests that are not admitted to the slot, and does not run without any", () => {
    const { askWith, ask, batches } = stage()
    return Effect.gen(function*() {
      const rejected = yield* askWith({ admit: Effect.fail(down) }, "a")
      const other = yield* ask("bb")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(batches, [["bb"]])
      assert.strictEqual(yield* Effect.flip(Fiber.join(rejected)), down)
      assert.deepStrictEqual(yield* lengths(other), [2])
      const alone = yield* askWith({ admit: Effect.fail(down) }, "a")
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* Effect.flip(Fiber.join(alone)), down)
      assert.lengthOf(batches, 1)
    })
  })

  it.effect("collects requests for up to 100 ms while the engine is busy", () => {
    const { ask, batches } = stage()
    return Effect.gen(function*() {
      yield* ask("first")
      yield* TestClock.adjust(0)
      yield* ask("second")
      yield* TestClock.adjust(Duration.toMillis(Defaults.batchWait) - 1)
      yield* ask("third")
      assert.strictEqual(batches.length, 1)
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(batches, [["first"], ["second", "third"]])
    })
  })

  it.effect("collects at most 10 requests", () => {
    const { ask, batches } = stage()
    return Effect.gen(function*() {
      yield* ask("first")
      yield* TestClock.adjust(0)
      for (let index = 0; index < 12; index++) yield* ask(`${index}`)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(batches.map((batch) => batch.length), [1, Defaults.batchSize])
    })
  })

  it.effect("an invalid input fails its own caller alone, with its index in that caller's inputs", () => {
    const { ask } = stage()
    return Effect.gen(function*() {
      const right = yield* ask("right")
      const mixed = yield* ask("fine", "wrong")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* lengths(right), [5])
      assert.deepStrictEqual(yield* Fiber.await(mixed), Exit.fail(wrongAt(1)))
    })
  })

  it.effect("an engine that cannot be leased fails its whole batch, and the next batch leases again", () => {
    let failing = true
    const { ask } = stage(Effect.suspend(() => failing ? Effect.fail(down) : Effect.void))
    return Effect.gen(function*() {
      const fibers = [yield* ask("a"), yield* ask("b")]
      yield* TestClock.adjust(0)
      for (const fiber of fibers) assert.deepStrictEqual(yield* Fiber.await(fiber), Exit.fail(down))
      failing = false
      const again = yield* ask("a")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(yield* lengths(again), [1])
    })
  })

  it.effect("a caller that disconnects does not affect the others", () => {
    const { ask } = stage()
    return Effect.gen(function*() {
      const leaving = yield* ask("a")
      const staying = yield* ask("bb")
      yield* TestClock.adjust(500)
      yield* Fiber.interrupt(leaving)
      yield* TestClock.adjust(500)
      assert.deepStrictEqual(yield* lengths(staying), [2])
    })
  })

  const rights: ReadonlyArray<readonly [name: string, first: Caller, second: Caller]> = [
    ["tenants", { tenant: "x" }, { tenant: "y" }],
    ["priorities", { priority: "low" }, { priority: "high" }],
    ["a priority and the usual one", {}, { priority: "low" }],
    ["a tenant and none", {}, { tenant: "x" }]
  ]
  for (const [name, first, second] of rights) {
    it.effect(`a batch has requests of equal rights only: ${name} are not mixed`, () => {
      const { askAs, batches, standings } = stage()
      return Effect.gen(function*() {
        const fibers = [yield* askAs(first, "a"), yield* askAs(second, "bb"), yield* askAs(first, "ccc")]
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(batches, [["a", "ccc"], ["bb"]])
        assert.deepStrictEqual(standings, [first, second])
        assert.deepStrictEqual(yield* Effect.forEach(fibers, lengths), [[1], [2], [3]])
      })
    })
  }

  it.effect("a batch keeps the model loaded as long as its last request says", () => {
    const { askAs, standings } = stage()
    return Effect.gen(function*() {
      yield* askAs({ tenant: "x", keepAlive: Duration.zero }, "a")
      yield* askAs({ tenant: "x", keepAlive: Duration.hours(1) }, "b")
      yield* TestClock.adjust("1 second")
      assert.deepStrictEqual(standings, [{ tenant: "x", keepAlive: Duration.hours(1) }])
    })
  })

  it.effect("a batch counts for each of its requests: its slot, its hops, and its failover", () => {
    const granted: Array<string> = []
    const hops: Array<number> = []
    let moved = ""
    let hasMovedOn = () => false
    const models = {
      lease: (_, __, movedOn = () => false) =>
        Effect.sync(() => {
          hasMovedOn = movedOn
          return Deployments.engine({
            embed: (inputs) =>
              Effect.map(HopCount, (count) => {
                hops.push(count)
                return inputs.map(() => Result.succeed({ vector: Float32Array.of(1), promptTokens: 1 }))
              })
          })
        })
    } as Partial<Models["Service"]> as Models["Service"]
    const embed = EmbeddingBatcher.make(models)
    const ask = (name: string, count: number) => {
      const admit = Effect.sync(() => granted.push(name))
      const attempt = { ...attemptOf(), admit, movedOn: () => moved === name }
      return Effect.forkChild(Effect.provideService(embed(attempt, [name]), HopCount, count))
    }
    return Effect.gen(function*() {
      const fibers = [yield* ask("a", 1), yield* ask("b", 3), yield* ask("c", 2)]
      yield* Effect.forEach(fibers, Fiber.join)
      assert.deepStrictEqual(granted, ["a", "b", "c"])
      assert.deepStrictEqual(hops, [3])
      assert.isFalse(hasMovedOn())
      for (const name of ["a", "b", "c"]) {
        moved = name
        assert.isTrue(hasMovedOn())
      }
    })
  })
})
