/** Answers of a provider for a caller of the same dialect: decoded and encoded again, they are the provider's. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import type { Envelope } from "../../../src/dialects/openai/EncodeAnswer.ts"
import * as EncodeAnswer from "../../../src/dialects/openai/EncodeAnswer.ts"
import { openAi } from "../../../src/dialects/openai/Provider.ts"
import type { DecodeResult } from "../../../src/dialects/shared/ProviderDialect.ts"
import type { Answer, Event } from "../../../src/domain/Inference.ts"
import { decode, frameOf, generationOf, targetOf } from "../../support/Dialects.ts"

const envelope: Envelope = { id: "req_1", created: 5, model: "mine", includeUsage: true, parallelToolCalls: true }
const generation = generationOf({ source: { dialect: "openai", body: { model: "m", messages: [] } } })
const target = targetOf("openai")

const nativeOf = (events: ReadonlyArray<Event>) =>
  events.flatMap((event) =>
    event.type === "native"
      ? [event.native]
      : event.type === "finish" && event.native !== undefined
      ? [event.native]
      : []
  )

/** The answer's body for the caller. */
const encodedOf = (decoded: DecodeResult): unknown => {
  const events = Result.getOrThrow(decoded)
  const answer: Answer = {
    text: "",
    toolCalls: [],
    finishReason: "stop",
    usage: { promptTokens: 1, completionTokens: 2, cachedTokens: 0 },
    deployment: "x#0",
    attempts: 1,
    decision: "d",
    native: nativeOf(events)
  }
  return JSON.parse(JSON.stringify(EncodeAnswer.encodeAnswers(envelope, [answer])))
}

const streamed = (chunks: ReadonlyArray<object>): DecodeResult =>
  decode(openAi, [...chunks.map(frameOf), { event: "message", data: "[DONE]" }], generation, target)

interface Call {
  readonly id: string
  readonly name: string
  readonly arguments: string
}

interface Content {
  readonly pieces: ReadonlyArray<string>
  readonly reasoning: ReadonlyArray<string>
  readonly calls: ReadonlyArray<Call>
  /** A field of the body that Troupe does not know. */
  readonly unknown: unknown
}

const text = fc.string({ minLength: 1, unit: "grapheme" })
const contents: fc.Arbitrary<Content> = fc.record({
  pieces: fc.array(text, { minLength: 1, maxLength: 5 }),
  reasoning: fc.array(text, { maxLength: 3 }),
  calls: fc.array(
    fc.record({
      name: fc.constantFrom("add", "get_weather"),
      arguments: fc.dictionary(fc.constantFrom("a", "b"), fc.integer()).map((value) => JSON.stringify(value))
    }),
    { maxLength: 3 }
  ).map((calls) => calls.map((call, index) => ({ ...call, id: `call_${index}` }))),
  unknown: fc.jsonValue({ maxDepth: 2 }).filter((value) => value !== null)
})

const usage = { prompt_tokens: 3, completion_tokens: 4, total_tokens: 7, vendor_tokens: 1 }
const reasonOf = ({ calls }: Content) => calls.length === 0 ? "stop" : "tool_calls"
const callOf = ({ arguments: args, id, name }: Call) => ({ id, type: "function", function: { name, arguments: args } })

const bufferedBody = (content: Content) => ({
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1,
  model: "upstream",
  vendor: content.unknown,
  choices: [{
    index: 0,
    message: {
      role: "assistant",
      content: content.pieces.join(""),
      refusal: null,
      ...(content.reasoning.length === 0 ? {} : { reasoning_content: content.reasoning.join("") }),
      ...(content.calls.length === 0 ? {} : { tool_calls: content.calls.map(callOf) })
    },
    logprobs: null,
    finish_reason: reasonOf(content)
  }],
  usage
})

const chunksOf = (content: Content): ReadonlyArray<object> => {
  const head = {
    id: "chatcmpl-1",
    object: "chat.completion.chunk",
    created: 1,
    model: "upstream",
    vendor: content.unknown
  }
  const chunk = (delta: object, finish_reason: string | null = null) => ({
    ...head,
    choices: [{ index: 0, delta, logprobs: null, finish_reason }]
  })
  return [
    chunk({ role: "assistant", content: "", refusal: null }),
    ...content.reasoning.map((piece) => chunk({ reasoning_content: piece })),
    ...content.pieces.map((piece) => chunk({ content: piece })),
    ...content.calls.flatMap((call, index) => [
      chunk({
        tool_calls: [{ index, id: call.id, type: "function", function: { name: call.name, arguments: "" } }]
      }),
      chunk({ tool_calls: [{ index, function: { arguments: call.arguments } }] })
    ]),
    chunk({}, reasonOf(content)),
    { ...head, choices: [], usage }
  ]
}

const expectedOf = (content: Content): unknown =>
  JSON.parse(JSON.stringify({ ...bufferedBody(content), id: "req_1", model: "mine" }))

describe("an answer for a caller of the same dialect", () => {
  it("is the provider's body, with the service's id and model", () => {
    fc.assert(fc.property(contents, (content) => {
      const decoded = openAi.generate.buffered(bufferedBody(content), generation, target)
      assert.deepStrictEqual(encodedOf(decoded), expectedOf(content))
    }))
  })

  it("is assembled from chunks to the same body", () => {
    fc.assert(fc.property(contents, (content) => {
      assert.deepStrictEqual(encodedOf(streamed(chunksOf(content))), expectedOf(content))
    }))
  })

  it("has the same events as for a caller of another dialect, beside the native ones", () => {
    fc.assert(fc.property(contents, (content) => {
      const plain = (events: ReadonlyArray<Event>) =>
        events.filter(({ type }) => type !== "native").map((event) =>
          event.type === "finish" ? { ...event, native: undefined } : event
        )
      const frames = chunksOf(content).map(frameOf)
      const other = Result.getOrThrow(decode(openAi, frames, generationOf(), target))
      assert.deepStrictEqual(
        plain(Result.getOrThrow(streamed(chunksOf(content)))),
        plain(other)
      )
    }))
  })

  it("has no native content before its first content, so that another deployment can answer", () => {
    fc.assert(fc.property(contents, (content) => {
      const events = Result.getOrThrow(streamed(chunksOf(content)))
      const first = events.findIndex((event) => event.type !== "native" && event.type !== "thoughts")
      const natives = events.slice(0, first).filter((event) => event.type === "native")
      assert.isTrue(natives.slice(0, -1).every(({ content: has }) => !has))
      assert.isTrue(natives.at(-1)?.content)
    }))
  })
})

describe("a part of an answer that Troupe does not know", () => {
  const delta = (fields: object) => ({ choices: [{ index: 0, delta: fields, finish_reason: null }] })
  const last = { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }

  it.each<[name: string, delta: object, path: (message: Record<string, unknown>) => unknown, expected: unknown]>([
    ["a field of a text", { content: "Hi", vendor: { a: 1 } }, ({ vendor }) => vendor, { a: 1 }],
    ["a list", { annotations: [{ type: "url_citation" }] }, ({ annotations }) => annotations, [{
      type: "url_citation"
    }]],
    ["an audio answer", { audio: { id: "a", data: "aGk=" } }, ({ audio }) => audio, { id: "a", data: "aGk=" }],
    [
      "a call of a custom tool",
      {
        tool_calls: [{ index: 0, id: "c", type: "custom", custom: { name: "sql", input: "select" } }]
      },
      ({ tool_calls }) => tool_calls,
      [{ id: "c", type: "custom", custom: { name: "sql", input: "select" } }]
    ]
  ])("is passed on and marked as more than text: %s", (_, fields, path, expected) => {
    const decoded = streamed([delta({ role: "assistant", content: "Hi" }), delta(fields), last])
    assert.isTrue(nativeOf(Result.getOrThrow(decoded)).some(({ hasMore }) => hasMore))
    const body = encodedOf(decoded) as {
      readonly choices: ReadonlyArray<{ readonly message: Record<string, unknown> }>
    }
    assert.deepStrictEqual(path(body.choices[0]!.message), expected)
  })
})

describe("calls of custom tools in chunks", () => {
  const chunk = (tool_calls: ReadonlyArray<unknown>, finish_reason: string | null = null) => ({
    choices: [{ index: 0, delta: { role: "assistant", tool_calls }, finish_reason }]
  })
  const piece = (index: unknown, input: string, id?: string) => ({
    index,
    ...(id === undefined ? {} : { id, type: "custom" }),
    custom: { ...(id === undefined ? {} : { name: "sql" }), input }
  })
  const callsOf = (chunks: ReadonlyArray<object>) => {
    const { choices: [choice] } = encodedOf(streamed(chunks)) as {
      readonly choices: ReadonlyArray<{ readonly message: { readonly tool_calls: unknown } }>
    }
    return choice!.message.tool_calls
  }
  const call = (id: string, input: string) => ({ id, type: "custom", custom: { name: "sql", input } })

  it("are joined by their indexes, and are in that order", () => {
    const chunks = [
      chunk([piece(1, "b", "two"), piece(0, "a", "one")]),
      chunk([piece(0, "a")]),
      chunk([piece(1, "b")]),
      chunk([], "tool_calls")
    ]
    assert.deepStrictEqual(callsOf(chunks), [call("one", "aa"), call("two", "bb")])
  })

  it.each([-1, 1.5, "x", null, {}, 30_000_000, 2 ** 32, 1e300])(
    "need memory for their number only: index %j",
    (index) => {
      const chunks = [chunk([piece(index, "a", "one")]), chunk([piece(index, "b")]), chunk([], "tool_calls")]
      assert.deepStrictEqual(callsOf(chunks), [call("one", "ab")])
    }
  )

  it("omit an element that is not an object", () => {
    assert.deepStrictEqual(
      callsOf([chunk([null, piece(1, "a", "one"), 5]), chunk([], "tool_calls")]),
      [call("one", "a")]
    )
  })
})

describe("damaged input", () => {
  const damage = fc.jsonValue({ maxDepth: 3 })

  it("fails or is decoded, and never throws: a body", () => {
    fc.assert(fc.property(damage, damage, damage, (message, choice, body) => {
      for (const one of [body, { choices: [choice] }, { choices: [{ message, finish_reason: choice }] }]) {
        const decoded = openAi.generate.buffered(one, generation, target)
        assert.exists(Result.isSuccess(decoded) ? encodedOf(decoded) : decoded.failure)
      }
    }))
  })

  it("fails or is decoded, and never throws: a chunk among others", () => {
    fc.assert(fc.property(contents, damage, fc.nat(20), fc.constantFrom(0, 1, 2), (content, value, at, depth) => {
      const chunks: Array<unknown> = [...chunksOf(content)]
      const wrong = [value, { choices: [value] }, { choices: [{ index: 0, delta: value }] }][depth]
      chunks.splice(at % chunks.length, 0, wrong)
      const frames = chunks.map((chunk) => ({ event: "message", data: JSON.stringify(chunk) }))
      const decoded = decode(openAi, frames, generation, target)
      assert.exists(Result.isSuccess(decoded) ? encodedOf(decoded) : decoded.failure)
    }))
  })

  it("fails after a cut at any chunk", () => {
    fc.assert(fc.property(contents, fc.nat(20), (content, at) => {
      const chunks = chunksOf(content)
      const end = chunks.findIndex((chunk) => JSON.stringify(chunk).includes(`"finish_reason":"${reasonOf(content)}"`))
      const decoded = decode(openAi, chunks.slice(0, at % (end + 1)).map(frameOf), generation, target)
      assert.isTrue(Result.isFailure(decoded))
    }))
  })
})
