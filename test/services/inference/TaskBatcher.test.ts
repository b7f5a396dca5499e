import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Result } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import type { Caller } from "../../../src/domain/Caller.ts"
import { HopCount } from "../../../src/domain/Caller.ts"
import * as Defaults from "../../../src/domain/Defaults.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Ranking, RankingInput } from "../../../src/domain/Job.ts"
import type { Meter } from "../../../src/services/engines/Engine.ts"
import { TaskMeter } from "../../../src/services/engines/Engine.ts"
import * as TaskBatcher from "../../../src/services/inference/TaskBatcher.ts"
import type { Models } from "../../../src/services/models/Models.ts"
import * as Deployments from "../../support/Deployments.ts"

const deployment = Deployments.deployment("fake/a#0")

const down = InferenceError.make(
  new InferenceError.DeploymentDown({ deployment: "fake/a#0", detail: "It crashed.", retryAfterMs: 1 })
)
const wrongAt = (index: number) =>
  InferenceError.make(new InferenceError.InvalidRequest({ detail: "Too long", path: `inputs[${index}]` }))

const attemptOf = (): TaskBatcher.BatchedAttempt => ({
  deployment,
  caller: {},
  admit: Effect.void,
  meter: { isSent: false, reporter: undefined },
  movedOn: () => false
})

/** Embeds for a caller; all vectors, or the first error. */
const embedWith = (models: Models["Service"], batches?: TaskBatcher.Batches) => {
  const embed = TaskBatcher.make(models, TaskBatcher.embedding, batches)
  return (attempt: TaskBatcher.BatchedAttempt, inputs: ReadonlyArray<string>) =>
    Effect.flatMap(embed(attempt, inputs), (each) => Effect.fromResult(Result.all(each)))
}

const modelsOf = (engine: Parameters<typeof Deployments.engine>[0]) =>
  ({ lease: () => Effect.succeed(Deployments.engine(engine)) }) as Partial<Models["Service"]> as Models["Service"]

const emptyQuery = InferenceError.make(new InferenceError.InvalidRequest({ detail: "Empty", path: "query" }))

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
  const embed = embedWith(models)
  const askWith = (attempt: Partial<TaskBatcher.BatchedAttempt>, ...inputs: ReadonlyArray<string>) =>
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
  const embed = embedWith(models)
  const askMetered = (index: number) => Effect.forkChild(embed({ ...attemptOf(), meter: meters[index]! }, ["a"]))
  return { meters, askMetered }
}

const lengths = <E>(fiber: Fiber.Fiber<ReadonlyArray<{ readonly vector: Float32Array }>, E>) =>
  Effect.map(Fiber.join(fiber), (embeddings) => embeddings.map(({ vector }) => vector[0]))

describe("TaskBatcher", () => {
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
    const embed = embedWith(models, { size: 2, wait: Duration.seconds(3), waitIdle: false })
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

  it.effect("leaves out the inputs of a caller that has disconnected before the batch had its slot", () => {
    const { ask, batches } = stage(Effect.sleep("1 second"))
    return Effect.gen(function*() {
      const leaving = yield* ask("a")
      const staying = yield* ask("bb")
      yield* TestClock.adjust(500)
      yield* Fiber.interrupt(leaving)
      yield* TestClock.adjust("2 seconds")
      assert.deepStrictEqual(batches, [["bb"]])
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
    const embed = embedWith(models)
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

  it.effect("an idle engine waits for others where its deployment says so, and no longer than for a full batch", () => {
    const { askWith, batches } = stage()
    const options = { ...deployment.options, batches: { size: 3, wait: Duration.millis(50), waitIdle: true } }
    const ask = (text: string) => askWith({ deployment: { ...deployment, options } }, text)
    return Effect.gen(function*() {
      yield* ask("a")
      yield* TestClock.adjust(49)
      yield* ask("b")
      assert.deepStrictEqual(batches, [])
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(batches, [["a", "b"]])
      yield* Effect.forEach(["c", "d", "e"], ask)
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(batches.slice(1), [["c", "d", "e"]])
    })
  })

  it.effect("a deployment whose batches have the size 1 starts each request at once", () => {
    const { askWith, batches } = stage()
    const options = { ...deployment.options, batches: { size: 1, waitIdle: true } }
    return Effect.gen(function*() {
      yield* Effect.forEach(["a", "b"], (text) => askWith({ deployment: { ...deployment, options } }, text))
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(batches, [["a"], ["b"]])
    })
  })

  it.effect("uses the options that a deployment has got by a reload", () => {
    const { askWith, batches } = stage()
    const ask = (batches: object) =>
      askWith({ deployment: { ...deployment, options: { ...deployment.options, batches } } }, "a")
    return Effect.gen(function*() {
      yield* ask({ waitIdle: true })
      yield* TestClock.adjust(0)
      assert.lengthOf(batches, 0)
      yield* ask({ waitIdle: false })
      yield* TestClock.adjust(0)
      assert.lengthOf(batches, 1)
    })
  })

  it.effect("classifies the texts of several callers in one job; an invalid one fails in its own caller's inputs", () => {
    const jobs: Array<ReadonlyArray<string>> = []
    const models = modelsOf({
      classify: (inputs) => {
        jobs.push(inputs)
        return Effect.succeed(
          inputs.map((text, index) =>
            text === "wrong"
              ? Result.fail(wrongAt(index))
              : Result.succeed({ labels: [{ label: text, score: 1 }], promptTokens: 1 })
          )
        )
      }
    })
    const classify = TaskBatcher.make(models, TaskBatcher.classification)
    return Effect.gen(function*() {
      const [first, second] = yield* Effect.all(
        [classify(attemptOf(), ["a", "b"]), classify(attemptOf(), ["c", "wrong"])],
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(jobs, [["a", "b", "c", "wrong"]])
      assert.deepStrictEqual(first.map((each) => Result.getOrThrow(each).labels[0]?.label), ["a", "b"])
      assert.deepStrictEqual(second[1], Result.fail(wrongAt(1)))
    })
  })

  const rankingOf = ({ documents, query }: RankingInput): Result.Result<Ranking, InferenceError.InferenceError> =>
    query === "" ? Result.fail(emptyQuery) : Result.succeed({ scores: documents.map(() => 0.5), promptTokens: 1 })

  for (const severalQueries of [true, false]) {
    const engines = severalQueries ? "that takes several queries in a job" : "with one query in a job"
    it.effect(`ranks for several callers by an engine ${engines}; an invalid query fails alone`, () => {
      const jobs: Array<ReadonlyArray<string>> = []
      const models = modelsOf(
        severalQueries
          ? {
            rankEach: (inputs) => {
              jobs.push(inputs.map(({ query }) => query))
              return Effect.succeed(inputs.map(rankingOf))
            }
          }
          : {
            rerank: (query, documents) => {
              jobs.push([query])
              return Effect.fromResult(rankingOf({ query, documents }))
            }
          }
      )
      const rank = TaskBatcher.make(models, TaskBatcher.ranking)
      return Effect.gen(function*() {
        const all = yield* Effect.forEach(
          ["x", "", "z"],
          (query) => rank(attemptOf(), [{ query, documents: ["a", "b"] }]),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(jobs, severalQueries ? [["x", "", "z"]] : [["x"], [""], ["z"]])
        assert.deepStrictEqual(all, [
          [Result.succeed({ scores: [0.5, 0.5], promptTokens: 1 })],
          [Result.fail(emptyQuery)],
          [Result.succeed({ scores: [0.5, 0.5], promptTokens: 1 })]
        ])
      })
    })
  }
})

describe("sharesOf", () => {
  it("gives each caller its own results in their order, whatever the others have", () => {
    const inputs = fc.array(fc.array(fc.boolean(), { maxLength: 4 }), { maxLength: 12 })
    fc.assert(fc.property(inputs, (callers) => {
      let place = 0
      const results = callers.flat().map((isValid, index) =>
        isValid ? Result.succeed(index) : Result.fail(wrongAt(index))
      )
      const shares = TaskBatcher.sharesOf(TaskBatcher.embedding, callers.map(({ length }) => length), results)
      assert.deepStrictEqual(
        shares,
        callers.map((own) =>
          own.map((isValid, index) => {
            const at = place++
            return isValid ? Result.succeed(at) : Result.fail(wrongAt(index))
          })
        )
      )
    }))
  })
})

describe("groupOf", () => {
  it("is equal for requests of the same tenant, priority and kind only", () => {
    const caller = fc.record({
      tenant: fc.constantFrom(undefined, "a", "a b", "string a", "low"),
      priority: fc.constantFrom("low" as const, "normal" as const, "high" as const)
    })
    const kind = fc.constantFrom("string", "object", "")
    fc.assert(fc.property(caller, caller, kind, kind, (one, other, kindOfOne, kindOfOther) => {
      const isSame = one.tenant === other.tenant && one.priority === other.priority && kindOfOne === kindOfOther
      assert.strictEqual(TaskBatcher.groupOf(one, kindOfOne) === TaskBatcher.groupOf(other, kindOfOther), isSame)
    }))
  })
})
