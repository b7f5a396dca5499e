import { assert, describe, it } from "@effect/vitest"
import { Result, Schema as S } from "effect"
import * as fc from "fast-check"
import { ResponseStream } from "openai/lib/responses/ResponseStream"
import * as DecodeRequest from "../../../src/dialects/responses/DecodeRequest.ts"
import type { Envelope } from "../../../src/dialects/responses/EncodeAnswer.ts"
import * as EncodeAnswer from "../../../src/dialects/responses/EncodeAnswer.ts"
import { ResponseFrames } from "../../../src/dialects/responses/EncodeStream.ts"
import * as Schema from "../../../src/dialects/responses/Schema.ts"
import type { Answer, Event } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"

interface StreamEvent {
  readonly type: string
  readonly sequence_number: number
  readonly [field: string]: unknown
}

const envelopeOf = (fields: object = {}): Envelope => ({
  id: `resp_${"r".repeat(22)}`,
  created: 1,
  settings: Result.getOrThrow(DecodeRequest.decode({ model: "m", input: "Hi", ...fields })).settings
})

const decodeResponse = S.decodeUnknownSync(Schema.Response, { onExcessProperty: "error" })

const parse = (text: string): ReadonlyArray<StreamEvent> => {
  assert.isTrue(text === "" || text.endsWith("\n\n"))
  return text.split("\n\n").slice(0, -1).map((frame) => {
    const [, name, data] = /^event: ([\w.]+)\ndata: ([^\r\n]+)$/.exec(frame) ?? assert.fail(frame)
    const event = JSON.parse(data!) as StreamEvent
    assert.strictEqual(event.type, name)
    if ("response" in event) decodeResponse(event["response"])
    return event
  })
}

const usage = { promptTokens: 9, completionTokens: 5, cachedTokens: 4 }
const finish: Event = { type: "finish", reason: "stop", usage }

const text = (text: string): Event => ({ type: "text", text, tokens: 1 })
const thoughts = (text: string): Event => ({ type: "thoughts", text, tokens: 1 })
const call = (index: number, begin: boolean, piece: string): Event => ({
  type: "tool_call",
  index,
  ...(begin ? { id: `call_${index}`, name: "f" } : {}),
  arguments: piece,
  tokens: 1
})

const encode = (events: ReadonlyArray<Event>, envelope = envelopeOf(), size = events.length) => {
  const frames = new ResponseFrames(envelope, () => 2)
  let out = ""
  for (let at = 0; at < events.length; at += size) out += frames.events(events.slice(at, at + size))
  return parse(out + frames.end())
}

const answerOf = (fields: Partial<Answer>): Answer => ({
  deployment: "m#0",
  attempts: 1,
  decision: "d",
  text: "",
  toolCalls: [],
  finishReason: "stop",
  usage,
  ...fields
})

const lastOf = (events: ReadonlyArray<StreamEvent>) => events.at(-1)!["response"] as Schema.Response

describe("a stream", () => {
  it("has events for reasoning, text and calls, numbered from 0", () => {
    const events = encode([
      thoughts("H"),
      thoughts("m"),
      text("a"),
      call(0, true, "{"),
      call(1, true, ""),
      call(0, false, "}"),
      call(1, false, "{}"),
      finish
    ])
    assert.deepStrictEqual(events.map((event) => event.sequence_number), events.map((_, index) => index))
    assert.deepStrictEqual(events.map(({ output_index, type }) => [type.replace(/^response\./, ""), output_index]), [
      ["created", undefined],
      ["in_progress", undefined],
      ["output_item.added", 0],
      ["content_part.added", 0],
      ["reasoning_text.delta", 0],
      ["reasoning_text.done", 0],
      ["content_part.done", 0],
      ["output_item.done", 0],
      ["output_item.added", 1],
      ["content_part.added", 1],
      ["output_text.delta", 1],
      ["output_text.done", 1],
      ["content_part.done", 1],
      ["output_item.done", 1],
      ["output_item.added", 2],
      ["function_call_arguments.delta", 2],
      ["output_item.added", 3],
      ["function_call_arguments.delta", 2],
      ["function_call_arguments.delta", 3],
      ["function_call_arguments.done", 2],
      ["output_item.done", 2],
      ["function_call_arguments.done", 3],
      ["output_item.done", 3],
      ["completed", undefined]
    ])
  })

  it("has a summary of the reasoning if the request asks for one", () => {
    const events = encode([thoughts("Hm"), text("a"), finish], envelopeOf({ reasoning: { summary: "auto" } }))
    assert.deepStrictEqual(events.slice(2, 8).map(({ type }) => type.replace(/^response\./, "")), [
      "output_item.added",
      "reasoning_summary_part.added",
      "reasoning_summary_text.delta",
      "reasoning_summary_text.done",
      "reasoning_summary_part.done",
      "output_item.done"
    ])
    assert.deepStrictEqual(lastOf(events).output[0]!["summary"], [{ type: "summary_text", text: "Hm" }])
  })

  it("ends with the response that a buffered answer is, however its events arrive", () => {
    const someText = fc.string({ unit: "binary", minLength: 1 })
    fc.assert(fc.property(
      fc.record({ thoughts: fc.string(), texts: fc.array(someText), calls: fc.array(fc.array(fc.string())) }),
      fc.integer({ min: 1, max: 5 }),
      fc.constantFrom("stop", "length", "content_filter"),
      fc.boolean(),
      (given, size, reason, parallel) => {
        const envelope = envelopeOf({ parallel_tool_calls: parallel })
        const events: ReadonlyArray<Event> = [
          ...(given.thoughts === "" ? [] : [thoughts(given.thoughts)]),
          ...given.texts.map(text),
          ...given.calls.flatMap((pieces, index) => [
            call(index, true, ""),
            ...pieces.map((piece) => call(index, false, piece))
          ]),
          { ...finish, reason }
        ]
        const answer = answerOf({
          text: given.texts.join(""),
          ...(given.thoughts === "" ? {} : { thoughts: given.thoughts }),
          toolCalls: given.calls.map((pieces, index) => ({
            id: `call_${index}`,
            name: "f",
            arguments: pieces.join("")
          })),
          finishReason: reason
        })
        const whole = EncodeAnswer.responseOf(envelope, EncodeAnswer.outcomeOf(envelope, answer, 2))
        assert.deepStrictEqual(lastOf(encode(events, envelope, size)), JSON.parse(JSON.stringify(whole)))
      }
    ))
  })

  it("is one that OpenAI's client assembles", async () => {
    const events = encode([thoughts("Hm"), text("a"), text("b"), call(0, true, "{}"), call(1, true, "{}"), finish])
    const lines = new Blob(events.map((event) => `${JSON.stringify(event)}\n`)).stream()
    const response = await ResponseStream.fromReadableStream(lines).finalResponse()
    assert.strictEqual(response.output_text, "ab")
    assert.deepStrictEqual(response.output.map(({ type }) => type), [
      "reasoning",
      "message",
      "function_call",
      "function_call"
    ])
  })

  it("says why it is incomplete", () => {
    const events = encode([text("a"), { ...finish, reason: "length" }])
    assert.strictEqual(events.at(-1)!.type, "response.incomplete")
    assert.deepInclude(lastOf(events), {
      status: "incomplete",
      completed_at: null,
      incomplete_details: { reason: "max_output_tokens" }
    })
    assert.strictEqual(lastOf(events).output[0]!["status"], "incomplete")
  })

  it("of no content has an empty message", () => {
    const { output, status } = lastOf(encode([finish]))
    assert.strictEqual(status, "completed")
    assert.deepInclude(output[0], { type: "message", status: "completed" })
  })

  it("that fails has an error and a failed response with what was generated", () => {
    const frames = new ResponseFrames(envelopeOf(), () => 2)
    const begin = frames.events([text("a")])
    const { body, status } = EncodeAnswer.encodeError(
      new InferenceError.UpstreamFailed({ deployment: "m#0", kind: "status", status: 500, detail: "It broke." })
    )
    const events = parse(begin + frames.fail(body, status))
    assert.deepInclude(events.at(-2), { type: "error", code: "upstream_failed", param: null })
    assert.strictEqual(events.at(-1)!.type, "response.failed")
    assert.deepInclude(lastOf(events), { status: "failed" })
    assert.deepInclude(lastOf(events).error, { code: "server_error" })
    assert.strictEqual(lastOf(events).output.length, 1)
  })

  it("of a refusal has its parts; without a text of the provider it is an error", () => {
    const frames = new ResponseFrames(envelopeOf(), () => 2)
    const refused = (answer: ReadonlyArray<unknown>) =>
      new InferenceError.ContentRefused({ deployment: "m#0", detail: "No.", answer })
    assert.isUndefined(frames.refuse(refused([])))
    const chunk = (refusal: string) => ({
      dialect: "openai",
      form: "chunk",
      body: { choices: [{ delta: { refusal } }] }
    })
    const events = parse(frames.refuse(refused([chunk("I ca"), chunk("n't.")]))!)
    assert.deepStrictEqual(events.map(({ type }) => type.replace(/^response\./, "")), [
      "created",
      "in_progress",
      "output_item.added",
      "content_part.added",
      "refusal.delta",
      "refusal.done",
      "content_part.done",
      "output_item.done",
      "completed"
    ])
    assert.deepStrictEqual(lastOf(events).output[0]!["content"], [{ type: "refusal", refusal: "I can't." }])
  })
})
