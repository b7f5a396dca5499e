import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import * as DecodeAnswer from "../../../src/dialects/anthropic/DecodeAnswer.ts"
import type { Envelope } from "../../../src/dialects/anthropic/EncodeAnswer.ts"
import * as EncodeAnswer from "../../../src/dialects/anthropic/EncodeAnswer.ts"
import * as EncodeStream from "../../../src/dialects/anthropic/EncodeStream.ts"
import * as AnthropicSchema from "../../../src/dialects/anthropic/Schema.ts"
import type { Target } from "../../../src/dialects/shared/ProviderDialect.ts"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { Answer, Event } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"

const envelope: Envelope = { id: "req_1", model: "tiny-chat", parallelToolUse: true, thinking: true }

const decode = Schema.decodeSync(Schema.fromJsonString(AnthropicSchema.StreamEvent), { onExcessProperty: "error" })

/** The events of a stream's text; the name of each must be its type. */
const parse = (text: string): ReadonlyArray<AnthropicSchema.StreamEvent> => {
  assert.isTrue(text === "" || text.endsWith("\n\n"))
  return text.split("\n\n").slice(0, -1).map((frame) => {
    const [, name, data] = /^event: (\w+)\ndata: ([^\r\n]+)$/.exec(frame) ?? assert.fail(frame)
    const event = decode(data!)
    assert.strictEqual(event.type, name)
    return event
  })
}

const by = { deployment: "m#0", attempts: 1, decision: "d" }

const finishOf = (usage: Partial<Answer["usage"]> = {}): Event => ({
  type: "finish",
  reason: "stop",
  usage: { promptTokens: 9, completionTokens: 5, cachedTokens: 4, ...usage }
})

/** All frames of events in groups of these lengths. */
const encode = (events: ReadonlyArray<Event>, lengths: ReadonlyArray<number>, some = envelope): string => {
  const encoder = EncodeStream.makeFrameEncoder(some)
  let out = ""
  for (let at = 0, turn = 0; at < events.length; turn++) {
    const length = lengths[turn % lengths.length]!
    out += encoder.events(events.slice(at, at + length))
    at += length
  }
  return out + encoder.end()
}

const lengths = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 5 })
const anyText = fc.string({ unit: "binary" })

/** Events in any order, including invalid ones. */
const anyEvents = fc.array(
  fc.oneof(
    fc.record({ type: fc.constant("text" as const), text: anyText, tokens: fc.nat({ max: 3 }) }),
    fc.record({
      type: fc.constant("tool_call" as const),
      index: fc.nat({ max: 3 }),
      arguments: anyText,
      tokens: fc.nat({ max: 3 })
    }),
    fc.record({
      type: fc.constant("tool_call" as const),
      index: fc.nat({ max: 3 }),
      id: anyText,
      name: anyText,
      arguments: anyText,
      tokens: fc.nat({ max: 3 })
    })
  ),
  { maxLength: 12 }
).map((events): ReadonlyArray<Event> => [...events, finishOf()])

/** Checks the events against Anthropic's grammar, except for their end. */
const assertBlocks = (events: ReadonlyArray<AnthropicSchema.StreamEvent>) => {
  let open: { readonly index: number; readonly delta: string } | undefined
  let blocks = 0
  for (const event of events) {
    if (event.type === "content_block_start") {
      assert.isUndefined(open)
      assert.strictEqual(event.index, blocks++)
      open = { index: event.index, delta: event.content_block.type === "text" ? "text_delta" : "input_json_delta" }
    }
    if (event.type === "content_block_delta") {
      assert.deepStrictEqual({ index: event.index, delta: event.delta.type }, open)
    }
    if (event.type === "content_block_stop") {
      assert.strictEqual(event.index, open?.index)
      open = undefined
    }
    if (event.type === "message_delta" || event.type === "message_stop") assert.isUndefined(open)
  }
}

const isComplete = (events: ReadonlyArray<Event>): boolean => {
  let last: number | undefined
  const begun = new Set<number>()
  return events.every((event) => {
    if (event.type === "tool_call") {
      const late = begun.has(event.index) && last !== event.index
      begun.add(event.index)
      last = event.index
      return !late
    }
    if (event.type === "text" && event.text !== "") last = undefined
    return true
  })
}

/** Texts and complete calls of an engine, as events and as a buffered answer. */
const answers = fc.array(
  fc.oneof(
    fc.record({ texts: fc.array(fc.string({ minLength: 1, unit: "grapheme" }), { minLength: 1, maxLength: 3 }) }),
    fc.record({ name: fc.string({ minLength: 1 }), input: fc.dictionary(fc.string(), fc.jsonValue()), cut: fc.nat() })
  ),
  { maxLength: 6 }
).map((segments) => {
  const events: Array<Event> = []
  const toolCalls: Array<Answer["toolCalls"][number]> = []
  for (const one of segments) {
    if ("texts" in one) {
      events.push(...one.texts.map((text): Event => ({ type: "text", text, tokens: 1 })))
      continue
    }
    const index = toolCalls.length
    const call = { id: `call_${index}`, name: one.name, arguments: JSON.stringify(one.input) }
    const cut = one.cut % call.arguments.length
    const { id, name } = call
    events.push({ type: "tool_call", index, id, name, arguments: call.arguments.slice(0, cut), tokens: 1 })
    events.push({ type: "tool_call", index, arguments: call.arguments.slice(cut), tokens: 1 })
    toolCalls.push(call)
  }
  const text = events.map((event) => event.type === "text" ? event.text : "").join("")
  const finishReason = toolCalls.length === 0 ? "stop" as const : "tool_calls" as const
  const usage = { promptTokens: 9, completionTokens: events.length, cachedTokens: 4 }
  events.push({ type: "finish", reason: finishReason, usage })
  return { events, answer: { text, toolCalls, finishReason, usage, ...by } satisfies Answer }
})

/** The message that a client assembles from the events of a stream. */
const accumulate = (events: ReadonlyArray<AnthropicSchema.StreamEvent>) => {
  const blocks: Array<{ readonly block: AnthropicSchema.Block; text: string }> = []
  let end: Partial<AnthropicSchema.End> = {}
  let usage: Partial<AnthropicSchema.DeltaUsage> = {}
  for (const event of events) {
    if (event.type === "content_block_start") blocks.push({ block: event.content_block, text: "" })
    if (event.type === "content_block_delta") {
      const { delta } = event
      if (delta.type === "thinking_delta" || delta.type === "signature_delta") throw new Error("no event has reasoning")
      blocks[event.index]!.text += delta.type === "text_delta" ? delta.text : delta.partial_json
    }
    if (event.type === "message_delta") {
      end = event.delta
      usage = event.usage
    }
  }
  return {
    text: blocks.map(({ block, text }) => block.type === "text" ? text : "").join(""),
    uses: blocks.flatMap(({ block, text }) =>
      block.type === "tool_use" ? [{ ...block, input: JSON.parse(text === "" ? "{}" : text) as unknown }] : []
    ),
    end,
    usage
  }
}

const textOf = (blocks: ReadonlyArray<AnthropicSchema.Block>): string =>
  blocks.map((block) => block.type === "text" ? block.text : "").join("")

describe("EncodeStream", () => {
  it("has well-formed blocks for any events, and an ordinary end only if no event is lost", () => {
    fc.assert(fc.property(anyEvents, lengths, (events, lengths) => {
      const decoded = parse(encode(events, lengths))
      assertBlocks(decoded)
      assert.strictEqual(decoded[0]?.type, "message_start")
      assert.strictEqual(decoded.filter(({ type }) => type === "message_start").length, 1)
      const last = decoded.map(({ type }) => type).slice(-2)
      if (isComplete(events)) assert.deepStrictEqual(last, ["message_delta", "message_stop"])
      else {
        assert.strictEqual(last.at(-1), "error")
        assert.isFalse(decoded.some(({ type }) => type === "message_stop" || type === "message_delta"))
      }
    }))
  })

  it("has the content of the buffered answer, however its events are grouped", () => {
    fc.assert(fc.property(answers, lengths, fc.boolean(), ({ answer, events }, lengths, parallelToolUse) => {
      const some = { ...envelope, parallelToolUse }
      const buffered = Result.getOrThrow(EncodeAnswer.encodeAnswer(some, answer))
      const streamed = accumulate(parse(encode(events, lengths, some)))
      assert.strictEqual(streamed.text, textOf(buffered.content))
      assert.deepStrictEqual<unknown>(streamed.uses, buffered.content.filter(({ type }) => type === "tool_use"))
      assert.isAtMost(streamed.uses.length, parallelToolUse ? Number.POSITIVE_INFINITY : 1)
      assert.deepInclude(buffered, streamed.end)
      assert.deepInclude(buffered.usage, streamed.usage)
    }))
  })

  it("is decoded by the provider of the same dialect without a change", () => {
    const generation = { messages: [], sampling: { temperature: 0, topP: 1, seed: 1 }, stop: [], maxTokens: 9 }
    const target = { deployment: "m#0", options: {} } as unknown as Target
    fc.assert(fc.property(answers, lengths, ({ answer, events }, lengths) => {
      const decoder = DecodeAnswer.events(generation satisfies Generation, target)
      const frames = encode(events, lengths).split("\n\n").slice(0, -1)
      const read = frames.flatMap((frame) =>
        Result.getOrThrow(decoder.push({ event: "", data: frame.replace(/^.*\ndata: /, "") }))
      )
      const text = read.map((event) => event.type === "text" ? event.text : "").join("")
      const calls = answer.toolCalls.map((_, index) =>
        read.map((event) => event.type === "tool_call" && event.index === index ? event.arguments : "").join("")
      )
      assert.strictEqual(text, answer.text)
      assert.deepStrictEqual(calls, answer.toolCalls.map((call) => call.arguments))
      assert.deepInclude(read.at(-1), { type: "finish", reason: answer.finishReason, usage: answer.usage })
    }))
  })

  it("sends consecutive texts in one frame, and the usage at the end", () => {
    const texts = ["a", "b", "c"].map((text): Event => ({ type: "text", text, tokens: 1 }))
    const [start, ...events] = parse(encode([...texts, finishOf({ reasoningTokens: 2 })], [3]))
    assert.strictEqual(start?.type, "message_start")
    if (start?.type !== "message_start") return
    assert.deepInclude(start.message, { id: "msg_1", content: [], stop_reason: null, model: "tiny-chat" })
    assert.deepStrictEqual(events, [
      { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
      { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "abc" } },
      { type: "content_block_stop", index: 0 },
      {
        type: "message_delta",
        delta: { stop_reason: "end_turn", stop_sequence: null, stop_details: null, container: null },
        usage: {
          input_tokens: 5,
          cache_creation_input_tokens: 0,
          cache_read_input_tokens: 4,
          output_tokens: 5,
          output_tokens_details: { thinking_tokens: 2 },
          server_tool_use: null
        }
      },
      { type: "message_stop" }
    ])
  })

  it("ends with a refusal before any content and after some", () => {
    const refused = new InferenceError.ContentRefused({ deployment: "m#0", detail: "Not this." })
    for (const before of [[], [{ type: "text" as const, text: "I", tokens: 1 }]]) {
      const encoder = EncodeStream.makeFrameEncoder(envelope)
      const begun = before.length === 0 ? "" : encoder.events(before)
      const decoded = parse(begun + encoder.refuse(refused))
      assertBlocks(decoded)
      assert.strictEqual(decoded[0]?.type, "message_start")
      assert.strictEqual(decoded.at(-1)?.type, "message_stop")
      const { end, usage } = accumulate(decoded)
      assert.deepInclude(end, { stop_reason: "refusal" })
      assert.deepStrictEqual(end.stop_details, { type: "refusal", category: null, explanation: "Not this." })
      assert.strictEqual(usage.output_tokens, before.length)
    }
  })

  it("names the model that has answered, or refused", () => {
    const served = { ...envelope, servedModel: (deployment: string) => `model of ${deployment}` }
    const named = (frames: string) =>
      (parse(frames)[0] as { readonly message: { readonly model: string } }).message.model
    const answered = EncodeStream.makeFrameEncoder(served)
    answered.begin("m#0")
    assert.strictEqual(named(answered.events([{ type: "text", text: "I", tokens: 1 }])), "model of m#0")
    const refused = new InferenceError.ContentRefused({ deployment: "m#1", detail: "Not this." })
    assert.strictEqual(named(EncodeStream.makeFrameEncoder(served).refuse(refused)), "model of m#1")
  })

  it("leaves out handoffs, which clients of the dialect do not know", () => {
    const texts: ReadonlyArray<Event> = ["a", "b"].map((text) => ({ type: "text", text, tokens: 1 }))
    const handoff: Event = { type: "handoff", deployment: "b#0" }
    const [one, two] = texts
    assert.strictEqual(
      encode([one!, handoff, two!, finishOf()], [1]),
      encode([one!, two!, finishOf()], [1])
    )
  })

  it("has the stop sequence that ended it", () => {
    const decoded = parse(encode([{ ...finishOf(), stop: "END" } as Event], [1]))
    assert.deepInclude(accumulate(decoded).end, { stop_reason: "stop_sequence", stop_sequence: "END" })
  })
})
