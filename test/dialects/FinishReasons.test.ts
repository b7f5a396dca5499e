/** Finish reasons of providers: which of them end an answer, and events after them. */
import { assert, describe, it } from "@effect/vitest"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../src/dialects/gemini/Provider.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import { azureOpenAi, openAi } from "../../src/dialects/openai/Provider.ts"
import type { Dialect } from "../../src/dialects/shared/ProviderDialect.ts"
import { troupe } from "../../src/dialects/troupe/Provider.ts"
import { makeEventReader } from "../../src/layers/providers/EventReader.ts"
import { generationOf, targetOf } from "../support/Dialects.ts"

type Frames = ReadonlyArray<unknown>

/** The frames of a dialect: text, and the end of an answer. */
interface Wire {
  readonly dialect: Dialect
  readonly text: (text: string, reason?: unknown) => Frames
  readonly call: Frames
  readonly finish: (reason?: unknown) => Frames
  readonly usage: Frames
  /** Its reasons for a complete answer, and for one that is too long. */
  readonly stop: string
  readonly length: string
}

const choice = (delta: object, finish_reason?: unknown) => ({ choices: [{ index: 0, delta, finish_reason }] })

const wireOfOpenAi = (dialect: Dialect): Wire => ({
  dialect,
  text: (content, reason = null) => [choice({ content }, reason)],
  call: [choice({ tool_calls: [{ index: 0, id: "a", function: { name: "f", arguments: "{}" } }] }, null)],
  finish: (reason) => [choice({}, reason)],
  usage: [{ choices: [], usage: { prompt_tokens: 3, completion_tokens: 4 } }],
  stop: "stop",
  length: "length"
})

const block = (index: number, content_block: object, ...deltas: ReadonlyArray<object>) => [
  { type: "content_block_start", index, content_block },
  ...deltas.map((delta) => ({ type: "content_block_delta", index, delta })),
  { type: "content_block_stop", index }
]

const wires: Readonly<Record<string, Wire>> = {
  openai: wireOfOpenAi(openAi),
  "azure-openai": wireOfOpenAi(azureOpenAi),
  troupe: wireOfOpenAi(troupe),
  anthropic: {
    dialect: anthropic,
    text: (text, reason) => [
      ...block(0, { type: "text", text: "" }, { type: "text_delta", text }),
      ...(reason === undefined ? [] : [{ type: "message_delta", delta: { stop_reason: reason } }])
    ],
    call: block(1, { type: "tool_use", id: "a", name: "f" }, { type: "input_json_delta", partial_json: "{}" }),
    finish: (reason) => [{ type: "message_delta", delta: { stop_reason: reason } }],
    usage: [{ type: "message_delta", delta: {}, usage: { input_tokens: 3, output_tokens: 4 } }, {
      type: "message_stop"
    }],
    stop: "end_turn",
    length: "max_tokens"
  },
  gemini: {
    dialect: gemini,
    text: (text, finishReason) => [{ candidates: [{ content: { parts: [{ text }] }, finishReason }] }],
    call: [{ candidates: [{ content: { parts: [{ functionCall: { name: "f" } }] } }] }],
    finish: (finishReason) => [{ candidates: [{ finishReason }] }],
    usage: [{ usageMetadata: { promptTokenCount: 3, candidatesTokenCount: 4 } }],
    stop: "STOP",
    length: "MAX_TOKENS"
  },
  ollama: {
    dialect: ollama,
    text: (content, done_reason) => [{ message: { content }, done: false, done_reason }],
    call: [{ message: { tool_calls: [{ function: { name: "f", arguments: {} } }] }, done: false }],
    finish: (done_reason) => [{ message: { content: "" }, done: done_reason !== undefined, done_reason }],
    usage: [],
    stop: "stop",
    length: "length"
  }
}

const read = (dialect: Dialect, frames: Frames, end = "") => {
  const target = targetOf("openai")
  const generation = generationOf()
  const reader = makeEventReader(dialect, target, generation)
  const write = (frame: unknown) =>
    dialect.framing === "sse" ? `data: ${JSON.stringify(frame)}\n\n` : `${JSON.stringify(frame)}\n`
  reader.push(Buffer.from(frames.map(write).join("") + end))
  if (!reader.isOver()) reader.end()
  const { events, failure } = reader.take()
  const last = events.at(-1)
  return {
    text: events.map((event) => event.type === "text" ? event.text : "").join(""),
    calls: events.filter((event) => event.type === "tool_call" && event.id !== undefined).length,
    finish: last?.type === "finish" ? last.reason : undefined,
    usage: last?.type === "finish" ? [last.usage.promptTokens, last.usage.completionTokens] : undefined,
    failure: failure?._tag === "UpstreamFailed" ? failure.kind : failure?._tag
  }
}

const none = ["", " ", "null", "NULL", "none", null, undefined]

for (const [name, { call, dialect, finish, length, stop, text, usage }] of Object.entries(wires)) {
  describe(`a finish reason of ${name}`, () => {
    for (const nothing of none) {
      // Ollama's `done` ends an answer, whatever the reason.
      const frames = name === "ollama"
        ? text("Hello", nothing)
        : [...text("Hello", nothing), ...finish(nothing), ...usage]
      it(`does not end the answer if it is ${JSON.stringify(nothing) ?? "missing"}`, () => {
        const answer = read(dialect, frames, dialect.framing === "sse" && name !== "gemini" ? "data: [DONE]\n\n" : "")
        assert.strictEqual(answer.text, "Hello")
        assert.isUndefined(answer.finish)
        assert.include(["cut", "malformed"], answer.failure)
      })

      it(`is kept if a later one is ${JSON.stringify(nothing) ?? "missing"}`, () => {
        const answer = read(dialect, [...text("Hello"), ...finish(length), ...finish(nothing), ...usage])
        assert.deepInclude(answer, { text: "Hello", finish: "length", failure: undefined })
      })
    }

    it("is decoded in upper and lower case", () => {
      for (const written of [stop.toUpperCase(), stop.toLowerCase()]) {
        assert.strictEqual(read(dialect, [...text("Hi"), ...finish(written), ...usage]).finish, "stop")
      }
      for (const written of [length.toUpperCase(), length.toLowerCase()]) {
        assert.strictEqual(read(dialect, [...text("Hi"), ...finish(written), ...usage]).finish, "length")
      }
    })

    it("is tool_calls if the answer has calls, whatever the provider sends", () => {
      assert.deepInclude(read(dialect, [...call, ...finish(stop), ...usage]), { calls: 1, finish: "tool_calls" })
    })

    it("without content is a failure", () => {
      assert.strictEqual(read(dialect, [...finish(stop), ...usage]).failure, "empty")
    })

    it("includes the usage that arrives after it", () => {
      if (usage.length > 0) {
        assert.deepStrictEqual(read(dialect, [...text("Hi"), ...finish(stop), ...usage]).usage, [3, 4])
      }
    })
  })
}

// Some of Gemini's models send a reason with every chunk.
for (
  const [name, { call, dialect, finish, length, stop, text, usage }] of Object.entries(wires).filter(([name]) =>
    name !== "gemini"
  )
) {
  it(`A finish reason of ${name} ends the answer: text, calls and reasons after it are ignored`, () => {
    const frames = [...text("Hi"), ...finish(length), ...text(" there"), ...call, ...finish(stop), ...usage]
    assert.deepInclude(read(dialect, frames), { text: "Hi", calls: 0, finish: "length", failure: undefined })
  })
}

describe("a finish reason of the OpenAI dialect", () => {
  const { finish, text } = wires["openai"]!

  it("is stop if it is tool_calls and the answer has only text", () => {
    assert.deepInclude(read(openAi, [...text("Hi"), ...finish("tool_calls")]), { text: "Hi", finish: "stop" })
    assert.strictEqual(read(openAi, finish("tool_calls")).failure, "malformed")
  })

  it("may be one of another host", () => {
    const reasons = { max_tokens: "length", end_turn: "stop", eos_token: "stop", MAX_TOKENS: "length", weird: "stop" }
    for (const [reason, finish_reason] of Object.entries(reasons)) {
      assert.strictEqual(read(openAi, [...text("Hi"), ...finish(reason)]).finish, finish_reason)
    }
    for (const reason of ["content_filter", "SAFETY", "refusal"]) {
      assert.deepInclude(read(openAi, [...text("Hi"), ...finish(reason)]), { text: "Hi", finish: "content_filter" })
    }
  })

  it("does not require [DONE]", () => {
    assert.strictEqual(read(openAi, [...text("Hi"), ...finish("stop")]).finish, "stop")
  })
})
