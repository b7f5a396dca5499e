/** The ways in which a request follows a flight: as a sink is ready, as a stream is pulled, and to the end. */
import { Cause, Effect, Exit } from "effect"
import type { Pull } from "effect"
import type { NonEmptyReadonlyArray } from "effect/Array"
import type { Answer, AnsweredBy, AnswerSink, Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Ending, Flight, Reader } from "./Flight.ts"

export type Resume<A> = (answer: Effect.Effect<A, InferenceError>) => void

/** Builds a complete answer from its events. */
export interface AnswerBuilder {
  readonly add: (event: Event) => void
  readonly end: () => Omit<Answer, keyof AnsweredBy>
}

/** What a flight is to one of its requests. */
export interface Passenger {
  /** The answer as this request reports it. */
  readonly answeredBy: () => AnsweredBy
  /** The end of the flight as that of this request. */
  readonly endOf: (ending: Ending) => Exit.Exit<unknown, InferenceError>
}

/** Gives the events to a sink, while it is not slow. */
export class SinkReader implements Reader {
  position = 0
  isPaused = false
  readonly #flight: Flight
  readonly #sink: AnswerSink
  readonly #passenger: Passenger
  readonly #resume: Resume<void>
  #isOver = false

  constructor(flight: Flight, passenger: Passenger, sink: AnswerSink, resume: Resume<void>) {
    this.#flight = flight
    this.#passenger = passenger
    this.#sink = sink
    this.#resume = resume
  }

  wake(): void {
    if (this.#isOver) return
    try {
      this.#pass()
    } catch (defect) {
      // A sink that throws is no failure of the call, which the others go on with.
      return this.#end(Effect.die(defect))
    }
    const { ending, length } = this.#flight
    if (ending === undefined || this.position < length) return
    this.#end(Effect.asVoid(this.#passenger.endOf(ending)))
  }

  #end(outcome: Effect.Effect<void, InferenceError>): void {
    this.#isOver = true
    this.isPaused = true
    this.#resume(outcome)
  }

  #pass(): void {
    while (!this.isPaused && this.position < this.#flight.length) {
      const events = this.#flight.from(this.position)
      const isFirst = this.position === 0
      this.position += events.length
      if (isFirst) this.#sink.begin(this.#passenger.answeredBy())
      if (!this.#sink.events(events)) this.#pause()
    }
  }

  #pause(): void {
    this.isPaused = true
    this.#sink.whenDrained(() => {
      // What it has not taken may be here no more once it has left.
      if (this.#isOver || !this.#flight.has(this)) return
      this.isPaused = false
      this.wake()
      this.#flight.resume()
    })
  }
}

/** Waits for the whole answer. */
export class WholeReader implements Reader {
  position = 0
  readonly isPaused = false
  readonly #flight: Flight
  readonly #passenger: Passenger
  readonly #answer: AnswerBuilder
  readonly #resume: Resume<Answer>

  constructor(flight: Flight, passenger: Passenger, answer: AnswerBuilder, resume: Resume<Answer>) {
    this.#flight = flight
    this.#passenger = passenger
    this.#answer = answer
    this.#resume = resume
  }

  wake(): void {
    for (const event of this.#flight.from(this.position)) this.#answer.add(event)
    this.position = this.#flight.length
    const { ending } = this.#flight
    if (ending === undefined) return
    const end = this.#passenger.endOf(ending)
    this.#resume(
      Exit.isSuccess(end)
        ? Effect.succeed({ ...this.#answer.end(), ...this.#passenger.answeredBy() })
        : end as Exit.Exit<never, InferenceError>
    )
  }
}

type EventsPull = Pull.Pull<NonEmptyReadonlyArray<Event>, InferenceError>

/** Gives the events to a stream, as it is pulled. */
export class PullReader implements Reader {
  position = 0
  readonly pull: EventsPull
  readonly #flight: Flight
  readonly #passenger: Passenger
  #waiting: ((events: EventsPull) => void) | undefined

  constructor(flight: Flight, passenger: Passenger) {
    this.#flight = flight
    this.#passenger = passenger
    this.pull = Effect.callback((resume) => {
      this.#waiting = resume
      this.wake()
      flight.resume()
    })
  }

  /** It holds the call back unless its stream waits for events. */
  get isPaused(): boolean {
    return this.#waiting === undefined
  }

  wake(): void {
    const resume = this.#waiting
    if (resume === undefined) return
    const { ending, length } = this.#flight
    if (this.position < length) {
      const events = this.#flight.from(this.position) as NonEmptyReadonlyArray<Event>
      this.position = length
      this.#waiting = undefined
      resume(Effect.succeed(events))
    } else if (ending !== undefined) {
      this.#waiting = undefined
      const end = this.#passenger.endOf(ending)
      resume(Exit.isSuccess(end) ? Cause.done() : end as Exit.Exit<never, InferenceError>)
    }
  }
}
