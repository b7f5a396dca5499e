/** A complete answer that is to be compared with another, from its events or as a whole, with what it has taken. */
import type { Clock } from "effect"
import type { AnsweredBy, AnswerSink, Event } from "../../domain/Inference.ts"
import * as Time from "../../domain/Time.ts"
import type { Taken } from "../rollout/Shadow.ts"
import type { Response } from "./DirectAnswer.ts"
import { AnswerBuilder } from "./DirectAnswer.ts"

/** Characters of an answer that is compared; the rest of a longer one is not kept. */
const mostCharacters = 262_144

const lengthOf = (event: Event): number => {
  if (event.type === "text" || event.type === "thoughts") return event.text.length
  return event.type === "tool_call" ? event.arguments.length : 0
}

export class CollectedAnswer {
  readonly #clock: Clock.Clock
  readonly #startedAt: number
  readonly #builder = new AnswerBuilder()
  #characters = 0
  #firstTokenMs: number | undefined
  #isComplete = false
  #response: Response | undefined
  #pausedAt: number | undefined
  #pausedMs = 0
  /** The deployment that answers. */
  deployment: string | undefined

  constructor(clock: Clock.Clock) {
    this.#clock = clock
    this.#startedAt = this.#now()
  }

  /** Whether it is too long to be compared. */
  get isTooLong(): boolean {
    return this.#characters > mostCharacters
  }

  /** Undefined unless it is complete. */
  get response(): Response | undefined {
    if (!this.#isComplete || this.isTooLong) return undefined
    return this.#response ??= this.#builder.end()
  }

  /** @param endedAt monotonic ms */
  taken({ usage: { completionTokens, promptTokens } }: Response, endedAt: number): Taken {
    return {
      tookMs: endedAt - this.#startedAt - this.#pausedMs,
      firstTokenMs: this.#firstTokenMs,
      promptTokens,
      completionTokens
    }
  }

  /** Takes an answer as a whole. */
  whole(response: Response & Pick<AnsweredBy, "deployment">): void {
    this.deployment = response.deployment
    this.#characters = response.text.length
    this.#response = response
    this.#isComplete = true
  }

  events(events: ReadonlyArray<Event>): void {
    this.#firstTokenMs ??= this.#now() - this.#startedAt
    for (const event of events) {
      if (event.type === "finish") this.#isComplete = true
      this.#characters += lengthOf(event)
      // Nothing more is kept than is compared; its end is.
      if (event.type !== "native" && !this.isTooLong) this.#builder.add(event)
    }
  }

  /** Its reader is slow: that takes no time of the deployment's. */
  paused(): void {
    this.#pausedAt ??= this.#now()
  }

  resumed(): void {
    if (this.#pausedAt !== undefined) this.#pausedMs += this.#now() - this.#pausedAt
    this.#pausedAt = undefined
  }

  #now(): number {
    return Time.nowOf(this.#clock)
  }
}

/** Collects an answer that is not passed on. */
export class CollectingSink implements AnswerSink {
  readonly #answer: CollectedAnswer

  constructor(answer: CollectedAnswer) {
    this.#answer = answer
  }

  begin({ deployment }: AnsweredBy): void {
    this.#answer.deployment = deployment
  }

  events(events: ReadonlyArray<Event>): boolean {
    this.#answer.events(events)
    return true
  }

  whenDrained(callback: () => void): void {
    callback()
  }
}

/** Collects an answer on its way to its caller. */
export class ObservingSink implements AnswerSink {
  readonly #sink: AnswerSink
  readonly #answer: CollectedAnswer

  constructor(sink: AnswerSink, answer: CollectedAnswer) {
    this.#sink = sink
    this.#answer = answer
  }

  begin(by: AnsweredBy): void {
    this.#answer.deployment = by.deployment
    this.#sink.begin(by)
  }

  events(events: ReadonlyArray<Event>): boolean {
    const isFast = this.#sink.events(events)
    this.#answer.events(events)
    return isFast
  }

  whenDrained(callback: () => void): void {
    this.#answer.paused()
    this.#sink.whenDrained(() => {
      this.#answer.resumed()
      callback()
    })
  }
}
