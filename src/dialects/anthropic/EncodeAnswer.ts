/**
 * Encodes buffered answers of the Anthropic dialect. Pure.
 *
 * **Details**
 *
 * The answer of a provider of the same dialect is passed on with the service's own id and model, and its other fields
 * unchanged. If the provider streamed it, its events are assembled.
 */
import { Result } from "effect"
import type { Answer } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason, TokenUsage, ToolCall } from "../../domain/Job.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import { seal } from "../../domain/SignedReasoning.ts"
import type { Native } from "../../domain/Source.ts"
import type { Fields } from "../shared/Json.ts"
import { fieldsOf, indexOf, listOf, parse } from "../shared/Json.ts"
import type * as Schema from "./Schema.ts"

/** The fields of an answer without its content, and the options of its request. */
export interface Envelope {
  /** The request's id. */
  readonly id: string
  readonly model: string
  /** The model that a stream names where this deployment answers; undefined, or left out, `model`. */
  readonly servedModel?: (deployment: string) => string | undefined
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

export const endOf = (reason: FinishReason, stop?: string): Schema.End =>
  reason === "content_filter" ? refusal(filtered) : ({
    stop_reason: reason === "stop" && stop !== undefined ? "stop_sequence" : reasons[reason],
    stop_sequence: reason === "stop" ? stop ?? null : null,
    stop_details: null,
    container: null
  })

export const refusal = (explanation: string): Schema.End => ({
  stop_reason: "refusal",
  stop_sequence: null,
  stop_details: { type: "refusal", category: null, explanation },
  container: null
})

export const noUsage: TokenUsage = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 }

export const usageOf = (
  { cacheWriteTokens = 0, cachedTokens, completionTokens, promptTokens, reasoningTokens }: TokenUsage
): Schema.DeltaUsage => ({
  input_tokens: promptTokens - cachedTokens - cacheWriteTokens,
  cache_creation_input_tokens: cacheWriteTokens,
  cache_read_input_tokens: cachedTokens,
  output_tokens: completionTokens,
  output_tokens_details: reasoningTokens === undefined ? null : { thinking_tokens: reasoningTokens },
  server_tool_use: null
})

export const messageIdOf = (id: string): string => id.replace(/^req_/, "msg_")

export const messageOf = (
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

export const textBlock = (text: string): Schema.Block => ({ type: "text", text })

/** Reasoning of a provider of another dialect has no signature. */
export const thinkingBlock = (thinking: string): Schema.Block => ({ type: "thinking", thinking, signature: "" })

/** What another Troupe passes on: the signature has its maker, so that the block goes back to no other. */
export const signedBlock = (signed: SignedReasoning): Schema.Block => {
  const sealed = (content: string): string => seal({ maker: signed.maker ?? "", id: "", content })
  return signed.type === "thinking"
    ? { type: "thinking", thinking: signed.thinking, signature: sealed(signed.signature) }
    : { type: "redacted_thinking", data: sealed(signed.data) }
}

export const toolBlock = (id: string, name: string, input: Fields): Schema.Block => ({
  type: "tool_use",
  id,
  name,
  input,
  caller: { type: "direct" }
})

const objectOf = (text: string): Fields | undefined => text === "" ? {} : fieldsOf(parse(text))

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

/** Whether a provider of this dialect sent it. */
export const isAnthropic = ({ dialect }: Native): boolean => dialect === "anthropic"

type Mutable = Record<string, unknown>

const textOf = (value: unknown): string => typeof value === "string" ? value : ""

const appended = (before: unknown, piece: unknown): string => textOf(before) + textOf(piece)

/** Adds a delta to its block. */
const addDelta = (block: Mutable, delta: Fields): void => {
  switch (delta["type"]) {
    case "text_delta":
      block["text"] = appended(block["text"], delta["text"])
      return
    case "thinking_delta":
      block["thinking"] = appended(block["thinking"], delta["thinking"])
      return
    case "signature_delta":
      block["signature"] = delta["signature"]
      return
    case "citations_delta":
      block["citations"] = [...listOf(block["citations"]), delta["citation"]]
      return
    case "input_json_delta":
      block["input"] = appended(block["input"], delta["partial_json"])
      return
    default:
      Object.assign(block, { ...delta, type: block["type"] })
  }
}

const parseInput = (block: Mutable): Mutable => {
  const { input } = block
  if (typeof input !== "string") return block
  const json = parse(input)
  return { ...block, input: json === undefined ? {} : json }
}

/** Assembles a buffered answer from its events; the provider may choose the indexes of blocks at will. */
const assembled = (parts: ReadonlyArray<Native>): Fields => {
  let message: Mutable = {}
  const content = new Map<number, Mutable>()
  for (const { body } of parts) {
    const index = indexOf(body["index"], 0)
    switch (body["type"]) {
      case "message_start":
        message = { ...fieldsOf(body["message"]) }
        break
      case "content_block_start":
        content.set(index, { ...fieldsOf(body["content_block"]) })
        break
      case "content_block_delta": {
        const block = content.get(index)
        const delta = fieldsOf(body["delta"])
        if (block !== undefined && delta !== undefined) addDelta(block, delta)
        break
      }
      case "message_delta": {
        const { delta, type: _, usage, ...rest } = body
        Object.assign(message, fieldsOf(delta), rest, { usage: { ...fieldsOf(message["usage"]), ...fieldsOf(usage) } })
      }
    }
  }
  const blocks = [...content].toSorted(([one], [other]) => one - other).map(([, block]) => parseInput(block))
  return { ...message, content: blocks }
}

/** The provider's answer, which is not checked; undefined if the provider has another dialect. */
const nativeAnswer = (
  parts: ReadonlyArray<Native> | undefined,
  { id, model }: Envelope
): Schema.Message | undefined => {
  if (parts === undefined || parts.length === 0 || !parts.every(isAnthropic)) return undefined
  const found = parts.find(({ form }) => form === "buffered")?.body ?? assembled(parts)
  return { ...found, id: messageIdOf(id), model } as Fields as Schema.Message
}

/** The JSON of `encodeAnswer`: the provider's own text where it can be passed on. */
export const encodeText = (
  envelope: Envelope,
  answer: Answer
): Result.Result<string, InferenceError.InferenceError> => {
  const [part, ...others] = answer.native ?? []
  const text = part !== undefined && others.length === 0 && isAnthropic(part)
    ? part.text?.with(part.body, { id: messageIdOf(envelope.id), model: envelope.model })
    : undefined
  return text === undefined ? Result.map(encodeAnswer(envelope, answer), JSON.stringify) : Result.succeed(text)
}

/** The body of a buffered answer. */
export const encodeAnswer = (
  envelope: Envelope,
  answer: Answer
): Result.Result<Schema.Message, InferenceError.InferenceError> => {
  const native = nativeAnswer(answer.native, envelope)
  if (native !== undefined) return Result.succeed(native)
  const { finishReason, reasoning, stop, text, thoughts = "", toolCalls, usage } = answer
  const thinking = reasoning?.map(signedBlock) ?? (thoughts === "" ? [] : [thinkingBlock(thoughts)])
  const calls = callsOf(envelope.parallelToolUse ? toolCalls : toolCalls.slice(0, 1), answer)
  return Result.map(calls, (blocks) =>
    messageOf(
      envelope,
      [
        ...(envelope.thinking ? thinking : []),
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
  nativeAnswer(answer as ReadonlyArray<Native> | undefined, envelope) ??
    messageOf(envelope, [], refusal(detail), noUsage)
