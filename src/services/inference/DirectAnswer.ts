/** Follows the first attempt of an answer, event by event and without a fiber, until something has to wait or fails. */
import { Cause, Effect, Pull, Stream } from "effect"
import type { Generation } from "../../domain/Generation.ts"
import type { Answer, AnsweredBy, AnswerSink, Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { ChosenLogprob, ToolCall } from "../../domain/Job.ts"
import type { SignedReasoning } from "../../domain/Message.ts"
import type { Native } from "../../domain/Source.ts"
import type { EventReceiver } from "../engines/Engine.ts"
import type { WinningAttempt } from "../resilience/AttemptDriver.ts"
import type { Rest } from "./AnswerPull.ts"
import { allEvents, deliverWinner, endOf, firstEvents, passOnRest, recordFailure } from "./AnswerPull.ts"
import type { Direct } from "./Pipeline.ts"
import { answeredByOf } from "./Pipeline.ts"
import type { RoutedRequest } from "./RequestTelemetry.ts"
import { count } from "./RequestTelemetry.ts"

type Mutable<A> = { -readonly [K in keyof A]: A[K] }
type CallEvent = Extract<Event, { type: "tool_call" }>
type FinishEvent = Extract<Event, { type: "finish" }>

/** A call with the next piece of its arguments. */
const callWith = (known: ToolCall | undefined, { arguments: piece, id = "", name = "" }: CallEvent): ToolCall => ({
  ...known ?? { id, name },
  arguments: (known?.arguments ?? "") + piece
})

export type Response = Omit<Answer, keyof AnsweredBy>

/** Builds a complete answer from its events. */
export class AnswerBuilder {
  #text = ""
  #thoughts = ""
  #reasoning: Array<SignedReasoning> | undefined
  #finish: FinishEvent | undefined
  #logprobs: Array<ChosenLogprob> | undefined
  #native: Array<Native> | undefined
  readonly #toolCalls: Array<ToolCall> = []

  add(event: Event): void {
    switch (event.type) {
      case "native":
        this.#addNative(event.native)
        return
      case "text":
        this.#text += event.text
        if (event.logprobs !== undefined) (this.#logprobs ??= []).push(...event.logprobs)
        return
      case "thoughts":
        this.#addThoughts(event)
        return
      case "tool_call":
        this.#toolCalls[event.index] = callWith(this.#toolCalls[event.index], event)
        return
      case "finish":
        this.#finish = event
        if (event.native !== undefined) this.#addNative(event.native)
    }
  }

  #addThoughts({ signed, text }: Extract<Event, { type: "thoughts" }>): void {
    this.#thoughts += text
    if (signed !== undefined) (this.#reasoning ??= []).push(signed)
  }

  #addNative(native: Native): void {
    ;(this.#native ??= []).push(native)
  }

  end(): Response {
    const { reason, stop, usage } = this.#finish!
    const response: Mutable<Response> = {
      text: this.#text,
      toolCalls: this.#toolCalls,
      finishReason: reason,
      usage
    }
    if (this.#thoughts !== "") response.thoughts = this.#thoughts
    if (this.#reasoning !== undefined) response.reasoning = this.#reasoning
    if (this.#logprobs !== undefined && this.#logprobs.length > 0) response.logprobs = this.#logprobs
    if (stop !== undefined) response.stop = stop
    if (this.#native !== undefined) response.native = this.#native
    return response
  }
}

export const makeAnswer = () => new AnswerBuilder()

export const answerOf = (winner: WinningAttempt<Response>): Answer => ({ ...winner.value, ...answeredByOf(winner) })

/** Ends the request with the answer of an effect. */
export type Resume<A> = (answer: Effect.Effect<A, InferenceError>) => void

/** Follows the first attempt of a buffered answer. */
export class Completion implements EventReceiver {
  readonly #generation: Generation
  readonly #resume: Resume<Answer>
  readonly #answer = new AnswerBuilder()
  #direct: Direct | undefined

  constructor(generation: Generation, resume: Resume<Answer>) {
    this.#generation = generation
    this.#resume = resume
  }

  follow(direct: Direct): Direct {
    this.#direct = direct
    return direct
  }

  events(events: ReadonlyArray<Event>): void {
    const { attempt } = this.#direct!
    attempt.received()
    // A buffered answer does not show when its first token was generated.
    if (this.#generation.buffered !== true || events.at(-1)?.type !== "finish") attempt.content()
    for (const event of count(attempt.stats, events)) this.#answer.add(event)
  }

  end(): void {
    const { attempt } = this.#direct!
    if (!attempt.stats.done) return this.rest(Stream.empty)
    const completed = Effect.succeed({ ...this.#answer.end(), ...this.#direct!.won() })
    const recorded = attempt.end()
    this.#resume(recorded === undefined ? completed : Effect.andThen(recorded, completed))
  }

  failed(error: InferenceError): void {
    this.rest(Stream.fail(error))
  }

  died(defect: unknown): void {
    this.rest(Stream.die(defect))
  }

  /** Goes on with the rest of this attempt, and with other deployments. */
  rest(rest: Rest): void {
    const generation = this.#generation
    this.#resume(Effect.scoped(Effect.map(
      this.#direct!.resume(allEvents(generation, makeAnswer), allEvents(generation, () => this.#answer, rest)),
      answerOf
    )))
  }
}

/** The sink of one answer that a receiver follows. */
class Delivery {
  readonly #sink: AnswerSink
  #isPaused = false
  hasBegun = false
  /** A method of the sink threw: no failure of the deployment's. */
  hasThrown = false

  constructor(sink: AnswerSink) {
    this.#sink = sink
  }

  /** Pauses the answer while the reader is slow. */
  pass(events: ReadonlyArray<Event>, direct: Direct): void {
    const isFirst = !this.hasBegun
    this.hasBegun = true
    this.hasThrown = true
    if (isFirst) this.#sink.begin(direct.won())
    if (!this.#sink.events(events) && !this.#isPaused) this.#pause(direct.attempt)
    this.hasThrown = false
  }

  #pause(attempt: Direct["attempt"]): void {
    this.#isPaused = true
    attempt.pause()
    this.#sink.whenDrained(() => {
      this.#isPaused = false
      attempt.resume()
    })
  }
}

/** Follows the first attempt of a streamed answer. */
export class DirectDelivery implements EventReceiver {
  readonly #sink: AnswerSink
  readonly #routed: RoutedRequest
  readonly #generation: Generation
  readonly #resume: Resume<void>
  readonly #delivery: Delivery
  #direct: Direct | undefined

  constructor(sink: AnswerSink, routed: RoutedRequest, generation: Generation, resume: Resume<void>) {
    this.#sink = sink
    this.#routed = routed
    this.#generation = generation
    this.#resume = resume
    this.#delivery = new Delivery(sink)
  }

  follow(direct: Direct): Direct {
    this.#direct = direct
    return direct
  }

  events(events: ReadonlyArray<Event>): void {
    const { attempt } = this.#direct!
    attempt.received()
    attempt.content()
    count(attempt.stats, events)
    this.#delivery.pass(events, this.#direct!)
  }

  end(): void {
    const { attempt } = this.#direct!
    if (attempt.stats.done) this.#resume(attempt.end() ?? Effect.void)
    else this.#end(Cause.done())
  }

  failed(error: InferenceError): void {
    this.#end(Effect.fail(error))
  }

  died(defect: unknown): void {
    this.#end(Effect.die(defect))
  }

  rest(events: Rest): void {
    if (!this.#delivery.hasBegun) return this.#goOn(events)
    // The usage, and the end of the connection.
    this.#resume(
      Effect.ensuring(
        passOnRest(this.#sink, this.#generation, this.#direct!.context(), this.#routed, events),
        this.#recorded()
      )
    )
  }

  /** Ends the attempt, unless it can go on elsewhere. */
  #end(ending: Effect.Effect<never, InferenceError | Cause.Done>): void {
    if (!this.#delivery.hasBegun) return this.#goOn(Stream.fromPull(Effect.succeed(ending)))
    const { attempt } = this.#direct!
    attempt.ended()
    const ended = this.#delivery.hasThrown
      ? ending
      : recordFailure(attempt.stats, this.#routed.state, Effect.catchCause(ending, (cause) => endOf(attempt, cause)))
    this.#resume(Effect.ensuring(Pull.catchDone(Effect.asVoid(ended), () => Effect.void), this.#recorded()))
  }

  /** Goes on with the rest of this attempt, and with other deployments. */
  #goOn(rest: Rest): void {
    const others = firstEvents(this.#generation, this.#routed.state)
    this.#resume(Effect.scoped(Effect.flatMap(
      this.#direct!.resume(others, firstEvents(this.#generation, this.#routed.state, undefined, rest)),
      deliverWinner(this.#sink, this.#routed)
    )))
  }

  #recorded(): Effect.Effect<unknown> {
    return Effect.suspend(() => this.#direct!.attempt.end() ?? Effect.void)
  }
}
