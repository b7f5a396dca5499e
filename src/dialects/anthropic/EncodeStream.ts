/**
 * Encodes streamed answers of the Anthropic dialect as frames of server-sent events. Pure.
 *
 * **Details**
 *
 * A text, reasoning and every tool use is a block with events for its start and its stop. One block is open at a time. The
 * events of a provider of the same dialect are passed on with the service's own id and model.
 *
 * **Gotchas**
 *
 * The tokens of the prompt are not known before the end of the answer: `message_start` has 0, and `message_delta`, which has
 * the usage of the answer, has the number. A piece of a call that comes while another block is open cannot be sent: the
 * stream then ends with an error and without `message_stop`.
 */
import type { Event } from "../../domain/Inference.ts"
import type * as InferenceError from "../../domain/InferenceError.ts"
import type { TokenUsage } from "../../domain/Job.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import type { Native } from "../../domain/Source.ts"
import { ChunkEncoder } from "../shared/EventTemplate.ts"
import type { OwnEvent } from "../shared/FrameBatch.ts"
import { write } from "../shared/FrameBatch.ts"
import type { Fields } from "../shared/Json.ts"
import { indexOf, isObject, listOf } from "../shared/Json.ts"
import type { Envelope } from "./EncodeAnswer.ts"
import {
  endOf,
  isAnthropic,
  messageIdOf,
  messageOf,
  noUsage,
  refusal,
  signedBlock,
  textBlock,
  thinkingBlock,
  toolBlock,
  usageOf
} from "./EncodeAnswer.ts"
import * as EncodeError from "./EncodeError.ts"
import type * as Schema from "./Schema.ts"

const frame = (event: Schema.StreamEvent | Fields): string =>
  `event: ${String(event.type)}\ndata: ${JSON.stringify(event)}\n\n`

/** The frame of a stream that waits. */
export const ping = frame({ type: "ping" })

/** An error in the middle of a stream, which then ends without `message_stop`. */
export const encodeError = (body: Schema.ErrorBody): string => frame(body)

/** Writes a stream's events. */
export interface FrameEncoder {
  /** Called before the first events. */
  readonly begin: (deployment: string) => void
  /** Frames for events; consecutive texts become one frame. */
  readonly events: (events: ReadonlyArray<Event>) => string
  /** The last frame, after the `finish`. */
  readonly end: () => string
  /** The last frames of an answer that a refusal ends. */
  readonly refuse: (reason: InferenceError.ContentRefused) => string
}

/** The events of a block of a buffered answer. */
const blockEvents = (index: number, block: Fields): ReadonlyArray<Fields> => {
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
  const start: Record<string, unknown> = {}
  const delta: Record<string, unknown> = {}
  for (const name of Object.keys(body)) {
    start[name] = endFields.has(name) ? null : body[name]
    if (endFields.has(name)) delta[name] = body[name]
  }
  return [
    { type: "message_start", message: { ...start, content: [] } },
    ...listOf(body["content"]).flatMap((block, index) => blockEvents(index, block as Fields)),
    { type: "message_delta", delta, usage: body["usage"] }
  ]
}

const withEnvelope = (event: Fields, { id, model }: Envelope): Fields =>
  event["type"] === "message_start" && isObject(event["message"])
    ? { ...event, message: { ...event["message"], id: messageIdOf(id), model } }
    : event

/** The provider's events; none if the provider has another dialect. */
const nativeEvents = (native: Native, envelope: Envelope): ReadonlyArray<Fields> => {
  if (!isAnthropic(native)) return []
  const all = native.form === "buffered" ? eventsOf(native.body) : [native.body]
  return all.map((event) => withEnvelope(event, envelope))
}

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

/** The fields of the texts of deltas. */
const deltaFields = {
  text_delta: "text",
  thinking_delta: "thinking",
  signature_delta: "signature",
  input_json_delta: "partial_json"
} as const

const deltaFrame = (index: number, type: keyof typeof deltaFields, text: string): string =>
  `event: content_block_delta\ndata: {"type":"content_block_delta","index":${index},"delta":{"type":"${type}",` +
  `"${deltaFields[type]}":${JSON.stringify(text)}}}\n\n`

/** The blocks of one answer. */
const makeBlocks = () => {
  /** The index of the open block, or of the last one. */
  let index = -1
  let open: "text" | "thinking" | "other" | number | undefined
  const begun = new Set<number>()

  const stop = (): string => {
    if (open === undefined) return ""
    open = undefined
    return frame({ type: "content_block_stop", index })
  }
  const start = (kind: "text" | "thinking" | number, content_block: Schema.Block): string => {
    const stopped = stop()
    open = kind
    index++
    return stopped + frame({ type: "content_block_start", index, content_block })
  }
  const delta = (type: keyof typeof deltaFields, text: string): string => deltaFrame(index, type, text)

  return {
    stop,
    /** Updates the state from an event of the provider. */
    note(event: Fields): void {
      if (event["type"] === "content_block_start") {
        index = indexOf(event["index"], 0)
        open = (event["content_block"] as Fields)["type"] === "text" ? "text" : "other"
      }
      if (event["type"] === "content_block_stop") open = undefined
    },
    text(text: string): string {
      if (text === "") return ""
      const begin = open === "text" ? "" : start("text", textBlock(""))
      return begin + delta("text_delta", text)
    },
    thoughts(text: string): string {
      if (text === "") return ""
      const begin = open === "thinking" ? "" : start("thinking", thinkingBlock(""))
      return begin + delta("thinking_delta", text)
    },
    /** Ends the block of thoughts that is signed, or writes one of encrypted thoughts. */
    sign(signed: SignedReasoning): string {
      const block = signedBlock(signed)
      if (block.type !== "thinking") return start("thinking", block) + stop()
      const begin = open === "thinking" ? "" : start("thinking", thinkingBlock(""))
      const text = begin === "" ? "" : delta("thinking_delta", block.thinking)
      return begin + text + delta("signature_delta", block.signature) + stop()
    },
    /** Undefined if the block of the call is stopped already. */
    call({ arguments: text, id, index: call, name }: CallEvent): string | undefined {
      if (begun.has(call) && open !== call) return undefined
      const begin = begun.has(call) ? "" : start(call, toolBlock(id ?? "", name ?? "", {}))
      begun.add(call)
      return text === "" ? begin : begin + delta("input_json_delta", text)
    }
  }
}

const mixed = "The engine mixed up the parts of several tool calls."

const mixedUp = ({ id }: Envelope): string => encodeError(EncodeError.make(500, mixed, id).body)

/** Passes the provider's events on; their content is not encoded again. */
const makeNative = (envelope: () => Envelope, blocks: ReturnType<typeof makeBlocks>) => {
  const texts = new ChunkEncoder("anthropic", frame)
  let native = false
  return {
    frames: (part: Native): string => {
      const text = texts.encode(part)
      if (text !== undefined) {
        native = true
        return text
      }
      const events = nativeEvents(part, envelope())
      native ||= events.length > 0
      for (const event of events) blocks.note(event)
      return events.map(frame).join("")
    },
    isLeftOut: (event: OwnEvent): boolean => {
      if (event.type === "handoff") native = false
      return native || (event.type === "tool_call" && event.index > 0 && !envelope().parallelToolUse)
    }
  }
}

/** Thoughts, and the signature that ends them. */
const thoughtsOf = (
  blocks: ReturnType<typeof makeBlocks>,
  { signed, text }: Extract<OwnEvent, { readonly type: "thoughts" }>
): string => blocks.thoughts(text) + (signed === undefined ? "" : blocks.sign(signed))

export const makeFrameEncoder = (given: Envelope): FrameEncoder => {
  let envelope = given
  const blocks = makeBlocks()
  const native = makeNative(() => envelope, blocks)
  let begun = false
  let lost = false
  let tokens = 0

  const begin = (): string => {
    if (begun) return ""
    begun = true
    return frame({ type: "message_start", message: messageOf(envelope, [], undefined, noUsage) })
  }
  const close = (delta: Schema.End, usage: TokenUsage): string =>
    blocks.stop() + frame({ type: "message_delta", delta, usage: usageOf(usage) })
  const frameOf = (event: OwnEvent): string => {
    if (event.type === "text") return blocks.text(event.text)
    if (event.type === "thoughts") return envelope.thinking ? thoughtsOf(blocks, event) : ""
    // Clients of the dialect reject unknown events.
    if (event.type === "handoff") return ""
    if (event.type === "finish") return lost ? "" : close(endOf(event.reason, event.stop), event.usage)
    const call = blocks.call(event)
    lost ||= call === undefined
    return call ?? ""
  }
  const end = (): string => lost ? mixedUp(envelope) : frame({ type: "message_stop" })

  const nativeFrames = (part: Native): string => {
    const frames = native.frames(part)
    begun ||= frames !== ""
    return frames
  }
  const writer = { begin, frameOf, isLeftOut: native.isLeftOut, nativeFrames }
  const nameModel = (deployment: string): void => {
    const model = given.servedModel?.(deployment)
    if (model !== undefined) envelope = { ...given, model }
  }
  return {
    begin: nameModel,
    events(events) {
      for (const event of events) if ("tokens" in event) tokens += event.tokens
      return write(writer, events)
    },
    end,
    refuse({ answer, deployment, detail }) {
      nameModel(deployment)
      const out = ((answer ?? []) as ReadonlyArray<Native>).map(nativeFrames).join("")
      const usage = { ...noUsage, completionTokens: tokens }
      return (out === "" ? begin() + close(refusal(detail), usage) : out) + end()
    }
  }
}
