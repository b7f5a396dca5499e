import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber, Random, Stream } from "effect"
import type { EngineDescription, EngineHost } from "../../../src/domain/EngineProtocol.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import { maxSeed } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { JobCommand, JobEvent, SamplingOptions } from "../../../src/domain/Job.ts"
import type { StreamLimits } from "../../../src/domain/StreamLimits.ts"
import { streamDefaults } from "../../../src/domain/StreamLimits.ts"
import * as LocalEngine from "../../../src/layers/engines/LocalEngine.ts"
import type { EventReceiver, StartedAnswer } from "../../../src/services/engines/Engine.ts"

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
  readonly window: number | undefined
}

const ignored: EventReceiver = { events() {}, end() {}, failed() {}, died() {}, rest() {} }

const realClock = Effect.runSync(Clock.clockWith(Effect.succeed))

/** An engine over a host whose jobs the test controls. */
const setup = (onStart: (job: Job) => void = () => {}, streams: Partial<StreamLimits> = {}) => {
  const jobs: Array<Job> = []
  const time = { ms: 0 }
  const clock: Clock.Clock = Object.assign(Object.create(realClock), {
    monotonicTimeNanosUnsafe: () => BigInt(time.ms * 1e6)
  })
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
      const window = job.kind === "generate" ? job.window : undefined
      const started: Job = { emit: (...events) => onEvents(events), commands, sampling, owner, window }
      jobs.push(started)
      onStart(started)
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
  return {
    jobs,
    time,
    engine: LocalEngine.make(
      host,
      description,
      errorOf,
      { random: { nextDoubleUnsafe: () => 0.5, nextIntUnsafe: () => 0 }, clock },
      { ...streamDefaults, ...streams }
    )
  }
}

const text = (text: string, count = 1): JobEvent => ({ type: "tokens", text, count })
const finished: JobEvent = {
  type: "finished",
  reason: "stop",
  usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 }
}

const turns = Effect.forEach(Array.from({ length: 20 }), () => Effect.yieldNow, { discard: true })

describe("LocalEngine", () => {
  it.effect("keeps the engine at most a window ahead, and confirms a quarter of it at once", () =>
    Effect.gen(function*() {
      const { engine, jobs } = setup(undefined, { window: 32 })
      const running = yield* Effect.forkChild(Stream.runDrain(engine.generate(generation)), { startImmediately: true })
      yield* turns
      const job = jobs[0]!
      assert.strictEqual(job.window, 32)
      for (const tokens of [7, 1, 8]) {
        job.emit(text("some", tokens))
        yield* turns
      }
      job.emit(finished)
      yield* Fiber.join(running)
      assert.deepStrictEqual(job.commands, [{ type: "grant", tokens: 8 }, { type: "grant", tokens: 8 }])
    }))

  it.effect("holds back the engine of a slow reader until the reader is fast again", () =>
    Effect.gen(function*() {
      const limits = { window: 64, slowWindow: 16, readEvery: 32 }
      for (const isDirect of [true, false]) {
        const { engine, jobs, time } = setup(undefined, limits)
        const granted = () => jobs[0]!.commands.reduce((sum, one) => sum + (one.type === "grant" ? one.tokens : 0), 0)
        let answer: StartedAnswer | undefined
        const reads: Array<() => void> = []
        if (isDirect) {
          answer = engine.start!(generation, 0, ignored)!
        } else {
          const wait = Effect.promise(() => new Promise<void>((resolve) => void reads.push(resolve)))
          yield* Effect.forkChild(Stream.runForEachArray(engine.generate(generation), () => wait), {
            startImmediately: true
          })
          yield* turns
        }
        /** The reader takes these tokens, and is ready for more after this time. */
        const read = Effect.fnUntraced(function*(tokens: number, ms: number) {
          jobs[0]!.emit(text("some", tokens))
          answer?.pause()
          yield* turns
          time.ms += ms
          answer?.resume()
          reads.shift()?.()
          yield* turns
        })
        for (let part = 0; part < 8; part++) yield* read(8, 101)
        // 64 tokens taken; the engine may be 16 ahead of them.
        assert.isAtMost(granted(), 16)
        for (let part = 0; part < 16; part++) yield* read(8, 100)
        assert.isAtLeast(granted(), 64 + 16 * 8 - 16)
      }
    }))

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

/** A started answer, and the calls of its receiver. */
const started = (wanted: Partial<Generation> = {}, onEvents = (_: StartedAnswer): void => {}) => {
  const { engine, jobs } = setup()
  const calls: Array<unknown> = []
  const slot = { held: 0 }
  const retain = () => {
    slot.held++
    return () => {
      slot.held--
    }
  }
  const answer = engine.start!({ ...generation, ...wanted }, 0, {
    events: (events) => {
      calls.push(events.map((event) => event.type === "text" ? event.text : event.type))
      onEvents(answer!)
    },
    end: () => calls.push("end"),
    failed: ({ reason }) => calls.push(reason._tag),
    died: (defect) => calls.push(["died", defect]),
    rest: () => calls.push("rest")
  }, retain)
  return { answer, calls, slot, job: jobs[0]! }
}

describe("LocalEngine.start", () => {
  it("passes the events of one message on together, and holds the slot until the job has ended", () => {
    const { calls, job, slot } = started()
    job.emit({ type: "progress" })
    job.emit(text("a"), text("b"))
    assert.strictEqual(slot.held, 1)
    job.emit(text("c"), finished)
    assert.deepStrictEqual(calls, [["a", "b"], ["c", "finish"], "end"])
    assert.strictEqual(slot.held, 0)
  })

  it("passes the text before a failure on, then the failure", () => {
    const { calls, job, slot } = started()
    job.emit(text("a"), { type: "failed", failure: { kind: "stopped" } })
    assert.deepStrictEqual(calls, [["a"], "EngineStopped"])
    assert.strictEqual(slot.held, 0)
  })

  it("grants tokens as the receiver takes them, and none while it is paused", () => {
    const { answer, calls, job } = started({}, (answer) => calls.length === 3 && answer.pause())
    job.emit(text("a", 60))
    assert.deepStrictEqual(job.commands, [])
    job.emit(text("b", 10))
    assert.deepStrictEqual(job.commands, [{ type: "grant", tokens: 70 }])
    job.emit(text("c", 100))
    job.emit(text("d", 86))
    job.emit(text("e", 70))
    assert.deepStrictEqual(calls, [["a"], ["b"], ["c"]])
    assert.strictEqual(job.commands.length, 1)
    answer!.resume()
    assert.deepStrictEqual(calls.slice(3), [["d", "e"]])
    assert.deepStrictEqual(job.commands.slice(1), [{ type: "grant", tokens: 256 }])
    job.emit(finished)
    assert.deepStrictEqual(calls.slice(4), [["finish"], "end"])
    assert.strictEqual(job.commands.length, 2)
  })

  it("passes on what arrives during the start once it has returned, and not while it is paused", async () => {
    const { engine } = setup(({ emit }) => emit(text("a"), { type: "failed", failure: { kind: "stopped" } }))
    const calls: Array<string> = []
    const called = (name: string) => () => void calls.push(name)
    const receiver: EventReceiver = {
      events: called("events"),
      end: called("end"),
      failed: called("failed"),
      died: called("died"),
      rest: called("rest")
    }
    const answer = engine.start!(generation, 0, receiver)
    answer!.pause()
    await Promise.resolve()
    assert.deepStrictEqual(calls, [])
    answer!.resume()
    assert.deepStrictEqual(calls, ["events", "failed"])
    engine.start!(generation, 0, receiver)
    assert.strictEqual(calls.length, 2)
    await Promise.resolve()
    assert.deepStrictEqual(calls.slice(2), ["events", "failed"])
  })

  it("does not end an answer that its last events paused until it is resumed", () => {
    const { answer, calls, job } = started({}, (answer) => answer.pause())
    job.emit(text("a"), finished)
    assert.deepStrictEqual(calls, [["a", "finish"]])
    answer!.resume()
    assert.deepStrictEqual(calls, [["a", "finish"], "end"])
  })

  it("cancels the job when it is closed, calls its receiver no more, and holds the slot until the job has ended", () => {
    const { answer, calls, job, slot } = started()
    job.emit(text("a"))
    answer!.close()
    assert.deepStrictEqual(job.commands, [{ type: "cancel" }])
    job.emit(text("b"))
    assert.strictEqual(slot.held, 1)
    job.emit({ type: "cancelled" })
    assert.strictEqual(slot.held, 0)
    answer!.close()
    assert.deepStrictEqual(job.commands, [{ type: "cancel" }])
    assert.deepStrictEqual(calls, [["a"]])
  })

  it("cancels the job of a receiver that throws, and reports the defect", () => {
    const defect = new Error("no luck")
    const { calls, job } = started({}, () => {
      throw defect
    })
    job.emit(text("a"))
    job.emit(text("b"), finished)
    assert.deepStrictEqual(calls, [["a"], ["died", defect]])
    assert.deepStrictEqual(job.commands, [{ type: "cancel" }])
  })

  it("does not start what local engines do not support", () => {
    const image = { type: "image", source: { type: "url", url: "https://example.com/a.png" } } as const
    const messages: Generation["messages"] = [{ role: "user", content: [image] }]
    const { answer, job, slot } = started({ messages })
    assert.isUndefined(answer)
    assert.isUndefined(job)
    assert.strictEqual(slot.held, 0)
  })

  it("draws a seed if the caller has not set one", () => {
    const { job } = started({ sampling: {} })
    assert.deepStrictEqual(job.sampling, { temperature: 1, topP: 1, seed: Math.floor((maxSeed + 1) / 2) })
  })
})
