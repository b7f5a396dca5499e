/** Decodes answers and errors of the OpenAI dialect. Pure. */
import { Result } from "effect"
import { numberOf } from "../../domain/ExactNumber.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { ChosenLogprob, FinishReason, ReportedUsage, TokenLogprob } from "../../domain/Job.ts"
import { JsonText } from "../../domain/JsonText.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import { providerKindOf } from "../../domain/ProviderKind.ts"
import { marksIn } from "../../domain/SignedReasoning.ts"
import type { Native } from "../../domain/Source.ts"
import { choicesOf, isNative } from "../../domain/Source.ts"
import type { ErrorDetails } from "../shared/ErrorMapping.ts"
import { brief, cut, inBandReason, malformed, reasonOf, statusOf } from "../shared/ErrorMapping.ts"
import type { Fields } from "../shared/Json.ts"
import { at, codeOf, countAt, fieldsOf, isEmpty, listAt, numbersOf, ownOf, parse, textAt } from "../shared/Json.ts"
import type { DecodeResult, EventDecoder, Frame, Refusal, Target } from "../shared/ProviderDialect.ts"
import { ofDetails, withMakers } from "../shared/SignedFields.ts"
import type { TextForm } from "../shared/TextChunks.ts"
import { TextChunks } from "../shared/TextChunks.ts"
import type { Counter } from "../shared/TokenCounter.ts"
import { makeCounter } from "../shared/TokenCounter.ts"
import * as ToolCallAssembler from "../shared/ToolCallAssembler.ts"
import * as DecodeNative from "./DecodeNative.ts"

/** Field names of this service, by the prefix of the provider's name. */
const paths: ReadonlyArray<readonly [RegExp, string]> = [
  [/^tools\[(\d+)\]\.function/, "tools[$1]"],
  [/^(messages\[\d+\])\.tool_calls\[(\d+)\]\.function/, "$1.toolCalls[$2]"],
  [/^(messages\[\d+\])\.tool_calls/, "$1.toolCalls"],
  [/^(messages\[\d+\])\.tool_call_id/, "$1.toolCallId"],
  [/^tool_choice\.function/, "toolChoice"],
  [/^tool_choice/, "toolChoice"],
  [/^response_format\.json_schema/, "format"],
  [/^response_format/, "format"],
  [/^top_logprobs/, "logprobs"],
  [/^max_(?:completion_)?tokens/, "maxTokens"],
  [/^top_p/, "topP"],
  [/^top_k/, "topK"],
  [/^min_p/, "minP"],
  [/^(repeat|presence|frequency)_penalty/, "$1Penalty"],
  [/^logit_bias/, "logitBias"],
  [/^prompt$/, "input"]
]

const pathOf = (param: string | undefined): string | undefined => {
  if (param === undefined || param === "") return undefined
  const found = paths.find(([pattern]) => pattern.test(param))
  return found === undefined ? param : param.replace(found[0], found[1])
}

/** The message of an error: in `error` (OpenAI), in the body (vLLM, Mistral), or in `detail` (FastAPI). */
const messageIn = (body: unknown, error: unknown): string =>
  typeof error === "string" ? error : textAt(error, "message") ?? textAt(body, "message") ?? textAt(body, "detail") ??
    textAt(listAt(body, "detail")[0], "msg") ?? ""

/** Token counts that llama.cpp's server sends. */
const figuresIn = (error: unknown): ErrorDetails["figures"] => {
  const promptTokens = countAt(error, "n_prompt_tokens")
  const contextWindow = countAt(error, "n_ctx")
  return promptTokens === undefined || contextWindow === undefined ? undefined : { promptTokens, contextWindow }
}

/** @param body `{ error: { message, type, code, param } }`, `{ error: "..." }`, or the error's fields themselves */
const detailsIn = (body: unknown): ErrorDetails => {
  const error = at(body, "error") ?? body
  const message = messageIn(body, error)
  const param = textAt(error, "param")
  const innerCode = textAt(error, "innererror", "code")
  return {
    // `path` has the name of the field.
    message: param !== undefined && message.startsWith(`${param}: `) ? message.slice(param.length + 2) : message,
    path: pathOf(param),
    codes: [textAt(error, "code"), textAt(error, "type"), innerCode],
    // OpenRouter.
    inner: textAt(error, "metadata", "raw"),
    figures: figuresIn(error)
  }
}

/** The reason of an error response. */
export const failure = (refusal: Refusal, target: Target): Reason => reasonOf(refusal, target, detailsIn(refusal.body))

/** The reason of an error within a successful response. */
const inBand = (body: unknown, target: Target): Reason => {
  const error = at(body, "error") ?? body
  const status = statusOf(at(error, "code"), at(error, "status"), at(error, "status_code"), at(error, "type"))
  return inBandReason(body, target, detailsIn(body), status)
}

export const reportedUsage = (usage: unknown): ReportedUsage | undefined =>
  fieldsOf(usage) === undefined ? undefined : {
    promptTokens: countAt(usage, "prompt_tokens"),
    completionTokens: countAt(usage, "completion_tokens"),
    cachedTokens: countAt(usage, "prompt_tokens_details", "cached_tokens"),
    cacheWriteTokens: countAt(usage, "prompt_tokens_details", "cache_write_tokens"),
    reasoningTokens: countAt(usage, "completion_tokens_details", "reasoning_tokens")
  }

const logprobOf = (value: unknown): TokenLogprob | undefined => {
  const token = textAt(value, "token")
  const logprob = numberOf(at(value, "logprob"))
  if (token === undefined || logprob === undefined) return undefined
  return { token, logprob, bytes: numbersOf(at(value, "bytes")) ?? [...Buffer.from(token)] }
}

/** A token with its likeliest alternatives, as a list of one; empty if it is malformed. */
export const chosenOf = (value: unknown): ReadonlyArray<ChosenLogprob> => {
  const chosen = logprobOf(value)
  const top = listAt(value, "top_logprobs").flatMap((other) => logprobOf(other) ?? [])
  return chosen === undefined ? [] : [{ ...chosen, top }]
}

const logprobsOf = (choice: Fields): ReadonlyArray<ChosenLogprob> =>
  listAt(choice, "logprobs", "content").flatMap(chosenOf)

/** Finish reasons of OpenAI's dialect, and those of other dialects that gateways pass on unchanged. */
const finishes: Readonly<Record<string, FinishReason>> = {
  stop: "stop",
  length: "length",
  // Mistral: the context window is full.
  model_length: "length",
  max_tokens: "length",
  max_length: "length",
  model_context_window_exceeded: "length",
  tool_calls: "tool_calls",
  tool_use: "tool_calls",
  function_call: "tool_calls"
}

/** Finish reasons of a content policy, including Gemini's and Anthropic's. */
const contentFilters = new Set([
  "content_filter",
  "refusal",
  "safety",
  "recitation",
  "blocklist",
  "prohibited_content",
  "spii"
])

/** Finish reasons of an answer that the host broke off: OpenRouter and Mistral, DeepSeek, vLLM. */
export const interruptions = new Set(["error", "insufficient_system_resource", "abort"])

/** The first choice; further ones are in the native answer only. */
export const ownChoice = (body: unknown): Fields | undefined =>
  fieldsOf(listAt(body, "choices").find((choice) => (countAt(choice, "index") ?? 0) === 0))

const refused = ({ deployment }: Target, detail: string): DecodeResult =>
  Result.fail(new InferenceError.ContentRefused({ deployment, detail }))

/** The text of a content; Mistral's reasoning models send it in parts. */
const contentOf = (content: unknown): string =>
  typeof content === "string"
    ? content
    : Array.isArray(content)
    ? content.map((part) => textAt(part, "type") === "text" ? textAt(part, "text") ?? "" : "").join("")
    : ""

const textsOf = (parts: ReadonlyArray<unknown>): string => parts.map((part) => textAt(part, "text") ?? "").join("")

/** The reasoning in a field of its own. */
const textIn = (message: Fields, otherwise?: string): string | undefined =>
  textAt(message, "reasoning_content") || textAt(message, "reasoning") || otherwise

/** Signed reasoning of another Troupe; its text has come before. */
const signedEvent = (signed: SignedReasoning): Event => ({ type: "thoughts", text: "", tokens: 0, signed })

/**
 * The reasoning in a message: `reasoning_content` (DeepSeek, llama-server), `reasoning` (Groq, vLLM), `reasoning_details`
 * (OpenRouter), or parts of the content (Mistral). Empty if it is encrypted, undefined if there is none.
 */
export const thoughtsOf = (message: Fields): string | undefined => {
  const text = textIn(message)
  if (text) return text
  const details = listAt(message, "reasoning_details")
  if (details.length > 0) return textsOf(details)
  const thinking = listAt(message, "content").filter((part) => textAt(part, "type") === "thinking")
  return thinking.length === 0 ? undefined : thinking.map((part) => textsOf(listAt(part, "thinking"))).join("")
}

/** The deltas of calls in a message; those of the legacy `function_call` if it has no others. */
const callDeltas = (message: Fields): ReadonlyArray<ToolCallAssembler.Delta> => {
  const calls = listAt(message, "tool_calls")
  const deltaOf = (call: unknown, called: unknown, position: number): ToolCallAssembler.Delta => ({
    // Without indexes, several calls of one delta are distinguished by their order.
    place: countAt(call, "index") ?? (calls.length > 1 ? position : undefined),
    id: textAt(call, "id"),
    name: textAt(called, "name"),
    arguments: at(called, "arguments")
  })
  if (calls.length > 0) return calls.map((call, position) => deltaOf(call, at(call, "function"), position))
  const legacy = fieldsOf(message["function_call"])
  return legacy === undefined ? [] : [deltaOf({}, legacy, 0)]
}

/** Whether the caller uses the legacy `functions`. */
const isLegacy = ({ source }: Generation): boolean => (source?.body["functions"] ?? null) !== null

/** The stop sequence that ended the answer, as vLLM and Troupe report it; other hosts put other texts in `stop_reason`. */
const stopOf = (
  { stop }: Generation,
  reason: FinishReason,
  given: string | undefined
): string | undefined => reason === "stop" && given !== undefined && stop.includes(given) ? given : undefined

/** Some hosts send "tool_calls" for text alone, and "stop" for calls. */
export const finishReasonOf = (finish: string, hasCalls: boolean, hasText: boolean): FinishReason => {
  if (contentFilters.has(finish)) return "content_filter"
  const reason = ownOf(finishes, finish) ?? "stop"
  if (reason === "stop" && hasCalls) return "tool_calls"
  return reason === "tool_calls" && !hasCalls && hasText ? "stop" : reason
}

/** Decodes a buffered message, or the deltas of a streamed one. */
class MessageDecoder {
  readonly #generation: Generation
  readonly #target: Target
  readonly #counter: Counter
  #calls: ToolCallAssembler.ToolCallAssembler | undefined
  /** Indexes of calls of custom tools: only the first delta of a call has its type. */
  #custom: Set<number> | undefined
  #refusal = ""
  #finish: string | undefined
  #stopReason: string | undefined
  /** What the provider has reported until now. */
  usage: ReportedUsage | undefined
  #hasText = false

  constructor(generation: Generation, target: Target) {
    this.#generation = generation
    this.#target = target
    this.#counter = makeCounter(generation)
  }

  /**
   * @param choice ignored after one with a finish reason
   * @param message the choice's message or delta
   */
  push(choice: Fields, message: Fields): ReadonlyArray<Event> {
    if (this.#finish !== undefined) return []
    this.#refusal += textAt(message, "refusal") ?? ""
    this.#finish = codeOf(choice["finish_reason"])
    this.#stopReason = textAt(choice, "stop_reason")
    const events: Array<Event> = []
    const signed = message["reasoning_details"] === undefined ? [] : ofDetails(message)
    const thoughts = signed.length === 0 ? thoughtsOf(message) : textIn(message, "")
    if (thoughts !== undefined) {
      events.push({ type: "thoughts", text: thoughts, tokens: this.#counter.count(thoughts) }, ...this.#marks(message))
      for (const one of signed) events.push(signedEvent(one))
    }
    const text = contentOf(message["content"])
    if (text !== "") events.push(this.#text(choice, text))
    for (const delta of callDeltas(this.#functionCallsOnly(message))) {
      this.#calls ??= ToolCallAssembler.make(this.#generation, this.#counter.count)
      events.push(...this.#calls.push(delta))
    }
    return events
  }

  /** Of OpenRouter's reasoning, which callers of this dialect get as it is. */
  #marks({ reasoning_details: details }: Fields): ReadonlyArray<Event> {
    const marks = details === undefined || !isNative(this.#generation, this.#target.options) ? [] : marksIn(details)
    return marks.length === 0 ? [] : [{ type: "thoughts", text: "", tokens: 0, marks }]
  }

  #text(choice: Fields, text: string): Event {
    this.#hasText = true
    const tokens = this.#counter.count(text)
    const logprobs = this.#generation.logprobs === undefined ? [] : logprobsOf(choice)
    return logprobs.length === 0 ? { type: "text", text, tokens } : { type: "text", text, tokens, logprobs }
  }

  /** The message without calls of custom tools, which the events do not represent. */
  #functionCallsOnly(message: Fields): Fields {
    const calls = listAt(message, "tool_calls")
    if (calls.length === 0) return message
    const functions = calls.filter((call, position) => {
      const index = countAt(call, "index") ?? position
      if ((textAt(call, "type") ?? "function") !== "function") (this.#custom ??= new Set()).add(index)
      return this.#custom?.has(index) !== true
    })
    return functions.length === calls.length ? message : { ...message, tool_calls: functions }
  }

  /** Whether there was a finish reason. */
  isFinished(): boolean {
    return this.#finish !== undefined
  }

  /** Adds a piece of text to an answer that has text. */
  pushText(text: string): Event {
    return { type: "text", text, tokens: this.#counter.count(text) }
  }

  pushUsage(body: Fields): void {
    this.usage = reportedUsage(body["usage"]) ?? this.usage
  }

  /** The rest of the events, the last of which is the finish. */
  end(): DecodeResult {
    const finish = this.#finish
    const target = this.#target
    if (finish === undefined || interruptions.has(finish)) return Result.fail(cut(target))
    const hasCalls = this.#calls !== undefined && this.#calls.size() > 0
    const refusal = this.#hasText || hasCalls ? undefined : this.#refusalOf(finish)
    if (refusal !== undefined) return refused(target, refusal)
    const held = this.#calls === undefined ? [] : this.#calls.end()
    if (held === undefined) return Result.fail(malformed(target, "a tool call without a name"))
    return Result.succeed([...held, this.#finished(finishReasonOf(finish, hasCalls, this.#hasText))])
  }

  /** Why an answer without content was refused; undefined if it was not. */
  #refusalOf(finish: string): string | undefined {
    if (contentFilters.has(finish)) return "its content filter ended the answer."
    return this.#refusal === "" ? undefined : brief(this.#refusal)
  }

  #finished(reason: FinishReason): Event {
    const usage = this.#counter.usage(this.usage)
    const stop = stopOf(this.#generation, reason, this.#stopReason)
    return stop === undefined ? { type: "finish", reason, usage } : { type: "finish", reason, usage, stop }
  }
}

/**
 * Whether a body with a status of success is an error.
 *
 * @param event the SSE event's name
 */
const isError = (body: Fields, event = "message"): boolean =>
  (body["error"] ?? undefined) !== undefined || body["object"] === "error" || body["type"] === "error" ||
  (event === "error" && !("choices" in body))

/** The reason of an error that is the body of a success. */
export const errorIn = (body: unknown, target: Target): Reason | undefined => {
  const fields = fieldsOf(body)
  return fields !== undefined && isError(fields) ? inBand(fields, target) : undefined
}

const firstChoiceOf = (chunk: Fields): Fields | undefined => fieldsOf(listAt(chunk, "choices")[0])

/** Whether a choice adds to the text only. */
const addsText = (choice: Fields | undefined, events: ReadonlyArray<Event>): boolean => {
  const [event] = events
  const delta = fieldsOf(choice?.["delta"])
  return events.length === 1 && event?.type === "text" && event.logprobs === undefined &&
    delta?.["content"] === event.text &&
    listAt(delta, "tool_calls").length === 0 && (delta["function_call"] ?? null) === null
}

/** Chunks with one choice, the first. OpenAI adds a text of random length to each chunk, in `obfuscation`. */
const textForm: TextForm = {
  begins: [/"content"\s*:\s*"/g, /"obfuscation"\s*:\s*"/g],
  stringsOf: (chunk) => [at(firstChoiceOf(chunk), "delta", "content"), chunk["obfuscation"]],
  isTextOnly: (chunk, events) => {
    const choice = firstChoiceOf(chunk)
    return listAt(chunk, "choices").length === 1 && (choice?.["index"] ?? 0) === 0 &&
      (chunk["usage"] ?? null) === null && addsText(choice, events)
  }
}

/** What another Troupe passes on, with the makers of signed reasoning as this one names them. */
const named = (body: Fields, field: "delta" | "message", { options }: Target): Fields =>
  listAt(body, "choices").some((choice) => at(choice, field, "reasoning_details") !== undefined) &&
    providerKindOf(options.provider).isTroupe === true
    ? withMakers(body, field, options)
    : body

export const events = (generation: Generation, target: Target): EventDecoder => {
  const decoder = new MessageDecoder(generation, target)
  const choices = choicesOf(generation)
  const chunks = isNative(generation, target.options)
    ? DecodeNative.makeChunks(isLegacy(generation), choices)
    : undefined
  const end = (): DecodeResult => chunks === undefined ? decoder.end() : chunks.end(decoder.end())
  const texts = new TextChunks(textForm, chunks?.textOf)
  const push = (frame: Frame): DecodeResult => {
    const { data, event } = frame
    if (data === "[DONE]") return end()
    const given = fieldsOf(parse(data))
    if (given === undefined) return Result.fail(malformed(target, "an event that is not a JSON object"))
    const chunk = named(given, "delta", target)
    if (isError(chunk, event)) return Result.fail(inBand(chunk, target))
    decoder.pushUsage(chunk)
    // Azure's first chunk and the chunk with the usage have no choices.
    const choice = ownChoice(chunk)
    // OpenRouter sends errors of one choice.
    if (choice !== undefined && isError(choice)) return Result.fail(inBand(choice, target))
    const events = choice === undefined ? [] : decoder.push(choice, fieldsOf(choice["delta"]) ?? {})
    texts.add(frame, chunk, events)
    return Result.succeed(chunks === undefined ? events : chunks.push(chunk, choice, events))
  }
  return {
    push,
    run: (text, from) => {
      const run = decoder.isFinished() ? undefined : texts.runFrom(text, from)
      return run && { to: run.places.at(-1)!, events: texts.eventsOf(run, decoder.pushText(run.text)) }
    },
    // Further choices end after the first one.
    isFinished: () => choices === 1 && decoder.isFinished(),
    usage: () => decoder.usage,
    end
  }
}

const isPlainField = (name: string, value: unknown): boolean => {
  switch (name) {
    case "role":
    case "content":
      return typeof value === "string" || value === null
    case "tool_calls":
    case "function_call":
      // `null` is removed from the answer.
      return Array.isArray(value) && value.length === 0
    default:
      return isEmpty(value)
  }
}

/** Whether a message has only text and the decoded finish reason: `DecodeNative` does not change it. */
const isPlain = (choice: Fields, message: Fields, reason: string | undefined): boolean => {
  if (choice["finish_reason"] !== reason) return false
  for (const name in message) {
    if (!isPlainField(name, message[name])) return false
  }
  return true
}

/** The events of a buffered answer with the native body before them. */
const withNative = (
  answer: Fields,
  choice: Fields,
  message: Fields,
  decoded: DecodeResult,
  generation: Generation,
  given: string | undefined
): DecodeResult => {
  const text = given === undefined ? undefined : new JsonText(given, answer)
  const events = Result.isSuccess(decoded) ? decoded.success : []
  const last = events.at(-1)
  const reason = last?.type === "finish" ? last.reason : undefined
  if (listAt(answer, "choices").length > 1 || reason === undefined || !isPlain(choice, message, reason)) {
    return DecodeNative.buffered(answer, choice, decoded, isLegacy(generation), choicesOf(generation), text)
  }
  const native: Native = text === undefined
    ? { dialect: "openai", form: "buffered", body: answer, hasMore: false }
    : { dialect: "openai", form: "buffered", body: answer, text, hasMore: false }
  return Result.succeed([{ type: "native", native, content: false, tokens: 0 }, ...events])
}

/** The usage that the body of a buffered answer reports. */
export const usageIn = (body: unknown): ReportedUsage | undefined => reportedUsage(at(body, "usage"))

/** Decodes a buffered answer. */
export const buffered = (body: unknown, generation: Generation, target: Target, text?: string): DecodeResult => {
  const answer = named(fieldsOf(body) ?? {}, "message", target)
  return bufferedOf(answer, generation, target, answer === body ? text : undefined)
}

const bufferedOf = (answer: Fields, generation: Generation, target: Target, text: string | undefined): DecodeResult => {
  const error = errorIn(answer, target)
  if (error !== undefined) return Result.fail(error)
  const choice = ownChoice(answer)
  if (choice !== undefined && isError(choice)) return Result.fail(inBand(choice, target))
  const message = fieldsOf(choice?.["message"])
  if (choice === undefined || message === undefined) {
    return Result.fail(malformed(target, "no `choices[0].message`. Check `provider` and `baseUrl` of the deployment"))
  }
  const decoder = new MessageDecoder(generation, target)
  decoder.pushUsage(answer)
  const events = decoder.push(choice, message)
  const decoded = Result.map(decoder.end(), (finish) => [...events, ...finish])
  return isNative(generation, target.options) ? withNative(answer, choice, message, decoded, generation, text) : decoded
}
