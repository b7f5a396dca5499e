/** Answers to similar requests: which requests share them, and what their embeddings cost. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Logger, Metric } from "effect"
import { TestClock } from "effect/testing"
import type { CacheSettings, SemanticSettings } from "../../../src/domain/CacheControl.ts"
import type { AnswerSink, Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { none } from "../../../src/services/cache/ResponseCache.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import { nearMisses, paraphrases } from "../../support/QuestionPairs.ts"
import type { Job, Part, Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

const semantic: SemanticSettings = {
  embeddings: "embedder",
  threshold: 0.9,
  margin: 0.02,
  timeoutMs: 500,
  entries: 100,
  bytes: 1_000_000
}

const cache: CacheSettings = { when: "always", ttlMs: 3_600_000, semantic }

/** Every question has the same embedding unless a test says otherwise. */
const settingOf = (embedder: Part = {}, more: Partial<SemanticSettings> = {}, answering: Part = {}): Setting => ({
  models: { a: [{ pieces: ["Hi ", "there"], ...answering }], embedder: [embedder] },
  cache: { ...cache, semantic: { ...semantic, ...more } }
})

const ask = (content: string, more: Partial<Request> = {}): Request => ({
  model: "a",
  messages: [{ role: "user", content }],
  tenant: "one",
  ...more
})

/** How the cache took part. */
const used = (request: Request) =>
  Inference.use((inference) => inference.generate(request)).pipe(
    Effect.map(({ cache }) => cache?.result === "hit" ? cache.tier : cache?.result)
  )

const delivered = Effect.fnUntraced(function*(request: Request) {
  let tier: string | undefined
  const sink: AnswerSink = {
    begin: ({ cache }) => {
      tier = cache?.result === "hit" ? cache.tier : cache?.result
    },
    events: () => true,
    whenDrained: (callback) => callback()
  }
  yield* (yield* Inference).deliver(request, sink)
  return tier
})

const run = <A, E>(
  setting: Setting,
  program: (jobs: ReadonlyArray<Job>) => Effect.Effect<A, E, Inference | DecisionLog>
) => {
  const made = world(setting)
  return program(made.jobs).pipe(
    Effect.provide(made.layer),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
}

const jobsOf = (jobs: ReadonlyArray<Job>, deployment: string) =>
  jobs.filter((job) => job.deployment === deployment).length

const reset = "How do I reset my password?"
const similar = "how can I reset my password, please"

/** What the second of two requests gets. */
const second = (setting: Setting, first: Request, next: Request) =>
  run(setting, () => Effect.andThen(used(first), used(next)))

describe("a similar request", () => {
  it.effect("gets the answer of the first one, with its similarity", () =>
    run(settingOf(), (jobs) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* used(ask(reset)), "miss")
        yield* TestClock.adjust("10 seconds")
        const answer = yield* Inference.use((inference) => inference.generate(ask(similar)))
        assert.deepInclude(answer, { text: "Hi there", attempts: 0, deployment: "a#0" })
        assert.deepInclude(answer.cache, { result: "hit", tier: "semantic", ageMs: 10_000, similarity: 1 })
        assert.strictEqual(jobsOf(jobs, "a#0"), 1)
        const [record] = (yield* DecisionLog).latest(1)
        assert.deepInclude(record, { id: answer.decision, cache: "semantic", attempts: [], end: "success" })
        assert.strictEqual(yield* used(ask(reset)), "memory")
      })))

  it.effect("gets it streamed", () =>
    run(settingOf(), () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* delivered(ask(reset)), "miss")
        assert.strictEqual(yield* delivered(ask(similar)), "semantic")
      })))

  it.effect.each(paraphrases)("may say it in other words: %s / %s", ([one, other]) =>
    Effect.gen(function*() {
      assert.strictEqual(yield* second(settingOf(), ask(one), ask(other)), "semantic")
    }))

  it.effect.each(nearMisses)(
    "is none with other facts, even with the same embedding: %s / %s",
    ([one, other]) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* second(settingOf(), ask(one), ask(other)), "miss")
      })
  )

  it.effect("differs in nothing but its last user message", () =>
    Effect.gen(function*() {
      const system = { role: "system", content: "Be brief." } as const
      const question = { role: "user", content: similar } as const
      const others: ReadonlyArray<Partial<Request>> = [
        { tenant: "two" },
        { temperature: 0 },
        { maxTokens: 5 },
        { tools: [{ name: "f" }] },
        { format: { type: "json_object" } },
        { messages: [system, question] },
        { messages: [{ role: "user", content: "Hi" }, { role: "assistant", content: "Hello" }, question] },
        { messages: [{ role: "user", content: [{ type: "text", text: similar }, { type: "text", text: "Why?" }] }] },
        { messages: [question, { role: "assistant", content: "Hello" }] }
      ]
      for (const other of others) {
        assert.notStrictEqual(yield* second(settingOf(), ask(reset), ask(similar, other)), "semantic")
      }
    }))

  it.effect("is recognized in the caller's own body, whose other fields count", () =>
    Effect.gen(function*() {
      const own = (content: unknown, more: object = {}): Partial<Request> => ({
        source: {
          dialect: "openai",
          body: { model: "a", messages: [{ role: "user", content }], ...more },
          isChecked: true
        }
      })
      const remote = settingOf({}, {}, {})
      const sent: Setting = {
        ...remote,
        models: {
          ...remote.models,
          a: [{ pieces: ["Hi"], options: { engine: "remote", provider: "openai", model: "m" } }]
        }
      }
      const next = (more: Partial<Request>) => second(sent, ask(reset, own(reset)), ask(similar, more))
      assert.strictEqual(yield* next(own(similar)), "semantic")
      assert.strictEqual(yield* next(own(similar, { verbosity: "low" })), "miss")
      assert.strictEqual(yield* next(own("another text")), "miss")
    }))

  it.effect("is none of a longer text, and none without a question", () =>
    Effect.gen(function*() {
      const long = "word ".repeat(500)
      assert.strictEqual(yield* second(settingOf(), ask(`${long}one?`), ask(`${long}one`)), "miss")
      assert.strictEqual(yield* second(settingOf(), ask("  "), ask(" ")), "miss")
    }))

  it.effect("is only looked for where the model says so", () =>
    run({ ...settingOf(), cache: { when: "always", ttlMs: 3_600_000 } }, (jobs) =>
      Effect.gen(function*() {
        yield* used(ask(reset))
        assert.strictEqual(yield* used(ask(similar)), "miss")
        assert.strictEqual(jobsOf(jobs, "embedder#0"), 0)
      })))

  it.effect("obeys Cache-Control, and is embedded only if an answer may be used", () =>
    run(settingOf(), (jobs) =>
      Effect.gen(function*() {
        yield* used(ask(reset))
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* used(ask(similar, { cache: { noStore: true } })), "bypass")
        assert.strictEqual(jobsOf(jobs, "embedder#0"), 1)
        assert.strictEqual(yield* used(ask(similar, { cache: { maxAge: 10 } })), "semantic")
        assert.strictEqual(yield* used(ask(similar, { cache: { maxAge: 9 } })), "miss")
        assert.strictEqual(yield* used(ask("Tell me how to reset the password", { cache: { noCache: true } })), "miss")
        assert.strictEqual(jobsOf(jobs, "embedder#0"), 3)
      })))

  it.effect("gets an answer until its time to live ends", () =>
    run(settingOf(), () =>
      Effect.gen(function*() {
        yield* used(ask(reset))
        yield* TestClock.adjust("59 minutes")
        assert.strictEqual(yield* used(ask(similar)), "semantic")
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* used(ask(similar)), "miss")
      })))
})

/** Points on a circle: the cosine of two is that of their distance. */
const circle = (angles: Readonly<Record<string, number>>) => (text: string) => {
  const angle = angles[text] ?? 0
  return [Math.cos(angle), Math.sin(angle)]
}

describe("the similarity", () => {
  it.effect.each([[0.89, "miss"], [0.91, "semantic"]] as const)(
    "of %d makes a %s",
    ([similarity, expected]) =>
      Effect.gen(function*() {
        const vectorOf = circle({ [similar]: Math.acos(similarity) })
        assert.strictEqual(yield* second(settingOf({ vectorOf }), ask(reset), ask(similar)), expected)
      })
  )

  it.effect("of vectors without a direction, or of another length, is none", () =>
    Effect.gen(function*() {
      const vectors = [() => [0, 0], () => [Number.NaN], () => [], (text: string) => text === reset ? [1] : [1, 0]]
      for (const vectorOf of vectors) {
        assert.strictEqual(yield* second(settingOf({ vectorOf }), ask(reset), ask(similar)), "miss")
      }
    }))
})

describe("an embedding", () => {
  const warnings = () => {
    const lines: Array<string> = []
    const logger = Logger.make(({ message }) => {
      lines.push(String(message))
    })
    return { lines, layer: Logger.layer([logger]) }
  }

  it.effect("that fails makes a miss, and is logged once", () => {
    const { layer, lines } = warnings()
    const reason = new InferenceError.EngineFailed({ deployment: "embedder#0", detail: "It is broken." })
    return run(settingOf({ fails: { reason } }), () =>
      Effect.gen(function*() {
        assert.strictEqual(yield* used(ask(reset)), "miss")
        assert.strictEqual(yield* used(ask(similar)), "miss")
        assert.lengthOf(lines.filter((line) => line.includes("embedding of a question")), 1)
      })).pipe(Effect.provide(layer))
  })

  it.effect("that is slow delays a request by the configured time, and no more", () => {
    const { layer, lines } = warnings()
    return run(settingOf({ firstMs: 60_000 }), (jobs) =>
      Effect.gen(function*() {
        for (const content of [reset, similar]) {
          const before = jobsOf(jobs, "a#0")
          const fiber = yield* Effect.forkChild(used(ask(content)))
          yield* TestClock.adjust("499 millis")
          assert.strictEqual(jobsOf(jobs, "a#0"), before)
          yield* TestClock.adjust("1 millis")
          assert.strictEqual(yield* Fiber.join(fiber), "miss")
        }
        assert.lengthOf(lines.filter((line) => line.includes("cache.semantic.timeout")), 1)
      })).pipe(Effect.provide(layer))
  })

  it.effect("is a request of the same caller, with a record of its own", () =>
    run(settingOf(), (jobs) =>
      Effect.gen(function*() {
        yield* used(ask(reset, { priority: "high" }))
        const job = jobs.find(({ deployment }) => deployment === "embedder#0")
        assert.deepInclude(job!.caller, { tenant: "one", priority: "high" })
        const records = (yield* DecisionLog).latest(5)
        assert.deepStrictEqual(records.map(({ answeredBy }) => answeredBy), ["a#0", "embedder#0"])
      })))

  it.effect("ends when the caller leaves", () =>
    run(settingOf({ firstMs: 400 }), (jobs) =>
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(used(ask(reset)))
        yield* TestClock.adjust("100 millis")
        yield* Fiber.interrupt(fiber)
        yield* TestClock.adjust("1 second")
        assert.strictEqual(jobsOf(jobs, "a#0"), 0)
        const records = (yield* DecisionLog).latest(5)
        assert.deepStrictEqual(records.map(({ end }) => end), ["interruption"])
      })))

  it.effect("is not made for a cache of the program that does not know questions", () =>
    run({ ...settingOf(), responseCache: none }, (jobs) =>
      Effect.gen(function*() {
        assert.strictEqual(yield* used(ask(reset)), "miss")
        assert.strictEqual(jobsOf(jobs, "embedder#0"), 0)
      })))
})
