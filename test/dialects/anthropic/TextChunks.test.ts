/** Events of text that are recognized by a template are decoded and encoded as if each was parsed. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as EncodeStream from "../../../src/dialects/anthropic/EncodeStream.ts"
import { anthropic } from "../../../src/dialects/anthropic/Provider.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import { generationOf } from "../../support/Dialects.ts"
import { bodyOf, isRepeated, lengthOf, parsedOf, read, spaced, tokensOf } from "../../support/Streams.ts"

const provider = ["anthropic", anthropic] as const
const ownCaller = generationOf({ source: { dialect: "anthropic", body: { model: "m", messages: [] } } })
const otherCaller = generationOf({ source: { dialect: "openai", body: { model: "m", messages: [] } } })
const envelope = { id: "req_2", model: "mine", parallelToolUse: true, thinking: true }

const delta = (index: number, delta: object) => ({ type: "content_block_delta", index, delta })
const textDelta = (text: string) => delta(0, { type: "text_delta", text })
const start = (index: number, content_block: object) => ({ type: "content_block_start", index, content_block })
const begin = [
  { type: "message_start", message: { id: "msg_1", model: "upstream", usage: { input_tokens: 1 } } },
  start(0, { type: "text", text: "" })
]
const end = [
  { type: "content_block_stop", index: 0 },
  { type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 3 } },
  { type: "message_stop" }
]

const text = fc.oneof(
  fc.string({ unit: "grapheme" }),
  fc.constantFrom("", "a", "\"", "\\", "\ud800", "\n", "\u2028", "<troupe:first>", "\"text\":\"", "データ")
)

const others = fc.constantFrom<object>(
  delta(1, { type: "text_delta", text: "x" }),
  delta(0, { type: "text_delta", text: "<troupe:first>", vendor: { text: "y" } }),
  { ...textDelta("x"), text: "top" },
  delta(0, { type: "text_delta" }),
  delta(0, { type: "thinking_delta", thinking: "hm", text: "x" }),
  delta(1, { type: "input_json_delta", partial_json: "{}" }),
  delta(0, { type: "citations_delta", citation: { text: "x" } }),
  start(1, { type: "tool_use", id: "c", name: "f", input: {} }),
  start(1, { type: "text", text: "x" }),
  { type: "content_block_stop", index: 1 },
  { type: "ping" },
  { type: "message_delta", delta: {} },
  ...end,
  { type: "error", error: { type: "overloaded_error", message: "x" } }
)

const streams = fc.tuple(
  fc.array(fc.oneof({ weight: 6, arbitrary: text.map(textDelta) }, others), { maxLength: 20 }),
  fc.boolean(),
  fc.nat(40),
  fc.nat(100)
).map(([some, isWhole, which, at]) =>
  [...begin, ...some, ...end].map((event, index) => {
    const json = JSON.stringify(event)
    return isWhole || index !== which ? json : json.slice(0, at) + json.slice(at + 1)
  })
)

/** The parsed events of the caller's stream. */
const framesOf = (events: ReadonlyArray<Event>): ReadonlyArray<unknown> => {
  const encoder = EncodeStream.makeFrameEncoder(envelope)
  return (encoder.events(events) + encoder.end()).split("\n\n")
    .filter((frame) => frame !== "").map((frame) => {
      const [name, data] = frame.split("\ndata: ")
      return [name, JSON.parse(data!)]
    })
}

describe("events that differ in their text", () => {
  it("are recognized", () => {
    const given = ["Hé", "llo \"", "\\", "\ud83d\ude00", "\n", "!"]
    const body = bodyOf([...begin, ...given.map(textDelta), ...end].map((event) => JSON.stringify(event)))
    const { events } = read(provider, ownCaller, body, [body.length])
    assert.deepStrictEqual(events.map(lengthOf).filter((length) => length > 0), [given.length - 1])
    assert.strictEqual(events.map((event) => event.type === "text" ? event.text : "").join(""), given.join(""))
  })

  it("become the same events, and frames of the same JSON, as events that are parsed", () => {
    fc.assert(
      fc.property(
        streams,
        fc.constantFrom(ownCaller, otherCaller, generationOf()),
        fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 5 }),
        (some, generation, lengths) => {
          const found = read(provider, generation, bodyOf(some), lengths)
          const expected = read(provider, generation, bodyOf(spaced(some)), [1_000_000])
          assert.isFalse(expected.events.some(isRepeated))
          assert.deepStrictEqual(parsedOf(found.events), parsedOf(expected.events))
          assert.strictEqual(tokensOf(found.events), tokensOf(expected.events))
          assert.deepStrictEqual(found.failure, expected.failure)
          assert.deepStrictEqual(framesOf(found.events), framesOf(expected.events))
        }
      ),
      { numRuns: 1_000 }
    )
  })
})
