/** Passes answers of providers of the Anthropic dialect on, with the service's own id and model. Pure. */
import type { Native } from "../../domain/Source.ts"
import type { Fields } from "../shared/Json.ts"
import { isObject, listOf } from "../shared/Json.ts"
import type { Message } from "./Schema.ts"

interface Envelope {
  readonly id: string
  readonly model: string
}

type Mutable = Record<string, unknown>

const isAnthropic = ({ dialect }: Native): boolean => dialect === "anthropic"

/** The events of a block of a buffered answer. */
const streamed = (index: number, block: Fields): ReadonlyArray<Fields> => {
  const delta = (delta: Fields): Fields => ({ type: "content_block_delta", index, delta })
  const events = (start: Fields, ...deltas: ReadonlyArray<Fields>): ReadonlyArray<Fields> => [
    { type: "content_block_start", index, content_block: start },
    ...deltas.map(delta),
    { type: "content_block_stop", index }
  ]
  switch (block["type"]) {
    case "text": {
      const citations = listOf(block["citations"])
      return events(
        { ...block, text: "", ...(citations.length === 0 ? {} : { citations: [] }) },
        ...citations.map((citation) => ({ type: "citations_delta", citation })),
        { type: "text_delta", text: block["text"] }
      )
    }
    case "thinking":
      return events(
        { ...block, thinking: "", signature: "" },
        { type: "thinking_delta", thinking: block["thinking"] },
        { type: "signature_delta", signature: block["signature"] }
      )
    case "tool_use":
    case "server_tool_use":
      return events(
        { ...block, input: {} },
        { type: "input_json_delta", partial_json: JSON.stringify(block["input"] ?? {}) }
      )
    default:
      return events(block)
  }
}

const endFields: ReadonlySet<string> = new Set(["stop_reason", "stop_sequence", "stop_details", "container"])

/** The events of a buffered answer, without `message_stop`. */
const eventsOf = (body: Fields): ReadonlyArray<Fields> => {
  const start: Mutable = {}
  const delta: Mutable = {}
  for (const name of Object.keys(body)) {
    start[name] = endFields.has(name) ? null : body[name]
    if (endFields.has(name)) delta[name] = body[name]
  }
  return [
    { type: "message_start", message: { ...start, content: [] } },
    ...listOf(body["content"]).flatMap((block, index) => streamed(index, block as Fields)),
    { type: "message_delta", delta, usage: body["usage"] }
  ]
}

const withEnvelope = (event: Fields, { id, model }: Envelope): Fields =>
  event["type"] === "message_start" && isObject(event["message"])
    ? { ...event, message: { ...event["message"], id, model } }
    : event

/** The provider's events; none if the provider has another dialect. */
export const events = (native: Native, envelope: Envelope): ReadonlyArray<Fields> => {
  if (!isAnthropic(native)) return []
  const all = native.form === "buffered" ? eventsOf(native.body) : [native.body]
  return all.map((event) => withEnvelope(event, envelope))
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text) as unknown
  } catch {
    return {}
  }
}

const textOf = (value: unknown): string => typeof value === "string" ? value : ""

const after = (before: unknown, piece: unknown): string => textOf(before) + textOf(piece)

/** Adds a delta to its block. */
const addDelta = (block: Mutable, delta: Fields): void => {
  switch (delta["type"]) {
    case "text_delta":
      block["text"] = after(block["text"], delta["text"])
      return
    case "thinking_delta":
      block["thinking"] = after(block["thinking"], delta["thinking"])
      return
    case "signature_delta":
      block["signature"] = delta["signature"]
      return
    case "citations_delta":
      block["citations"] = [...listOf(block["citations"]), delta["citation"]]
      return
    case "input_json_delta":
      block["input"] = after(block["input"], delta["partial_json"])
      return
    default:
      Object.assign(block, { ...delta, type: block["type"] })
  }
}

/** Assembles a buffered answer from its events. */
const assembled = (parts: ReadonlyArray<Native>): Fields => {
  let message: Mutable = {}
  const content: Array<Mutable> = []
  for (const { body } of parts) {
    const at = Number(body["index"] ?? 0)
    switch (body["type"]) {
      case "message_start":
        message = { ...body["message"] as Fields }
        break
      case "content_block_start":
        content[at] = { ...body["content_block"] as Fields }
        break
      case "content_block_delta":
        addDelta(content[at]!, body["delta"] as Fields)
        break
      case "message_delta": {
        const { delta, type: _, usage, ...rest } = body
        Object.assign(message, delta, rest, { usage: { ...message["usage"] as Fields, ...usage as Fields } })
      }
    }
  }
  for (const block of content) if (typeof block["input"] === "string") block["input"] = parsed(block["input"])
  return { ...message, content }
}

/** The provider's answer, which is not checked; undefined if the provider has another dialect. */
export const answer = (parts: ReadonlyArray<Native> | undefined, { id, model }: Envelope): Message | undefined => {
  if (parts === undefined || parts.length === 0 || !parts.every(isAnthropic)) return undefined
  const found = parts.find(({ form }) => form === "buffered")?.body ?? assembled(parts)
  return { ...found, id, model } as Fields as Message
}
