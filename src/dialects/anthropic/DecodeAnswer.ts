/** Decodes answers and errors of Anthropic's Messages API. Pure. */
import { Result } from "effect"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason, ReportedUsage } from "../../domain/Job.ts"
import { makerOf } from "../../domain/SignedReasoning.ts"
import { isNative } from "../../domain/Source.ts"
import type { ErrorDetails } from "../shared/ErrorMapping.ts"
import { brief, cut, malformed, reasonOf, statusOf } from "../shared/ErrorMapping.ts"
import { at, codeOf, countAt, type Fields, fieldsOf, listAt, parse, textAt } from "../shared/Json.ts"
import type { DecodeResult, EventDecoder, Frame, Refusal, Target } from "../shared/ProviderDialect.ts"
import type { TextForm } from "../shared/TextChunks.ts"
import { TextChunks } from "../shared/TextChunks.ts"
import { makeCounter } from "../shared/TokenCounter.ts"
import { argumentsText, makeIds } from "../shared/ToolCallAssembler.ts"
import * as DecodeNative from "./DecodeNative.ts"

const detailsIn = (body: unknown): ErrorDetails => ({
  message: textAt(body, "error", "message") ?? textAt(body, "message") ?? "",
  codes: [textAt(body, "error", "type"), textAt(body, "error", "details", "error_code")]
})

/** The reason of an error response. */
export const failure = (refusal: Refusal, target: Target): Reason => reasonOf(refusal, target, detailsIn(refusal.body))

/** The reason of an event of type `error`. */
const inBand = (body: unknown, target: Target): Reason =>
  failure({ status: statusOf(textAt(body, "error", "type")) ?? 500, headers: {}, body, now: 0 }, target)

/** The reason of an error that is the body of a success. */
export const errorIn = (body: unknown, target: Target): Reason | undefined =>
  at(body, "type") === "error" ? inBand(body, target) : undefined

const reasons: Readonly<Record<string, FinishReason>> = {
  end_turn: "stop",
  stop_sequence: "stop",
  max_tokens: "length",
  model_context_window_exceeded: "length",
  // Anthropic's own tools reached their limit of rounds: the answer is incomplete.
  pause_turn: "length",
  tool_use: "tool_calls"
}

const finishReasonOf = (end: Fields, target: Target, isBegun: boolean): Result.Result<FinishReason, Reason> => {
  const reason = codeOf(end["stop_reason"])
  if (reason === undefined) return Result.fail(cut(target))
  if (Object.hasOwn(reasons, reason)) return Result.succeed(reasons[reason]!)
  if (reason !== "refusal") {
    return Result.fail(malformed(target, `unknown stop reason "${brief(textAt(end, "stop_reason") ?? "")}"`))
  }
  // Content before a refusal stays in the answer.
  if (isBegun) return Result.succeed("content_filter")
  const detail = textAt(end, "stop_details", "explanation") ?? "the model refuses to answer this."
  return Result.fail(new InferenceError.ContentRefused({ deployment: target.deployment, detail: brief(detail) }))
}

/** Anthropic reports cached tokens beside `input_tokens`; `promptTokens` includes them. */
const usageOf = (usage: Fields): ReportedUsage => {
  const input = countAt(usage, "input_tokens")
  const cached = countAt(usage, "cache_read_input_tokens") ?? 0
  const output = countAt(usage, "output_tokens")
  const reasoning = countAt(usage, "output_tokens_details", "thinking_tokens")
  return {
    cachedTokens: cached,
    // 0 is omitted.
    cacheWriteTokens: countAt(usage, "cache_creation_input_tokens") || undefined,
    cacheWriteHourTokens: countAt(usage, "cache_creation", "ephemeral_1h_input_tokens") || undefined,
    ...(input === undefined
      ? {}
      : { promptTokens: input + cached + (countAt(usage, "cache_creation_input_tokens") ?? 0) }),
    ...(output === undefined ? {} : { completionTokens: output }),
    ...(reasoning === undefined ? {} : { reasoningTokens: reasoning })
  }
}

const emit = (...events: ReadonlyArray<Event>): DecodeResult => Result.succeed(events)

/** The fields, with those of the next value that are not null. */
const merged = (before: Fields, next: unknown): Fields => ({
  ...before,
  ...Object.fromEntries(Object.entries(fieldsOf(next) ?? {}).filter(([, value]) => value !== null))
})

/** A call whose arguments are not complete. */
interface OpenCall {
  /** Its index among the calls of the answer. */
  readonly index: number
  /** All arguments, if the start of the call has them. */
  readonly input: unknown
  hasPieces: boolean
}

const fail = (what: string, target: Target): DecodeResult => Result.fail(malformed(target, what))

/** Decodes reasoning, signed except for callers of this dialect, who get the provider's own blocks: of those, only marks. */
class ReasoningDecoder {
  readonly #count: (text: string) => number
  readonly #isSigned: boolean
  readonly #target: Target
  /** The text of the block, if it is kept. */
  #text = ""

  constructor({ source }: Generation, count: (text: string) => number, target: Target) {
    this.#count = count
    this.#target = target
    this.#isSigned = source?.dialect !== "anthropic"
  }

  /** The begin of a block that is neither text nor a call of the caller's tools, or all of it in a buffered answer. */
  start(content: unknown): ReadonlyArray<Event> {
    this.#text = ""
    const data = textAt(content, "type") === "redacted_thinking" ? textAt(content, "data") ?? "" : ""
    if (this.#isSigned && data !== "") {
      return [{
        type: "thoughts",
        text: "",
        tokens: 0,
        signed: { type: "redacted_thinking", data, maker: makerOf(this.#target.options) }
      }]
    }
    // A call of the provider's own tools is progress, as reasoning is.
    return [
      this.piece(textAt(content, "thinking") ?? ""),
      ...this.#mark(data),
      ...this.sign(textAt(content, "signature"))
    ]
  }

  piece(text: string): Event {
    if (this.#isSigned) this.#text += text
    return { type: "thoughts", text, tokens: this.#count(text) }
  }

  #mark(mark: string): ReadonlyArray<Event> {
    return mark === "" ? [] : [{ type: "thoughts", text: "", tokens: 0, marks: [mark] }]
  }

  sign(signature = ""): ReadonlyArray<Event> {
    if (signature === "") return []
    if (!this.#isSigned) return this.#mark(signature)
    const signed = { type: "thinking", thinking: this.#text, signature, maker: makerOf(this.#target.options) } as const
    return [{ type: "thoughts", text: "", tokens: 0, signed }]
  }
}

/** Decodes a delta of a block: text, reasoning, or arguments of a call. */
const makeDelta = (
  text: (text: string) => DecodeResult,
  reasoning: ReasoningDecoder,
  argumentsOf: (block: number, part: unknown) => DecodeResult,
  target: Target
) =>
(data: Fields): DecodeResult => {
  const type = textAt(data, "delta", "type")
  if (type === "text_delta") {
    const piece = textAt(data, "delta", "text")
    return piece === undefined ? fail("a text delta without text", target) : text(piece)
  }
  if (type === "thinking_delta") return emit(reasoning.piece(textAt(data, "delta", "thinking") ?? ""))
  if (type === "signature_delta") return Result.succeed(reasoning.sign(textAt(data, "delta", "signature")))
  return type === "input_json_delta"
    ? argumentsOf(countAt(data, "index") ?? -1, at(data, "delta", "partial_json"))
    : emit()
}

/** Decodes the blocks of an answer. Those of the provider's own tools are skipped. */
const makeBlocks = (generation: Generation, count: (text: string) => number, target: Target) => {
  const idOf = makeIds(generation)
  /** By the index of the block; undefined for a block that is not a call. */
  const calls = new Map<number, OpenCall | undefined>()
  let callCount = 0
  let hasText = false

  const text = (text: string): DecodeResult => {
    if (text === "") return emit()
    hasText = true
    return emit({ type: "text", text, tokens: count(text) })
  }
  const reasoning = new ReasoningDecoder(generation, count, target)
  const piece = (index: number, text: string): DecodeResult =>
    text === "" ? emit() : emit({ type: "tool_call", index, arguments: text, tokens: count(text) })
  const start = (data: Fields): DecodeResult => {
    const block = countAt(data, "index")
    const content = at(data, "content_block")
    if (block === undefined || fieldsOf(content) === undefined) {
      return fail("a content block without index and content", target)
    }
    calls.set(block, undefined)
    if (textAt(content, "type") === "text") return text(textAt(content, "text") ?? "")
    if (textAt(content, "type") !== "tool_use") return Result.succeed(reasoning.start(content))
    const id = idOf(textAt(content, "id"))
    const name = textAt(content, "name") ?? ""
    if (name === "") return fail("a tool call without a name", target)
    const index = callCount++
    calls.set(block, { index, input: at(content, "input"), hasPieces: false })
    return emit({ type: "tool_call", index, id, name, arguments: "", tokens: 0 })
  }

  const argumentsOf = (block: number, part: unknown): DecodeResult => {
    if (!calls.has(block)) return fail("arguments without a tool call", target)
    const json = argumentsText(part)
    const call = calls.get(block)
    // Calls of the provider's own tools have arguments as well.
    if (call === undefined) return emit()
    call.hasPieces ||= json !== ""
    return piece(call.index, json)
  }

  /** A call without arguments has no deltas of arguments. */
  const stop = (data: Fields): DecodeResult => {
    const call = calls.get(countAt(data, "index") ?? -1)
    return call === undefined || call.hasPieces ? emit() : piece(call.index, argumentsText(call.input) || "{}")
  }
  const delta = makeDelta(text, reasoning, argumentsOf, target)
  return { start, delta, stop, hasCalls: () => callCount > 0, hasContent: () => callCount > 0 || hasText }
}

/** Decodes the parsed events of one message. */
const makeMessageDecoder = (generation: Generation, target: Target) => {
  const counter = makeCounter(generation)
  const blocks = makeBlocks(generation, counter.count, target)
  let usage: Fields = {}
  let end: Fields = {}
  const hasEnded = () => codeOf(end["stop_reason"]) !== undefined
  /** Content after the stop reason is not part of the answer. */
  const beforeEnd = (handler: (data: Fields) => DecodeResult) => (data: Fields): DecodeResult =>
    hasEnded() ? emit() : handler(data)

  const handlers = new Map<string, (data: Fields) => DecodeResult>([
    ["message_start", (data) => {
      usage = merged(usage, at(data, "message", "usage"))
      return emit()
    }],
    ["content_block_start", beforeEnd(blocks.start)],
    ["content_block_delta", beforeEnd(blocks.delta)],
    ["content_block_stop", blocks.stop],
    ["message_delta", (data) => {
      // The counts are cumulative.
      usage = merged(usage, data["usage"])
      if (!hasEnded()) end = merged(end, data["delta"])
      return emit()
    }],
    ["message_stop", () =>
      Result.map(finishReasonOf(end, target, blocks.hasContent()), (given) => {
        const reason = codeOf(end["stop_reason"]) === "end_turn" && blocks.hasCalls() ? "tool_calls" : given
        const stop = reason === "stop" ? textAt(end, "stop_sequence") : undefined
        return [{
          type: "finish",
          reason,
          usage: counter.usage(usageOf(usage)),
          ...(stop === undefined ? {} : { stop })
        }]
      })],
    ["error", (data) => Result.fail(inBand(data, target))]
  ])
  const push = (type: string, data: Fields): DecodeResult => handlers.get(type)?.(data) ?? emit()
  const pushText = (text: string): Event => ({ type: "text", text, tokens: counter.count(text) })
  return {
    push,
    /** Adds a piece of text to an answer that has text. */
    pushText,
    /** Whether there was a stop reason. */
    hasEnded,
    /** What the provider has reported until now. */
    usage: () => usageOf(usage)
  }
}

const textForm: TextForm = {
  begins: [/"text"\s*:\s*"/g],
  stringsOf: (event) => [at(event, "delta", "text")],
  isTextOnly: (event, events) =>
    event["type"] === "content_block_delta" && events.length === 1 && events[0]!.type === "text"
}

export const events = (generation: Generation, target: Target): EventDecoder => {
  const { hasEnded, push, pushText, usage } = makeMessageDecoder(generation, target)
  const chunks = isNative(generation, target.options) ? DecodeNative.makeChunks() : undefined
  const texts = new TextChunks(textForm, chunks === undefined ? undefined : (data) => DecodeNative.nativeOf(data))
  let isEnding = false
  const pass = (type: string, fields: Fields, events: DecodeResult): DecodeResult =>
    chunks === undefined ? events : chunks.push(type, fields, events)
  const pushEvent = (frame: Frame): DecodeResult => {
    const fields = fieldsOf(parse(frame.data))
    const type = textAt(fields, "type")
    if (fields === undefined || type === undefined) return Result.fail(malformed(target, "an event without `type`"))
    isEnding ||= type === "message_delta"
    const events = push(type, fields)
    if (Result.isSuccess(events)) texts.add(frame, fields, events.success)
    return pass(type, fields, events)
  }
  const stop = { type: "message_stop" }
  return {
    push: pushEvent,
    run: (text, from) => {
      const run = isEnding ? undefined : texts.runFrom(text, from)
      return run && { to: run.places.at(-1)!, events: texts.eventsOf(run, pushText(run.text)) }
    },
    isFinished: hasEnded,
    usage,
    end: () => hasEnded() ? pass(stop.type, stop, push(stop.type, stop)) : Result.fail(cut(target))
  }
}

/** The usage that the body of a buffered answer reports. */
export const usageIn = (body: unknown): ReportedUsage => usageOf(fieldsOf(at(body, "usage")) ?? {})

/** Decodes a buffered answer as if it were streamed. */
export const buffered = (body: unknown, generation: Generation, target: Target, text?: string): DecodeResult => {
  const fields = fieldsOf(body)
  if (fields === undefined) return Result.fail(malformed(target, "the body is not an object"))
  const error = errorIn(fields, target)
  if (error !== undefined) return Result.fail(error)
  if (!Array.isArray(fields["content"])) return Result.fail(malformed(target, "no `content`"))
  const { push } = makeMessageDecoder(generation, target)
  const streamed: ReadonlyArray<readonly [type: string, data: Fields]> = [
    ["message_start", { message: fields }],
    ...listAt(fields, "content").flatMap((content_block, index) =>
      [
        ["content_block_start", { index, content_block }],
        ["content_block_stop", { index }]
      ] as const
    ),
    ["message_delta", { delta: fields }],
    ["message_stop", {}]
  ]
  const events = Result.map(Result.all(streamed.map(([type, data]) => push(type, data))), (all) => all.flat())
  return isNative(generation, target.options) ? DecodeNative.buffered(fields, events, text) : events
}
