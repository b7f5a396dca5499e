/**
 * What every engine does, whoever runs it: the one suite of the Engine seam.
 *
 * Each implementation names its deployment and three prompts; the suite says nothing about speed or wording.
 */
import { assert, it } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Stream } from "effect"
import { describe } from "vitest"
import * as EnginesLayer from "../../src/layers/engines/Engines.ts"
import * as ModelsLayer from "../../src/layers/models/Models.ts"
import type { Engine, Generation } from "../../src/services/Engine.ts"
import { Engines } from "../../src/services/Engine.ts"
import type { Event } from "../../src/services/Inference.ts"
import type { InferenceError } from "../../src/services/InferenceError.ts"
import type { Deployment, DeploymentOptions } from "../../src/services/Model.ts"
import type { Status } from "../../src/services/Models.ts"
import { Models } from "../../src/services/Models.ts"

/** An implementation under test. Its deployment must have 4 slots. */
export interface Subject {
  readonly name: string
  readonly options: DeploymentOptions
  readonly where: "process" | "thread"
  /** What starts it; default what starts engines there. */
  readonly engines?: Layer.Layer<Engines>
  /** A prompt and its greedy answer, which must have several words. */
  readonly question: readonly [prompt: string, answer: string]
  /** A prompt with a greedy answer of at least 20 tokens. */
  readonly long: string
  /** A prompt that fits the window and leaves room for fewer tokens than its answer would have. */
  readonly nearlyFull: string
  /** A prompt that does not fit the window. */
  readonly tooLong: string
}

export const deploymentOf = (options: DeploymentOptions): Deployment => ({
  id: "subject#0",
  model: "subject",
  options,
  idleUnload: Duration.minutes(10),
  preload: false,
  pinned: false,
  queueLimit: 512,
  stallAfter: Duration.minutes(2)
})

const ask = (prompt: string, options: Partial<Generation> = {}): Generation => ({
  messages: [{ role: "user", content: prompt }],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  maxTokens: undefined,
  stop: [],
  ...options
})

interface Collected {
  readonly text: string
  readonly tokens: number
  readonly finish: Extract<Event, { type: "finish" }>
}

const collect = (stream: Stream.Stream<Event, InferenceError>): Effect.Effect<Collected, InferenceError> =>
  Effect.map(Stream.runCollect(stream), (events) => {
    const last = events.at(-1)
    assert.strictEqual(last?.type, "finish")
    const texts = events.filter((event) => event.type === "text")
    assert.strictEqual(texts.length, events.length - 1, "exactly one finish, and it is the last event")
    return {
      text: texts.map((event) => event.text).join(""),
      tokens: texts.reduce((sum, event) => sum + event.tokens, 0),
      finish: last as Collected["finish"]
    }
  })

/** The engine as everyone meets it: behind an actor, which lends its slots. */
interface Stage extends Pick<Engine, "describe" | "embed" | "rerank" | "classify" | "tokenize"> {
  readonly generate: (generation: Generation) => Stream.Stream<Event, InferenceError>
  readonly load: Effect.Effect<Status>
}

const idle = (engine: Stage): Effect.Effect<void> =>
  Effect.flatMap(
    engine.load,
    ({ running }) => running === 0 ? Effect.void : Effect.andThen(Effect.sleep(2), idle(engine))
  )

const stage = Effect.fnUntraced(function*(deployment: Deployment) {
  const models = yield* Models
  const engine = yield* Effect.scoped(models.borrow(deployment, {}))
  return {
    ...engine,
    generate: (generation) =>
      Stream.unwrap(Effect.map(models.borrow(deployment, {}), (lent) => lent.generate(generation))),
    load: models.status(deployment)
  } satisfies Stage
})

/** Runs the suite. */
export const engineConformance = (subject: Subject) => {
  const [prompt, answer] = subject.question
  const engines = subject.engines ?? Layer.succeed(Engines, EnginesLayer.make(subject.where))
  const withEngine = <A, E>(use: (engine: Stage) => Effect.Effect<A, E>) =>
    Effect.flatMap(stage(deploymentOf(subject.options)), use).pipe(
      Effect.provide(
        Layer.provide(ModelsLayer.layerUnbounded, engines)
      )
    )
  const test = <E>(name: string, use: (engine: Stage) => Effect.Effect<void, E>) => {
    it.live(name, () => withEngine(use))
  }

  describe(`${subject.name} in a ${subject.where}`, () => {
    test("describes itself", (engine) =>
      Effect.sync(() => {
        assert.strictEqual(engine.describe.engine, subject.options.engine)
        assert.isAbove(engine.describe.contextWindow, 0)
        assert.strictEqual(engine.describe.slots, 4)
      }))

    test("streams the greedy answer and counts it exactly", (engine) =>
      Effect.gen(function*() {
        const { finish, text, tokens } = yield* collect(engine.generate(ask(prompt)))
        assert.strictEqual(text, answer)
        assert.strictEqual(finish.reason, "stop")
        assert.isAbove(finish.usage.promptTokens, 0)
        assert.isAtMost(tokens, finish.usage.completionTokens)
        assert.isAbove(finish.usage.completionTokens, 1)
      }))

    test("gives the same answer for the same seed, also beside other jobs", (engine) =>
      Effect.gen(function*() {
        const sampled = ask(subject.long, { sampling: { temperature: 1, topP: 1, seed: 7 } })
        const alone = yield* collect(engine.generate(sampled))
        const crowd = yield* Effect.all(
          [sampled, ask(prompt), sampled, ask(subject.long)].map((one) => collect(engine.generate(one))),
          { concurrency: "unbounded" }
        )
        assert.strictEqual(crowd[0]?.text, alone.text)
        assert.strictEqual(crowd[2]?.text, alone.text)
        assert.strictEqual(crowd[1]?.text, answer)
      }))

    test("does not mix the answers of jobs that begin and end beside each other", (engine) =>
      Effect.gen(function*() {
        const { text } = yield* collect(engine.generate(ask(subject.long)))
        const caller = (index: number) =>
          Effect.andThen(
            Effect.sleep(index * 7),
            Effect.replicateEffect(collect(engine.generate(ask(subject.long))), 6)
          )
        const answers = yield* Effect.forEach([0, 1, 2, 3, 4, 5], caller, { concurrency: "unbounded" })
        assert.deepStrictEqual(new Set(answers.flat().map((one) => one.text)), new Set([text]))
      }))

    test("ends at maxTokens with length and exactly that many tokens", (engine) =>
      Effect.gen(function*() {
        const { finish } = yield* collect(engine.generate(ask(subject.long, { maxTokens: 5 })))
        assert.strictEqual(finish.reason, "length")
        assert.strictEqual(finish.usage.completionTokens, 5)
      }))

    test("ends before a stop sequence, even one that spans tokens", (engine) =>
      Effect.gen(function*() {
        const cut = Math.floor(answer.length / 2)
        const stop = answer.slice(cut, cut + 8)
        const { finish, text } = yield* collect(engine.generate(ask(prompt, { stop: [stop, "never said"] })))
        assert.strictEqual(text, answer.slice(0, answer.indexOf(stop)))
        assert.strictEqual(finish.reason, "stop")
      }))

    test("refuses a prompt that does not fit, with both numbers", (engine) =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(collect(engine.generate(ask(subject.tooLong))))
        const { reason } = error
        assert.strictEqual(reason._tag, "ContextLengthExceeded")
        if (reason._tag !== "ContextLengthExceeded") return
        assert.strictEqual(reason.contextWindow, engine.describe.contextWindow)
        assert.isAtLeast(reason.promptTokens, reason.contextWindow)
        // The slot is free again.
        assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
      }))

    test("ends with length where the window ends", (engine) =>
      Effect.gen(function*() {
        const { finish } = yield* collect(engine.generate(ask(subject.nearlyFull)))
        assert.strictEqual(finish.reason, "length")
        assert.strictEqual(
          finish.usage.promptTokens + finish.usage.completionTokens,
          engine.describe.contextWindow
        )
      }))

    test("gives its slot back when the consumer stops reading", (engine) =>
      Effect.gen(function*() {
        const first = yield* Stream.runCollect(Stream.take(engine.generate(ask(subject.long)), 1))
        assert.strictEqual(first.length, 1)
        yield* idle(engine)
        assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
      }))

    test("gives its slot back when the consumer is interrupted, running or waiting", (engine) =>
      Effect.gen(function*() {
        const fibers = yield* Effect.forEach(
          Array.from({ length: 12 }, () => ask(subject.long)),
          (one) => Effect.forkChild(collect(engine.generate(one)))
        )
        yield* Effect.sleep(5)
        const exits = yield* Effect.forEach(
          fibers,
          (fiber) => Effect.andThen(Fiber.interrupt(fiber), Fiber.await(fiber))
        )
        assert.isTrue(exits.some(Exit.isFailure))
        yield* idle(engine)
        assert.strictEqual((yield* engine.load).queued, 0)
        assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
      }))

    test("answers more callers than it has slots", (engine) =>
      Effect.gen(function*() {
        const answers = yield* Effect.all(
          Array.from({ length: 20 }, () => collect(engine.generate(ask(prompt)))),
          { concurrency: "unbounded" }
        )
        assert.deepStrictEqual(answers.map(({ text }) => text), Array.from({ length: 20 }, () => answer))
        assert.deepInclude(yield* engine.load, { running: 0, queued: 0 })
      }))

    test("serves others while one consumer does not read", (engine) =>
      Effect.gen(function*() {
        const stalled = yield* Effect.forkChild(
          Stream.runForEach(engine.generate(ask(subject.long)), () => Effect.never)
        )
        assert.strictEqual((yield* collect(engine.generate(ask(prompt)))).text, answer)
        yield* Fiber.interrupt(stalled)
      }))
  })
}
