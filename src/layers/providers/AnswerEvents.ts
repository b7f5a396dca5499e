/**
 * The events of a provider's answer, from its bytes: decoded by the dialect, checked for completeness, and passed on as a
 * stream or to a receiver.
 *
 * **Details**
 *
 * A stream that is cut, malformed or empty fails, before and after its first content.
 */
import type { Pull } from "effect"
import { Cause, Duration, Effect, Result, Stream } from "effect"
import { empty, malformed } from "../../dialects/shared/ErrorMapping.ts"
import * as FrameDecoder from "../../dialects/shared/FrameDecoder.ts"
import { parse } from "../../dialects/shared/Json.ts"
import { makePrefixStopMatcher } from "../../dialects/shared/PrefixStopMatcher.ts"
import type { DecodeResult, Dialect, EventDecoder, Frame, Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason } from "../../domain/Job.ts"
import * as Time from "../../domain/Time.ts"
import type { EventReceiver } from "../../services/engines/Engine.ts"
import type { BodyReceiver, HttpExchange, ResponseBody, StartedExchange } from "./HttpExchange.ts"
import { decodeBody } from "./HttpExchange.ts"
import type { Media } from "./HttpRequest.ts"

/** Runs a decoder; nesting that exhausts the stack is malformed. */
const readable = <A>(
  target: Target,
  decode: () => Result.Result<A, InferenceError.Reason>
): Result.Result<A, InferenceError.Reason> => {
  try {
    return decode()
  } catch (error) {
    if (error instanceof RangeError) return Result.fail(malformed(target, "nested too deeply"))
    throw error
  }
}

/** Decodes the bytes of a streamed answer up to its finish. */
export interface EventReader {
  readonly push: (bytes: Uint8Array) => void
  readonly end: () => void
  /** Whether the answer has its finish reason: only usage may follow. */
  readonly isFinished: () => boolean
  /** Completes an answer that has its finish reason; false if it has none. */
  readonly finish: () => boolean
  /** Whether the answer is complete. */
  readonly isOver: () => boolean
  /** Whether reasoning was received. */
  readonly hasThoughts: () => boolean
  /** The events since the last call, and the failure after them. */
  readonly take: () => { readonly events: ReadonlyArray<Event>; readonly failure: InferenceError.Reason | undefined }
}

/** Checks that an answer has content or reasoning, and the calls that it ends in. */
export const makeCheck = (target: Target, { assistantPrefix, stop }: Generation) => {
  let hasContent = false
  let hasCalls = false
  // A stop sequence may come first, and the assistant prefix may be the complete answer.
  const mayBeEmpty = stop.length > 0 || assistantPrefix !== undefined
  const atEnd = (reason: FinishReason): InferenceError.Reason | undefined => {
    if (reason === "tool_calls" && !hasCalls) return malformed(target, "finish reason `tool_calls` without a tool call")
    return reason === "stop" && !hasContent && !mayBeEmpty ? empty(target) : undefined
  }
  return (events: ReadonlyArray<Event>): InferenceError.Reason | undefined => {
    for (const event of events) {
      const maybeCalls = event.type === "native" ? event.content : event.type === "tool_call"
      hasCalls ||= maybeCalls
      hasContent ||= maybeCalls || event.type === "text" || event.type === "thoughts"
    }
    const last = events.at(-1)
    return last?.type === "finish" ? atEnd(last.reason) : undefined
  }
}

/** Encrypted reasoning is progress without a text to pass on. */
export const isEncrypted = (event: Event): boolean => event.type === "thoughts" && event.text === ""

const unchanged = (events: ReadonlyArray<Event>) => events

/** Ends an answer at a stop sequence that begins in the assistant prefix. */
const stopMatcherOf = (generation: Generation, { options }: Target) =>
  generation.assistantPrefix === undefined ? unchanged : makePrefixStopMatcher(generation, options)

/** The beginning of a body, to find out what it is. */
class Beginning {
  readonly #pieces: Array<Uint8Array> = []
  #bytes = 0

  add(piece: Uint8Array): void {
    if (this.#bytes < Defaults.maxRefusalBytes) this.#pieces.push(piece)
    this.#bytes += piece.length
  }

  /** Parsed JSON; undefined if it is not JSON, or longer than an error. */
  json(): unknown {
    return this.#bytes > Defaults.maxRefusalBytes
      ? undefined
      : parse(new TextDecoder().decode(Buffer.concat(this.#pieces)))
  }
}

class Reader implements EventReader {
  readonly #target: Target
  readonly #errorIn: Dialect["errorIn"]
  /** Undefined after the first frame, and before the first bytes. */
  #beginning: Beginning | undefined
  #hasFrames = false
  readonly #decoder: EventDecoder
  readonly #frameDecoder: FrameDecoder.FrameDecoder
  readonly #check: ReturnType<typeof makeCheck>
  readonly #join: ReturnType<typeof stopMatcherOf>
  #events: Array<Event> = []
  #failure: InferenceError.Reason | undefined
  #isOver = false
  #hasThoughts = false

  constructor(dialect: Dialect, target: Target, generation: Generation) {
    this.#target = target
    this.#errorIn = dialect.errorIn
    this.#decoder = dialect.generate.events(generation, target)
    this.#frameDecoder = FrameDecoder.make(
      dialect.framing,
      target.options.maxResponseBytes ?? Defaults.maxResponseBytes
    )
    this.#check = makeCheck(target, generation)
    this.#join = stopMatcherOf(generation, target)
  }

  push(bytes: Uint8Array): void {
    this.#addAll(bytes)
  }

  end(): void {
    this.#addAll()
    if (this.#isOver || this.#failure !== undefined) return
    const error = this.#errorIn(this.#beginning?.json(), this.#target)
    this.#add(error === undefined ? this.#decoder.end() : Result.fail(error))
  }

  isFinished(): boolean {
    return this.#decoder.isFinished?.() === true
  }

  finish(): boolean {
    if (this.#isOver || !this.isFinished()) return this.#isOver
    this.#failure = undefined
    this.#add(this.#decoder.end())
    return this.#isOver
  }

  isOver(): boolean {
    return this.#isOver
  }

  hasThoughts(): boolean {
    return this.#hasThoughts
  }

  take(): ReturnType<EventReader["take"]> {
    const taken = { events: this.#events, failure: this.#failure }
    this.#events = []
    return taken
  }

  /** @param bytes left out at the end of the body */
  #addAll(bytes?: Uint8Array): void {
    try {
      const frames = bytes === undefined ? this.#frameDecoder.end() : this.#frameDecoder.push(bytes)
      if (!this.#hasFrames) this.#begin(frames, bytes)
      for (const frame of frames) {
        if (this.#isOver || this.#failure !== undefined) return
        this.#addFrame(frame)
      }
    } catch (error) {
      if (!(error instanceof FrameDecoder.Unreadable)) throw error
      if (!this.finish()) this.#failure = malformed(this.#target, error.message)
    }
  }

  /** Keeps the bytes before the first frame: without any frame, they may be an error as JSON. */
  #begin(frames: ReadonlyArray<Frame>, bytes: Uint8Array | undefined): void {
    this.#hasFrames = frames.length > 0
    if (this.#hasFrames) this.#beginning = undefined
    else if (bytes !== undefined) (this.#beginning ??= new Beginning()).add(bytes)
  }

  #addFrame(frame: Frame): void {
    const wasFinished = this.isFinished()
    this.#add(readable(this.#target, () => this.#decoder.push(frame)))
    // What is wrong after the finish reason does not change the answer.
    if (wasFinished && this.#failure !== undefined) this.finish()
  }

  #add(decoded: DecodeResult): void {
    if (Result.isFailure(decoded)) {
      this.#failure = decoded.failure
      return
    }
    this.#failure = this.#check(decoded.success)
    if (this.#failure !== undefined) return
    const joined = this.#join(decoded.success)
    for (const event of joined) {
      this.#hasThoughts ||= event.type === "thoughts"
      if (!isEncrypted(event)) this.#events.push(event)
    }
    this.#isOver = joined.at(-1)?.type === "finish"
  }
}

export const makeEventReader = (dialect: Dialect, target: Target, generation: Generation): EventReader =>
  new Reader(dialect, target, generation)

type EventPull = Pull.Pull<readonly [Event, ...Array<Event>], InferenceError.InferenceError>

/** Reads the rest of a body whose answer is complete, so that its connection can be reused. */
const drain = <E>(pull: Pull.Pull<Uint8Array, E>): Pull.Pull<never> =>
  Effect.forever(pull).pipe(
    Effect.timeout(Defaults.drainWait),
    Effect.ignore,
    Effect.andThen(Cause.done())
  )

/** The events of a streamed body. A failure comes after the events before it. */
export const eventsOf = (
  { clean, isOver, note, pull, watch }: ResponseBody & Pick<HttpExchange, "clean">,
  reader: EventReader
): Stream.Stream<Event, InferenceError.InferenceError> => {
  let failure: InferenceError.Reason | undefined
  const settle = (): EventPull => {
    const taken = reader.take()
    failure = taken.failure
    const [first, ...others] = taken.events
    if (first !== undefined || reader.hasThoughts()) watch.content()
    if (first === undefined) return next
    return Effect.succeed([first, ...others])
  }
  const drained = drain(pull)
  let usageUntil: number | undefined
  /** What follows the finish reason, for a limited time in all. */
  const usage = Effect.flatMap(Time.now, (now) => {
    usageUntil ??= now + Duration.toMillis(Defaults.usageWait)
    return usageUntil <= now
      ? Cause.done()
      : Effect.timeoutOrElse(pull, { duration: usageUntil - now, orElse: () => Cause.done() })
  })
  const next: EventPull = Effect.suspend(() => {
    if (failure !== undefined) {
      note(failure)
      return InferenceError.make(clean(failure))
    }
    if (reader.isOver()) return isOver() ? Cause.done() : drained
    return Effect.matchEffect(reader.isFinished() ? usage : pull, {
      onSuccess: (bytes) => {
        reader.push(bytes)
        return settle()
      },
      onFailure: (error) => {
        if (Cause.isDone(error)) reader.end()
        else if (!reader.finish()) return Effect.fail(error)
        return settle()
      }
    })
  })
  return Stream.fromPull(Effect.succeed(next))
}

/** The events of a decoded answer that was not streamed. */
const bufferedEvents = (target: Target, generation: Generation, events: ReadonlyArray<Event>): DecodeResult => {
  const wrong = makeCheck(target, generation)(events)
  return wrong === undefined
    ? Result.succeed(stopMatcherOf(generation, target)(events.filter((event) => !isEncrypted(event))))
    : Result.fail(wrong)
}

/** Decodes the parsed body of an answer that was not streamed. */
export const decodeBuffered =
  ({ generate }: Dialect, target: Target, generation: Generation) => (body: unknown): DecodeResult =>
    Result.flatMap(
      readable(target, () => generate.buffered(body, generation, target)),
      (events) => bufferedEvents(target, generation, events)
    )

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
  #pieces: Array<Uint8Array> = []
  /** Undefined if the body is not streamed. */
  #reader: EventReader | undefined
  #isScheduled = false
  /** The receiver takes nothing now. */
  #isPaused = false
  /** Ends the answer when the receiver goes on. */
  #ending: (() => void) | undefined
  /** The receiver has the end of the answer, or has closed it. */
  #isOver = false
  #isClosed = false
  readonly #flush = (): void => this.#guard(() => this.#passOn())

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

  data(piece: Uint8Array): void {
    if (this.#isOver) return
    if (this.#reader === undefined) {
      this.#pieces.push(piece)
      return
    }
    try {
      this.#reader.push(piece)
    } catch (defect) {
      return this.#die(defect)
    }
    if (this.#isScheduled) return
    this.#isScheduled = true
    // Deferred, so that everything from one read of the socket is passed on at once.
    queueMicrotask(this.#flush)
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
    const decoded = decodeBody(target, this.#pieces, decodeBuffered(dialect, target, generation))
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
    this.#isScheduled = false
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
    const events = Effect.map(this.#exchange!.rest, (body) => eventsOf({ ...body, clean }, reader))
    this.#receiver.rest(Stream.unwrap(events))
  }

  /** The answer is complete; the response may not be. */
  #complete(): void {
    // The receiver may have closed the answer.
    if (this.#isOver) return
    this.#isOver = true
    if (this.#exchange!.isOver()) return this.#receiver.end()
    const drained = Effect.scoped(Effect.flatMap(this.#exchange!.rest, ({ pull }) => drain(pull)))
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
