/** Answers of Anthropic for a caller of the same dialect: decoded and encoded again, they are the provider's. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import type { Envelope } from "../../../src/dialects/anthropic/EncodeAnswer.ts"
import * as EncodeAnswer from "../../../src/dialects/anthropic/EncodeAnswer.ts"
import { anthropic } from "../../../src/dialects/anthropic/Provider.ts"
import type { DecodeResult } from "../../../src/dialects/shared/ProviderDialect.ts"
import type { Answer, Event } from "../../../src/domain/Inference.ts"
import { decode, frameOf, generationOf, targetOf } from "../../support/Dialects.ts"

const envelope: Envelope = { id: "req_2", model: "mine", parallelToolUse: true, thinking: true }
const generation = generationOf({ source: { dialect: "anthropic", body: { model: "m", messages: [] } } })
const target = targetOf("anthropic")

/** The answer's body for the caller. */
const encodedOf = (decoded: DecodeResult): unknown => {
  const answer: Answer = {
    text: "",
    toolCalls: [],
    finishReason: "stop",
    usage: { promptTokens: 1, completionTokens: 2, cachedTokens: 0 },
    deployment: "x#0",
    attempts: 1,
    decision: "d",
    native: Result.getOrThrow(decoded).flatMap((event) => event.type === "native" ? [event.native] : [])
  }
  return JSON.parse(JSON.stringify(Result.getOrThrow(EncodeAnswer.encodeAnswer(envelope, answer))))
}

type Block = Readonly<Record<string, unknown>>

const text = fc.string({ minLength: 1, unit: "grapheme" })
const input = fc.dictionary(fc.constantFrom("a", "b", "city"), fc.integer())
const block: fc.Arbitrary<Block> = fc.oneof(
  fc.record({ type: fc.constant("text"), text }),
  fc.record({ type: fc.constant("thinking"), thinking: text, signature: text }),
  fc.record({ type: fc.constant("redacted_thinking"), data: text }),
  fc.record({ type: fc.constant("tool_use"), name: fc.constantFrom("add", "search"), input }),
  fc.record({ type: fc.constant("server_tool_use"), name: fc.constant("web_search"), input, vendor: text }),
  fc.record({ type: fc.constant("web_search_tool_result"), tool_use_id: text, content: fc.array(fc.record({ text })) })
)

/** Text first, so that every answer has content. */
const blocks = fc.array(block, { maxLength: 4 }).map((others): ReadonlyArray<Block> =>
  [{ type: "text", text: "Hello" }, ...others].map((one, index) =>
    (one.type as string).endsWith("tool_use") ? { ...one, id: `toolu_${index}` } : one
  )
)

const isCall = ({ type }: Block) => type === "tool_use"
const reasonOf = (content: ReadonlyArray<Block>) => content.some(isCall) ? "tool_use" : "end_turn"

const messageOf = (content: ReadonlyArray<Block>) => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "upstream",
  vendor: { a: [1] },
  content,
  stop_reason: reasonOf(content),
  stop_sequence: null,
  usage: { input_tokens: 3, output_tokens: 4, vendor_tokens: 1 }
})

/** The block at its start, and its deltas. */
const startOf = (one: Block): readonly [start: Block, deltas: ReadonlyArray<Block>] => {
  switch (one["type"]) {
    case "text":
      return [{ ...one, text: "" }, halvesOf(one["text"]).map((text) => ({ type: "text_delta", text }))]
    case "thinking":
      return [{ ...one, thinking: "", signature: "" }, [
        ...halvesOf(one["thinking"]).map((thinking) => ({ type: "thinking_delta", thinking })),
        { type: "signature_delta", signature: one["signature"] }
      ]]
    case "tool_use":
    case "server_tool_use":
      return [
        { ...one, input: {} },
        halvesOf(JSON.stringify(one["input"])).map((partial_json) => ({ type: "input_json_delta", partial_json }))
      ]
    default:
      return [one, []]
  }
}

const halvesOf = (value: unknown): ReadonlyArray<string> => {
  const characters = Array.from(value as string)
  const half = Math.floor(characters.length / 2)
  return [characters.slice(0, half).join(""), characters.slice(half).join("")]
}

const eventsOf = (content: ReadonlyArray<Block>): ReadonlyArray<Block> => {
  const { content: _, stop_reason, stop_sequence, usage, ...message } = messageOf(content)
  return [
    { type: "message_start", message: { ...message, content: [], usage: { input_tokens: 3, output_tokens: 0 } } },
    { type: "ping" },
    ...content.flatMap((one, index) => {
      const [content_block, deltas] = startOf(one)
      return [
        { type: "content_block_start", index, content_block },
        ...deltas.map((delta) => ({ type: "content_block_delta", index, delta })),
        { type: "content_block_stop", index }
      ]
    }),
    { type: "message_delta", delta: { stop_reason, stop_sequence }, usage },
    { type: "message_stop" }
  ]
}

const streamed = (events: ReadonlyArray<object>): DecodeResult =>
  decode(anthropic, events.map(frameOf), generation, target)

const expectedOf = (content: ReadonlyArray<Block>): unknown => {
  const { id: _, ...message } = messageOf(content)
  return { ...message, model: "mine" }
}

const withoutId = (body: unknown): unknown => {
  const { id, ...rest } = body as Block
  assert.strictEqual(id, "msg_2")
  return rest
}

describe("an answer for a caller of the same dialect", () => {
  it("is the provider's body, with the service's id and model", () => {
    fc.assert(fc.property(blocks, (content) => {
      const decoded = anthropic.generate.buffered(messageOf(content), generation, target)
      assert.deepStrictEqual(withoutId(encodedOf(decoded)), expectedOf(content))
    }))
  })

  it("is assembled from events to the same body", () => {
    fc.assert(fc.property(blocks, (content) => {
      assert.deepStrictEqual(withoutId(encodedOf(streamed(eventsOf(content)))), expectedOf(content))
    }))
  })

  it("has the same events as for a caller of another dialect, beside the native ones", () => {
    fc.assert(fc.property(blocks, (content) => {
      const frames = eventsOf(content).map(frameOf)
      // What the native events have of signatures is noted, and not passed on.
      const own = (events: ReadonlyArray<Event>) =>
        events.filter((event) => event.type !== "native" && !("marks" in event))
      const generation = generationOf({ source: { dialect: "openai", body: {} } })
      // The native events have the signatures; other callers get them in events after the text, or alone where it is encrypted.
      const other = Result.getOrThrow(decode(anthropic, frames, generation, target)).flatMap((event) => {
        if (event.type !== "thoughts" || event.signed === undefined) return [event]
        return event.signed.type === "thinking" ? [] : [{ type: "thoughts" as const, text: "", tokens: 0 }]
      })
      assert.deepStrictEqual(own(Result.getOrThrow(streamed(eventsOf(content)))), other)
    }))
  })
})

describe("indexes of blocks", () => {
  const blockEvents = (index: number, text: string) => [
    { type: "content_block_start", index, content_block: { type: "text", text: "" } },
    { type: "content_block_delta", index, delta: { type: "text_delta", text } },
    { type: "content_block_stop", index }
  ]

  it.each([[0, 1], [1, 0], [2 ** 32, 0], [7, 3_000_000]])(
    "order the blocks, and need no memory: %d, %d",
    (...at) => {
      const [start, ping, ...others] = eventsOf([])
      const decoded = streamed([start!, ping!, ...at.flatMap((index) => blockEvents(index, `${index}`)), ...others])
      const { content } = encodedOf(decoded) as { readonly content: ReadonlyArray<Block> }
      assert.deepStrictEqual(content.map(({ text }) => Number(text)), at.toSorted((one, other) => one - other))
    }
  )
})

describe("damaged input", () => {
  const damage = fc.jsonValue({ maxDepth: 3 })

  it("fails or is decoded, and never throws: a body", () => {
    fc.assert(fc.property(damage, damage, (body, value) => {
      for (const one of [body, { content: [value] }, { content: [{ type: "text", text: value }], usage: value }]) {
        const decoded = anthropic.generate.buffered(one, generation, target)
        assert.exists(Result.isSuccess(decoded) ? encodedOf(decoded) : decoded.failure)
      }
    }))
  })

  it("fails or is decoded, and never throws: an event among others", () => {
    const type = fc.constantFrom(
      "message_start",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
      "ping",
      "unknown"
    )
    const event = fc.record({
      type,
      index: fc.oneof(fc.integer(), damage),
      message: damage,
      content_block: damage,
      delta: damage,
      usage: damage
    }, { requiredKeys: ["type"] })
    fc.assert(fc.property(blocks, event, fc.nat(30), (content, wrong, at) => {
      const events: Array<object> = [...eventsOf(content)]
      events.splice(at % events.length, 0, wrong)
      const decoded = streamed(events)
      assert.exists(Result.isSuccess(decoded) ? encodedOf(decoded) : decoded.failure)
    }))
  })

  it("fails after a cut at any event before the stop reason, and is complete after a cut behind it", () => {
    fc.assert(fc.property(blocks, fc.nat(30), (content, at) => {
      const events = eventsOf(content)
      const begun = events.slice(0, at % events.length)
      const decoded = Result.flatMap(
        streamed(begun),
        (some) => some.at(-1)?.type === "finish" ? Result.succeed(some) : Result.fail(undefined)
      )
      assert.strictEqual(Result.isSuccess(decoded), begun.some(({ type }) => type === "message_delta"))
    }))
  })
})
