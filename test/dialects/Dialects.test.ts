/** Recorded exchanges of each dialect: the same events however the bytes are split, and the reasons of errors. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Result, Stream } from "effect"
import * as fc from "fast-check"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../src/dialects/gemini/Provider.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import { azureOpenAi, openAi } from "../../src/dialects/openai/Provider.ts"
import type { Dialect, Target } from "../../src/dialects/shared/ProviderDialect.ts"
import { troupe } from "../../src/dialects/troupe/Provider.ts"
import type { RemoteDeployment } from "../../src/domain/Deployment.ts"
import * as ExactNumber from "../../src/domain/ExactNumber.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import type { Event } from "../../src/domain/Inference.ts"
import type { Reason } from "../../src/domain/InferenceError.ts"
import type { ToolCall } from "../../src/domain/Job.ts"
import { eventsOf } from "../../src/layers/providers/AnswerEvents.ts"
import { makeEventReader } from "../../src/layers/providers/EventReader.ts"
import type { Fixture } from "../layers/providers/support.ts"
import { engineAt, fixture, generation, json, outcome, served } from "../layers/providers/support.ts"
import { joined } from "../support/Streams.ts"

const targetOf = (over: Partial<RemoteDeployment> = {}): Target => ({
  deployment: "subject#0",
  model: "subject",
  options: { engine: "remote", provider: "openai", model: "m", contextSize: 4096, ...over }
})

const callsOf = (events: ReadonlyArray<Event>): ReadonlyArray<ToolCall> => {
  const calls: Array<ToolCall> = []
  for (const event of events) {
    if (event.type !== "tool_call") continue
    const { arguments: before = "" } = calls[event.index] ?? {}
    const known = calls[event.index]
    calls[event.index] = {
      id: event.id ?? known!.id,
      name: event.name ?? known!.name,
      arguments: before + event.arguments
    }
  }
  return calls
}

const answerOf = (events: ReadonlyArray<Event>) => {
  const last = events.at(-1)
  assert.strictEqual(last?.type, "finish")
  return {
    text: events.map((event) => event.type === "text" ? event.text : "").join(""),
    calls: callsOf(events),
    ...(last?.type === "finish" ? { reason: last.reason, usage: last.usage } : {})
  }
}

/** The events of a body in these pieces. */
const read = (dialect: Dialect, pieces: ReadonlyArray<Uint8Array>) => {
  const target = targetOf()
  const reader = makeEventReader(dialect, target, generation)
  const events: Array<Event> = []
  for (const piece of pieces) {
    reader.push(piece)
    const taken = reader.take()
    assert.isUndefined(taken.failure)
    events.push(...taken.events)
  }
  if (!reader.isOver()) reader.end()
  const { events: rest, failure } = reader.take()
  return { events: [...events, ...rest], failure }
}

const split = (bytes: Uint8Array, places: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const cuts = [0, ...places.map((place) => place % bytes.length).sort((a, b) => a - b), bytes.length]
  return cuts.slice(1).map((end, index) => bytes.subarray(cuts[index], end))
}

const dialects: ReadonlyArray<readonly [name: string, dialect: Dialect, recorded: Fixture]> = [
  ["openai", openAi, fixture("openai")],
  ["ollama", ollama, fixture("ollama")]
]

for (const [name, dialect, recorded] of dialects) {
  describe(name, () => {
    for (const kind of ["text", "tools"] as const) {
      const { answer, stream, buffered } = recorded[kind]
      const bytes = Buffer.from(stream.join(""))

      it(`decodes a recorded stream of ${kind}`, () => {
        const { events, failure } = read(dialect, [bytes])
        assert.isUndefined(failure)
        assert.deepStrictEqual<unknown>(answerOf(events), answer)
      })

      it(`decodes the same events of ${kind} wherever the bytes are split`, () => {
        const { events } = read(dialect, [bytes])
        fc.assert(fc.property(fc.array(fc.nat(), { maxLength: 40 }), (places) => {
          assert.deepStrictEqual(joined(read(dialect, split(bytes, places)).events), joined(events))
        }))
        assert.deepStrictEqual(joined(read(dialect, split(bytes, Array.from(bytes.keys()))).events), joined(events))
      })

      it(`rejects a stream of ${kind} that ends early`, () => {
        // Before the end of the answer: for OpenAI the finish reason, for Ollama the last line.
        const end = bytes.indexOf(name === "openai" ? `"finish_reason":"${answer.reason}"` : "\"done\":true")
        fc.assert(fc.property(fc.nat(end), (length) => {
          const { events, failure } = read(dialect, [bytes.subarray(0, length)])
          assert.isDefined(failure)
          assert.isFalse(events.some(({ type }) => type === "finish"))
        }))
      })

      it(`decodes a recorded buffered answer of ${kind}`, () => {
        const decoded = dialect.generate.buffered(buffered, generation, targetOf())
        assert.deepStrictEqual<unknown>(answerOf(Result.getOrThrow(decoded)), answer)
      })
    }

    for (const [error, { body, headers = {}, reason, status }] of Object.entries(recorded.errors)) {
      it(`decodes the error ${error}`, () => {
        const decoded = dialect.failure({ status, headers, body, now: 0 }, targetOf()) as unknown as Fixture
        assert.deepInclude<object>(decoded, reason)
      })
    }

    it("fails with a reason for any other body", () => {
      fc.assert(fc.property(fc.jsonValue(), fc.string(), fc.integer({ min: 400, max: 599 }), (body, text, status) => {
        const target = targetOf()
        const refusal = { status, headers: { "retry-after": text }, body, now: 0 }
        assert.isString(dialect.failure(refusal, target).message)
        assert.isTrue(Result.isFailure(dialect.generate.buffered(body, generation, target)))
        const decoder = dialect.generate.events(generation, target)
        decoder.push({ event: "message", data: text })
        decoder.push({ event: "message", data: JSON.stringify(body) })
        assert.isTrue(Result.isFailure(decoder.end()))
        assert.isTrue(Result.isFailure(dialect.embed!.answer(body, ["a"], target)))
      }))
    })
  })
}

describe("reasoning", () => {
  const delta = (message: object) => ({ choices: [{ index: 0, delta: message }] })
  const parts = (...parts: ReadonlyArray<object>) => ({ candidates: [{ content: { parts } }] })
  const block = (content_block: object) => ({ type: "content_block_start", index: 0, content_block })
  const cases: ReadonlyArray<readonly [name: string, Dialect, other: object, thought: object]> = [
    [
      "openai",
      openAi,
      delta({ role: "assistant", content: "", reasoning_content: "" }),
      delta({ reasoning_content: "Hm" })
    ],
    ["openai", openAi, delta({ content: null, reasoning: null }), delta({ content: "", reasoning: "Hm" })],
    [
      "openai",
      openAi,
      delta({ content: "" }),
      delta({ reasoning_details: [{ type: "reasoning.encrypted", data: "aG0=" }] })
    ],
    [
      "openai",
      openAi,
      delta({ content: [] }),
      delta({ content: [{ type: "thinking", thinking: [{ type: "text", text: "Hm" }] }] })
    ],
    ["anthropic", anthropic, { type: "ping" }, block({ type: "thinking", thinking: "" })],
    ["anthropic", anthropic, block({ type: "text", text: "" }), block({ type: "redacted_thinking", data: "aG0=" })],
    ["gemini", gemini, parts({ text: "" }), parts({ text: "Hm", thought: true })],
    ["ollama", ollama, { message: { content: "", thinking: "" } }, { message: { content: "", thinking: "Hm" } }]
  ]
  for (const [name, dialect, other, thought] of cases) {
    it.effect(`of ${name} counts as the first content: ${JSON.stringify(thought)}`, () =>
      Effect.gen(function*() {
        const target = targetOf()
        // A caller without a body of a dialect would get encrypted reasoning, to send it back.
        const source = { dialect: "anthropic" as const, body: {} }
        const reader = makeEventReader(dialect, target, { ...generation, source })
        const pieces = [other, thought].map((data) =>
          Buffer.from(dialect.framing === "sse" ? `data: ${JSON.stringify(data)}\n\n` : `${JSON.stringify(data)}\n`)
        )
        const beforeEach: Array<number> = []
        let contents = 0
        const pull = Effect.suspend(() => {
          const piece = pieces[beforeEach.length]
          beforeEach.push(contents)
          return piece === undefined ? Cause.done() : Effect.succeed(piece)
        })
        const content = () => {
          contents++
        }
        const watch = { headers: () => {}, content, wait: () => {}, took: () => {}, reason: () => undefined }
        const body = {
          media: "sse" as const,
          pull,
          watch,
          isOver: () => true,
          note: () => Effect.void,
          clean: (reason: Reason) => reason
        }
        const events = yield* eventsOf(body, reader).pipe(
          Stream.catchTag("InferenceError", () => Stream.empty),
          Stream.runCollect
        )
        const isReadable = JSON.stringify(thought).includes("\"Hm\"")
        assert.deepStrictEqual(
          [beforeEach, events],
          [[0, 0, 1], isReadable ? [{ type: "thoughts", text: "Hm", tokens: 0 }] : []]
        )
      }))
  }
})

describe("an answer of the OpenAI dialect whose content is in parts", () => {
  const thinking = { type: "thinking", thinking: [{ type: "text", text: "Hm." }] }
  const usage = { prompt_tokens: 3, completion_tokens: 9, total_tokens: 12 }
  const expected = {
    text: "Hello!",
    calls: [],
    reason: "stop",
    usage: { promptTokens: 3, completionTokens: 9, cachedTokens: 0 }
  }

  it("has its text without the reasoning, streamed", () => {
    const chunks = [
      { delta: { role: "assistant", content: [thinking] } },
      { delta: { content: [{ type: "thinking", thinking: [], closed: true }, { type: "text", text: "Hel" }] } },
      { delta: { content: "lo" } },
      {
        delta: { content: [{ type: "text", text: "!" }, { type: "reference", reference_ids: [1] }, null] },
        finish_reason: "stop"
      }
    ]
    const frames = chunks.map((choice) => `data: ${JSON.stringify({ choices: [{ index: 0, ...choice }], usage })}\n\n`)
    const { events, failure } = read(openAi, [Buffer.from([...frames, "data: [DONE]\n\n"].join(""))])
    assert.isUndefined(failure)
    assert.deepStrictEqual<unknown>(answerOf(events), expected)
  })

  it("has its text without the reasoning, buffered", () => {
    const message = {
      role: "assistant",
      content: [thinking, { type: "text", text: "Hel" }, { type: "text", text: "lo!" }]
    }
    const body = { choices: [{ index: 0, message, finish_reason: "stop" }], usage }
    assert.deepStrictEqual<unknown>(
      answerOf(Result.getOrThrow(openAi.generate.buffered(body, generation, targetOf()))),
      expected
    )
  })
})

const bodyOf = (dialect: Dialect, over: Partial<Generation>, options: Partial<RemoteDeployment> = {}) =>
  Result.map(
    dialect.generate.request({ ...generation, ...over }, targetOf(options), true),
    (call) => ({ ...call, body: call.body as Record<string, unknown> })
  )

const conversation: Partial<Generation> = {
  messages: [
    { role: "user", content: "What is the weather?" },
    {
      role: "assistant",
      content: "",
      toolCalls: [{ id: "call_1", name: "get_weather", arguments: "{\"city\":\"Paris\"}" }]
    },
    { role: "tool", content: "Rain", toolCallId: "call_1" }
  ],
  tools: [{ name: "get_weather", parameters: { type: "object" } }]
}

describe("requests", () => {
  it("encodes a conversation with tools for OpenAI", () => {
    const { body, path } = Result.getOrThrow(bodyOf(openAi, { ...conversation, toolChoice: { name: "get_weather" } }))
    assert.strictEqual(path, "/chat/completions")
    assert.deepInclude(body, {
      model: "m",
      temperature: 0,
      seed: 1,
      tool_choice: { type: "function", function: { name: "get_weather" } },
      stream_options: { include_usage: true }
    })
    assert.deepStrictEqual((body["messages"] as ReadonlyArray<unknown>).slice(1), [
      {
        role: "assistant",
        content: null,
        tool_calls: [{
          id: "call_1",
          type: "function",
          function: { name: "get_weather", arguments: "{\"city\":\"Paris\"}" }
        }]
      },
      { role: "tool", content: "Rain", tool_call_id: "call_1" }
    ])
    assert.strictEqual(body["top_p"], 1)
  })

  it.each([
    ["9223372036854775807", "9223372036854775807"],
    ["7", "7"],
    // Ollama takes -1 for a random seed.
    ["-1", "9223372036854775807"]
  ])("encodes the caller's seed %s with all of its bits for Ollama", (seed, sent) => {
    const body = ExactNumber.parse(`{"messages":[],"seed":${seed}}`) as Readonly<Record<string, unknown>>
    const request = { ...conversation, sampling: { seed: 7 }, source: { dialect: "openai", body } as const }
    const { options } = Result.getOrThrow(bodyOf(ollama, request)).body
    assert.include(JSON.stringify(options), `"seed":${sent},`)
  })

  it("sets exactly the options that the caller sets", () => {
    const unset = { sampling: {} }
    for (const dialect of [openAi, azureOpenAi, troupe]) {
      const { body } = Result.getOrThrow(bodyOf(dialect, unset))
      assert.sameMembers(Object.keys(body), ["model", "messages", "stream", "stream_options"])
    }
    const { body: toOllama } = Result.getOrThrow(bodyOf(ollama, unset))
    assert.deepStrictEqual<object>(JSON.parse(JSON.stringify(toOllama["options"])) as object, { num_ctx: 4096 })
    const { body: toAnthropic } = Result.getOrThrow(bodyOf(anthropic, unset))
    const sentNames = Object.entries(toAnthropic).flatMap(([name, value]) => value === undefined ? [] : [name])
    assert.sameMembers(sentNames, ["model", "messages", "max_tokens", "stream"])
    const defaults = { temperature: 1, topP: 1, presencePenalty: 0, frequencyPenalty: 0, seed: 0 }
    const { body: toOpenAi } = Result.getOrThrow(bodyOf(openAi, { sampling: defaults }))
    assert.deepInclude(toOpenAi, { temperature: 1, top_p: 1, presence_penalty: 0, frequency_penalty: 0, seed: 0 })
    const { body: other } = Result.getOrThrow(bodyOf(anthropic, { sampling: { temperature: 1, topP: 1 } }))
    assert.deepInclude(other, { temperature: 1, top_p: 1 })
  })

  it("requests strict formats only for schemas that OpenAI accepts as strict", () => {
    const closed = {
      type: "object",
      properties: { a: { type: "string" } },
      required: ["a"],
      additionalProperties: false
    }
    const strictOf = (schema: Record<string, unknown>) =>
      (Result.getOrThrow(bodyOf(openAi, { format: { type: "json_schema", schema } }))
        .body["response_format"] as { readonly json_schema: { readonly strict?: boolean } }).json_schema.strict
    assert.isTrue(strictOf(closed))
    assert.isUndefined(strictOf({ ...closed, required: [] }))
    assert.isUndefined(strictOf({ ...closed, properties: { a: { type: "object" } } }))
  })

  it("sends the deployment and the API version to Azure", () => {
    const { body, path } = Result.getOrThrow(
      bodyOf(azureOpenAi, { maxTokens: 5 }, { model: "my gpt", apiVersion: "2024-12-01-preview" })
    )
    assert.strictEqual(path, "/openai/deployments/my%20gpt/chat/completions?api-version=2024-12-01-preview")
    assert.strictEqual(body["max_completion_tokens"], 5)
    assert.strictEqual(Result.getOrThrow(bodyOf(azureOpenAi, { maxTokens: 5 })).body["max_tokens"], 5)
  })

  it("encodes a conversation with tools for Ollama, with the options that are set", () => {
    const { body, path } = Result.getOrThrow(bodyOf(ollama, { ...conversation, maxTokens: 7, stop: ["x"] }))
    assert.strictEqual(path, "/api/chat")
    const options = JSON.parse(JSON.stringify(body["options"])) as object
    assert.deepStrictEqual<object>(options, {
      temperature: 0,
      top_p: 1,
      seed: 1,
      num_predict: 7,
      stop: ["x"],
      num_ctx: 4096
    })
    assert.deepStrictEqual((body["messages"] as ReadonlyArray<unknown>).slice(1), [
      {
        role: "assistant",
        content: "",
        tool_calls: [{ function: { name: "get_weather", arguments: { city: "Paris" } } }]
      },
      { role: "tool", content: "Rain", tool_name: "get_weather" }
    ])
    assert.notProperty(Result.getOrThrow(bodyOf(ollama, { ...conversation, toolChoice: "none" })).body, "tools")
  })

  it("sends the caller's priority and tenant only to another instance of Troupe", () => {
    const caller = { tenant: "t", priority: "high", keepAlive: Duration.minutes(5) } as const
    const callerFields = { priority: "high", keep_alive: "300000ms" }
    const { body, headers } = Result.getOrThrow(bodyOf(troupe, { caller }))
    assert.deepInclude<object>(body, callerFields)
    assert.deepStrictEqual<object | undefined>(headers, { "x-troupe-tenant": "t" })
    const forEver = { keepAlive: Duration.infinity }
    assert.deepInclude<object>(Result.getOrThrow(bodyOf(troupe, { caller: forEver })).body, { keep_alive: -1 })
    for (const [dialect, over] of [[openAi, { caller }], [troupe, {}]] as const) {
      assert.doesNotHaveAnyKeys(Result.getOrThrow(bodyOf(dialect, over)).body, Object.keys(callerFields))
    }
  })

  it("encodes images, as bytes and by URL, in each dialect", () => {
    const bytes = { type: "image", source: { type: "base64", mediaType: "image/png", data: "AAAA" }, detail: "low" }
    const url = { type: "image", source: { type: "url", url: "https://example.com/cat.png" } }
    const asking = (...parts: ReadonlyArray<object>) =>
      ({ messages: [{ role: "user", content: [{ type: "text", text: "What?" }, ...parts] }] }) as Partial<Generation>
    const bodyFor = (dialect: Dialect, over: Partial<Generation>) =>
      JSON.parse(JSON.stringify(Result.getOrThrow(bodyOf(dialect, over)).body)) as Record<string, Array<unknown>>
    for (const dialect of [openAi, azureOpenAi, troupe]) {
      assert.deepStrictEqual(bodyFor(dialect, asking(bytes, url))["messages"]?.[0], {
        role: "user",
        content: [
          { type: "text", text: "What?" },
          { type: "image_url", image_url: { url: "data:image/png;base64,AAAA", detail: "low" } },
          { type: "image_url", image_url: { url: "https://example.com/cat.png" } }
        ]
      })
    }
    assert.deepStrictEqual(bodyFor(anthropic, asking(bytes, url))["messages"]?.[0], {
      role: "user",
      content: [
        { type: "text", text: "What?" },
        { type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } },
        { type: "image", source: { type: "url", url: "https://example.com/cat.png" } }
      ]
    })
    assert.deepStrictEqual(bodyFor(gemini, asking(bytes))["contents"]?.[0], {
      role: "user",
      parts: [{ text: "What?" }, { inlineData: { mimeType: "image/png", data: "AAAA" } }]
    })
    assert.deepStrictEqual(bodyFor(ollama, asking(bytes))["messages"]?.[0], {
      role: "user",
      content: "What?",
      images: ["AAAA"]
    })
  })

  it("sends images of tool results if the dialect has them, and fails otherwise", () => {
    const call = { role: "assistant", content: "", toolCalls: [{ id: "1", name: "look", arguments: "{}" }] }
    const source = { type: "base64", mediaType: "image/png", data: "AAAA" }
    const result = { role: "tool", toolCallId: "1", content: [{ type: "image", source }] }
    const over = { messages: [{ role: "user", content: "Look." }, call, result] } as Partial<Generation>
    for (const dialect of [openAi, troupe, gemini, ollama]) {
      const reason = Result.getOrThrow(Result.flip(bodyOf(dialect, over)))
      assert.deepInclude<object>(reason, { _tag: "NotSupported", path: "messages[2].content[0]" })
    }
    const { messages } = Result.getOrThrow(bodyOf(anthropic, over)).body as { messages: ReadonlyArray<object> }
    assert.deepStrictEqual(messages.at(-1), {
      role: "user",
      content: [{
        type: "tool_result",
        tool_use_id: "1",
        content: [{ type: "image", source: { type: "base64", media_type: "image/png", data: "AAAA" } }]
      }]
    })
  })

  it("rejects options that a dialect does not have, by their path", () => {
    const sampling = { temperature: 1, topP: 1, seed: 1 }
    const refused: ReadonlyArray<readonly [Dialect, Partial<Generation>, string]> = [
      [openAi, { sampling: { ...sampling, topK: 5 } }, "topK"],
      [openAi, { sampling: { ...sampling, repeatPenalty: 1.1 } }, "repeatPenalty"],
      [openAi, { stop: ["a", "b", "c", "d", "e"] }, "stop"],
      [ollama, { ...conversation, toolChoice: "required" }, "toolChoice"],
      [ollama, { sampling: { ...sampling, logitBias: { 1: 5 } } }, "logitBias"]
    ]
    for (const [dialect, over, path] of refused) {
      const reason = Result.getOrThrow(Result.flip(bodyOf(dialect, over)))
      assert.deepInclude<object>(reason, { _tag: "NotSupported", path })
    }
    const all = { sampling: { ...sampling, topK: 5, minP: 0.1, repeatPenalty: 1.1 } }
    assert.deepInclude(Result.getOrThrow(bodyOf(troupe, all)).body, { top_k: 5, min_p: 0.1, repeat_penalty: 1.1 })
  })
})

describe("OpenAI's own host", () => {
  it("receives `max_completion_tokens`, whatever form its URL has", () => {
    const sayings: ReadonlyArray<readonly [baseUrl: string | undefined, field: string]> = [
      [undefined, "max_completion_tokens"],
      ["https://api.openai.com/v1", "max_completion_tokens"],
      ["https://eu.api.openai.com/v1/", "max_completion_tokens"],
      ["http://127.0.0.1:8000/v1", "max_tokens"],
      ["https://api.openai.com.example.org/v1", "max_tokens"]
    ]
    for (const [baseUrl, field] of sayings) {
      const options = baseUrl === undefined ? {} : { baseUrl }
      const { body } = Result.getOrThrow(bodyOf(openAi, { maxTokens: 5 }, options))
      assert.deepStrictEqual(Object.keys(body).filter((name) => name.startsWith("max")), [field], baseUrl)
    }
  })
})

describe("the end of a chat completion", () => {
  const ended = (finish_reason: string) =>
    openAi.generate.buffered({ choices: [{ message: { content: "Hello" }, finish_reason }] }, generation, targetOf())

  it("is a failure if the host could not continue", () => {
    for (const reason of ["error", "insufficient_system_resource", "abort"]) {
      const failure = Result.getOrThrow(Result.flip(ended(reason)))
      assert.deepInclude<object>(failure, { _tag: "UpstreamFailed", kind: "cut" })
    }
  })

  it("has the reason length if the context window is full", () => {
    assert.deepInclude(Result.getOrThrow(ended("model_length")).at(-1), { type: "finish", reason: "length" })
  })
})

describe("embeddings", () => {
  it.live("are vectors of unit length in order, and an invalid text fails alone", () =>
    Effect.gen(function*() {
      const server = yield* served((_, { body }) => {
        const { input } = body as { readonly input: ReadonlyArray<string> }
        if (input.includes("wrong")) {
          return { status: 400, headers: json, pieces: [`{"error":{"message":"no","param":"input"}}`] }
        }
        const data = input.map((text, index) => ({ index, embedding: [text.length, 0] })).toReversed()
        return { headers: json, pieces: [JSON.stringify({ data, usage: { prompt_tokens: 10 } })] }
      })
      const engine = yield* engineAt(server.url)
      const both = yield* engine.embed(["a", "bcd"])
      const found = both.map((one) => Result.getOrThrow(one))
      assert.deepStrictEqual(found.map(({ vector }) => [...vector]), [[1, 0], [1, 0]])
      assert.strictEqual(found.reduce((sum, { promptTokens }) => sum + promptTokens, 0), 10)
      const mixed = yield* engine.embed(["a", "wrong", "b"])
      assert.deepStrictEqual(mixed.map(Result.isSuccess), [true, false, true])
    }))

  it.live("are decoded from Ollama", () =>
    Effect.gen(function*() {
      const server = yield* served(() => ({
        headers: json,
        pieces: [JSON.stringify({ embeddings: [[3, 4]], prompt_eval_count: 2 })]
      }))
      const engine = yield* engineAt(server.url, { provider: "ollama" })
      const [one] = yield* engine.embed(["a"])
      assert.deepStrictEqual(Array.from(Result.getOrThrow(one!).vector, (x) => Math.round(x * 10)), [6, 8])
      assert.strictEqual(server.seen[0]?.path, "/api/embed")
    }))
})

describe("ollama over HTTP", () => {
  it.live("streams lines, and fails if they end early", () =>
    Effect.gen(function*() {
      const { stream: pieces } = fixture("ollama").text
      const headers = { "content-type": "application/x-ndjson" }
      const server = yield* served((index) =>
        index === 0 ? { headers, pieces, bytesAtATime: 7 } : { headers, pieces: pieces.slice(0, 2) }
      )
      const engine = yield* engineAt(server.url, { provider: "ollama" })
      assert.deepStrictEqual<unknown>(answerOf((yield* outcome(engine)).events), fixture("ollama").text.answer)
      assert.deepInclude((yield* outcome(engine)).reason, { _tag: "UpstreamFailed", kind: "cut" })
    }))
})
