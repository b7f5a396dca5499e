/**
 * A kept answer: its events, as they are replayed. Pure.
 *
 * **Details**
 *
 * The answer of a stream is kept as its events, a buffered one as the events of the whole answer, so that each can be
 * replayed as the other. What a provider of the caller's dialect sent is kept with it: fields such as `system_fingerprint`
 * are those of the answer that was generated; the id is the one of the request that is answered.
 */
import { isUsageAlone, withCachedUsage } from "../../dialects/shared/CachedUsage.ts"
import * as ExactNumber from "../../domain/ExactNumber.ts"
import type { Answer, AnsweredBy, Event } from "../../domain/Inference.ts"
import type { TokenUsage } from "../../domain/Job.ts"
import type { SignedReasoning } from "../../domain/Message.ts"

/** An answer that is kept. */
export interface CachedAnswer {
  readonly model: string
  readonly tenant: string
  /** The deployment that generated it. */
  readonly deployment: string
  /** When its generation began, ms since 1970. */
  readonly at: number
  /** How long it is given after that. */
  readonly ttlMs: number
  /** The last one is `finish`. The prompt's tokens count as cached. */
  readonly events: ReadonlyArray<Event>
}

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** Usage of an answer that costs no computation: every token of the prompt is cached, and none is written. */
export const cachedUsage = (
  { cacheWriteHourTokens: _, cacheWriteTokens: __, ...usage }: TokenUsage
): TokenUsage => ({
  ...usage,
  cachedTokens: usage.promptTokens
})

const isSigned = (event: Event): boolean => event.type === "thoughts" && event.signed !== undefined

const joined = (one: Event | undefined, two: Event): Event | undefined => {
  if (one === undefined || isSigned(one) || isSigned(two)) return undefined
  if (one.type === "thoughts" && two.type === "thoughts") return { ...two, text: one.text + two.text }
  return one.type === "text" && two.type === "text" && one.logprobs === undefined && two.logprobs === undefined
    ? { ...two, text: one.text + two.text }
    : undefined
}

const replayed = (event: Event): Event => {
  switch (event.type) {
    case "native":
      return { ...event, native: withCachedUsage(event.native) }
    case "finish":
      return {
        ...event,
        usage: cachedUsage(event.usage),
        ...(event.native === undefined ? {} : { native: withCachedUsage(event.native) })
      }
    case "handoff":
      return event
    default:
      return { ...event, tokens: 0 }
  }
}

/** The events of a kept answer: texts that follow each other are one event, and nothing counts as generated. */
export const replayOf = (events: Iterable<Event>): ReadonlyArray<Event> => {
  const kept: Array<Event> = []
  for (const event of events) {
    const next = replayed(event)
    const both = joined(kept.at(-1), next)
    if (both === undefined) kept.push(next)
    else kept[kept.length - 1] = both
  }
  return kept
}

const thoughtsOf = (
  thoughts: string | undefined,
  reasoning: ReadonlyArray<SignedReasoning> | undefined
): ReadonlyArray<Event> => {
  if (reasoning === undefined) return thoughts === undefined ? [] : [{ type: "thoughts", text: thoughts, tokens: 0 }]
  return reasoning.flatMap((signed): ReadonlyArray<Event> => [
    ...(signed.type === "thinking" && signed.thinking !== ""
      ? [{ type: "thoughts" as const, text: signed.thinking, tokens: 0 }]
      : []),
    { type: "thoughts", text: "", tokens: 0, signed }
  ])
}

/** The events of a buffered answer. */
export const eventsOf = (
  { finishReason, logprobs, native = [], reasoning, stop, text, thoughts, toolCalls, usage }: Omit<
    Answer,
    keyof AnsweredBy
  >
): ReadonlyArray<Event> => {
  const last = native.at(-1)
  const ofUsage = last !== undefined && isUsageAlone(last) ? last : undefined
  const finish: Mutable<Extract<Event, { type: "finish" }>> = { type: "finish", reason: finishReason, usage }
  if (stop !== undefined) finish.stop = stop
  if (ofUsage !== undefined) finish.native = ofUsage
  return [
    ...native.filter((part) => part !== ofUsage).map((part) => ({
      type: "native" as const,
      native: part,
      content: true,
      tokens: 0 as const
    })),
    ...thoughtsOf(thoughts, reasoning),
    ...(text === "" && logprobs === undefined
      ? []
      : [{ type: "text" as const, text, tokens: 0, ...(logprobs === undefined ? {} : { logprobs }) }]),
    ...toolCalls.map((call, index) => ({ type: "tool_call" as const, index, ...call, tokens: 0 })),
    finish
  ]
}

/** The version of the text: another one is not read. */
const version = 1

/** The answer as text. */
export const encode = (answer: CachedAnswer): string => JSON.stringify({ version, ...answer })

const hasStrings = (value: Readonly<Record<string, unknown>>, names: ReadonlyArray<string>): boolean =>
  names.every((name) => typeof value[name] === "string")

const isRecord = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

const isNative = (value: unknown): boolean =>
  isRecord(value) && hasStrings(value, ["dialect", "form"]) && isRecord(value["body"])

const usageNames = ["promptTokens", "completionTokens", "cachedTokens"] as const

const isUsage = (value: unknown): boolean =>
  isRecord(value) && usageNames.every((name) => typeof value[name] === "number")

const eventChecks: Readonly<Record<string, (event: Readonly<Record<string, unknown>>) => boolean>> = {
  text: (event) => hasStrings(event, ["text"]),
  thoughts: (event) => hasStrings(event, ["text"]),
  tool_call: (event) => hasStrings(event, ["arguments"]) && Number.isInteger(event["index"]),
  native: (event) => isNative(event["native"]),
  finish: (event) =>
    hasStrings(event, ["reason"]) && isUsage(event["usage"]) &&
    (event["native"] === undefined || isNative(event["native"]))
}

const isEvent = (value: unknown): boolean =>
  isRecord(value) && typeof value["type"] === "string" && Object.hasOwn(eventChecks, value["type"]) &&
  eventChecks[value["type"]]!(value)

const isAnswer = (value: unknown): value is CachedAnswer & { readonly version: unknown } => {
  if (!isRecord(value) || value["version"] !== version) return false
  const { at, events, ttlMs } = value
  return hasStrings(value, ["model", "tenant", "deployment"]) && typeof at === "number" && typeof ttlMs === "number" &&
    Array.isArray(events) && events.every(isEvent) && (events.at(-1) as Event | undefined)?.type === "finish"
}

/** The answer of a text; undefined if the text is of no answer, or of another version. */
export const decode = (text: string): CachedAnswer | undefined => {
  try {
    const parsed = ExactNumber.parse(text)
    if (!isAnswer(parsed)) return undefined
    const { version: _, ...answer } = parsed
    return answer
  } catch {
    return undefined
  }
}
