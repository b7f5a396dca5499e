/**
 * An answer that another deployment continues when its own fails in the middle.
 *
 * **Details**
 *
 * Only plain text is continued: no tool call, thought, audio or other content has been sent, the request asks for no format
 * and no log-probabilities, and tokens are left. `AttemptMachine` decides which deployment may continue. The stream has a
 * `handoff` event exactly between the two texts, and the usage at the end counts the tokens of both.
 */
import type { Cause } from "effect"
import { Effect, Pull } from "effect"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { choicesOf } from "../../domain/Source.ts"
import type { WinningAttempt } from "../resilience/AttemptDriver.ts"
import type { Start } from "../resilience/AttemptPlan.ts"
import type { RequestState } from "./RequestTelemetry.ts"
import * as RequestTelemetry from "./RequestTelemetry.ts"

type Events = readonly [Event, ...Array<Event>]
/** How the events of an attempt follow what was sent. */
export type Join = (events: Events) => Events
export type EventsPull = Pull.Pull<Events, InferenceError>

/** What the caller has received. */
export interface SentAnswer {
  text: string
  tokens: number
  /** It is nothing but text. */
  isPlain: boolean
  /** Parts of it were sent as the provider sent them. */
  hasNative: boolean
  /** Tokens before the last handoff. */
  handedOver: number
}

export const nothingSent = (): SentAnswer => ({
  text: "",
  tokens: 0,
  isPlain: true,
  hasNative: false,
  handedOver: 0
})

/** The assistant's text so far: the caller's prefix and what was sent. */
const textSoFar = ({ assistantPrefix = "" }: Generation, { text }: SentAnswer): string => assistantPrefix + text

/**
 * The generation of the next attempt, after what was sent. White space at the end of the text is left out: most vocabularies
 * join it with the next word, and some providers reject it. The answer repeats it.
 */
const generationAfter = (
  { assistantPrefix: _, ...generation }: Generation,
  { lowPriority, maxTokens }: Start,
  sent: SentAnswer,
  soFar: string
): Generation => {
  const prefix = soFar.trimEnd()
  return {
    ...generation,
    // The plan may ask for fewer tokens than were sent already.
    ...(maxTokens === undefined ? {} : { maxTokens: Math.max(1, maxTokens - sent.tokens) }),
    ...(lowPriority ? { caller: { ...generation.caller, priority: "low" as const } } : {}),
    ...(prefix === "" ? {} : { assistantPrefix: prefix }),
    ...(sent.text !== "" || sent.hasNative ? { resumed: true } : {})
  }
}

/** Removes from the beginning of an answer the white space that was sent already. */
const withoutRepeated = (space: string): Join => {
  let left = space
  const join = (event: Event): Event => {
    if (event.type !== "text" || left === "") return event
    const { text } = event
    let shared = 0
    while (shared < left.length && text[shared] === left[shared]) shared++
    left = shared === text.length ? left.slice(shared) : ""
    return shared === 0 ? event : { ...event, text: text.slice(shared) }
  }
  return ([first, ...others]) => [join(first), ...others.map(join)]
}

/** The generation of the next attempt, and how its events follow what was sent; undefined: unchanged. */
export const next = (
  generation: Generation,
  start: Start,
  sent = nothingSent()
): readonly [Generation, Join | undefined] => {
  const soFar = textSoFar(generation, sent)
  const space = soFar.slice(soFar.trimEnd().length)
  return [generationAfter(generation, start, sent, soFar), space === "" ? undefined : withoutRepeated(space)]
}

const isForced = ({ toolChoice }: Generation): boolean => toolChoice === "required" || typeof toolChoice === "object"

/** Whether an answer to this request may be continued, as long as it is plain text. */
export const isPossible = (generation: Generation): boolean =>
  generation.format === undefined && generation.logprobs === undefined && !isForced(generation) &&
  choicesOf(generation) === 1

const hasTokensLeft = ({ maxTokens = Number.POSITIVE_INFINITY }: Generation, { tokens }: SentAnswer): boolean =>
  tokens < maxTokens

/** Records an event that the caller gets; the usage of `finish` counts the tokens of all deployments. */
const record = (sent: SentAnswer, event: Event): Event => {
  switch (event.type) {
    case "text":
      sent.text += event.text
      sent.tokens += event.tokens
      return event
    case "thoughts":
    case "tool_call":
      sent.isPlain = false
      return event
    case "native":
      sent.isPlain &&= !event.native.hasMore
      sent.hasNative = true
      return event
    case "finish": {
      const { usage } = event
      return sent.handedOver === 0
        ? event
        : { ...event, usage: { ...usage, completionTokens: sent.handedOver + usage.completionTokens } }
    }
    case "handoff":
      return event
  }
}

/** The events of the winning attempt, and of those that continue its answer. */
export const continued = (
  winner: WinningAttempt<EventsPull>,
  generation: Generation,
  sent: SentAnswer,
  state: RequestState
): EventsPull => {
  let current = winner

  const resume = (cause: Cause.Cause<InferenceError>): EventsPull => {
    // These hold also if no attempt follows.
    state.earlierTokens = sent.tokens
    state.stats = RequestTelemetry.makeStats(state.stats.server)
    state.failure = undefined
    return Effect.flatMap(RequestTelemetry.recordFailure(state)(current.resume(cause)), (next) => {
      current = next
      sent.handedOver = sent.tokens
      return Effect.map(next.value, (events): Events => [{ type: "handoff", deployment: next.deployment }, ...events])
    })
  }
  const pulled: EventsPull = Effect.catchCause(
    Effect.suspend(() => current.value),
    (cause): EventsPull =>
      Pull.isDoneCause(cause) || isCancellation(cause) || !sent.isPlain || !hasTokensLeft(generation, sent)
        ? Effect.failCause(cause)
        : resume(cause as Cause.Cause<InferenceError>)
  )
  return Effect.map(
    pulled,
    ([first, ...others]) => [record(sent, first), ...others.map((event) => record(sent, event))]
  )
}
