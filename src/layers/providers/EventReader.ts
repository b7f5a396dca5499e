/**
 * Decodes the bytes of a streamed answer into events, and checks that the answer is complete.
 *
 * **Details**
 *
 * A stream that is cut, malformed or empty fails, before and after its first content. An event between two good ones that is
 * not JSON and has no text of the answer is left out, a few times.
 */
import { Result } from "effect"
import { malformed } from "../../dialects/shared/ErrorMapping.ts"
import * as FrameDecoder from "../../dialects/shared/FrameDecoder.ts"
import { isEmptyNoise, parse } from "../../dialects/shared/Json.ts"
import type { DecodeResult, Dialect, EventDecoder, Frame, Target } from "../../dialects/shared/ProviderDialect.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import type * as InferenceError from "../../domain/InferenceError.ts"
import type { Meter } from "../../services/engines/Engine.ts"
import { progressEvent, progressIn } from "../../services/models/Waits.ts"
import { isPassedOn, makeCheck, readable, stopMatcherOf, unchanged } from "./BufferedAnswer.ts"
import { Utf8Decoder } from "./Utf8Decoder.ts"

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

/** Decodes the frames of a body. */
class Reader implements EventReader, FrameDecoder.FrameReceiver {
  readonly #target: Target
  readonly #meter: Meter | undefined
  readonly #errorIn: Dialect["errorIn"]
  /** Undefined after the first frame, and before the first bytes. */
  #beginning: Beginning | undefined
  #hasFrames = false
  readonly #decoder: EventDecoder
  readonly #utf8 = new Utf8Decoder()
  readonly #frameDecoder: FrameDecoder.FrameDecoder
  readonly #check: ReturnType<typeof makeCheck>
  readonly #join: ReturnType<typeof stopMatcherOf>
  #events: Array<Event> = []
  #failure: InferenceError.Reason | undefined
  #isOver = false
  #hasThoughts = false
  /** Whether a frame was decoded. */
  #hasDecoded = false
  #skipped = 0
  /** The failure of the last frame, if the next one does not follow. */
  #pending: InferenceError.Reason | undefined

  constructor(dialect: Dialect, target: Target, generation: Generation, meter: Meter | undefined) {
    this.#target = target
    this.#meter = meter
    this.#errorIn = dialect.errorIn
    this.#decoder = dialect.generate.events(generation, target)
    if (meter !== undefined) meter.reporter = this.#decoder
    this.#frameDecoder = FrameDecoder.make(
      dialect.framing,
      target.options.maxResponseBytes ?? Defaults.maxResponseBytes,
      this
    )
    this.#check = makeCheck(target, generation)
    this.#join = stopMatcherOf(generation, target)
  }

  push(bytes: Uint8Array): void {
    const text = this.#utf8.decode(bytes)
    this.#read(() => this.#frameDecoder.push(text))
    if (!this.#hasFrames) (this.#beginning ??= new Beginning()).add(bytes)
    if (this.#utf8.isBroken()) this.#break(notUtf8)
  }

  end(): void {
    if (!this.#utf8.isComplete()) this.#break(notUtf8)
    this.#read(() => this.#frameDecoder.end())
    if (this.#isOver || this.#failure !== undefined) return
    const error = this.#pending ?? this.#errorOf(this.#beginning?.json())
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

  frame(frame: Frame): boolean {
    this.#hasFrames = true
    this.#beginning = undefined
    if (this.#isStopped()) return false
    if (frame.event === progressEvent) return this.#wait(frame.data)
    const wasFinished = this.isFinished()
    const decoded = readable(this.#target, () => this.#decoder.push(frame))
    if (Result.isSuccess(decoded)) this.#follow()
    else if (!wasFinished && this.#skips(decoded.failure, frame)) return true
    this.#add(decoded)
    if (this.#failure !== undefined && !wasFinished) this.#errorOf(parse(frame.data))
    // What is wrong after the finish reason does not change the answer.
    if (wasFinished && this.#failure !== undefined) this.finish()
    return !this.#isStopped()
  }

  run(text: string, from: number): number {
    if (this.#join !== unchanged || this.#isStopped()) return from
    const run = this.#decoder.run?.(text, from)
    if (run === undefined) return from
    this.#follow()
    this.#check(run.events)
    this.#events.push(...run.events)
    return run.to
  }

  /** Another instance of this service says where the request waits. */
  #wait(data: string): boolean {
    const found = progressIn(parse(data), this.#target)
    if (found !== undefined) this.#meter?.waits?.tell(found)
    return true
  }

  /** A frame was decoded: the one before it may be left out. */
  #follow(): void {
    this.#hasDecoded = true
    if (this.#pending === undefined) return
    this.#pending = undefined
    this.#skipped++
    if (this.#meter !== undefined) this.#meter.skippedEvents = this.#skipped
  }

  /** Whether a frame is left out, if another one follows. */
  #skips(failure: InferenceError.Reason, { data }: Frame): boolean {
    const isFew = this.#pending === undefined && this.#skipped < Defaults.skippedEvents
    if (!isFew || !this.#hasDecoded || parse(data) !== undefined || !isEmptyNoise(data)) return false
    this.#pending = failure
    return true
  }

  /** The reason of an error that is a body or a frame: the provider has refused the request. */
  #errorOf(body: unknown): InferenceError.Reason | undefined {
    const error = this.#errorIn(body, this.#target)
    if (error !== undefined && this.#meter !== undefined) this.#meter.isSent = false
    return error
  }

  #isStopped(): boolean {
    return this.#isOver || this.#failure !== undefined
  }

  #read(read: () => void): void {
    try {
      read()
    } catch (error) {
      if (!(error instanceof FrameDecoder.Unreadable)) throw error
      this.#break(error.message)
    }
  }

  /** The rest of the body cannot be read. */
  #break(why: string): void {
    if (!this.#isStopped() && !this.finish()) this.#failure = malformed(this.#target, why)
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
      if (isPassedOn(event, this.#target, this.#meter)) this.#events.push(event)
    }
    this.#isOver = joined.at(-1)?.type === "finish"
  }
}

const notUtf8 = "the body is not UTF-8"

export const makeEventReader = (
  dialect: Dialect,
  target: Target,
  generation: Generation,
  meter?: Meter
): EventReader => new Reader(dialect, target, generation, meter)
