/**
 * Answers of the OpenAI chat dialect, whole and as frames of a stream. Pure.
 *
 * **Gotchas**
 *
 * An encoder runs for every event of every stream: what its frames share is encoded once, and no schema is used.
 */
import type { Answer, Event } from "../../domain/Inference.ts"
import type { ContentRefused } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, TokenLogprob, TokenUsage, ToolCall } from "../../domain/Job.ts"
import type { Native } from "../../domain/Source.ts"
import type { OwnEvent } from "../shared/FrameBatch.ts"
import { write } from "../shared/FrameBatch.ts"
import * as OpenAiNative from "./EncodeNative.ts"
import type { ChatCompletion, ErrorBody, Logprobs, Usage } from "./Schema.ts"

/** What all frames of one answer share. */
export interface Envelope {
  readonly id: string
  /** Seconds since 1970. */
  readonly created: number
  readonly model: string
  readonly includeUsage: boolean
  /** Otherwise an answer has only its first tool call. */
  readonly parallelToolCalls: boolean
}

const sumOf = (usages: ReadonlyArray<TokenUsage>, of: (usage: TokenUsage) => number): number =>
  usages.reduce((sum, usage) => sum + of(usage), 0)

/** The prompt counts once, however many answers it had. */
const usageOf = (usages: ReadonlyArray<TokenUsage>): Usage => {
  const prompt_tokens = usages[0]?.promptTokens ?? 0
  const completion_tokens = sumOf(usages, (usage) => usage.completionTokens)
  const cached_tokens = usages.reduce((least, usage) => Math.min(least, usage.cachedTokens), prompt_tokens)
  return {
    prompt_tokens,
    completion_tokens,
    total_tokens: prompt_tokens + completion_tokens,
    prompt_tokens_details: {
      cached_tokens,
      ...(usages.every((usage) => usage.cacheWriteTokens === undefined)
        ? {}
        : { cache_write_tokens: sumOf(usages, (usage) => usage.cacheWriteTokens ?? 0) })
    },
    ...(usages.every((usage) => usage.reasoningTokens === undefined)
      ? {}
      : { completion_tokens_details: { reasoning_tokens: sumOf(usages, (usage) => usage.reasoningTokens ?? 0) } })
  }
}

/** OpenAI's own figure for what is all but impossible: JSON has no infinity. */
const leastLogprob = -9999

const logprobOf = ({ bytes, logprob, token }: TokenLogprob) => ({
  token,
  logprob: Math.max(logprob, leastLogprob),
  bytes
})

const logprobsOf = (logprobs: ReadonlyArray<ChosenLogprob>): Logprobs => ({
  content: logprobs.map((chosen) => ({ ...logprobOf(chosen), top_logprobs: chosen.top.map(logprobOf) })),
  refusal: null
})

const toolCallOf = ({ arguments: text, id, name }: ToolCall) => ({
  id,
  type: "function" as const,
  function: { name, arguments: text }
})

const messageOf = (answer: Answer, parallelToolCalls: boolean): ChatCompletion["choices"][number]["message"] => {
  const { text, thoughts, toolCalls } = answer
  const sent = parallelToolCalls ? toolCalls : toolCalls.slice(0, 1)
  return {
    role: "assistant",
    content: text === "" && toolCalls.length > 0 ? null : text,
    ...(thoughts === undefined ? {} : { reasoning_content: thoughts }),
    refusal: null,
    ...(sent.length === 0 ? {} : { tool_calls: sent.map(toolCallOf) })
  }
}

/** The body of a refusal that a provider of the dialect has sent as an answer; undefined of any other. */
export const encodeRefusal = (envelope: Envelope, { answer }: ContentRefused): ChatCompletion | undefined =>
  OpenAiNative.answer(answer as ReadonlyArray<Native> | undefined, envelope, usageOf([]))

/** The body of an answer that is not streamed. */
export const encodeAnswers = (envelope: Envelope, answers: ReadonlyArray<Answer>): ChatCompletion =>
  (answers.length === 1
    ? OpenAiNative.answer(answers[0]!.native, envelope, usageOf([answers[0]!.usage]))
    : undefined) ?? encode(envelope, answers)

const encode = (
  { created, id, model, parallelToolCalls }: Envelope,
  answers: ReadonlyArray<Answer>
): ChatCompletion => ({
  id,
  object: "chat.completion",
  created,
  model,
  choices: answers.map((answer, index) => ({
    index,
    message: messageOf(answer, parallelToolCalls),
    logprobs: answer.logprobs === undefined ? null : logprobsOf(answer.logprobs),
    finish_reason: answer.finishReason,
    ...(answer.stop === undefined ? {} : { stop_reason: answer.stop })
  })),
  usage: usageOf(answers.map((answer) => answer.usage))
})

const frame = (data: string): string => `data: ${data}\n\n`

/** An error in the middle of a stream, which then ends without `[DONE]`. */
export const encodeError = (body: ErrorBody): string => frame(JSON.stringify(body))

/** Writes a stream's frames; what all frames share is written once. */
export interface FrameEncoder {
  /** Frames for the events of one choice; texts that came together leave in one frame. */
  readonly events: (choice: number, events: ReadonlyArray<Event>) => string
  /** The last frames, after all choices have finished. */
  readonly end: () => string
  /** All frames of a refusal that a provider of the dialect has sent as an answer; undefined of any other. */
  readonly refuse: (reason: ContentRefused) => string | undefined
}

type CallEvent = Extract<Event, { readonly type: "tool_call" }>

/** The first piece of a call has its id and name. */
const callDelta = ({ arguments: text, id, index, name }: CallEvent): string => {
  const begin = id === undefined ? "" : `"id":${JSON.stringify(id)},"type":"function",`
  const named = name === undefined ? "" : `"name":${JSON.stringify(name)},`
  return `{"tool_calls":[{"index":${index},${begin}"function":{${named}"arguments":${JSON.stringify(text)}}}]}`
}

/** The finish reason, and after it the stop sequence as vLLM names it. */
const endOf = ({ reason, stop }: Extract<Event, { readonly type: "finish" }>): string =>
  JSON.stringify(reason) + (stop === undefined ? "" : `,"stop_reason":${JSON.stringify(stop)}`)

/** From here on it is another deployment's text. */
const handoffOf = (deployment: string): string => `,"troupe":{"handoff":{"deployment":${JSON.stringify(deployment)}}}`

/** One choice's frames. */
const makeChoice = (
  head: string,
  tail: string,
  parallelToolCalls: boolean,
  nativeOf: (native: Native) => string | undefined
) => {
  const chunk = (delta: string, logprobs = "null", reason = "null", more = ""): string =>
    `data: ${head}${delta},"logprobs":${logprobs},"finish_reason":${reason}}${tail}${more}}\n\n`
  let begun = false
  let native = false

  const begin = (first: OwnEvent): string => {
    if (begun) return ""
    begun = true
    return chunk(`{"role":"assistant","content":${first.type === "tool_call" ? "null" : "\"\""}}`)
  }
  const frameOf = (event: OwnEvent): string => {
    if (event.type === "finish") return chunk("{}", "null", endOf(event))
    if (event.type === "tool_call") return chunk(callDelta(event))
    if (event.type === "handoff") return chunk("{}", "null", "null", handoffOf(event.deployment))
    if (event.text === "") return ""
    if (event.type === "thoughts") return chunk(`{"reasoning_content":${JSON.stringify(event.text)}}`)
    const logprobs = event.logprobs === undefined ? "null" : JSON.stringify(logprobsOf(event.logprobs))
    return chunk(`{"content":${JSON.stringify(event.text)}}`, logprobs)
  }

  /** Whether the provider's own chunks already have the content. */
  const isSaid = (event: OwnEvent): boolean => {
    if (event.type === "handoff") native = false
    return native || (event.type === "tool_call" && event.index > 0 && !parallelToolCalls)
  }

  const nativeFrames = (part: Native): string => {
    const chunk = nativeOf(part)
    native ||= chunk !== undefined
    begun ||= native
    return chunk ?? ""
  }

  const writer = { begin, frameOf, isSaid, nativeFrames }
  return (events: ReadonlyArray<Event>): string => write(writer, events)
}

/** A chunk of usage alone. */
const isUsage = ({ body: { choices, usage } }: Native): boolean =>
  (usage ?? null) !== null && Array.isArray(choices) && choices.length === 0

/** Of several choices each is another answer. */
const nothingNative = (): undefined => undefined

/** @param count choices of the answer; default 1 */
export const makeFrameEncoder = (envelope: Envelope, count = 1): FrameEncoder => {
  const { created, id, includeUsage, model, parallelToolCalls } = envelope
  let nativeUsage: string | undefined
  const nativeOf = (native: Native): string | undefined => {
    const chunk = OpenAiNative.chunk(native, envelope)
    if (chunk === undefined) return undefined
    const usage = native.body["usage"] ?? null
    if (usage !== null) {
      // Some hosts have it in the last chunk of the text.
      nativeUsage = native.form === "whole" ? frame(JSON.stringify({ ...chunk, choices: [], usage })) : ""
    }
    return frame(JSON.stringify(chunk))
  }
  const head = `{"id":${JSON.stringify(id)},"object":"chat.completion.chunk","created":${created},` +
    `"model":${JSON.stringify(model)},"choices":[`
  const tail = includeUsage ? "],\"usage\":null" : "]"
  const choices: Array<ReturnType<typeof makeChoice>> = []
  const usages: Array<TokenUsage> = []

  return {
    events(choice, events) {
      const last = events.at(-1)
      if (last?.type === "finish") {
        usages.push(last.usage)
        if (last.native !== undefined && count === 1) nativeUsage = nativeOf(last.native)
      }
      choices[choice] ??= makeChoice(
        `${head}{"index":${choice},"delta":`,
        tail,
        parallelToolCalls,
        count === 1 ? nativeOf : nothingNative
      )
      return choices[choice](events)
    },
    end() {
      const usage = includeUsage
        ? nativeUsage ?? frame(`${head}],"usage":${JSON.stringify(usageOf(usages))}}`)
        : ""
      return `${usage}data: [DONE]\n\n`
    },
    refuse({ answer = [] }) {
      const frames = (answer as ReadonlyArray<Native>).flatMap((part) =>
        includeUsage || !isUsage(part) ? nativeOf(part) ?? [] : []
      )
      return frames.length === 0 ? undefined : `${frames.join("")}data: [DONE]\n\n`
    }
  }
}
