/** Passes the events of a provider's answer on to a receiver as its body arrives. */
import { Effect, Result, Stream } from "effect"
import type { Dialect, Target } from "../../dialects/shared/ProviderDialect.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { EventReceiver } from "../../services/engines/Engine.ts"
import { drain, eventsOf } from "./AnswerEvents.ts"
import type { EventReader } from "./EventReader.ts"
import { decodeBuffered, makeEventReader } from "./EventReader.ts"
import type { BodyReceiver, HttpExchange, ResponseBody, StartedExchange } from "./HttpExchange.ts"
import { decodeBody } from "./HttpExchange.ts"
import type { Media } from "./HttpRequest.ts"

const noBytes = new Uint8Array()

/** What an answer is decoded with. */
interface Parts {
  readonly dialect: Dialect
  readonly target: Target
  readonly exchange: Pick<HttpExchange, "clean">
  readonly generation: Generation
}

/** The events of a body that an effect reads. */
type EventsIn = (
  body: ResponseBody
) => Effect.Effect<Stream.Stream<Event, InferenceError.InferenceError>, InferenceError.InferenceError>

/** Passes the events of a body on to a receiver as it arrives. */
export class AnswerReceiver implements BodyReceiver {
  readonly #parts: Parts
  readonly #receiver: EventReceiver
  readonly #eventsIn: EventsIn
  #exchange: StartedExchange | undefined
  /** The body if it is not streamed. */
  #body: Uint8Array | undefined
  /** Undefined if the body is not streamed. */
  #reader: EventReader | undefined
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
  }

  /** Called before the response begins. */
  follow(exchange: StartedExchange): void {
    this.#exchange = exchange
  }

  body(media: Media): void {
    const { dialect, generation, target } = this.#parts
    this.#guard(() => {
      if (media !== "json") this.#reader = makeEventReader(dialect, target, generation)
    })
  }

  data(bytes: Uint8Array): void {
    if (this.#isOver) return
    const reader = this.#reader
    if (reader === undefined) {
      this.#body = bytes
      return
    }
    this.#guard(() => {
      reader.push(bytes)
      this.#passOn()
    })
  }

  end(): void {
    const reader = this.#reader
    if (reader === undefined) return this.#guard(() => this.#endBuffered())
    this.#endWith(() => {
      if (!reader.isOver()) reader.end()
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

  #endBuffered(): void {
    const { dialect, generation, target } = this.#parts
    const decoded = decodeBody(target, this.#body ?? noBytes, decodeBuffered(dialect, target, generation))
    if (Result.isFailure(decoded)) return this.#failInBody(decoded.failure)
    this.#receiver.events(decoded.success)
    if (this.#isOver) return
    this.#isOver = true
    this.#receiver.end()
  }

  failed(reason: InferenceError.Reason): void {
    this.#endWith(() => {
      if (this.#reader?.finish() === true) this.#passOn()
      else this.#fail(reason)
    })
  }

  rest(body: Parameters<BodyReceiver["rest"]>[0]): void {
    this.#receiver.rest(Stream.unwrap(Effect.flatMap(body, this.#eventsIn)))
  }

  /** Passes on what has been decoded since the last call. */
  #passOn(): void {
    const reader = this.#reader
    if (this.#isOver || this.#isPaused || reader === undefined) return
    const { events, failure } = reader.take()
    if (events.length > 0 || reader.hasThoughts()) this.#exchange!.content()
    if (events.length > 0) this.#receiver.events(events)
    if (reader.isOver()) this.#complete()
    else if (!this.#isPaused) this.#failOrWait(reader, failure)
  }

  /** Fails an answer, or waits for its rest. */
  #failOrWait(reader: EventReader, failure: InferenceError.Reason | undefined): void {
    if (failure !== undefined) this.#failInBody(failure)
    else if (reader.isFinished()) this.#waitForUsage(reader)
  }

  /** A fiber waits for what follows the finish reason. */
  #waitForUsage(reader: EventReader): void {
    if (this.#isOver || this.#exchange!.isOver()) return
    this.#isOver = true
    const { clean } = this.#parts.exchange
    const events = Effect.map(this.#exchange!.rest(), (body) => eventsOf({ ...body, clean }, reader))
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
