import { assert, describe, it } from "@effect/vitest"
import type { Scope } from "effect"
import { Cause, Context, Data, Deferred, Duration, Effect, Exit, Fiber, Layer, Stream } from "effect"
import type { Response } from "effect/ai"
import { AiError, LanguageModel, Prompt, Tool } from "effect/ai"
import { TestClock } from "effect/testing"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import type * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as LanguageModelsLayer from "../../../src/layers/ai/LanguageModels.ts"
import * as Engines from "../../../src/layers/engines/Engines.ts"
import type { Engine } from "../../../src/services/engines/Engine.ts"
import { LanguageModels } from "../../../src/services/engines/LanguageModelKind.ts"
import * as Deployments from "../../support/Deployments.ts"

class Unbuilt extends Data.TaggedError("Unbuilt")<{ readonly message: string }> {}

type Part = Response.StreamPartEncoded

const usage = {
  inputTokens: { total: 11, uncached: 4, cacheRead: 7, cacheWrite: undefined },
  outputTokens: { total: 5, text: 5, reasoning: 0 }
}
const unreported = { inputTokens: {}, outputTokens: {} }

const finish = (reason: Response.FinishReason, reported: typeof usage | typeof unreported = usage): Part => ({
  type: "finish",
  reason,
  usage: reported
})

const text = (...pieces: ReadonlyArray<string>): ReadonlyArray<Part> => [
  { type: "text-start", id: "t" },
  ...pieces.map((delta): Part => ({ type: "text-delta", id: "t", delta })),
  { type: "text-end", id: "t" }
]

/** A scripted model that records its calls. */
const script = (stream: Stream.Stream<Part, AiError.AiError>, buffered: ReadonlyArray<Response.PartEncoded> = []) => {
  const calls: Array<LanguageModel.ProviderOptions> = []
  const layer = Layer.effect(
    LanguageModel.LanguageModel,
    LanguageModel.make({
      generateText: (options) => {
        calls.push(options)
        return Effect.succeed([...buffered])
      },
      streamText: (options) => {
        calls.push(options)
        return stream
      }
    })
  )
  return { calls, layer }
}

const deployment = (name = "scripted", more: Partial<Deployment> = {}) =>
  Deployments.deployment("m#0", { options: { engine: "language-model", name, contextSize: 100, slots: 3 }, ...more })

const start = (
  provided: LanguageModelsLayer.Provided,
  name?: string,
  more?: Partial<Deployment>
): Effect.Effect<Engine, InferenceError.InferenceError, Scope.Scope> =>
  Effect.flatMap(LanguageModels, (models) => Engines.make("thread", models).start(deployment(name, more))).pipe(
    Effect.provide(LanguageModelsLayer.layer({ scripted: provided }))
  )

const ask = (options: Partial<Generation> = {}): Generation => ({
  messages: [{ role: "user", content: "Hello" }],
  sampling: { temperature: 1, topP: 1, seed: 7 },
  stop: [],
  ...options
})

const run = Effect.fnUntraced(function*(
  provided: LanguageModelsLayer.Provided,
  options?: Partial<Generation>
): Effect.fn.Return<ReadonlyArray<Event>, InferenceError.InferenceError> {
  return yield* Effect.flatMap(start(provided), (engine) => Stream.runCollect(engine.generate(ask(options)))).pipe(
    Effect.scoped
  )
})

const answer = (parts: ReadonlyArray<Part>, options?: Partial<Generation>) =>
  run(script(Stream.fromIterable(parts)).layer, options)

const said = (events: ReadonlyArray<Event>) => events.map((event) => event.type === "text" ? event.text : "").join("")

const last = (events: ReadonlyArray<Event>) => {
  const event = events.at(-1)
  return event?.type === "finish" ? event : assert.fail("no finish")
}

const refused = (
  error: InferenceError.InferenceError,
  path: string,
  _tag: InferenceError.Reason["_tag"] = "InvalidRequest"
) => {
  assert.deepInclude<object>(error.reason, { _tag, path })
}

const broken = (reason: AiError.AiErrorReason) => AiError.make({ module: "Scripted", method: "streamText", reason })

const weather = { name: "get_weather", description: "Get the weather", parameters: { type: "object", properties: {} } }

describe("LanguageModelEngine", () => {
  it.effect("describes itself", () =>
    Effect.gen(function*() {
      const { describe, memoryBytes } = yield* start(script(Stream.empty).layer)
      assert.deepStrictEqual(describe, {
        engine: "language-model",
        contextWindow: 100,
        slots: 3,
        capabilities: ["generate", "tools", "format", "images"],
        details: { name: "scripted" }
      })
      assert.strictEqual(yield* memoryBytes, 0)
    }))

  it.effect("returns the model's text, finish reason and usage", () =>
    Effect.gen(function*() {
      const events = yield* answer([...text("Hi ", "there, you"), finish("stop")])
      assert.deepStrictEqual(events, [
        { type: "text", text: "Hi ", tokens: 0 },
        { type: "text", text: "there, you", tokens: 3 },
        { type: "finish", reason: "stop", usage: { promptTokens: 11, completionTokens: 5, cachedTokens: 7 } }
      ])
    }))

  it.effect("reports the reasoning tokens", () =>
    Effect.gen(function*() {
      const thought = { ...usage, outputTokens: { total: 5, text: 2, reasoning: 3 } }
      const { usage: reported } = last(yield* answer([...text("Hi"), finish("stop", thought)]))
      assert.deepStrictEqual(reported, { promptTokens: 11, completionTokens: 5, cachedTokens: 7, reasoningTokens: 3 })
    }))

  it.effect("counts four bytes as a token if the model reports none", () =>
    Effect.gen(function*() {
      const { usage } = last(yield* answer([...text("日本語"), finish("stop", unreported)]))
      assert.deepStrictEqual(usage, { promptTokens: 2, completionTokens: 3, cachedTokens: 0, isEstimated: true })
    }))

  const ends: ReadonlyArray<readonly [Response.FinishReason, "stop" | "length" | "tool_calls" | undefined]> = [
    ["stop", "stop"],
    ["length", "length"],
    ["tool-calls", "tool_calls"],
    ["pause", "stop"],
    ["other", "stop"],
    ["unknown", "stop"],
    ["content-filter", undefined],
    ["error", undefined]
  ]
  for (const [reason, expected] of ends) {
    it.effect(`an end with ${reason} is ${expected ?? "a failure"}`, () =>
      Effect.gen(function*() {
        const exit = yield* Effect.exit(answer([...text("Hi"), finish(reason)]))
        if (expected !== undefined) {
          assert.strictEqual(Exit.isSuccess(exit) ? last(exit.value).reason : undefined, expected)
        } else if (Exit.isFailure(exit)) {
          assert.include(Cause.pretty(exit.cause), reason)
        } else assert.fail("Expected a failure")
      }))
  }

  it.effect("an error among the parts fails the answer", () =>
    Effect.gen(function*() {
      const { reason } = yield* Effect.flip(answer([{ type: "error", error: new Error("overloaded\nat x") }]))
      assert.strictEqual(reason._tag, "EngineFailed")
      assert.strictEqual(reason.message, "The engine of \"m#0\" failed: overloaded")
    }))

  describe("reasoning", () => {
    const thoughts = (events: ReadonlyArray<Event>) =>
      events.flatMap((event) => event.type === "thoughts" ? [event.text] : [])

    it.effect("is streamed as thoughts, to which stop sequences do not apply", () =>
      Effect.gen(function*() {
        const events = yield* answer([
          { type: "reasoning-start", id: "r" },
          { type: "reasoning-delta", id: "r", delta: "Hm. " },
          { type: "reasoning-delta", id: "r", delta: "END." },
          { type: "reasoning-end", id: "r" },
          ...text("Sunny.", " END"),
          finish("stop")
        ], { stop: ["END"] })
        assert.deepStrictEqual([thoughts(events), said(events)], [["Hm. ", "END."], "Sunny. "])
        assert.deepInclude(last(events), { reason: "stop", stop: "END" })
      }))

    it.effect("of an answer with a format is passed on before the text", () =>
      Effect.gen(function*() {
        const { layer } = script(Stream.empty, [
          { type: "reasoning", text: "Hm." },
          { type: "text", text: "{}" },
          { type: "finish", reason: "stop", usage }
        ])
        const events = yield* run(layer, { format: { type: "json_object" } })
        assert.deepStrictEqual(events.map(({ type }) => type), ["thoughts", "text", "finish"])
        assert.deepStrictEqual([thoughts(events), said(events)], [["Hm."], "{}"])
      }))

    it.effect("counts towards `maxTokens` that the provider does not get", () =>
      Effect.gen(function*() {
        const events = yield* answer([
          { type: "reasoning-start", id: "r" },
          { type: "reasoning-delta", id: "r", delta: "123456789" },
          { type: "reasoning-end", id: "r" },
          ...text("Sunny."),
          finish("stop")
        ], { maxTokens: 2 })
        assert.deepStrictEqual([thoughts(events), said(events)], [["12345678"], ""])
        assert.strictEqual(last(events).reason, "length")
      }))
  })

  describe("stop and maxTokens", () => {
    it.effect("ends before a stop sequence that spans pieces and interrupts the model", () =>
      Effect.gen(function*() {
        const interrupted = yield* Deferred.make<void>()
        const endless = Stream.fromIterable(text("one, t", "wo, three")).pipe(
          Stream.concat(Stream.never),
          Stream.onExit(() => Deferred.succeed(interrupted, undefined))
        )
        const events = yield* run(script(endless).layer, { stop: ["two", "x"] })
        assert.strictEqual(said(events), "one, ")
        assert.strictEqual(last(events).reason, "stop")
        yield* Deferred.await(interrupted)
      }))

    it.effect("returns the beginning of a stop sequence at the end", () =>
      Effect.gen(function*() {
        assert.strictEqual(said(yield* answer([...text("one, t"), finish("stop")], { stop: ["two"] })), "one, t")
      }))

    it.effect("cuts at maxTokens, between characters", () =>
      Effect.gen(function*() {
        const events = yield* run(
          script(Stream.concat(Stream.fromIterable(text("日", "本語", "です")), Stream.never)).layer,
          { maxTokens: 2 }
        )
        assert.strictEqual(said(events), "日本")
        assert.deepInclude(last(events), { reason: "length" })
        assert.strictEqual(last(events).usage.completionTokens, 2)
      }))

    it.effect("leaves maxTokens to a model that supports it", () =>
      Effect.gen(function*() {
        const Asked = Context.Reference<number | undefined>("test/Asked", { defaultValue: () => undefined })
        const model = script(Stream.unwrap(Effect.map(Asked, (asked) =>
          Stream.fromIterable([...text(`asked for ${asked}, longer than that`), finish("length")]))))
        const configure = ({ maxTokens }: Generation) =>
          Context.make(Asked, maxTokens)
        const events = yield* run({ layer: model.layer, configure }, {
          maxTokens: 2,
          sampling: { temperature: 0, topP: 0.5, seed: 1 }
        })
        assert.strictEqual(said(events), "asked for 2, longer than that")
      }))
  })

  describe("tools", () => {
    const params: ReadonlyArray<Part> = [
      { type: "tool-params-start", id: "a", name: "get_weather" },
      { type: "tool-params-delta", id: "a", delta: "{\"city\":" },
      { type: "tool-params-delta", id: "a", delta: "\"Paris\"}" },
      { type: "tool-params-end", id: "a" },
      { type: "tool-call", id: "a", name: "get_weather", params: { city: "Paris" } }
    ]
    const whole: Part = { type: "tool-call", id: "b", name: "never_heard_of", params: { n: 1 } }

    it.effect("are reported as the model calls them, in pieces and complete, with the text between", () =>
      Effect.gen(function*() {
        const events = yield* answer([...text("Well. "), ...params, whole, finish("tool-calls")], {
          tools: [weather],
          stop: [". x"]
        })
        assert.deepStrictEqual(
          events.map((event) =>
            event.type === "tool_call" ? [event.index, event.id, event.name, event.arguments] : said([event])
          ),
          [
            "Well",
            ". ",
            [0, "a", "get_weather", ""],
            [0, undefined, undefined, "{\"city\":"],
            [0, undefined, undefined, "\"Paris\"}"],
            [1, "b", "never_heard_of", ""],
            [1, undefined, undefined, "{\"n\":1}"],
            ""
          ]
        )
        assert.strictEqual(last(events).reason, "tool_calls")
      }))

    it.effect("are the finish reason even if the model reports stop", () =>
      Effect.gen(function*() {
        assert.strictEqual(last(yield* answer([whole, finish("stop")], { tools: [weather] })).reason, "tool_calls")
      }))

    it.effect("of the provider itself are no part of the answer", () =>
      Effect.gen(function*() {
        const events = yield* answer([
          { type: "tool-params-start", id: "s", name: "get_weather", providerExecuted: true },
          { type: "tool-params-delta", id: "s", delta: "{}" },
          { type: "tool-params-end", id: "s" },
          { type: "tool-call", id: "s", name: "get_weather", params: {}, providerExecuted: true },
          ...text("Sunny."),
          finish("stop")
        ], { tools: [weather] })
        assert.deepStrictEqual(events.map(({ type }) => type), ["text", "finish"])
        assert.strictEqual(last(events).reason, "stop")
      }))

    it.effect("and the choice among them reach the model, with every message", () =>
      Effect.gen(function*() {
        const model = script(Stream.fromIterable([finish("stop")]))
        yield* run(model.layer, {
          tools: [weather, { name: "now" }],
          toolChoice: { name: "now" },
          messages: [
            { role: "system", content: "Be brief." },
            { role: "user", content: "Weather?" },
            {
              role: "assistant",
              content: "Let me see.",
              toolCalls: [{ id: "a", name: "get_weather", arguments: "{\"city\":\"Paris\"}" }]
            },
            { role: "tool", content: "sunny", toolCallId: "a" }
          ]
        })
        const [call] = model.calls
        assert.deepStrictEqual(call?.toolChoice, { tool: "now" })
        assert.deepStrictEqual(
          call?.tools.map((tool) => [tool.name, Tool.getDescription(tool), Tool.getJsonSchema(tool)]),
          [["get_weather", "Get the weather", weather.parameters], ["now", undefined, { type: "object" }]]
        )
        const expected = Prompt.make([
          { role: "system", content: "Be brief." },
          { role: "user", content: "Weather?" },
          {
            role: "assistant",
            content: [
              { type: "text", text: "Let me see." },
              { type: "tool-call", id: "a", name: "get_weather", params: { city: "Paris" } }
            ]
          },
          {
            role: "tool",
            content: [{ type: "tool-result", id: "a", name: "get_weather", isFailure: false, result: "sunny" }]
          }
        ])
        assert.deepStrictEqual(call?.prompt.content, expected.content)
      }))
  })

  describe("images", () => {
    const image = (source: object) => ({ type: "image", source })
    const asking = (role: "user" | "tool", ...sources: ReadonlyArray<object>) =>
      ({ messages: [{ role, content: [{ type: "text", text: "What?" }, ...sources.map(image)] }] }) as Partial<
        Generation
      >

    it.effect("reach the model as files, as bytes and by URL", () =>
      Effect.gen(function*() {
        const model = script(Stream.fromIterable([finish("stop")]))
        const bytes = { type: "base64", mediaType: "image/png", data: "AQID" }
        yield* run(model.layer, asking("user", bytes, { type: "url", url: "https://example.com/cat.png" }))
        const expected = Prompt.make([{
          role: "user",
          content: [
            { type: "text", text: "What?" },
            { type: "file", mediaType: "image/png", data: "AQID" },
            { type: "file", mediaType: "image/*", data: new URL("https://example.com/cat.png") }
          ]
        }])
        assert.deepStrictEqual(model.calls[0]?.prompt.content, expected.content)
      }))

    it.effect("of hosts that are not public, and of tools, are refused by their path", () =>
      Effect.gen(function*() {
        const cases = [
          [asking("user", { type: "url", url: "http://localhost/cat.png" }), "messages[0].content[1].source.url"],
          [asking("tool", { type: "url", url: "https://example.com/cat.png" }), "messages[0].content[1]"]
        ] as const
        for (const [asked, path] of cases) {
          const model = script(Stream.empty)
          const { reason } = yield* Effect.flip(run(model.layer, asked))
          assert.deepInclude<object>(reason, { _tag: "NotSupported", path })
          assert.deepStrictEqual(model.calls, [])
        }
      }))

    it.effect("and required fields of another dialect are rejected by name", () =>
      Effect.gen(function*() {
        const source = { dialect: "openai", body: { store: true }, unknownFields: [{ path: ["store"] }] } as const
        const { reason } = yield* Effect.flip(run(script(Stream.empty).layer, { source }))
        assert.deepInclude<object>(reason, { _tag: "NotSupported", path: "store" })
      }))
  })

  describe("formats", () => {
    const json = "{\"city\":\"Oslo\"}"
    const buffered: ReadonlyArray<Response.PartEncoded> = [
      { type: "text", text: json },
      { type: "finish", reason: "stop", usage }
    ]
    const schema = { type: "object", properties: { city: { type: "string" } }, required: ["city"] }

    it.effect("are passed to the model", () =>
      Effect.gen(function*() {
        const model = script(Stream.die("not streamed"), buffered)
        const events = yield* run(model.layer, { format: { type: "json_schema", schema } })
        assert.strictEqual(said(events), json)
        assert.strictEqual(last(events).usage.completionTokens, 5)
        const format = model.calls[0]?.responseFormat
        assert.deepInclude(
          format?.type === "json" ? LanguageModel.defaultCodecTransformer(format.schema as never).jsonSchema : {},
          schema
        )
      }))

    it.effect("made of several objects stay open", () =>
      Effect.gen(function*() {
        const model = script(Stream.die("not streamed"), buffered)
        const name = { type: "object", properties: { name: { type: "string" } } }
        const events = yield* run(model.layer, { format: { type: "json_schema", schema: { allOf: [schema, name] } } })
        assert.strictEqual(said(events), json)
      }))

    it.effect("may be any object", () =>
      Effect.gen(function*() {
        const model = script(Stream.die("not streamed"), buffered)
        assert.strictEqual(said(yield* run(model.layer, { format: { type: "json_object" } })), json)
      }))

    it.effect("that effect cannot read are refused", () =>
      Effect.gen(function*() {
        const model = script(Stream.die("not streamed"), buffered)
        const format = { type: "json_schema", schema: { type: "object", unevaluatedProperties: false } } as const
        refused(yield* Effect.flip(run(model.layer, { format })), "format.schema")
        assert.deepStrictEqual(model.calls, [])
      }))

    it.effect("may be cut, with the text so far and the reason", () =>
      Effect.gen(function*() {
        const model = script(Stream.die("not streamed"), [{ type: "text", text: json.slice(0, 9) }])
        const events = yield* run(model.layer, { format: { type: "json_schema", schema } })
        assert.strictEqual(said(events), json.slice(0, 9))
        assert.strictEqual(last(events).reason, "length")
      }))

    it.effect("fail if the model violates them", () =>
      Effect.gen(function*() {
        const model = script(Stream.die("not streamed"), [{ type: "text", text: "Oslo" }])
        const { reason } = yield* Effect.flip(run(model.layer, { format: { type: "json_schema", schema } }))
        assert.strictEqual(reason._tag, "EngineFailed")
      }))
  })

  describe("rejects without a call:", () => {
    const call = { id: "a", name: "get_weather", arguments: "{\"city\":" }
    const wrong: ReadonlyArray<readonly [options: Partial<Generation>, path: string]> = [
      [{ sampling: { temperature: 0, topP: 1, seed: 1 } }, "temperature"],
      [{ sampling: { temperature: 1, topP: 0.9, seed: 1 } }, "topP"],
      [{ sampling: { temperature: 1, topP: 1, seed: 1, topK: 4 } }, "topK"],
      [{ sampling: { temperature: 1, topP: 1, seed: 1, logitBias: { 1: 2 } } }, "logitBias"],
      [{ logprobs: 0 }, "logprobs"],
      [{ messages: [{ role: "assistant", content: "", toolCalls: [call] }] }, "messages[0].toolCalls[0].arguments"],
      [{ messages: [{ role: "tool", content: "sunny", toolCallId: "z" }] }, "messages[0].toolCallId"]
    ]
    for (const [options, path] of wrong) {
      it.effect(path, () =>
        Effect.gen(function*() {
          const model = script(Stream.fromIterable([finish("stop")]))
          refused(
            yield* Effect.flip(run(model.layer, options)),
            path,
            // Contradicting messages are invalid for every deployment; another deployment may support the option.
            path.startsWith("messages") ? "InvalidRequest" : "NotSupported"
          )
          assert.deepStrictEqual(model.calls, [])
        }))
    }

    it.effect("whole jobs", () =>
      Effect.gen(function*() {
        const engine = yield* start(script(Stream.empty).layer)
        const jobs: ReadonlyArray<Effect.Effect<unknown, InferenceError.InferenceError>> = [
          engine.embed([""]),
          engine.rerank("", [""]),
          engine.classify([""]),
          engine.tokenize("")
        ]
        for (const job of jobs) {
          const { reason } = yield* Effect.flip(job)
          assert.strictEqual(reason._tag, "NotSupported")
        }
      }))
  })

  describe("failures of the model", () => {
    const cases: ReadonlyArray<readonly [AiError.AiErrorReason, InferenceError.Reason["_tag"], words: string]> = [
      [new AiError.InvalidRequestError({ description: "Too odd." }), "InvalidRequest", "Too odd."],
      [new AiError.ContentPolicyError({ description: "No." }), "InvalidRequest", "No."],
      [new AiError.RateLimitError({ retryAfter: Duration.seconds(2) }), "EngineFailed", "Retry after 2s"],
      [new AiError.AuthenticationError({ kind: "InvalidKey" }), "EngineFailed", "Verify your API key"],
      [new AiError.InternalProviderError({ description: "Down.\nat x" }), "EngineFailed", "Down."],
      [
        new AiError.InvalidRequestError({
          description: "Too long.",
          metadata: {
            troupe: { _tag: "ContextLengthExceeded", model: "inner", promptTokens: 9, contextWindow: 8 }
          }
        }),
        "ContextLengthExceeded",
        "\"m\""
      ],
      [
        new AiError.RateLimitError({
          metadata: { troupe: { _tag: "QueueFull", deployment: "inner#0", limit: 9, retryAfterMs: 2000 } }
        }),
        "QueueFull",
        "\"m#0\""
      ]
    ]
    for (const [reason, expected, words] of cases) {
      it.effect(`${reason._tag} is ${expected}`, () =>
        Effect.gen(function*() {
          const error = yield* Effect.flip(run(script(Stream.fail(broken(reason))).layer))
          assert.strictEqual(error.reason._tag, expected)
          assert.include(error.message, words)
          assert.notInclude(error.message, "\n")
        }))
    }

    it.effect("keep the text before them", () =>
      Effect.gen(function*() {
        const reason = new AiError.InternalProviderError({ description: "Down." })
        const stream = Stream.concat(Stream.fromIterable(text("Hi")), Stream.fail(broken(reason)))
        const events: Array<Event> = []
        const engine = yield* start(script(stream).layer)
        const error = yield* Stream.runForEach(engine.generate(ask()), (event) => Effect.sync(() => events.push(event)))
          .pipe(
            Effect.flip
          )
        assert.strictEqual(said(events), "Hi")
        assert.strictEqual(error.reason._tag, "EngineFailed")
      }))
  })

  describe("its lifecycle", () => {
    const held = () => {
      const counts = { held: 0, released: 0 }
      const hold = () => {
        counts.held++
        return () => {
          counts.released++
        }
      }
      return { counts, hold }
    }

    it.effect("holds its slot from a job's start to its end, with any outcome", () =>
      Effect.gen(function*() {
        const { counts, hold } = held()
        const fine = yield* start(script(Stream.fromIterable([finish("stop")])).layer)
        yield* Stream.runDrain(fine.generate(ask(), hold))
        assert.deepStrictEqual(counts, { held: 1, released: 1 })
        const wrong = yield* start(script(Stream.fail(broken(new AiError.UnknownError({})))).layer)
        yield* Effect.flip(Stream.runDrain(wrong.generate(ask(), hold)))
        assert.deepStrictEqual(counts, { held: 2, released: 2 })
        const endless = yield* start(script(Stream.concat(Stream.fromIterable(text("Hi")), Stream.never)).layer)
        yield* Stream.runDrain(Stream.take(endless.generate(ask(), hold), 1))
        assert.deepStrictEqual(counts, { held: 3, released: 3 })
      }))

    it.effect("stop fails running and later jobs with EngineStopped", () =>
      Effect.gen(function*() {
        const { counts, hold } = held()
        const begun = yield* Deferred.make<void>()
        const stream = Stream.concat(
          Stream.fromEffect(Effect.as(Deferred.succeed(begun, undefined), text("Hi")[0]!)),
          Stream.never
        )
        const engine = yield* start(script(stream).layer)
        const running = yield* Effect.forkChild(Effect.flip(Stream.runDrain(engine.generate(ask(), hold))))
        yield* Deferred.await(begun)
        yield* engine.stop
        assert.strictEqual((yield* Fiber.join(running)).reason._tag, "EngineStopped")
        assert.deepStrictEqual(counts, { held: 1, released: 1 })
        const later = yield* Effect.flip(Stream.runDrain(engine.generate(ask())))
        assert.strictEqual(later.reason._tag, "EngineStopped")
      }))

    it.effect("a silent model is hung, and reasoning counts as an event", () =>
      Effect.gen(function*() {
        const thought: Part = { type: "reasoning-delta", id: "r", delta: "Hm." }
        const thinking = Stream.fromIterable([thought, thought]).pipe(Stream.tap(() => Effect.sleep("90 seconds")))
        const engine = yield* start(script(Stream.concat(thinking, Stream.never)).layer)
        const running = yield* Effect.forkChild(Effect.flip(Stream.runDrain(engine.generate(ask()))))
        for (const step of ["90 seconds", "90 seconds", "110 seconds"] as const) yield* TestClock.adjust(step)
        assert.isUndefined(running.pollUnsafe())
        yield* TestClock.adjust("2 minutes")
        assert.deepInclude((yield* Fiber.join(running)).reason, { _tag: "EngineHung", afterMs: 120_000 })
      }))

    it.effect("a model may be silent without a limit if hang detection is off", () =>
      Effect.gen(function*() {
        const late = Stream.fromEffect(Effect.as(Effect.sleep("1 hour"), finish("stop")))
        const engine = yield* start(script(late).layer, undefined, { stallAfter: Duration.infinity })
        const running = yield* Effect.forkChild(Stream.runCollect(engine.generate(ask())))
        yield* TestClock.adjust("1 hour")
        assert.strictEqual((yield* Fiber.join(running)).at(-1)?.type, "finish")
      }))

    it.effect("builds the model's layer when it starts and releases it when its scope ends", () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const layer = Layer.merge(
          script(Stream.empty).layer,
          Layer.effectDiscard(Effect.acquireRelease(
            Effect.sync(() => log.push("built")),
            () => Effect.sync(() => log.push("released"))
          ))
        )
        const starting = Effect.scoped(start(layer))
        assert.deepStrictEqual(log, [])
        yield* starting
        yield* starting
        assert.deepStrictEqual(log, ["built", "released", "built", "released"])
      }))

    it.effect("cannot be loaded without a provided model, or if its layer fails", () =>
      Effect.gen(function*() {
        const unknown = yield* Effect.flip(start(script(Stream.empty).layer, "other"))
        assert.strictEqual(unknown.reason._tag, "ModelLoadFailed")
        assert.include(unknown.message, "\"other\"")
        const failing = Layer.effect(LanguageModel.LanguageModel, Effect.fail(new Unbuilt({ message: "no key\nat x" })))
        const failed = yield* Effect.flip(start(failing))
        assert.strictEqual(failed.reason._tag, "ModelLoadFailed")
        assert.strictEqual(failed.message, "The deployment \"m#0\" could not be loaded: no key")
      }))
  })
})
