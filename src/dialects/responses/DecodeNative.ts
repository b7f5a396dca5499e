/**
 * Decodes answers of a provider's Responses API: its own items and events for the caller, and beside them what of an answer all
 * dialects have: text, reasoning, calls and usage. Pure.
 *
 * **Details**
 *
 * The events about the response itself (`response.created`, `response.completed`) are not passed on, because the caller gets
 * those of its own response. Encrypted contents get the name of their host (`SignedReasoning`). Events without content are held
 * until one has content: an answer that fails before can still be requested from another deployment.
 */
import { Result } from "effect"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason, ReportedUsage } from "../../domain/Job.ts"
import { makerOf, seal } from "../../domain/SignedReasoning.ts"
import type { Native } from "../../domain/Source.ts"
import { chosenOf, errorIn } from "../openai/DecodeAnswer.ts"
import { brief, cut, malformed } from "../shared/ErrorMapping.ts"
import type { Fields } from "../shared/Json.ts"
import { at, countAt, fieldsOf, listAt, listOf, parse, textAt } from "../shared/Json.ts"
import { eventOf, makeHolding } from "../shared/NativeEvents.ts"
import type { DecodeResult, EventDecoder, Frame, Target } from "../shared/ProviderDialect.ts"
import type { Counter } from "../shared/TokenCounter.ts"
import { makeCounter } from "../shared/TokenCounter.ts"
import * as CustomTools from "./CustomTools.ts"

const reportedUsage = (usage: unknown): ReportedUsage | undefined =>
  fieldsOf(usage) === undefined ? undefined : {
    promptTokens: countAt(usage, "input_tokens"),
    completionTokens: countAt(usage, "output_tokens"),
    cachedTokens: countAt(usage, "input_tokens_details", "cached_tokens"),
    cacheWriteTokens: countAt(usage, "input_tokens_details", "cache_write_tokens"),
    reasoningTokens: countAt(usage, "output_tokens_details", "reasoning_tokens")
  }

/** The usage that the body of a buffered answer reports. */
export const usageIn = (body: unknown): ReportedUsage | undefined => reportedUsage(at(body, "usage"))

/** An item as callers keep it. */
const sealed = (item: Fields, { options }: Target): Fields => {
  const { encrypted_content: content, id } = item
  return typeof content === "string" && content !== ""
    ? { ...item, encrypted_content: seal({ maker: makerOf(options), id: typeof id === "string" ? id : "", content }) }
    : item
}

const isCall = (type: unknown): boolean => type === "function_call" || type === "custom_tool_call"

/** Whether an item is a text or a function call, as all dialects have them. */
const isCommon = (type: unknown): boolean => type === "message" || type === "function_call"

const textsOf = (item: unknown, type: string, field: string, list = "content"): string =>
  listAt(item, list).map((part) => textAt(part, "type") === type ? textAt(part, field) ?? "" : "").join("")

const thoughtsOf = (item: unknown): string =>
  textsOf(item, "summary_text", "text", "summary") + textsOf(item, "reasoning_text", "text")

/** The failure of a response that has one. */
const failureOf = (response: Fields, target: Target): InferenceError.Reason | undefined => {
  const { error, status } = response
  if ((error ?? null) === null && status !== "failed" && status !== "cancelled") return undefined
  return errorIn({
    error: error ?? { code: "server_error", message: `The response has the status ${String(status)}.` }
  }, target)
}

/** Decodes the items of one answer into events of all dialects. */
class ItemDecoder {
  readonly #generation: Generation
  readonly #target: Target
  readonly counter: Counter
  /** Places of calls by the index of their item, and what has arrived of their arguments. */
  readonly #calls = new Map<number, { readonly index: number; arguments: string }>()
  hasText = false

  constructor(generation: Generation, target: Target) {
    this.#generation = generation
    this.#target = target
    this.counter = makeCounter(generation)
  }

  text(text: string, logprobs: ReadonlyArray<unknown>): Event {
    this.hasText ||= text !== ""
    const chosen = this.#generation.logprobs === undefined ? [] : logprobs.flatMap(chosenOf)
    const event = { type: "text", text, tokens: this.counter.count(text) } as const
    return chosen.length === 0 ? event : { ...event, logprobs: chosen }
  }

  thoughts(text: string): Event {
    return { type: "thoughts", text, tokens: this.counter.count(text) }
  }

  /** The begin of a call, without its arguments. */
  begin(place: number, item: Fields): Event {
    const index = this.#calls.size
    this.#calls.set(place, { index, arguments: "" })
    return {
      type: "tool_call",
      index,
      id: textAt(item, "call_id") ?? "",
      name: textAt(item, "name") ?? "",
      arguments: "",
      tokens: 0
    }
  }

  /** More arguments of a call. */
  more(place: number, text: string): ReadonlyArray<Event> {
    const call = this.#calls.get(place)
    if (call === undefined || text === "") return []
    call.arguments += text
    return [{ type: "tool_call", index: call.index, arguments: text, tokens: this.counter.count(text) }]
  }

  /** What of a complete call has not arrived in pieces. */
  complete(place: number, item: Fields): ReadonlyArray<Event> {
    const begun = this.#calls.has(place) ? [] : [this.begin(place, item)]
    const text = item["type"] === "custom_tool_call"
      ? CustomTools.argumentsOf(textAt(item, "input") ?? "")
      : textAt(item, "arguments") ?? ""
    const { arguments: received } = this.#calls.get(place)!
    return [...begun, ...this.more(place, text.startsWith(received) ? text.slice(received.length) : "")]
  }

  /** The events of a complete item. */
  whole(place: number, item: Fields): ReadonlyArray<Event> {
    if (isCall(item["type"])) return this.complete(place, item)
    if (item["type"] === "reasoning") {
      const thoughts = thoughtsOf(item)
      return thoughts === "" ? [] : [this.thoughts(thoughts)]
    }
    const text = textsOf(item, "output_text", "text")
    return text === "" ? [] : [this.text(text, listOf(at(item, "content")).flatMap((part) => listAt(part, "logprobs")))]
  }

  /** The end of an answer, or why it is none. */
  end(response: Fields, items: ReadonlyArray<Fields>): Result.Result<Event, InferenceError.Reason> {
    const failure = failureOf(response, this.#target)
    if (failure !== undefined) return Result.fail(failure)
    const refusal = items.map((item) => textsOf(item, "refusal", "refusal")).join("")
    if (refusal !== "" && !this.hasText && items.every(({ type }) => type === "message" || type === "reasoning")) {
      const { deployment } = this.#target
      const answer: ReadonlyArray<Native> = [nativeOf({ ...response, output: items }, "buffered")]
      return Result.fail(new InferenceError.ContentRefused({ deployment, detail: brief(refusal), answer }))
    }
    return Result.succeed({
      type: "finish",
      reason: reasonOf(response, items),
      usage: this.counter.usage(reportedUsage(response["usage"]))
    })
  }
}

const reasonOf = (response: Fields, items: ReadonlyArray<Fields>): FinishReason => {
  if (response["status"] === "incomplete") {
    return textAt(response, "incomplete_details", "reason") === "content_filter" ? "content_filter" : "length"
  }
  return items.some(({ type }) => isCall(type)) ? "tool_calls" : "stop"
}

const nativeOf = (body: Fields, form: Native["form"] = "chunk", hasMore = true): Native => ({
  dialect: "responses",
  form,
  body,
  hasMore
})

/** Events about the response itself, which the caller's response has itself. */
const ofResponse: ReadonlySet<unknown> = new Set(["response.created", "response.in_progress", "response.queued"])

const ends: ReadonlySet<unknown> = new Set(["response.completed", "response.incomplete", "response.failed"])

/** Events of an item that are a step of the text alone: an answer of them can be continued by another deployment. */
const plain: ReadonlySet<unknown> = new Set([
  "response.output_text.delta",
  "response.output_text.done",
  "response.content_part.added",
  "response.content_part.done"
])

/** Events without content of their own, besides those about reasoning and refusals. */
const progress = /^response\.(?:output_text\.done|content_part|refusal|reasoning)/

class Decoder implements EventDecoder {
  readonly #generation: Generation
  readonly #target: Target
  readonly #items: ItemDecoder
  readonly #holding = makeHolding((body) => this.#nativeOf(body))
  readonly #done: Array<Fields> = []
  #usage: ReportedUsage | undefined

  constructor(generation: Generation, target: Target) {
    this.#generation = generation
    this.#target = target
    this.#items = new ItemDecoder(generation, target)
  }

  usage = () => this.#usage

  push({ data }: Frame): DecodeResult {
    if (data === "[DONE]") return this.end()
    const event = fieldsOf(parse(data))
    if (event === undefined) return Result.fail(malformed(this.#target, "an event that is not a JSON object"))
    const error = errorIn(event, this.#target)
    if (error !== undefined) return Result.fail(error)
    const { type } = event
    if (ends.has(type)) return this.#end(fieldsOf(event["response"]) ?? {})
    if (ofResponse.has(type) || typeof type !== "string" || !type.startsWith("response.")) return Result.succeed([])
    return Result.succeed(this.#pass(this.#sealedItem(event)))
  }

  /** The answer has no end. */
  end(): DecodeResult {
    return Result.fail(cut(this.#target))
  }

  #sealedItem(event: Fields): Fields {
    const item = fieldsOf(event["item"])
    return item === undefined ? event : { ...event, item: sealed(item, this.#target) }
  }

  #nativeOf(event: Fields): Native {
    const isPlain = plain.has(event["type"]) || textAt(event, "item", "type") === "message"
    return nativeOf(event, "chunk", !isPlain || this.#generation.source?.responses?.needs !== undefined)
  }

  /** The caller's event, and the events that it stands for. */
  #pass(event: Fields): ReadonlyArray<Event> {
    const events = this.#eventsOf(event)
    const item = fieldsOf(event["item"])
    const isContent = item === undefined
      ? events.some(({ type }) => type !== "thoughts") || !progress.test(event["type"] as string)
      : item["type"] !== "message" && item["type"] !== "reasoning"
    return isContent || events.length > 0
      ? [...this.#holding.begin(), eventOf(this.#nativeOf(event), isContent), ...events]
      : this.#holding.hold(event)
  }

  #eventsOf(event: Fields): ReadonlyArray<Event> {
    const place = countAt(event, "output_index") ?? 0
    const item = fieldsOf(event["item"])
    if (item === undefined) return this.#deltaOf(event, place, textAt(event, "delta") ?? "")
    return event["type"] === "response.output_item.added" ? this.#begun(place, item) : this.#completed(place, item)
  }

  #deltaOf(event: Fields, place: number, delta: string): ReadonlyArray<Event> {
    if (delta === "") return []
    switch (event["type"]) {
      case "response.output_text.delta":
        return [this.#items.text(delta, listAt(event, "logprobs"))]
      case "response.reasoning_summary_text.delta":
      case "response.reasoning_text.delta":
        return [this.#items.thoughts(delta)]
      case "response.function_call_arguments.delta":
        return this.#items.more(place, delta)
      default:
        return []
    }
  }

  #begun(place: number, item: Fields): ReadonlyArray<Event> {
    return isCall(item["type"]) ? [this.#items.begin(place, item)] : []
  }

  #completed(place: number, item: Fields): ReadonlyArray<Event> {
    this.#done[place] = item
    return isCall(item["type"]) ? this.#items.complete(place, item) : []
  }

  #end(response: Fields): DecodeResult {
    this.#usage = reportedUsage(response["usage"])
    const given = listAt(response, "output").map((item) => sealed(fieldsOf(item) ?? {}, this.#target))
    const output = given.length === 0 ? this.#done.filter((item) => item !== undefined) : given
    return Result.map(this.#items.end(response, output), (finish) => [
      ...this.#holding.begin(),
      {
        ...finish as Extract<Event, { readonly type: "finish" }>,
        native: nativeOf({ ...response, output }, "buffered", !output.every(({ type }) => isCommon(type)))
      }
    ])
  }
}

/** Decodes a streamed answer. */
export const events = (generation: Generation, target: Target): EventDecoder => new Decoder(generation, target)

/** Decodes a buffered answer. */
export const buffered = (body: unknown, generation: Generation, target: Target): DecodeResult => {
  const response = fieldsOf(body)
  if (response === undefined || !Array.isArray(response["output"])) {
    return Result.fail(
      errorIn(response, target) ?? malformed(target, "no `output`. Check `responses` of the deployment")
    )
  }
  const decoder = new ItemDecoder(generation, target)
  const output = listAt(response, "output").map((item) => sealed(fieldsOf(item) ?? {}, target))
  const events = output.flatMap((item, index) => decoder.whole(index, item))
  const isMore = output.some(({ type }) => !isCommon(type))
  return Result.map(decoder.end(response, output), (finish) => [
    eventOf(
      nativeOf({ ...response, output }, "buffered", isMore),
      output.some(({ type }) => type !== "message" && type !== "reasoning")
    ),
    ...events,
    finish
  ])
}
