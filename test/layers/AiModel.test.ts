import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Schema, Stream } from "effect"
import { AiError, LanguageModel, Model, Tool, Toolkit } from "effect/ai"
import type { Prompt } from "effect/ai"
import * as AiModel from "../../src/layers/AiModel.ts"
import type { Event, Request } from "../../src/services/Inference.ts"
import { Inference } from "../../src/services/Inference.ts"
import * as InferenceError from "../../src/services/InferenceError.ts"

interface Stage {
  /** What was asked. */
  readonly requests: Array<Request>
  readonly layer: Layer.Layer<Inference>
}

const usage = { promptTokens: 7, completionTokens: 3, cachedTokens: 0 }

const events: ReadonlyArray<Event> = [
  { type: "text", text: "Hi ", tokens: 1 },
  { type: "text", text: "there", tokens: 2 },
  { type: "finish", reason: "stop", usage }
]

/** An `Inference` that answers with these events, or fails after those that come before the failure. */
const stage = (
  answer: Stream.Stream<Event, InferenceError.InferenceError> = Stream.fromIterable(events)
): Stage => {
  const requests: Array<Request> = []
  const stream = (request: Request) =>
    Stream.suspend(() => {
      requests.push(request)
      return answer
    })
  const inference = Inference.of({
    stream,
    embed: () => Effect.die("not played"),
    rerank: () => Effect.die("not played"),
    classify: () => Effect.die("not played"),
    tokenize: () => Effect.die("not played"),
    generate: (request) =>
      Effect.map(Stream.runCollect(stream(request)), (events) => {
        const last = events.at(-1)
        return {
          text: events.map((event) => event.type === "text" ? event.text : "").join(""),
          toolCalls: [],
          finishReason: last?.type === "finish" ? last.reason : "stop",
          usage,
          deployment: "tiny-chat#0"
        }
      })
  })
  return { requests, layer: Layer.succeed(Inference, inference) }
}

const model = AiModel.layer("tiny-chat", { temperature: 0, maxTokens: 5 })

const on = ({ layer }: Stage) => Effect.provide(Layer.provide(model, layer))

const Weather = Tool.make("Weather", {
  parameters: Schema.Struct({ city: Schema.String }),
  success: Schema.String
})
const toolkit = Toolkit.make(Weather)
const tools = toolkit.toLayer({ Weather: () => Effect.succeed("rain") })

const failures: ReadonlyArray<
  readonly [reason: InferenceError.Reason, expected: AiError.AiErrorReason["_tag"], isRetryable: boolean]
> = [
  [new InferenceError.InvalidRequest({ detail: "Too warm." }), "InvalidRequestError", false],
  [new InferenceError.ModelNotFound({ model: "x", available: [] }), "InvalidRequestError", false],
  [
    new InferenceError.ContextLengthExceeded({ model: "x", promptTokens: 9, contextWindow: 8 }),
    "InvalidRequestError",
    false
  ],
  [new InferenceError.ModelLoadFailed({ deployment: "x#0", detail: "Cut." }), "InternalProviderError", true],
  [new InferenceError.EngineMissing({ deployment: "x#0", packageName: "p" }), "InternalProviderError", true],
  [new InferenceError.EngineStopped({ deployment: "x#0" }), "InternalProviderError", true],
  [new InferenceError.EngineCrashed({ deployment: "x#0", detail: "Gone." }), "InternalProviderError", true],
  [new InferenceError.EngineFailed({ deployment: "x#0", detail: "Hm." }), "InternalProviderError", true]
]

const refusals: ReadonlyArray<readonly [what: string, prompt: Prompt.RawInput, word: string]> = [
  [
    "a file",
    [{ role: "user", content: [{ type: "file", mediaType: "image/png", data: new Uint8Array([1]) }] }],
    "file"
  ],
  [
    "a file beside a text",
    [{
      role: "user",
      content: [
        { type: "text", text: "What is this?" },
        { type: "file", mediaType: "image/png", data: new Uint8Array([1]) }
      ]
    }],
    "file"
  ],
  ["a reasoning", [{ role: "assistant", content: [{ type: "reasoning", text: "Hm." }] }], "reasoning"],
  ["no message", [], "no message"]
]

describe("AiModel", () => {
  describe("generateText", () => {
    it.effect("gives the text, the reason and the usage", () =>
      Effect.gen(function*() {
        const response = yield* LanguageModel.generateText({ prompt: "Hello" })
        assert.strictEqual(response.text, "Hi there")
        assert.strictEqual(response.finishReason, "stop")
        assert.deepInclude(response.usage.inputTokens, { total: 7, uncached: 7, cacheRead: 0 })
        assert.deepInclude(response.usage.outputTokens, { total: 3, text: 3, reasoning: 0 })
      }).pipe(on(stage())))

    it.effect("tells that an answer was cut", () =>
      Effect.gen(function*() {
        const response = yield* LanguageModel.generateText({ prompt: "Hello" })
        assert.strictEqual(response.finishReason, "length")
      }).pipe(on(stage(Stream.make({ type: "finish", reason: "length", usage })))))

    it.effect("asks for the model with its options", () => {
      const inference = stage()
      return Effect.gen(function*() {
        yield* LanguageModel.generateText({ prompt: "Hello" })
        assert.deepStrictEqual(inference.requests, [{
          model: "tiny-chat",
          temperature: 0,
          maxTokens: 5,
          messages: [{ role: "user", content: "Hello" }]
        }])
      }).pipe(on(inference))
    })

    it.effect("keeps system, user and assistant messages in their order and joins their texts", () => {
      const inference = stage()
      return Effect.gen(function*() {
        yield* LanguageModel.generateText({
          prompt: [
            { role: "system", content: "Be brief." },
            { role: "user", content: "Hello" },
            { role: "assistant", content: "Hi" },
            { role: "user", content: [{ type: "text", text: "One, " }, { type: "text", text: "two" }] }
          ]
        })
        assert.deepStrictEqual(inference.requests[0]?.messages, [
          { role: "system", content: "Be brief." },
          { role: "user", content: "Hello" },
          { role: "assistant", content: "Hi" },
          { role: "user", content: "One, two" }
        ])
      }).pipe(on(inference))
    })
  })

  describe("streamText", () => {
    it.effect("gives a text's start, its pieces, its end and the finish, in this order", () =>
      Effect.gen(function*() {
        const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Hello" }))
        assert.deepStrictEqual(
          parts.map((part) => part.type === "text-delta" ? `${part.type}: ${part.delta}` : part.type),
          ["text-start", "text-delta: Hi ", "text-delta: there", "text-end", "finish"]
        )
      }).pipe(on(stage())))

    it.effect("marks all of a text's parts with one id", () =>
      Effect.gen(function*() {
        const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Hello" }))
        assert.strictEqual(new Set(parts.flatMap((part) => "id" in part ? [part.id] : [])).size, 1)
      }).pipe(on(stage())))

    it.effect("finishes with the reason and the usage", () =>
      Effect.gen(function*() {
        const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Hello" }))
        const finish = parts.find((part) => part.type === "finish")
        assert.strictEqual(finish?.reason, "length")
        assert.strictEqual(finish?.usage.inputTokens.total, 7)
        assert.strictEqual(finish?.usage.outputTokens.total, 3)
      }).pipe(on(stage(Stream.make({ type: "finish", reason: "length", usage })))))

    it.effect("asks for the model with its options", () => {
      const inference = stage()
      return Effect.gen(function*() {
        yield* Stream.runDrain(LanguageModel.streamText({ prompt: "Hello" }))
        assert.deepStrictEqual(inference.requests, [{
          model: "tiny-chat",
          temperature: 0,
          maxTokens: 5,
          messages: [{ role: "user", content: "Hello" }]
        }])
      }).pipe(on(inference))
    })

    it.effect("gives the pieces that came before a failure", () => {
      const failed = InferenceError.make(new InferenceError.EngineFailed({ deployment: "x#0", detail: "Hm." }))
      const inference = stage(Stream.concat(Stream.fromIterable(events.slice(0, 1)), Stream.fail(failed)))
      return Effect.gen(function*() {
        const pieces: Array<string> = []
        const error = yield* Effect.flip(
          Stream.runForEach(LanguageModel.streamText({ prompt: "Hello" }), (part) =>
            Effect.sync(() => {
              if (part.type === "text-delta") pieces.push(part.delta)
            }))
        )
        assert.deepStrictEqual(pieces, ["Hi "])
        assert.strictEqual(error.reason._tag, "InternalProviderError")
      }).pipe(on(inference))
    })
  })

  describe("refuses, and asks nothing:", () => {
    const assertRefused = (error: AiError.AiError, method: string, word: string, { requests }: Stage) => {
      assert.instanceOf(error, AiError.AiError)
      assert.strictEqual(error.reason._tag, "InvalidUserInputError")
      assert.strictEqual(error.module, "Troupe")
      assert.strictEqual(error.method, method)
      assert.include(error.message, word)
      assert.isFalse(error.isRetryable)
      assert.deepStrictEqual(requests, [])
    }

    for (const [what, prompt, word] of refusals) {
      it.effect(what, () => {
        const inference = stage()
        return Effect.gen(function*() {
          const error = yield* Effect.flip(LanguageModel.generateText({ prompt }))
          assertRefused(error, "generateText", word, inference)
          const streamed = yield* Effect.flip(Stream.runDrain(LanguageModel.streamText({ prompt })))
          assertRefused(streamed, "streamText", word, inference)
        }).pipe(on(inference))
      })
    }

    it.effect("a toolkit", () => {
      const inference = stage()
      return Effect.gen(function*() {
        const error = yield* Effect.flip(LanguageModel.generateText({ prompt: "Hello", toolkit }))
        assertRefused(error, "generateText", "toolkit", inference)
        const streamed = yield* Effect.flip(Stream.runDrain(LanguageModel.streamText({ prompt: "Hello", toolkit })))
        assertRefused(streamed, "streamText", "toolkit", inference)
      }).pipe(on(inference), Effect.provide(tools))
    })

    it.effect("structured output", () => {
      const inference = stage()
      return Effect.gen(function*() {
        const schema = Schema.Struct({ city: Schema.String })
        const error = yield* Effect.flip(LanguageModel.generateObject({ prompt: "Hello", schema }))
        assertRefused(error, "generateText", "Structured output", inference)
      }).pipe(on(inference))
    })
  })

  describe("failures of inference", () => {
    it("there is a case here for every reason", () => {
      assert.strictEqual(new Set(failures.map(([reason]) => reason._tag)).size, InferenceError.Reason.members.length)
    })

    for (const [reason, expected, isRetryable] of failures) {
      it.effect(`${reason._tag} is ${expected} with the same words`, () =>
        Effect.gen(function*() {
          const failures = [
            yield* Effect.flip(LanguageModel.generateText({ prompt: "Hello" })),
            yield* Effect.flip(Stream.runDrain(LanguageModel.streamText({ prompt: "Hello" })))
          ]
          for (const error of failures) {
            assert.strictEqual(error.reason._tag, expected)
            assert.include(error.message, reason.message)
            assert.strictEqual(error.isRetryable, isRetryable)
          }
        }).pipe(on(stage(Stream.fail(InferenceError.make(reason))))))
    }
  })

  it.effect("is a model that tells its provider and name", () =>
    Effect.gen(function*() {
      const response = yield* LanguageModel.generateText({ prompt: "Hello" })
      assert.strictEqual(response.text, "Hi there")
      assert.strictEqual(yield* Model.ProviderName, "troupe")
      assert.strictEqual(yield* Model.ModelName, "tiny-chat")
    }).pipe(Effect.provide(Layer.provide(AiModel.model("tiny-chat"), stage().layer))))
})
