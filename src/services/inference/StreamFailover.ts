/**
 * An answer that another deployment continues when its own fails in the middle.
 *
 * **Details**
 *
 * Only plain text is continued: no tool call, thought, audio or other content has been sent, the request asks for no format
 * and no log-probabilities, its prompt is no tokens, and tokens are left. `AttemptMachine` decides which deployment may continue; its text is held back
 * until `Continuation` is certain where it follows, else the attempt fails. The stream has a `handoff` event exactly between
 * the two texts, and the usage at the end counts the tokens of both.
 */
import type { Cause } from "effect"
import { Effect, Pull } from "effect"
import { textAt } from "../../dialects/shared/Json.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { make as makeError, UpstreamFailed } from "../../domain/InferenceError.ts"
import { textOf } from "../../domain/Message.ts"
import { providerKindOf } from "../../domain/ProviderKind.ts"
import { choicesOf } from "../../domain/Source.ts"
import { languageModel } from "../engines/LanguageModelKind.ts"
import type { WinningAttempt } from "../resilience/AttemptDriver.ts"
import type { Start } from "../resilience/AttemptPlan.ts"
import type { Reading } from "./Continuation.ts"
import { Continuation, prefixOf } from "./Continuation.ts"
import type { RequestState } from "./RequestTelemetry.ts"
import * as RequestTelemetry from "./RequestTelemetry.ts"

type Events = readonly [Event, ...Array<Event>]
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
  /** How the text of the latest attempt follows. */
  join: Join | undefined
}

export const nothingSent = (): SentAnswer => ({
  text: "",
  tokens: 0,
  isPlain: true,
  hasNative: false,
  handedOver: 0,
  join: undefined
})

/** The assistant's text so far: the caller's prefix and what was sent. */
const textSoFar = ({ assistantPrefix = "" }: Generation, { text }: SentAnswer): string => assistantPrefix + text

/** How a generation has the text that it follows: at the end of a text completion's prompt, else as the assistant's. */
const begunWith = ({ completion, messages }: Generation, prefix: string): Partial<Generation> => {
  const [prompt, ...suffix] = messages
  return completion === undefined || prompt === undefined
    ? { assistantPrefix: prefix }
    : { messages: [{ role: "user", content: textOf(prompt.content) + prefix }, ...suffix] }
}

/**
 * The generation of the next attempt, after what was sent. White space at the end of the text is left out: most vocabularies
 * join it with the next word, and some providers reject it. The answer repeats it.
 */
const generationAfter = (
  { assistantPrefix: _, ...generation }: Generation,
  { lowPriority, maxTokens }: Start,
  sent: SentAnswer,
  soFar: string,
  reading: Reading
): Generation => {
  const prefix = prefixOf(soFar)
  // A model that may start over needs the tokens of the whole answer.
  const spent = reading === "instructed" ? 0 : sent.tokens
  return {
    ...generation,
    // The plan may ask for fewer tokens than were sent already.
    ...(maxTokens === undefined ? {} : { maxTokens: Math.max(1, maxTokens - spent) }),
    ...(lowPriority ? { caller: { ...generation.caller, priority: "low" as const } } : {}),
    ...(prefix === "" ? {} : begunWith(generation, prefix)),
    ...(sent.text !== "" || sent.hasNative ? { resumed: true } : {})
  }
}

type TextEvent = Extract<Event, { readonly type: "text" }>

/** How the events of an attempt follow what was sent. */
export class Join {
  readonly #continuation: Continuation
  /** Whether thoughts are left out: the answer has none before. */
  readonly #isResumed: boolean
  /** Of the text that is held back. */
  #heldTokens = 0
  #heldLength = 0
  /** Tokens of text that was sent before. */
  repeatedTokens = 0

  constructor(soFar: string, reading: Reading, isResumed: boolean) {
    this.#continuation = new Continuation(soFar, reading)
    this.#isResumed = isResumed
  }

  /** The text does not follow. */
  get hasDiverged(): boolean {
    return this.#continuation.hasDiverged
  }

  /** The text is the whole answer. */
  get startsOver(): boolean {
    return this.#continuation.startsOver
  }

  /** The events to be passed on now. */
  follow(events: ReadonlyArray<Event>): ReadonlyArray<Event> {
    return events.flatMap((event) => {
      switch (event.type) {
        case "text":
          return this.#follow(event)
        case "thoughts":
          return this.#isResumed ? [] : event
        default:
          return [...this.#end(), event]
      }
    })
  }

  #follow(event: TextEvent): ReadonlyArray<Event> {
    const wasDeciding = this.#continuation.isDeciding
    const text = this.#continuation.push(event.text)
    if (!wasDeciding) return [text === event.text ? event : { ...event, text }]
    this.#heldTokens += event.tokens
    this.#heldLength += event.text.length
    return this.#continuation.isDeciding ? [] : [this.#release(text)]
  }

  /** Before other content, or the end. */
  #end(): ReadonlyArray<Event> {
    const text = this.#continuation.end()
    return text === "" ? [] : [this.#release(text)]
  }

  #release(text: string): Event {
    const share = this.#heldLength === 0 ? 1 : text.length / this.#heldLength
    const tokens = Math.ceil(this.#heldTokens * share)
    this.repeatedTokens += this.#heldTokens - tokens
    this.#heldTokens = 0
    this.#heldLength = 0
    return { type: "text", text, tokens }
  }
}

/** How a deployment reads the text so far. */
const readingOf = ({ options }: Deployment, { completion, source }: Generation): Reading => {
  // It generates after a prompt that ends in the text.
  if (completion !== undefined) return "exact"
  if (!isRemote(options)) return options.engine === languageModel.name ? "instructed" : "exact"
  const { prefixModels } = providerKindOf(options.provider)
  // A model of Anthropic's that thinks does not read an assistant's last message.
  const thinks = (textAt(source?.body, "thinking", "type") ?? "disabled") !== "disabled"
  return prefixModels?.test(options.model) === true && !thinks ? "prefix" : "instructed"
}

/** The generation of the next attempt, and how its events follow what was sent; undefined: unchanged. */
export const next = (
  generation: Generation,
  start: Start,
  deployment: Deployment,
  sent = nothingSent()
): readonly [Generation, Join | undefined] => {
  const soFar = textSoFar(generation, sent)
  const isResumed = sent.text !== ""
  const reading = isResumed ? readingOf(deployment, generation) : "exact"
  const after = generationAfter(generation, start, sent, soFar, reading)
  sent.join = soFar === "" ? undefined : new Join(soFar, reading, isResumed)
  return [after, sent.join]
}

/** The failure of an attempt whose text does not follow what was sent. */
export const diverged = ({ id }: Deployment): InferenceError =>
  makeError(
    new UpstreamFailed({
      deployment: id,
      kind: "diverged",
      detail: "its text does not follow the interrupted answer."
    })
  )

const isForced = ({ toolChoice }: Generation): boolean => toolChoice === "required" || typeof toolChoice === "object"

/** A prompt of tokens has no text to go on from, and one that the answer repeats would be there twice. */
const isWithoutText = ({ completion }: Generation): boolean =>
  completion?.tokens !== undefined || completion?.echo === true

/** Whether an answer to this request may be continued, as long as it is plain text. */
export const isPossible = (generation: Generation): boolean =>
  !isWithoutText(generation) && generation.format === undefined && generation.logprobs === undefined &&
  !isForced(generation) &&
  choicesOf(generation) === 1

const hasTokensLeft = ({ maxTokens = Number.POSITIVE_INFINITY }: Generation, { tokens }: SentAnswer): boolean =>
  tokens < maxTokens

type FinishEvent = Extract<Event, { readonly type: "finish" }>

/** The end of an answer; its usage counts the tokens of the whole text. */
const withAllTokens = ({ handedOver, join }: SentAnswer, event: FinishEvent): FinishEvent => {
  const { usage } = event
  if (handedOver === 0 || join === undefined || join.startsOver) return event
  const own = Math.max(0, usage.completionTokens - join.repeatedTokens)
  return { ...event, usage: { ...usage, completionTokens: handedOver + own } }
}

/** Records an event that the caller gets. */
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
    case "finish":
      return withAllTokens(sent, event)
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
