/**
 * An answer that goes on at another deployment where the one that gives it fails in its middle.
 *
 * **Details**
 *
 * Only plain text is continued: no tool call, thought, audio or other content has been sent, no format or
 * log-probabilities are asked for, and there are tokens left. `services/resilience/AttemptMachine` decides which
 * deployment may continue. A reader gets a `handoff` exactly between the two texts, and at the end the tokens of both.
 */
import type { Cause } from "effect"
import { Effect, Pull } from "effect"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { choicesOf } from "../../domain/Source.ts"
import type { Committed, Start } from "./Pipeline.ts"
import type { Progress } from "./RequestTelemetry.ts"
import * as Operation from "./RequestTelemetry.ts"

type Events = readonly [Event, ...Array<Event>]
export type EventsPull = Pull.Pull<Events, InferenceError>

/** An answer that has begun. */
export interface Beginning {
  readonly first: Events
  readonly rest: EventsPull
}

/** What was pulled already, and then the rest. */
export const whole = ({ first, rest }: Beginning): EventsPull => {
  let isFirst = true
  return Effect.suspend(() => {
    if (!isFirst) return rest
    isFirst = false
    return Effect.succeed(first)
  })
}

/** What a reader has of an answer. */
interface Said {
  text: string
  tokens: number
  /** Nothing but text. */
  isPlain: boolean
  /** Parts of it came as the provider sent them. */
  isBegun: boolean
  /** Tokens of those before the last handoff. */
  carried: number
}

export const nothing = (): Said => ({ text: "", tokens: 0, isPlain: true, isBegun: false, carried: 0 })

/** What an attempt is asked, and what of its answer the text so far has already. */
export interface Asked {
  readonly generation: Generation
  readonly space: string
}

/**
 * What the next attempt is asked, after what was said. White space at its end goes with the words after it in most
 * vocabularies, and some providers take none: so it is said anew.
 */
export const asked = (
  { assistantPrefix = "", ...asked }: Generation,
  { lowPriority, maxTokens }: Start,
  { isBegun, text, tokens }: Said
): Asked => {
  const all = assistantPrefix + text
  const kept = all.trimEnd()
  return {
    generation: {
      ...asked,
      // A plan may ask for fewer than were said already.
      ...(maxTokens === undefined ? {} : { maxTokens: Math.max(1, maxTokens - tokens) }),
      ...(lowPriority ? { standing: { ...asked.standing, priority: "low" as const } } : {}),
      ...(kept === "" ? {} : { assistantPrefix: kept }),
      ...(text !== "" || isBegun ? { resumed: true } : {})
    },
    space: all.slice(kept.length)
  }
}

/** Leaves out as much of the space as an answer begins with. */
export const makeJoin = (space: string): (events: Events) => Events => {
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

const isForced = ({ toolChoice }: Generation): boolean => toolChoice === "required" || typeof toolChoice === "object"

/** Whether an answer to this may be gone on with, as long as it is plain. */
export const isPossible = (generation: Generation): boolean =>
  generation.format === undefined && generation.logprobs === undefined && !isForced(generation) &&
  choicesOf(generation) === 1

const hasRoom = ({ maxTokens = Number.POSITIVE_INFINITY }: Generation, { tokens }: Said): boolean => tokens < maxTokens

/** Takes down what a reader gets, and tells the tokens of all at the end. */
const hear = (said: Said, event: Event): Event => {
  switch (event.type) {
    case "text":
      said.text += event.text
      said.tokens += event.tokens
      return event
    case "thoughts":
    case "tool_call":
      said.isPlain = false
      return event
    case "native":
      said.isPlain &&= !event.native.hasMore
      said.isBegun = true
      return event
    case "finish": {
      const { usage } = event
      return said.carried === 0
        ? event
        : { ...event, usage: { ...usage, completionTokens: said.carried + usage.completionTokens } }
    }
    case "handoff":
      return event
  }
}

/** The answer, from whoever goes on with it. */
export const over = (
  committed: Committed<Beginning>,
  generation: Generation,
  said: Said,
  progress: Progress
): EventsPull => {
  let current = committed
  let pull = whole(committed.value)

  const goOn = (cause: Cause.Cause<InferenceError>): Effect.Effect<Events, InferenceError> => {
    // Whether another follows or not, these stand.
    progress.before = said.tokens
    progress.tally = Operation.tally(progress.tally.server)
    progress.failure = undefined
    return Effect.map(Operation.noting(progress)(current.resume(cause)), (next) => {
      current = next
      pull = next.value.rest
      said.carried = said.tokens
      return [{ type: "handoff", deployment: next.by.deployment }, ...next.value.first]
    })
  }
  const pulled: EventsPull = Effect.catchCause(
    Effect.suspend(() => pull),
    (cause): EventsPull =>
      Pull.isDoneCause(cause) || isCancellation(cause) || !said.isPlain || !hasRoom(generation, said)
        ? Effect.failCause(cause)
        : goOn(cause as Cause.Cause<InferenceError>)
  )
  return Effect.map(pulled, ([first, ...others]) => [hear(said, first), ...others.map((event) => hear(said, event))])
}
