/** Answers of `/api/chat` and `/api/generate`, buffered and as lines. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { Envelope } from "../../../src/dialects/ollama/EncodeAnswer.ts"
import * as EncodeAnswer from "../../../src/dialects/ollama/EncodeAnswer.ts"
import * as EncodeStream from "../../../src/dialects/ollama/EncodeStream.ts"
import type { Answer, Event } from "../../../src/domain/Inference.ts"
import { ollamaEnvelope } from "../../support/Dialects.ts"

const created_at = "2026-01-01T00:00:00.000Z"

const envelopeOf = (over: Partial<Envelope> = {}): Envelope => {
  let now = 0
  return ollamaEnvelope({ model: "m:latest", elapsed: () => ++now * 1_000, now: () => created_at, ...over })
}

const usage = { promptTokens: 5, completionTokens: 3, cachedTokens: 0 }
const text = (text: string): Event => ({ type: "text", text, tokens: 1 })
const thoughts = (text: string): Event => ({ type: "thoughts", text, tokens: 1 })
const finish = (reason: "length" | "stop" | "tool_calls" = "stop"): Event => ({ type: "finish", reason, usage })
const call = (index: number, piece: string, name?: string): Event => ({
  type: "tool_call",
  index,
  ...(name === undefined ? {} : { id: `id${index}`, name }),
  arguments: piece,
  tokens: 1
})

const linesOf = (batches: ReadonlyArray<ReadonlyArray<Event>>, over: Partial<Envelope> = {}) => {
  const encoder = EncodeStream.makeFrameEncoder(envelopeOf(over))
  const out = batches.map((events) => encoder.events(events)).join("") + encoder.end()
  assert.isTrue(out === "" || out.endsWith("\n"))
  return out.split("\n").slice(0, -1).map((line) => JSON.parse(line) as Record<string, unknown>)
}

const end = {
  done: true,
  done_reason: "stop",
  total_duration: 2_000,
  load_duration: 0,
  prompt_eval_count: 5,
  prompt_eval_duration: 1_000,
  eval_count: 3,
  eval_duration: 1_000
}

const head = { model: "m:latest", created_at }
const line = (content: object) => ({ ...head, message: { role: "assistant", ...content }, done: false })

describe("a stream", () => {
  it("has a line for the texts of a batch, and ends with counts and durations", () => {
    assert.deepStrictEqual(linesOf([[text("Hel"), text("lo")], [text("!")], [finish()]]), [
      line({ content: "Hello" }),
      line({ content: "!" }),
      { ...head, message: { role: "assistant", content: "" }, ...end }
    ])
  })

  it("of a prompt has its text beside the message", () => {
    assert.deepStrictEqual(linesOf([[thoughts("Hm"), text("Hi"), finish()]], { endpoint: "generate" }), [
      { ...head, response: "", thinking: "Hm", done: false },
      { ...head, response: "Hi", done: false },
      { ...head, response: "", ...end }
    ])
  })

  it("has reasoning unless it is not wanted", () => {
    const events = [[thoughts("Hm"), text("Hi"), finish()]]
    assert.deepStrictEqual(linesOf(events)[0], line({ content: "", thinking: "Hm" }))
    assert.deepStrictEqual(linesOf(events, { thinking: false })[0], line({ content: "Hi" }))
  })

  it("has each call in one line, when its arguments are complete", () => {
    const lines = linesOf([
      [call(0, "{\"city\":", "weather")],
      [call(0, "\"Paris\"}"), call(1, "", "time"), call(2, "{}", "time")],
      [finish("tool_calls")]
    ])
    const callOf = (index: number, name: string, given: object) =>
      line({ content: "", tool_calls: [{ id: `id${index}`, function: { index, name, arguments: given } }] })
    assert.deepStrictEqual(lines.slice(0, -1), [
      callOf(0, "weather", { city: "Paris" }),
      callOf(1, "time", {}),
      callOf(2, "time", {})
    ])
    assert.deepInclude(lines.at(-1), { done: true, done_reason: "stop" })
  })

  it("ends with an error for a call whose arguments are no object, and leaves it out at the limit", () => {
    const cut = [[text("Hi"), call(0, "{\"a", "f")]]
    const failed = linesOf([...cut, [finish("tool_calls")]])
    assert.deepStrictEqual(failed.at(-1), {
      error: "The arguments of its call of \"f\" are not the JSON of an object."
    })
    assert.isFalse(failed.some(({ done }) => done === true))
    assert.deepInclude(linesOf([...cut, [finish("length")]]).at(-1), { done: true, done_reason: "length" })
  })

  it("passes a provider's lines on with the caller's name of the model", () => {
    const body = { model: "up", message: { content: "Hi" }, x_mine: 1, done: false }
    const native: Event = {
      type: "native",
      native: { dialect: "ollama", form: "chunk", body, hasMore: false },
      content: true,
      tokens: 0
    }
    assert.deepStrictEqual(linesOf([[native, text("Hi"), finish()]]), [{ ...body, model: "m:latest" }])
    const handoff: Event = { type: "handoff", deployment: "b" }
    assert.deepStrictEqual(linesOf([[native, text("Hi")], [handoff, text("!"), finish()]]).slice(1), [
      line({ content: "!" }),
      { ...head, message: { role: "assistant", content: "" }, ...end }
    ])
  })
})

const answerOf = (over: Partial<Answer>): Answer => ({
  text: "Hi",
  toolCalls: [],
  finishReason: "stop",
  usage,
  deployment: "a#0",
  attempts: 1,
  decision: "d",
  ...over
})

describe("a buffered answer", () => {
  const encoded = (over: Partial<Answer>, envelope: Partial<Envelope> = {}) =>
    Result.map(EncodeAnswer.encodeText(envelopeOf(envelope), answerOf(over)), (text) => JSON.parse(text) as object)

  it("has its text, reasoning, calls, counts and durations", () => {
    const toolCalls = [{ id: "c", name: "f", arguments: "{\"a\":1}" }]
    assert.deepStrictEqual(Result.getOrThrow(encoded({ thoughts: "Hm", toolCalls, finishReason: "tool_calls" })), {
      ...head,
      message: {
        role: "assistant",
        content: "Hi",
        thinking: "Hm",
        tool_calls: [{ id: "c", function: { index: 0, name: "f", arguments: { a: 1 } } }]
      },
      done: true,
      done_reason: "stop",
      total_duration: 1_000,
      load_duration: 0,
      prompt_eval_count: 5,
      eval_count: 3,
      eval_duration: 1_000
    })
    assert.deepInclude(Result.getOrThrow(encoded({}, { endpoint: "generate" })), { response: "Hi" })
  })

  it("fails for a call whose arguments are no object", () => {
    const toolCalls = [{ id: "c", name: "f", arguments: "[1]" }]
    assert.isTrue(Result.isFailure(encoded({ toolCalls })))
    assert.deepInclude(Result.getOrThrow(encoded({ toolCalls, finishReason: "length" })), { done_reason: "length" })
  })

  it("joins the lines that a provider streamed", () => {
    const lines = [
      { model: "up", message: { role: "assistant", content: "Hel", thinking: "Hm" }, done: false },
      { model: "up", message: { content: "lo", tool_calls: [{ function: { name: "f" } }] }, done: false },
      { model: "up", message: { content: "" }, done: true, done_reason: "stop", x_mine: 1 }
    ]
    const native = lines.map((body) => ({ dialect: "ollama" as const, form: "chunk" as const, body, hasMore: false }))
    assert.deepStrictEqual<unknown>(Result.getOrThrow(encoded({ native })), {
      model: "m:latest",
      message: { role: "assistant", content: "Hello", thinking: "Hm", tool_calls: [{ function: { name: "f" } }] },
      done: true,
      done_reason: "stop",
      x_mine: 1
    })
  })
})
