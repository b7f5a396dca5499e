/** Messages for callers of the same dialect: events and bodies as Anthropic sent them. Pure. */
import { Result } from "effect"
import type { Event } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { JsonText } from "../../domain/JsonText.ts"
import type { Native } from "../../domain/Source.ts"
import { at, type Fields, fieldsOf, listAt, textAt } from "../shared/Json.ts"
import { eventOf, makeHolding, withAnswer } from "../shared/NativeEvents.ts"
import type { DecodeResult } from "../shared/ProviderDialect.ts"

/** Whether a block has content other than text and calls of the caller's tools. */
const blockHasMore = (block: unknown): boolean => {
  const type = textAt(block, "type")
  return type === "text" ? listAt(block, "citations").length > 0 : type !== "tool_use"
}

const plainEvents: ReadonlySet<string> = new Set(
  ["message_start", "content_block_stop", "message_delta", "message_stop", "ping"]
)
const plainDeltas: ReadonlySet<string> = new Set(["text_delta", "input_json_delta"])

/** Whether an event has content other than text and calls of the caller's tools. */
const eventHasMore = (event: Fields): boolean => {
  const type = textAt(event, "type") ?? ""
  if (plainEvents.has(type)) return false
  return type === "content_block_delta"
    ? !plainDeltas.has(textAt(event, "delta", "type") ?? "")
    : type !== "content_block_start" || blockHasMore(event["content_block"])
}

export const nativeOf = (body: Fields, form: Native["form"] = "chunk"): Native => ({
  dialect: "anthropic",
  form,
  body,
  hasMore: form === "buffered" ? listAt(body, "content").some(blockHasMore) : eventHasMore(body)
})

/** Blocks that are text, thoughts, or calls of the caller's tools. */
const ordinary: ReadonlySet<string> = new Set(["text", "thinking", "redacted_thinking", "tool_use"])

/** Whether a block is of another type, such as those of Anthropic's own tools. */
const isOther = (block: unknown): boolean => !ordinary.has(textAt(block, "type") ?? "text")

/** Whether an event has content that the decoded events may lack. */
const carriesContent = (type: string, data: Fields): boolean => {
  if (type === "content_block_delta") {
    const { type: _, ...delta } = fieldsOf(data["delta"]) ?? {}
    return Object.values(delta).some((value) => value !== "" && value !== null)
  }
  const block = data["content_block"]
  return type === "content_block_start" && (isOther(block) || textAt(block, "type") === "redacted_thinking")
}

/** The event with a unique id, if an earlier answer of the conversation has that id. */
const withId = (data: Fields, events: ReadonlyArray<Event>): Fields => {
  const call = events.find((event) => event.type === "tool_call" && event.id !== undefined)
  const block = fieldsOf(data["content_block"])
  return call?.type !== "tool_call" || block === undefined || block["id"] === call.id
    ? data
    : { ...data, content_block: { ...block, id: call.id } }
}

/** The event with `tool_use` as stop reason, if the answer ends in calls. */
const withReason = (data: Fields, reason: string): Fields =>
  reason === "tool_calls" && at(data, "delta", "stop_reason") === "end_turn"
    ? { ...data, delta: { ...fieldsOf(data["delta"]), stop_reason: "tool_use" } }
    : data

export interface Chunks {
  /** The native event for the caller, and the decoded ones. */
  readonly push: (type: string, data: Fields, decoded: DecodeResult) => DecodeResult
}

export const makeChunks = (): Chunks => {
  const { begin, hasBegun, held, hold } = makeHolding(nativeOf)
  const ends: Array<Fields> = []

  const failed = (reason: Reason): DecodeResult =>
    Result.fail(withAnswer(reason, [...held(), ...ends].map((data) => nativeOf(data))))
  const end = (events: ReadonlyArray<Event>): DecodeResult => {
    const finish = events.at(-1)
    const reason = finish?.type === "finish" ? finish.reason : ""
    return Result.succeed([
      ...begin(),
      ...ends.map((data) => eventOf(nativeOf(withReason(data, reason)), false)),
      ...events
    ])
  }

  const add = (type: string, data: Fields, events: ReadonlyArray<Event>): ReadonlyArray<Event> => {
    const hasContent = events.some((event) => event.type !== "thoughts")
    if (!hasBegun() && !hasContent && !carriesContent(type, data)) {
      if (type !== "ping") hold(data)
      return events
    }
    const content = hasContent || isOther(data["content_block"])
    return [...begin(), eventOf(nativeOf(withId(data, events)), content), ...events]
  }

  return {
    push: (type, data, decoded) => {
      if (Result.isFailure(decoded)) return failed(decoded.failure)
      if (type === "message_stop") return end(decoded.success)
      if (type === "message_delta") {
        ends.push(data)
        return decoded
      }
      // Content after the stop reason is not part of the answer.
      return Result.succeed(ends.length > 0 ? [] : add(type, data, decoded.success))
    }
  }
}

/** A buffered answer: the native body, and its events. */
export const buffered = (body: Fields, decoded: DecodeResult, text: string | undefined): DecodeResult => {
  if (Result.isFailure(decoded)) return Result.fail(withAnswer(decoded.failure, [nativeOf(body, "buffered")]))
  const content = listAt(body, "content").some(isOther)
  const native = nativeOf(body, "buffered")
  const passed = text === undefined ? native : { ...native, text: new JsonText(text, body) }
  return Result.succeed([eventOf(passed, content), ...decoded.success])
}
