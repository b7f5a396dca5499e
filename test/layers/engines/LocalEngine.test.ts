import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Random, Stream } from "effect"
import type { EngineDescription, EngineHost } from "../../../src/domain/EngineProtocol.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import { maxSeed } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { JobCommand, JobEvent, SamplingOptions } from "../../../src/domain/Job.ts"
import * as LocalEngine from "../../../src/layers/engines/LocalEngine.ts"

const generation: Generation = {
  messages: [{ role: "user", content: "Hello" }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  maxTokens: undefined,
  stop: []
}

interface Job {
  readonly emit: (...events: ReadonlyArray<JobEvent>) => void
  readonly commands: Array<JobCommand>
  readonly sampling: SamplingOptions | undefined
  readonly owner: string | undefined
}

/** An engine over a host whose jobs the test controls. */
const setup = () => {
  const jobs: Array<Job> = []
  const host: EngineHost = {
    ready: new Promise(() => {}),
    exited: new Promise(() => {}),
    isOver: () => false,
    memoryBytes: () => 0,
    abandon: () => {},
    close: () => Promise.resolve(),
    start: (job, onEvents) => {
      const commands: Array<JobCommand> = []
      const sampling = job.kind === "generate" ? job.sampling : undefined
      const owner = job.kind === "generate" ? job.owner : undefined
      jobs.push({ emit: (...events) => onEvents(events), commands, sampling, owner })
      return (command) => commands.push(command)
    }
  }
  const description: EngineDescription = {
    engine: "fake",
    contextWindow: 100,
    slots: 1,
    capabilities: ["generate"],
    details: {}
  }
  const errorOf = () => InferenceError.make(new InferenceError.EngineStopped({ deployment: "fake/a#0" }))
  return { jobs, engine: LocalEngine.make(host, description, errorOf) }
}

const text = (text: string, count = 1): JobEvent => ({ type: "tokens", text, count })
const finished: JobEvent = {
  type: "finished",
  reason: "stop",
  usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
}

const turns = Effect.forEach(Array.from({ length: 20 }), () => Effect.yieldNow, { discard: true })

describe("LocalEngine", () => {
  it.effect("passes tenants to engines as a short hash, never by name", () =>
    Effect.gen(function*() {
      const { engine, jobs } = setup()
      const tenants = [undefined, "", "sk-secret", "sk-secret", "other"]
      for (const tenant of tenants) {
        const running = yield* Effect.forkChild(
          Stream.runDrain(engine.generate({ ...generation, caller: { tenant } })),
          { startImmediately: true }
        )
        yield* turns
        jobs.at(-1)!.emit(finished)
        yield* Fiber.join(running)
      }
      const owners = jobs.map(({ owner }) => owner)
      assert.deepStrictEqual(owners.slice(0, 2), [undefined, undefined])
      assert.match(owners[2]!, /^[\w-]{20}$/)
      assert.strictEqual(owners[3], owners[2])
      assert.notStrictEqual(owners[4], owners[2])
    }))

  /** The sampling of this number of jobs without sampling options. */
  const samplingOf = Effect.fnUntraced(function*(count: number, seed: string) {
    const { engine, jobs } = setup()
    const { sampling: _, ...rest } = generation
    const run = Stream.runHead(engine.generate({ ...rest, sampling: {} }))
    const runs = Effect.replicateEffect(Effect.raceFirst(run, turns), count)
    yield* runs.pipe(Random.withSeed(seed))
    return jobs.map(({ sampling }) => sampling!)
  })

  it.effect("applies the defaults of local engines, and a random seed, to what the caller did not set", () =>
    Effect.gen(function*() {
      const all = yield* samplingOf(50, "any")
      assert.strictEqual(new Set(all.map(({ seed }) => seed)).size, 50)
      for (const { seed, ...sampling } of all) {
        assert.deepStrictEqual<object>(sampling, { temperature: 1, topP: 1 })
        assert.isTrue(Number.isInteger(seed) && seed >= 0 && seed <= maxSeed)
      }
      assert.deepStrictEqual(yield* samplingOf(5, "one"), yield* samplingOf(5, "one"))
      assert.notDeepEqual(yield* samplingOf(5, "one"), yield* samplingOf(5, "two"))
    }))

  it.effect("returns the text before a failure, then the failure", () =>
    Effect.gen(function*() {
      const { engine, jobs } = setup()
      const heard: Array<string> = []
      const fiber = yield* Effect.forkChild(
        Effect.flip(
          Stream.runForEach(engine.generate(generation), (event) => Effect.sync(() => heard.push(event.type)))
        )
      )
      yield* turns
      jobs[0]?.emit(text("Hi"), text("there"), { type: "failed", failure: { kind: "stopped" } })
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "EngineStopped")
      assert.deepStrictEqual(heard, ["text", "text"])
    }))

  it.effect("grants read tokens to the engine, once for many tokens", () =>
    Effect.gen(function*() {
      const { engine, jobs } = setup()
      const fiber = yield* Effect.forkChild(Stream.runDrain(engine.generate(generation)))
      yield* turns
      for (let count = 0; count < 13; count++) {
        jobs[0]?.emit(text("x", 10))
        yield* turns
      }
      assert.deepStrictEqual(jobs[0]?.commands, [{ type: "grant", tokens: 70 }])
      jobs[0]?.emit(finished)
      yield* Fiber.join(fiber)
    }))

  it.effect("fails if the engine cancels the job", () =>
    Effect.gen(function*() {
      const { engine, jobs } = setup()
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(engine.generate(generation))))
      yield* turns
      jobs[0]?.emit({ type: "cancelled" })
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "EngineStopped")
    }))
})
