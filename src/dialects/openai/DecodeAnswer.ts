/** Chat completions, streamed and whole, as events. Pure. */
import { Result } from "effect"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { ChosenLogprob, FinishReason, TokenLogprob } from "../../domain/Job.ts"
import { choicesOf, isNative } from "../../domain/Source.ts"
import { brief, cut, finishText, malformed, parse } from "../shared/ErrorMapping.ts"
import type { Fields } from "../shared/Json.ts"
import { at, countAt, fieldsOf, listAt, numbersOf, ownOf, textAt } from "../shared/Json.ts"
import type { DecodeResult, EventDecoder, Target } from "../shared/ProviderDialect.ts"
import type { ReportedUsage } from "../shared/TokenCounter.ts"
import { makeCounter } from "../shared/TokenCounter.ts"
import * as ToolCallAssembler from "../shared/ToolCallAssembler.ts"
import { isError } from "./DecodeError.ts"
import * as OpenAiNative from "./DecodeNative.ts"

const usageOf = (usage: unknown): ReportedUsage | undefined =>
  fieldsOf(usage) === undefined ? undefined : {
    promptTokens: countAt(usage, "prompt_tokens"),
    completionTokens: countAt(usage, "completion_tokens"),
    cachedTokens: countAt(usage, "prompt_tokens_details", "cached_tokens"),
    cacheWriteTokens: countAt(usage, "prompt_tokens_details", "cache_write_tokens"),
    reasoningTokens: countAt(usage, "completion_tokens_details", "reasoning_tokens")
  }

const logprobOf = (value: unknown): TokenLogprob | undefined => {
  const token = textAt(value, "token")
  const logprob = at(value, "logprob")
  if (token === undefined || typeof logprob !== "number") return undefined
  return { token, logprob, bytes: numbersOf(at(value, "bytes")) ?? [...Buffer.from(token)] }
}

const logprobsOf = (choice: Fields): ReadonlyArray<ChosenLogprob> =>
  listAt(choice, "logprobs", "content").flatMap((one) => {
    const chosen = logprobOf(one)
    const top = listAt(one, "top_logprobs").flatMap((other) => logprobOf(other) ?? [])
    return chosen === undefined ? [] : [{ ...chosen, top }]
  })

/** Finish reasons of OpenAI's dialect, and those that gateways to other models leave as they are. */
const finishes: Readonly<Record<string, FinishReason>> = {
  stop: "stop",
  length: "length",
  // Mistral's window is full.
  model_length: "length",
  max_tokens: "length",
  max_length: "length",
  model_context_window_exceeded: "length",
  tool_calls: "tool_calls",
  tool_use: "tool_calls",
  function_call: "tool_calls"
}

/** Refused by a content policy, also in Gemini's and Anthropic's words. */
const blocks = new Set(["content_filter", "refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii"])

/** Where the host could not go on, as OpenRouter and Mistral, DeepSeek, and vLLM say. */
const breaks = new Set(["error", "insufficient_system_resource", "abort"])

/** The first of the choices; another that nobody asked for is none of the answer. */
const ownChoice = (body: unknown): Fields | undefined =>
  fieldsOf(listAt(body, "choices").find((choice) => (countAt(choice, "index") ?? 0) === 0))

const refused = ({ deployment }: Target, detail: string): DecodeResult =>
  Result.fail(new InferenceError.ContentRefused({ deployment, detail }))

/** The text of a content; Mistral's models that think say theirs in parts. */
const contentOf = (content: unknown): string =>
  typeof content === "string"
    ? content
    : Array.isArray(content)
    ? content.map((part) => textAt(part, "type") === "text" ? textAt(part, "text") ?? "" : "").join("")
    : ""

const textsOf = (parts: ReadonlyArray<unknown>): string => parts.map((part) => textAt(part, "text") ?? "").join("")

/**
 * The reasoning in a message, as DeepSeek and llama-server have it, OpenRouter, Groq and vLLM, and Mistral. Empty where
 * it is encrypted, undefined where there is none.
 */
const thoughtsOf = (message: Fields): string | undefined => {
  const text = textAt(message, "reasoning_content") || textAt(message, "reasoning")
  if (text) return text
  const details = listAt(message, "reasoning_details")
  if (details.length > 0) return textsOf(details)
  const thinking = listAt(message, "content").filter((part) => textAt(part, "type") === "thinking")
  return thinking.length === 0 ? undefined : thinking.map((part) => textsOf(listAt(part, "thinking"))).join("")
}

/** The deltas of calls in a message; the legacy `function_call` where it has no others. */
const callDeltas = (message: Fields): ReadonlyArray<ToolCallAssembler.Delta> => {
  const calls = listAt(message, "tool_calls")
  const deltaOf = (call: unknown, called: unknown, position: number): ToolCallAssembler.Delta => ({
    // Without indexes, several calls of one delta are told apart by their order.
    place: countAt(call, "index") ?? (calls.length > 1 ? position : undefined),
    id: textAt(call, "id"),
    name: textAt(called, "name"),
    arguments: at(called, "arguments")
  })
  if (calls.length > 0) return calls.map((call, position) => deltaOf(call, at(call, "function"), position))
  const legacy = fieldsOf(message["function_call"])
  return legacy === undefined ? [] : [deltaOf({}, legacy, 0)]
}

/** Leaves out calls of custom tools, which only callers of the dialect know. */
const makeOthers = () => {
  /** Their places; what follows a call's first delta does not say its type. */
  const places = new Set<number>()
  return {
    without: (message: Fields): Fields => {
      const calls = listAt(message, "tool_calls")
      const left = calls.filter((call, position) => {
        const place = countAt(call, "index") ?? position
        if ((textAt(call, "type") ?? "function") !== "function") places.add(place)
        return !places.has(place)
      })
      return left.length === calls.length ? message : { ...message, tool_calls: left }
    }
  }
}

/** Whether the caller calls functions in the older way. */
const isLegacy = ({ source }: Generation): boolean => (source?.body["functions"] ?? null) !== null

/** The stop sequence that ended the answer, as vLLM and Troupe have it; other hosts have other words there. */
const stopOf = (
  { stop }: Generation,
  reason: FinishReason,
  given: string | undefined
): { readonly stop?: string } => reason === "stop" && given !== undefined && stop.includes(given) ? { stop: given } : {}

/** Some hosts say "tool_calls" where there is text alone, and "stop" where there are calls. */
const reasonOf = (finish: string, hasCalls: boolean, hasText: boolean): FinishReason => {
  const reason = ownOf(finishes, finish) ?? "stop"
  if (reason === "stop" && hasCalls) return "tool_calls"
  return reason === "tool_calls" && !hasCalls && hasText ? "stop" : reason
}

/** What a choice's message and its deltas say alike. */
const makeSpeaker = (generation: Generation, target: Target) => {
  const counter = makeCounter(generation)
  const calls = ToolCallAssembler.make(generation, counter.count)
  let refusal = ""
  let finish: string | undefined
  let stopReason: string | undefined
  let usage: ReportedUsage | undefined
  let hasText = false
  const others = makeOthers()

  const thoughtEvents = (message: Fields): ReadonlyArray<Event> => {
    const text = thoughtsOf(message)
    return text === undefined ? [] : [{ type: "thoughts", text, tokens: counter.count(text) }]
  }
  const textEvents = (choice: Fields, text: string): ReadonlyArray<Event> => {
    if (text === "") return []
    hasText = true
    const logprobs = generation.logprobs === undefined ? [] : logprobsOf(choice)
    return [{ type: "text", text, tokens: counter.count(text), ...(logprobs.length === 0 ? {} : { logprobs }) }]
  }
  return {
    /**
     * @param choice ignored after one with a finish reason
     * @param message the choice's own, or what is new of it
     */
    say: (choice: Fields, given: Fields): ReadonlyArray<Event> => {
      if (finish !== undefined) return []
      const message = others.without(given)
      refusal += textAt(message, "refusal") ?? ""
      finish = finishText(choice["finish_reason"])
      stopReason = textAt(choice, "stop_reason")
      const events = [...thoughtEvents(message), ...textEvents(choice, contentOf(message["content"]))]
      const called = callDeltas(message)
      return called.length > 0 ? [...events, ...called.flatMap(calls.push)] : events
    },
    count: (body: Fields) => {
      usage = usageOf(body["usage"]) ?? usage
    },
    end: (): DecodeResult => {
      if (finish === undefined || breaks.has(finish)) return Result.fail(cut(target))
      const isBegun = hasText || calls.size() > 0
      if (!isBegun && blocks.has(finish)) return refused(target, "its content filter ended the answer.")
      if (!isBegun && refusal !== "") return refused(target, brief(refusal))
      const held = calls.end()
      if (held === undefined) return Result.fail(malformed(target, "a tool call without a name"))
      const reason = blocks.has(finish) ? "content_filter" : reasonOf(finish, calls.size() > 0, hasText)
      const stop = stopOf(generation, reason, stopReason)
      return Result.succeed([...held, { type: "finish", reason, usage: counter.usage(usage), ...stop }])
    }
  }
}

/** What a provider says of an error in the middle of a stream, or with a status of success. */
export type InBand = (error: unknown, target: Target) => InferenceError.Reason

export const makeEvents = (inBand: InBand) => (generation: Generation, target: Target): EventDecoder => {
  const speaker = makeSpeaker(generation, target)
  const chunks = isNative(generation, target.options)
    ? OpenAiNative.makeChunks(isLegacy(generation), choicesOf(generation))
    : undefined
  const end = (): DecodeResult => chunks === undefined ? speaker.end() : chunks.end(speaker.end())
  return {
    push: ({ data, event }) => {
      if (data === "[DONE]") return end()
      const chunk = fieldsOf(parse(data))
      if (chunk === undefined) return Result.fail(malformed(target, "an event that is not a JSON object"))
      if (isError(chunk, event)) return Result.fail(inBand(chunk, target))
      speaker.count(chunk)
      // Azure begins with a chunk without choices, and usage comes in one.
      const choice = ownChoice(chunk)
      // OpenRouter's errors of one choice.
      if (choice !== undefined && isError(choice)) return Result.fail(inBand(choice, target))
      const events = choice === undefined ? [] : speaker.say(choice, fieldsOf(choice["delta"]) ?? {})
      return Result.succeed(chunks === undefined ? events : chunks.push(chunk, choice, events))
    },
    end
  }
}

export const makeWhole = (inBand: InBand) => (body: unknown, generation: Generation, target: Target): DecodeResult => {
  const answer = fieldsOf(body)
  if (answer !== undefined && isError(answer)) return Result.fail(inBand(answer, target))
  const choice = ownChoice(body)
  if (choice !== undefined && isError(choice)) return Result.fail(inBand(choice, target))
  const message = fieldsOf(choice?.["message"])
  if (answer === undefined || choice === undefined || message === undefined) {
    return Result.fail(malformed(target, "no `choices[0].message`"))
  }
  const speaker = makeSpeaker(generation, target)
  speaker.count(answer)
  const events = speaker.say(choice, message)
  const told = Result.map(speaker.end(), (finish) => [...events, ...finish])
  return isNative(generation, target.options)
    ? OpenAiNative.whole(answer, choice, told, isLegacy(generation), choicesOf(generation))
    : told
}
