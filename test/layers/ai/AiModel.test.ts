import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Schema, Stream } from "effect"
import { AiError, Chat, LanguageModel, Model, Tool, Toolkit } from "effect/ai"
import type { Prompt } from "effect/ai"
import type { Event, Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { ToolCall } from "../../../src/domain/Job.ts"
import * as AiModel from "../../../src/layers/ai/AiModel.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { budgetExceeded, limitExceeded } from "../../support/Refusals.ts"

interface Stage {
  /** What was asked. */
  readonly requests: Array<Request>
  readonly layer: Layer.Layer<Inference>
}

const usage = { promptTokens: 7, completionTokens: 3, cachedTokens: 2 }

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
    deliver: () => Effect.die("not played"),
    open: (request) =>
      Effect.succeed({ deployment: "tiny-chat#0", attempts: 1, decision: "dec-1", events: stream(request) }),
    embed: () => Effect.die("not played"),
    rerank: () => Effect.die("not played"),
    classify: () => Effect.die("not played"),
    tokenize: () => Effect.die("not played"),
    count: () => Effect.die("not played"),
    generate: (request) =>
      Effect.map(Stream.runCollect(stream(request)), (events) => {
        const last = events.at(-1)
        const toolCalls: Array<ToolCall> = []
        for (const event of events) {
          if (event.type !== "tool_call") continue
          const known = toolCalls[event.index] ?? { id: event.id!, name: event.name!, arguments: "" }
          toolCalls[event.index] = { ...known, arguments: known.arguments + event.arguments }
        }
        const thoughts = events.map((event) => event.type === "thoughts" ? event.text : "").join("")
        return {
          text: events.map((event) => event.type === "text" ? event.text : "").join(""),
          ...(thoughts === "" ? {} : { thoughts }),
          toolCalls,
          finishReason: last?.type === "finish" ? last.reason : "stop",
          usage,
          deployment: "tiny-chat#0",
          attempts: 1,
          decision: "dec-1"
        }
      })
  })
  return { requests, layer: Layer.succeed(Inference, inference) }
}

const model = AiModel.layer("tiny-chat", { temperature: 0, maxTokens: 5 })

const on = ({ layer }: Stage) => Effect.provide(Layer.provide(model, layer))

const Weather = Tool.make("Weather", {
  description: "Get the weather in a city",
  parameters: Schema.Struct({ city: Schema.String }),
  success: Schema.Struct({ sky: Schema.String })
})
const Time = Tool.make("Time", { success: Schema.String })
const toolkit = Toolkit.make(Weather, Time)
const handlers = toolkit.toLayer({
  Weather: ({ city }) => Effect.succeed({ sky: `rain in ${city}` }),
  Time: () => Effect.succeed("noon")
})

/** Says a word, then calls both tools, whose arguments come in pieces. */
const calling: ReadonlyArray<Event> = [
  { type: "text", text: "Let me see.", tokens: 3 },
  { type: "tool_call", index: 0, id: "a", name: "Weather", arguments: "", tokens: 1 },
  { type: "tool_call", index: 0, arguments: "{\"city\": ", tokens: 1 },
  { type: "tool_call", index: 0, arguments: "\"Paris\"}", tokens: 1 },
  { type: "tool_call", index: 1, id: "b", name: "Time", arguments: "{}", tokens: 1 },
  { type: "finish", reason: "tool_calls", usage }
]

const cut: ReadonlyArray<Event> = [
  { type: "tool_call", index: 0, id: "a", name: "Weather", arguments: "{\"city\": \"Pa", tokens: 1 },
  { type: "finish", reason: "length", usage }
]

/** The three ways a stream can come in pieces: one by one, in pairs, all at once. */
const pieces = [1, 2, 100]

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
  [new InferenceError.QueueFull({ deployment: "x#0", limit: 9, retryAfterMs: 2000 }), "RateLimitError", true],
  [new InferenceError.Overloaded({ retryAfterMs: 2000 }), "RateLimitError", true],
  [
    new InferenceError.DeploymentDown({ deployment: "x#0", detail: "Gone.", retryAfterMs: 2000 }),
    "InternalProviderError",
    true
  ],
  [
    new InferenceError.InsufficientMemory({ deployment: "x#0", neededBytes: 9e9, availableBytes: 8e9 }),
    "InternalProviderError",
    true
  ],
  [new InferenceError.EngineHung({ deployment: "x#0", afterMs: 60_000 }), "InternalProviderError", true],
  [new InferenceError.ModelLoadFailed({ deployment: "x#0", detail: "Cut." }), "InternalProviderError", true],
  [new InferenceError.EngineMissing({ deployment: "x#0", packageName: "p" }), "InternalProviderError", true],
  [new InferenceError.EngineStopped({ deployment: "x#0" }), "InternalProviderError", true],
  [new InferenceError.EngineCrashed({ deployment: "x#0", detail: "Gone." }), "InternalProviderError", true],
  [new InferenceError.EngineFailed({ deployment: "x#0", detail: "Hm." }), "InternalProviderError", true],
  [
    new InferenceError.UpstreamFailed({ deployment: "x#0", kind: "cut", detail: "Broke off." }),
    "InternalProviderError",
    true
  ],
  [
    new InferenceError.UpstreamTimeout({ deployment: "x#0", phase: "stall", afterMs: 5000 }),
    "InternalProviderError",
    true
  ],
  [new InferenceError.RateLimited({ deployment: "x#0", retryAfterMs: 2000 }), "RateLimitError", true],
  [new InferenceError.Unauthenticated({ problem: "missing" }), "InvalidRequestError", false],
  [new InferenceError.Forbidden({ detail: "No." }), "InvalidRequestError", false],
  [new InferenceError.LimitExceeded({ ...limitExceeded, retryAfterMs: 2000 }), "RateLimitError", true],
  [new InferenceError.BudgetExceeded(budgetExceeded), "InvalidRequestError", false],
  [new InferenceError.AuthenticationFailed({ deployment: "x#0", status: 401 }), "InternalProviderError", true],
  [new InferenceError.ContentRefused({ deployment: "x#0", detail: "Not this." }), "InvalidRequestError", false],
  [new InferenceError.HookFailed({ subject: "request" }), "InternalProviderError", true],
  [
    new InferenceError.NotSupported({ deployment: "x#0", path: "logprobs", detail: "It reports none." }),
    "InvalidRequestError",
    false
  ],
  [new InferenceError.CircuitOpen({ deployment: "x#0", retryAfterMs: 2000 }), "InternalProviderError", true],
  [new InferenceError.NoDeployment({ model: "x", excluded: [] }), "InternalProviderError", true]
]

const refusals: ReadonlyArray<readonly [what: string, prompt: Prompt.RawInput, word: string]> = [
  [
    "a file",
    [{ role: "user", content: [{ type: "file", mediaType: "application/pdf", data: new Uint8Array([1]) }] }],
    "application/pdf"
  ],
  [
    "an image of an unsupported type beside a text",
    [{
      role: "user",
      content: [
        { type: "text", text: "What is this?" },
        { type: "file", mediaType: "image/tiff", data: new Uint8Array([1]) }
      ]
    }],
    "image/tiff"
  ],
  [
    "a file that the assistant made",
    [{ role: "assistant", content: [{ type: "file", mediaType: "image/png", data: new Uint8Array([1]) }] }],
    "file"
  ],
  ["nothing but a thought", [{ role: "assistant", content: [{ type: "reasoning", text: "Hm." }] }], "no message"],
  ["no message", [], "no message"]
]

describe("AiModel", () => {
  describe("generateText", () => {
    it.effect("reports reasoning tokens in the usage", () => {
      const thought = { ...usage, reasoningTokens: 2 }
      const answer = Stream.fromIterable<Event>([
        { type: "text", text: "Hi", tokens: 1 },
        { type: "finish", reason: "stop", usage: thought }
      ])
      return Effect.gen(function*() {
        const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Hello" }))
        const last = parts.at(-1)
        assert.deepInclude(last?.type === "finish" ? last.usage.outputTokens : {}, { total: 3, text: 1, reasoning: 2 })
      }).pipe(on(stage(answer)))
    })

    for (const size of pieces) {
      it.effect(`gives reasoning in separate parts, by ${size}`, () => {
        const answer = Stream.fromIterable<Event>([
          { type: "thoughts", text: "H", tokens: 0 },
          { type: "thoughts", text: "m.", tokens: 1 },
          { type: "text", text: "Hi", tokens: 1 },
          { type: "thoughts", text: "Hm?", tokens: 1 },
          { type: "tool_call", index: 0, id: "b", name: "Time", arguments: "{}", tokens: 1 },
          { type: "finish", reason: "tool_calls", usage }
        ])
        return Effect.gen(function*() {
          const streamed = yield* Stream.runCollect(
            LanguageModel.streamText({ prompt: "Hello", toolkit, disableToolCallResolution: true })
          )
          assert.deepStrictEqual(
            streamed.slice(0, -1).map((part) => "delta" in part ? [part.type, part.delta] : part.type),
            [
              "reasoning-start",
              ["reasoning-delta", "H"],
              ["reasoning-delta", "m."],
              "reasoning-end",
              "text-start",
              ["text-delta", "Hi"],
              "text-end",
              "reasoning-start",
              ["reasoning-delta", "Hm?"],
              "reasoning-end",
              "tool-params-start",
              ["tool-params-delta", "{}"],
              "tool-params-end",
              "tool-call"
            ]
          )
          const { reasoningText, text } = yield* LanguageModel.generateText({
            prompt: "Hello",
            toolkit,
            disableToolCallResolution: true
          })
          assert.deepStrictEqual([reasoningText, text], ["Hm.Hm?", "Hi"])
        }).pipe(on(stage(answer.pipe(Stream.rechunk(size)))))
      })
    }

    it.effect("passes on image files of a prompt, in every form", () => {
      const made = stage()
      const file = (data: string | Uint8Array | URL) => ({ type: "file", mediaType: "image/png", data }) as const
      const data = [
        new Uint8Array([1, 2, 3]),
        "AQID",
        "data:image/webp;base64,AQID",
        new URL("https://example.com/cat.png"),
        new URL("data:image/gif;base64,AQID")
      ]
      return Effect.gen(function*() {
        yield* LanguageModel.generateText({
          prompt: [{ role: "user", content: [{ type: "text", text: "What?" }, ...data.map(file)] }]
        })
        const bytes = (mediaType: string) => ({ type: "image", source: { type: "base64", mediaType, data: "AQID" } })
        assert.deepStrictEqual<unknown>(made.requests[0]?.messages, [{
          role: "user",
          content: [
            { type: "text", text: "What?" },
            bytes("image/png"),
            bytes("image/png"),
            bytes("image/webp"),
            { type: "image", source: { type: "url", url: "https://example.com/cat.png" } },
            bytes("image/gif")
          ]
        }])
      }).pipe(on(made))
    })

    it.effect("gives the text, the reason and the usage", () =>
      Effect.gen(function*() {
        const response = yield* LanguageModel.generateText({ prompt: "Hello" })
        assert.strictEqual(response.text, "Hi there")
        assert.strictEqual(response.finishReason, "stop")
        assert.deepInclude(response.usage.inputTokens, { total: 7, uncached: 5, cacheRead: 2 })
        assert.deepInclude(response.usage.outputTokens, { total: 3, text: 3, reasoning: 0 })
      }).pipe(on(stage())))

    it.effect("reports that an answer was cut", () =>
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

    it.effect("gives all parts of a text one id", () =>
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

  describe("refuses without a request:", () => {
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

    it.effect("a tool that another provider defines", () => {
      const inference = stage()
      const Search = Tool.providerDefined({ id: "other.search", customName: "Search", providerName: "search" })
      return Effect.gen(function*() {
        const call = { prompt: "Hello", toolkit: Toolkit.make(Search(undefined as never)) }
        const error = yield* Effect.flip(LanguageModel.generateText(call))
        assertRefused(error, "generateText", "Search", inference)
      }).pipe(on(inference))
    })

    it.effect("a required tool call without tools", () => {
      const inference = stage()
      return Effect.gen(function*() {
        const toolChoice = { mode: "required", oneOf: [] } as const
        const error = yield* Effect.flip(LanguageModel.generateText({ prompt: "Hello", toolkit, toolChoice }))
        assertRefused(error, "generateText", "none to choose", inference)
      }).pipe(on(inference), Effect.provide(handlers))
    })
  })

  describe("tools", () => {
    const weather = {
      name: "Weather",
      description: "Get the weather in a city",
      parameters: {
        type: "object",
        properties: { city: { type: "string" } },
        required: ["city"],
        additionalProperties: false
      }
    }
    const time = { name: "Time", description: undefined, parameters: { type: "object", additionalProperties: false } }

    const choices: ReadonlyArray<
      readonly [
        given: LanguageModel.ToolChoice<"Weather" | "Time"> | undefined,
        tools: ReadonlyArray<unknown>,
        asked: unknown
      ]
    > = [
      [undefined, [weather, time], "auto"],
      ["auto", [weather, time], "auto"],
      ["none", [weather, time], "none"],
      ["required", [weather, time], "required"],
      [{ tool: "Time" }, [weather, time], { name: "Time" }],
      [{ oneOf: ["Weather"] }, [weather], "auto"],
      [{ mode: "required", oneOf: ["Time"] }, [time], "required"]
    ]
    for (const [toolChoice, tools, asked] of choices) {
      it.effect(`are requested by the choice ${JSON.stringify(toolChoice)}`, () => {
        const inference = stage()
        return Effect.gen(function*() {
          yield* LanguageModel.generateText({ prompt: "Hello", toolkit, toolChoice })
          yield* Stream.runDrain(LanguageModel.streamText({ prompt: "Hello", toolkit, toolChoice }))
          for (const request of inference.requests) {
            assert.deepStrictEqual(request.tools, tools as typeof request.tools)
            assert.deepStrictEqual(request.toolChoice, asked as typeof request.toolChoice)
          }
          assert.strictEqual(inference.requests.length, 2)
        }).pipe(on(inference), Effect.provide(handlers))
      })
    }

    it.effect("are not requested without a toolkit", () => {
      const inference = stage()
      return Effect.gen(function*() {
        yield* LanguageModel.generateText({ prompt: "Hello" })
        assert.doesNotHaveAnyKeys(inference.requests[0], ["tools", "toolChoice", "format"])
      }).pipe(on(inference))
    })

    it.effect("with a raw JSON Schema are passed on as they are", () => {
      const inference = stage()
      const parameters = { type: "object", properties: { q: { type: "string" } }, additionalProperties: true } as const
      const dynamic = Toolkit.make(Tool.dynamic("Search", { parameters }))
      return Effect.gen(function*() {
        yield* LanguageModel.generateText({ prompt: "Hello", toolkit: dynamic, disableToolCallResolution: true })
        assert.deepStrictEqual(inference.requests[0]?.tools?.[0]?.parameters, parameters)
      }).pipe(on(inference), Effect.provide(dynamic.toLayer({ Search: () => Effect.void })))
    })

    it.effect("are called, and the results are in the buffered answer", () =>
      Effect.gen(function*() {
        const response = yield* LanguageModel.generateText({ prompt: "Hello", toolkit })
        assert.strictEqual(response.text, "Let me see.")
        assert.strictEqual(response.finishReason, "tool-calls")
        assert.deepStrictEqual(
          response.toolCalls.map(({ id, name, params }) => [id, name, params]),
          [["a", "Weather", { city: "Paris" }], ["b", "Time", {}]]
        )
        assert.deepStrictEqual(response.toolResults.map(({ id, result }) => [id, result as unknown]), [
          ["a", { sky: "rain in Paris" }],
          ["b", "noon"]
        ])
      }).pipe(on(stage(Stream.fromIterable(calling))), Effect.provide(handlers)))

    for (const size of pieces) {
      it.effect(`are streamed as deltas and as a complete call, ${size} events at a time`, () =>
        Effect.gen(function*() {
          const parts = yield* Stream.runCollect(
            LanguageModel.streamText({ prompt: "Hello", toolkit, disableToolCallResolution: true })
          )
          assert.deepStrictEqual(
            parts.map((part) => {
              const id = "id" in part ? part.id : ""
              const rest = part.type === "tool-call" ? JSON.stringify(part.params) : "delta" in part ? part.delta : ""
              return `${part.type} ${id} ${rest}`
            }),
            [
              "text-start text-0 ",
              "text-delta text-0 Let me see.",
              "text-end text-0 ",
              "tool-params-start a ",
              "tool-params-delta a ",
              "tool-params-delta a {\"city\": ",
              "tool-params-delta a \"Paris\"}",
              "tool-params-end a ",
              "tool-call a {\"city\":\"Paris\"}",
              "tool-params-start b ",
              "tool-params-delta b {}",
              "tool-params-end b ",
              "tool-call b {}",
              "finish  "
            ]
          )
        }).pipe(on(stage(Stream.rechunk(Stream.fromIterable(calling), size)))))

      it.effect(`are called while the answer streams, ${size} events at a time`, () =>
        Effect.gen(function*() {
          const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Hello", toolkit }))
          const results = parts.filter((part) => part.type === "tool-result")
          assert.deepStrictEqual(
            new Map(results.map(({ id, result }) => [id, result as unknown])),
            new Map<string, unknown>([["a", { sky: "rain in Paris" }], ["b", "noon"]])
          )
          assert.strictEqual(parts.at(-1)?.type, "finish")
        }).pipe(on(stage(Stream.rechunk(Stream.fromIterable(calling), size))), Effect.provide(handlers)))
    }

    it.effect("text after a call is a separate part", () =>
      Effect.gen(function*() {
        const parts = yield* Stream.runCollect(
          LanguageModel.streamText({ prompt: "Hello", toolkit, disableToolCallResolution: true })
        )
        const texts = parts.flatMap((part) => part.type === "text-delta" ? [[part.id, part.delta]] : [])
        assert.deepStrictEqual(texts, [["text-0", "Let me see."], ["text-1", "Done."]])
      }).pipe(on(stage(Stream.fromIterable([
        ...calling.slice(0, -1),
        { type: "text", text: "Done.", tokens: 2 },
        calling.at(-1)!
      ])))))

    it.effect("a call that maxTokens cut is not run", () =>
      Effect.gen(function*() {
        const response = yield* LanguageModel.generateText({ prompt: "Hello", toolkit })
        assert.strictEqual(response.finishReason, "length")
        assert.deepStrictEqual(response.toolCalls, [])
        const parts = yield* Stream.runCollect(LanguageModel.streamText({ prompt: "Hello", toolkit }))
        assert.deepStrictEqual(parts.map((part) => part.type), [
          "tool-params-start",
          "tool-params-delta",
          "tool-params-end",
          "finish"
        ])
      }).pipe(on(stage(Stream.fromIterable(cut))), Effect.provide(handlers)))

    it.effect("arguments that are no JSON fail the answer", () =>
      Effect.gen(function*() {
        const call = { prompt: "Hello", toolkit, disableToolCallResolution: true } as const
        const whole = yield* Effect.flip(LanguageModel.generateText(call))
        assert.strictEqual(whole.reason._tag, "ToolParameterValidationError")
        const streamed = yield* Effect.flip(Stream.runDrain(LanguageModel.streamText(call)))
        assert.strictEqual(streamed.reason._tag, "ToolParameterValidationError")
      }).pipe(on(stage(Stream.fromIterable<Event>([cut[0]!, { type: "finish", reason: "tool_calls", usage }])))))

    it.effect("calls and results in a prompt are messages, approvals are none", () => {
      const inference = stage()
      return Effect.gen(function*() {
        yield* LanguageModel.generateText({
          prompt: [
            { role: "user", content: "Weather?" },
            {
              role: "assistant",
              content: [
                { type: "reasoning", text: "Hm." },
                { type: "text", text: "Let me see." },
                { type: "tool-call", id: "a", name: "Weather", params: { city: "Paris" } },
                { type: "tool-call", id: "b", name: "Time", params: {} }
              ]
            },
            {
              role: "tool",
              content: [
                { type: "tool-result", id: "a", name: "Weather", isFailure: false, result: { sky: "rain" } },
                { type: "tool-result", id: "b", name: "Time", isFailure: false, result: "noon" }
              ]
            },
            {
              role: "assistant",
              content: [
                { type: "tool-call", id: "c", name: "Search", params: { q: "x" }, providerExecuted: true },
                {
                  type: "tool-result",
                  id: "c",
                  name: "Search",
                  isFailure: false,
                  result: ["y"],
                  providerExecuted: true
                },
                { type: "text", text: "Found it." }
              ]
            }
          ]
        })
        assert.deepStrictEqual(inference.requests[0]?.messages, [
          { role: "user", content: "Weather?" },
          {
            role: "assistant",
            content: "Let me see.",
            thoughts: "Hm.",
            toolCalls: [
              { id: "a", name: "Weather", arguments: "{\"city\":\"Paris\"}" },
              { id: "b", name: "Time", arguments: "{}" }
            ]
          },
          { role: "tool", content: "{\"sky\":\"rain\"}", toolCallId: "a" },
          { role: "tool", content: "noon", toolCallId: "b" },
          { role: "assistant", content: "", toolCalls: [{ id: "c", name: "Search", arguments: "{\"q\":\"x\"}" }] },
          { role: "tool", content: "[\"y\"]", toolCallId: "c" },
          { role: "assistant", content: "Found it." }
        ])
      }).pipe(on(inference))
    })

    it.effect("a conversation continues with the content of the response", () => {
      const inference = stage(Stream.fromIterable(calling))
      return Effect.gen(function*() {
        const chat = yield* Chat.fromPrompt("Weather?")
        yield* chat.generateText({ prompt: [], toolkit })
        yield* chat.generateText({ prompt: [], toolkit })
        assert.deepStrictEqual(inference.requests[1]?.messages.map(({ content, role }) => [role, content]), [
          ["user", "Weather?"],
          ["assistant", "Let me see."],
          ["tool", "{\"sky\":\"rain in Paris\"}"],
          ["tool", "noon"]
        ])
      }).pipe(on(inference), Effect.provide(handlers))
    })
  })

  describe("generateObject", () => {
    class Place extends Schema.Class<Place>("Place")({ city: Schema.String, people: Schema.Finite }) {}
    const inJson = (text: string) =>
      stage(Stream.fromIterable<Event>([{ type: "text", text, tokens: 1 }, { type: "finish", reason: "stop", usage }]))

    it.effect("requests the closed schema, and decodes the answer", () => {
      const inference = inJson("{\"city\": \"Oslo\", \"people\": 700000}")
      return Effect.gen(function*() {
        const response = yield* LanguageModel.generateObject({ prompt: "Hello", schema: Place })
        assert.instanceOf(response.value, Place)
        assert.strictEqual(response.value.city, "Oslo")
        const format = inference.requests[0]?.format
        assert.strictEqual(format?.type, "json_schema")
        assert.deepInclude(format?.type === "json_schema" ? format.schema : {}, {
          type: "object",
          properties: { city: { type: "string" }, people: { type: "number" } },
          required: ["city", "people"],
          additionalProperties: false
        })
      }).pipe(on(inference))
    })

    it.effect("fails if the answer does not fit the schema", () =>
      Effect.gen(function*() {
        const error = yield* Effect.flip(LanguageModel.generateObject({ prompt: "Hello", schema: Place }))
        assert.strictEqual(error.reason._tag, "StructuredOutputError")
      }).pipe(on(inJson("{\"city\": 1}"))))

    it.effect("leaves records open", () => {
      const inference = inJson("{\"counts\": {}}")
      return Effect.gen(function*() {
        const schema = Schema.Struct({ counts: Schema.Record(Schema.String, Schema.Finite) })
        yield* LanguageModel.generateObject({ prompt: "Hello", schema })
        const format = inference.requests[0]?.format
        assert.deepInclude(format?.type === "json_schema" ? format.schema["properties"] as object : {}, {
          counts: { type: "object", additionalProperties: { type: "number" } }
        })
      }).pipe(on(inference))
    })
  })

  it.effect("prefers the options of the call to its own", () => {
    const inference = stage()
    return Effect.gen(function*() {
      yield* Stream.runDrain(LanguageModel.streamText({ prompt: "Hello" })).pipe(
        Effect.provideService(AiModel.CurrentOptions, { temperature: 2, seed: 3 })
      )
      assert.deepInclude(inference.requests[0], { temperature: 2, seed: 3, maxTokens: 5 })
    }).pipe(on(inference))
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
            if (expected !== "RateLimitError") assert.include(error.message, reason.message)
            const metadata = "metadata" in error.reason ? error.reason.metadata : {}
            assert.deepInclude(metadata["troupe"], { _tag: reason._tag })
            assert.strictEqual(error.isRetryable, isRetryable)
          }
        }).pipe(on(stage(Stream.fail(InferenceError.make(reason))))))
    }
  })

  it.effect("a full queue reports when to retry", () =>
    Effect.gen(function*() {
      const { reason } = yield* Effect.flip(LanguageModel.generateText({ prompt: "Hello" }))
      const after = reason._tag === "RateLimitError" ? reason.retryAfter : undefined
      assert.strictEqual(after && Duration.toMillis(after), 2000)
    }).pipe(on(stage(Stream.fail(
      InferenceError.make(new InferenceError.QueueFull({ deployment: "x#0", limit: 9, retryAfterMs: 2000 }))
    )))))

  it.effect("provides its provider and model name", () =>
    Effect.gen(function*() {
      const response = yield* LanguageModel.generateText({ prompt: "Hello" })
      assert.strictEqual(response.text, "Hi there")
      assert.strictEqual(yield* Model.ProviderName, "troupe")
      assert.strictEqual(yield* Model.ModelName, "tiny-chat")
    }).pipe(Effect.provide(Layer.provide(AiModel.model("tiny-chat"), stage().layer))))
})
