import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Stream } from "effect"
import * as LocalEngine from "../../../src/layers/engines/LocalEngine.ts"
import type { Generation } from "../../../src/services/Engine.ts"
import type { EngineHost, JobCommand, JobEvent } from "../../../src/services/EngineProtocol.ts"
import * as InferenceError from "../../../src/services/InferenceError.ts"

const generation: Generation = {
  messages: [{ role: "user", content: "Hello" }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  maxTokens: undefined,
  stop: []
}

interface Job {
  readonly emit: (...events: ReadonlyArray<JobEvent>) => void
  readonly commands: Array<JobCommand>
}

/** An engine over a host whose jobs the test plays. */
const stage = (slots: number) => {
  const jobs: Array<Job> = []
  const host: EngineHost = {
    ready: new Promise(() => {}),
    exited: new Promise(() => {}),
    memoryBytes: () => 0,
    close: () => Promise.resolve(),
    start: (_, onEvents) => {
      const commands: Array<JobCommand> = []
      jobs.push({ emit: (...events) => onEvents(events), commands })
      return (command) => commands.push(command)
    }
  }
  const description = { engine: "fake", contextWindow: 100, slots, details: {} }
  const errorOf = () => InferenceError.make(new InferenceError.EngineStopped({ deployment: "fake/a#0" }))
  return { jobs, engine: LocalEngine.make(host, description, slots, errorOf) }
}

const text = (text: string, count = 1): JobEvent => ({ type: "tokens", text, count })
const finished: JobEvent = { type: "finished", reason: "stop", usage: { promptTokens: 1, completionTokens: 1 } }

const turns = Effect.forEach(Array.from({ length: 20 }), () => Effect.yieldNow, { discard: true })

describe("LocalEngine", () => {
  it.effect("keeps a slot until the engine lets go of the job, however long its caller has gone", () =>
    Effect.gen(function*() {
      const { engine, jobs } = stage(1)
      const first = yield* Effect.forkChild(Stream.runDrain(engine.generate(generation)))
      yield* turns
      yield* Fiber.interrupt(first)
      const second = yield* Effect.forkChild(Stream.runCollect(engine.generate(generation)))
      yield* turns
      assert.deepStrictEqual(jobs[0]?.commands, [{ type: "cancel" }])
      assert.strictEqual(jobs.length, 1)
      assert.deepInclude(yield* engine.load, { running: 1, queued: 1 })
      jobs[0]?.emit({ type: "cancelled" })
      yield* turns
      jobs[1]?.emit(text("Hi"), finished)
      assert.strictEqual((yield* Fiber.join(second)).length, 2)
      yield* turns
      assert.deepInclude(yield* engine.load, { running: 0, queued: 0 })
    }))

  it.effect("loses no slot to an interruption, whenever it comes", () =>
    Effect.gen(function*() {
      const { engine, jobs } = stage(1)
      // Effect yields between operations; the number of those before the slot is taken decides where that falls.
      for (let operations = 0; operations < 300; operations++) {
        const caller = Effect.andThen(
          Effect.forEach(Array.from({ length: 1900 + operations }), () => Effect.void, { discard: true }),
          Stream.runDrain(engine.generate(generation))
        )
        const fiber = yield* Effect.forkChild(caller)
        yield* Effect.yieldNow
        const interrupting = yield* Effect.forkChild(Fiber.interrupt(fiber))
        yield* turns
        for (const job of jobs.splice(0)) job.emit({ type: "cancelled" })
        yield* Fiber.join(interrupting)
        yield* turns
        assert.deepInclude(yield* engine.load, { running: 0, queued: 0 }, `after ${operations} operations`)
      }
      const last = yield* Effect.forkChild(Stream.runDrain(engine.generate(generation)))
      yield* turns
      assert.strictEqual(jobs.length, 1)
      jobs[0]?.emit(finished)
      yield* Fiber.join(last)
    }))

  it.effect("gives what came before a failure, then the failure", () =>
    Effect.gen(function*() {
      const { engine, jobs } = stage(1)
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

  it.effect("tells the engine, once for many tokens, what has been taken", () =>
    Effect.gen(function*() {
      const { engine, jobs } = stage(1)
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

  it.effect("takes a job that someone else cancelled for a failure", () =>
    Effect.gen(function*() {
      const { engine, jobs } = stage(1)
      const fiber = yield* Effect.forkChild(Effect.flip(Stream.runDrain(engine.generate(generation))))
      yield* turns
      jobs[0]?.emit({ type: "cancelled" })
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, "EngineStopped")
    }))
})
