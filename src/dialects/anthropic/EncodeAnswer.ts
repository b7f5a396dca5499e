/**
 * Encodes answers of the Anthropic dialect, buffered and streamed. Pure.
 *
 * **Details**
 *
 * A text, reasoning and every tool use is a block with events for its start and its stop. One block is open at a time.
 *
 * **Gotchas**
 *
 * The tokens of the prompt are not known before the end of the answer: `message_start` has 0, and `message_delta`, which has
 * the usage of the whole answer, has the number. A piece of a call that comes while another block is open cannot be sent: the
 * stream then ends with an error and without `message_stop`.
 */
import { Result } from "effect"
import type { Answer, Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason, TokenUsage, ToolCall } from "../../domain/Job.ts"
import type { Native } from "../../domain/Source.ts"
import type { OwnEvent } from "../shared/FrameBatch.ts"
import { write } from "../shared/FrameBatch.ts"
import type { Fields } from "../shared/Json.ts"
import * as EncodeError from "./EncodeError.ts"
import * as EncodeNative from "./EncodeNative.ts"
import type * as Schema from "./Schema.ts"

/** The fields of an answer besides its content. */
export interface Envelope {
  /** The request's id. */
  readonly id: string
  readonly model: string
  /** False: an answer has only its first tool use. */
  readonly parallelToolUse: boolean
  /** False: reasoning is left out. */
  readonly thinking: boolean
}

const reasons: Readonly<Record<FinishReason, Schema.StopReason>> = {
  stop: "end_turn",
  length: "max_tokens",
  tool_calls: "tool_use",
  content_filter: "refusal"
}

const filtered = "The provider's content filter ended the answer."

const endOf = (reason: FinishReason, stop?: string): Schema.End =>
  reason === "content_filter" ? refusal(filtered) : ({
    stop_reason: reason === "stop" && stop !== undefined ? "stop_sequence" : reasons[reason],
    stop_sequence: reason === "stop" ? stop ?? null : null,
    stop_details: null,
    container: null
  })

const refusal = (explanation: string): Schema.End => ({
  stop_reason: "refusal",
  stop_sequence: null,
  stop_details: { type: "refusal", category: null, explanation },
  container: null
})

const nothing: TokenUsage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 }

const usageOf = (
  { cacheWriteTokens = 0, cachedTokens, completionTokens, promptTokens, reasoningTokens }: TokenUsage
): Schema.DeltaUsage => ({
  input_tokens: promptTokens - cachedTokens - cacheWriteTokens,
  cache_creation_input_tokens: cacheWriteTokens,
  cache_read_input_tokens: cachedTokens,
  output_tokens: completionTokens,
  output_tokens_details: reasoningTokens === undefined ? null : { thinking_tokens: reasoningTokens },
  server_tool_use: null
})

const messageIdOf = (id: string): string => id.replace(/^req_/, "msg_")

const messageOf = (
  { id, model }: Envelope,
  content: ReadonlyArray<Schema.Block>,
  end: Schema.End | undefined,
  usage: TokenUsage
): Schema.Message => ({
  id: messageIdOf(id),
  type: "message",
  role: "assistant",
  model,
  content,
  diagnostics: null,
  ...(end ?? { ...endOf("stop"), stop_reason: null }),
  usage: { ...usageOf(usage), cache_creation: null, inference_geo: null, service_tier: "standard", speed: null }
})

const textBlock = (text: string): Schema.Block => ({ type: "text", text, citations: null })

/** Reasoning of a provider of another dialect has no signature. */
const thinkingBlock = (thinking: string): Schema.Block => ({ type: "thinking", thinking, signature: "" })

const toolBlock = (id: string, name: string, input: Readonly<Record<string, unknown>>): Schema.Block => ({
  type: "tool_use",
  id,
  name,
  input,
  caller: { type: "direct" }
})

const objectOf = (text: string): Readonly<Record<string, unknown>> | undefined => {
  if (text === "") return {}
  try {
    const json: unknown = JSON.parse(text)
    return typeof json === "object" && json !== null && !Array.isArray(json)
      ? json as Readonly<Record<string, unknown>>
      : undefined
  } catch {
    return undefined
  }
}

type Blocks = Result.Result<ReadonlyArray<Schema.Block>, InferenceError.InferenceError>

/** The arguments of a call must be a JSON object; an incomplete call of an answer that reached its limit is left out. */
const callsOf = (calls: ReadonlyArray<ToolCall>, { deployment, finishReason }: Answer): Blocks => {
  const blocks: Array<Schema.Block> = []
  for (const { arguments: text, id, name } of calls) {
    const input = objectOf(text)
    if (input !== undefined) blocks.push(toolBlock(id, name, input))
    else if (finishReason !== "length") {
      const detail = `The arguments of its call of "${name}" are not the JSON of an object.`
      return Result.fail(InferenceError.make(new InferenceError.EngineFailed({ deployment, detail })))
    }
  }
  return Result.succeed(blocks)
}

const nativeOf = (parts: ReadonlyArray<Native> | undefined, { id, model }: Envelope) =>
  EncodeNative.answer(parts, { id: messageIdOf(id), model })

/** The body of a buffered answer. */
export const encodeAnswer = (
  envelope: Envelope,
  answer: Answer
): Result.Result<Schema.Message, InferenceError.InferenceError> => {
  const native = nativeOf(answer.native, envelope)
  if (native !== undefined) return Result.succeed(native)
  const { finishReason, stop, text, thoughts = "", toolCalls, usage } = answer
  const calls = callsOf(envelope.parallelToolUse ? toolCalls : toolCalls.slice(0, 1), answer)
  return Result.map(calls, (blocks) =>
    messageOf(
      envelope,
      [
        ...(thoughts === "" || !envelope.thinking ? [] : [thinkingBlock(thoughts)]),
        ...(text === "" ? [] : [textBlock(text)]),
        ...blocks
      ],
      endOf(finishReason, stop),
      usage
    ))
}

/** The body of a refusal. */
export const encodeRefusal = (
  envelope: Envelope,
  { answer, detail }: InferenceError.ContentRefused
): Schema.Message =>
  nativeOf(answer as ReadonlyArray<Native> | undefined, envelope) ?? messageOf(envelope, [], refusal(detail), nothing)

const frame = (event: Schema.StreamEvent | Fields): string =>
  `event: ${String(event.type)}\ndata: ${JSON.stringify(event)}\n\n`

/** An error in the middle of a stream, which then ends without `message_stop`. */
export const encodeError = (body: Schema.ErrorBody): string => frame(body)

/** Writes a stream's events. */
export interface FrameEncoder {
  /** Frames for events; consecutive texts become one frame. */
  readonly events: (events: ReadonlyArray<Event>) => string
  /** The last frame, after the `finish`. */
  readonly end: () => string
  /** The last frames of an answer that a refusal ends. */
  readonly refuse: (reason: InferenceError.ContentRefused) => string
}

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

/** The fields of the texts of deltas. */
const deltaFields = { text_delta: "text", thinking_delta: "thinking", input_json_delta: "partial_json" } as const

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
  const delta = (type: keyof typeof deltaFields, text: string): string =>
    `event: content_block_delta\ndata: {"type":"content_block_delta","index":${index},"delta":{"type":"${type}",` +
    `"${deltaFields[type]}":${JSON.stringify(text)}}}\n\n`

  return {
    stop,
    /** Updates the state from an event of the provider. */
    note(event: Fields): void {
      if (event["type"] === "content_block_start") {
        index = Number(event["index"])
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
const makeNative = (envelope: Envelope, blocks: ReturnType<typeof makeBlocks>) => {
  let native = false
  return {
    frames: (part: Native): string => {
      const events = EncodeNative.events(part, { id: messageIdOf(envelope.id), model: envelope.model })
      native ||= events.length > 0
      for (const event of events) blocks.note(event)
      return events.map(frame).join("")
    },
    isLeftOut: (event: OwnEvent): boolean => {
      if (event.type === "handoff") native = false
      return native || (event.type === "tool_call" && event.index > 0 && !envelope.parallelToolUse)
    }
  }
}

export const makeFrameEncoder = (envelope: Envelope): FrameEncoder => {
  const blocks = makeBlocks()
  const native = makeNative(envelope, blocks)
  let begun = false
  let lost = false
  let tokens = 0

  const begin = (): string => {
    if (begun) return ""
    begun = true
    return frame({ type: "message_start", message: messageOf(envelope, [], undefined, nothing) })
  }
  const close = (delta: Schema.End, usage: TokenUsage): string =>
    blocks.stop() + frame({ type: "message_delta", delta, usage: usageOf(usage) })
  const frameOf = (event: OwnEvent): string => {
    if (event.type === "text") return blocks.text(event.text)
    if (event.type === "thoughts") return envelope.thinking ? blocks.thoughts(event.text) : ""
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
  return {
    events(events) {
      for (const event of events) if ("tokens" in event) tokens += event.tokens
      return write(writer, events)
    },
    end,
    refuse({ answer, detail }) {
      const out = ((answer ?? []) as ReadonlyArray<Native>).map(nativeFrames).join("")
      const usage = { ...nothing, completionTokens: tokens }
      return (out === "" ? begin() + close(refusal(detail), usage) : out) + end()
    }
  }
}
