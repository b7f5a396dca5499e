/** Passes the events of a streamed answer on to a receiver as its body arrives. */
import { Effect, Stream } from "effect"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { EventReceiver, StartedAnswer } from "../../services/engines/Engine.ts"
import { drain, eventsOf } from "./AnswerEvents.ts"
import type { EventsIn, Parts } from "./BufferedAnswer.ts"
import type { EventReader } from "./EventReader.ts"
import { makeEventReader } from "./EventReader.ts"
import type { BodyReceiver, StartedExchange } from "./HttpExchange.ts"

/** Passes the events of a body on to a receiver as it arrives. */
export class StreamedAnswer implements BodyReceiver, StartedAnswer {
  readonly #parts: Parts
  readonly #receiver: EventReceiver
  readonly #eventsIn: EventsIn
  #exchange: StartedExchange | undefined
  readonly #reader: EventReader
  /** The receiver takes nothing now. */
  #isPaused = false
  /** Ends the answer when the receiver goes on. */
  #ending: (() => void) | undefined
  /** The receiver has the end of the answer, or has closed it. */
  #isOver = false
  #isClosed = false

  /** @param eventsIn the events of a body that an effect goes on with */
  constructor(
    parts: Parts,
    receiver: EventReceiver,
    eventsIn: EventsIn
  ) {
    this.#parts = parts
    this.#receiver = receiver
    this.#eventsIn = eventsIn
    this.#reader = makeEventReader(parts.dialect, parts.target, parts.generation, parts.meter)
  }

  /** Called before the response begins. */
  follow(exchange: StartedExchange): void {
    this.#exchange = exchange
  }

  data(bytes: Uint8Array): void {
    if (this.#isOver) return
    this.#guard(() => {
      this.#reader.push(bytes)
      this.#passOn()
    })
  }

  end(): void {
    this.#endWith(() => {
      if (!this.#reader.isOver()) this.#reader.end()
      this.#passOn()
    })
  }

  /** Ends the answer after its events, as soon as the receiver takes them. */
  #endWith(end: () => void): void {
    this.#guard(() => {
      this.#passOn()
      if (this.#isPaused && !this.#isOver) this.#ending = end
      else end()
    })
  }

  failed(reason: InferenceError.Reason): void {
    this.#endWith(() => {
      if (this.#reader.finish()) this.#passOn()
      else this.#fail(reason)
    })
  }

  rest(body: Parameters<BodyReceiver["rest"]>[0]): void {
    this.#receiver.rest(Stream.unwrap(Effect.flatMap(body, this.#eventsIn)))
  }

  /** Passes on what has been decoded since the last call. */
  #passOn(): void {
    if (this.#isOver || this.#isPaused) return
    const reader = this.#reader
    const { events, failure } = reader.take()
    if (events.length > 0 || reader.hasThoughts()) this.#exchange!.content()
    if (events.length > 0) this.#receiver.events(events)
    if (reader.isOver()) this.#complete()
    else if (!this.#isPaused) this.#failOrWait(failure)
  }

  /** Fails an answer, or waits for its rest. */
  #failOrWait(failure: InferenceError.Reason | undefined): void {
    if (failure !== undefined) this.#failInBody(failure)
    else if (this.#reader.isFinished()) this.#waitForUsage()
  }

  /** A fiber waits for what follows the finish reason. */
  #waitForUsage(): void {
    if (this.#isOver || this.#exchange!.isOver()) return
    this.#isOver = true
    const { clean } = this.#parts.exchange
    const events = Effect.map(this.#exchange!.rest(), (body) => eventsOf({ ...body, clean }, this.#reader))
    this.#receiver.rest(Stream.unwrap(events))
  }

  /** The answer is complete; the response may not be. */
  #complete(): void {
    // The receiver may have closed the answer.
    if (this.#isOver) return
    this.#isOver = true
    if (this.#exchange!.isOver()) return this.#receiver.end()
    const drained = Effect.scoped(Effect.flatMap(this.#exchange!.rest(), ({ pull }) => drain(pull)))
    this.#receiver.rest(Stream.fromPull(Effect.succeed(drained)))
  }

  /** A defect must not reach the event loop, which would end the process. */
  #guard(run: () => void): void {
    try {
      run()
    } catch (defect) {
      this.#die(defect)
    }
  }

  #die(defect: unknown): void {
    if (this.#isClosed) return
    this.#isOver = true
    this.#exchange!.close()
    this.#receiver.died(defect)
  }

  #failInBody(reason: InferenceError.Reason): void {
    if (this.#isOver) return
    this.#exchange!.note(reason)
    this.#exchange!.close()
    this.#fail(reason)
  }

  #fail(reason: InferenceError.Reason): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#receiver.failed(InferenceError.make(this.#parts.exchange.clean(reason)))
  }

  pause(): void {
    if (this.#isOver) return
    this.#isPaused = true
    this.#exchange!.pause()
  }

  resume(): void {
    if (this.#isOver || !this.#isPaused) return
    this.#isPaused = false
    this.#guard(() => this.#goOn())
  }

  /** Passes on what has arrived in a pause; the receiver may pause again. */
  #goOn(): void {
    this.#passOn()
    if (this.#isOver || this.#isPaused) return
    const ending = this.#ending
    if (ending === undefined) return this.#exchange!.resume()
    this.#ending = undefined
    ending()
  }

  close(): void {
    this.#isClosed = true
    this.#isOver = true
    this.#exchange!.close()
  }
}
