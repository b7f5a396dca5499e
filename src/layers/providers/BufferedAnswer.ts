/** Answers that are not streamed: decodes their bodies, checks that they are complete, and passes their events to a receiver. */
import { Effect, Result, Stream } from "effect"
import { isUtf8 } from "node:buffer"
import { cut, empty, malformed } from "../../dialects/shared/ErrorMapping.ts"
import { isCut, parse } from "../../dialects/shared/Json.ts"
import { makePrefixStopMatcher } from "../../dialects/shared/PrefixStopMatcher.ts"
import type { DecodeResult, Dialect, Target } from "../../dialects/shared/ProviderDialect.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { FinishReason } from "../../domain/Job.ts"
import * as JsonText from "../../domain/JsonText.ts"
import { estimateTokens } from "../../domain/RoutingRequest.ts"
import type { EventReceiver, Meter, StartedAnswer } from "../../services/engines/Engine.ts"
import type { BodyReceiver, HttpExchange, ResponseBody, StartedExchange } from "./HttpExchange.ts"

const byteOrderMark = "\ufeff"

/** The most bytes of a character of UTF-8. */
const mostOfCharacter = 4

/** Not by a `TextDecoder`, which allocates more than the text. */
const decode = ({ buffer, byteLength, byteOffset }: Uint8Array): string => {
  const text = Buffer.from(buffer, byteOffset, byteLength).toString()
  return text.startsWith(byteOrderMark) ? text.slice(1) : text
}

/** The text of a body, without a character at its end that is cut; undefined if it is not UTF-8. */
const textOf = (bytes: Uint8Array): string | undefined => {
  for (let missing = 0; missing < mostOfCharacter; missing++) {
    const text = bytes.subarray(0, bytes.length - missing)
    if (isUtf8(text)) return decode(text)
  }
  return undefined
}

/** Decodes the body of a complete response. One that ends early was cut, although its connection ended in good order. */
export const decodeBody = <A>(
  target: Target,
  bytes: Uint8Array,
  decode: (body: unknown, text: string) => Result.Result<A, InferenceError.Reason>
): Result.Result<A, InferenceError.Reason> => {
  const text = textOf(bytes)
  if (text === undefined) return Result.fail(malformed(target, "the body is not UTF-8"))
  const body = parse(text)
  if (body !== undefined) return decode(body, text)
  return Result.fail(isCut(text) ? cut(target) : malformed(target, "the body is not JSON"))
}

/** Runs a decoder; nesting that exhausts the stack is malformed. */
export const readable = <A>(
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

/**
 * Whether an event is passed on: encrypted reasoning that the caller does not need is progress without a text. Notes who made
 * what the caller gets as it is.
 */
export const isPassedOn = (event: Event, { options }: Target, meter: Meter | undefined): boolean => {
  if (event.type !== "thoughts" || event.text !== "" || event.signed !== undefined) return true
  if (event.marks !== undefined) meter?.makers?.note(event.marks, options)
  return false
}

/** The stop matcher of an answer without an assistant prefix. */
export const unchanged = (events: ReadonlyArray<Event>) => events

/** Ends an answer at a stop sequence that begins in the assistant prefix. */
export const stopMatcherOf = (generation: Generation, { options }: Target) =>
  generation.assistantPrefix === undefined ? unchanged : makePrefixStopMatcher(generation, options)

/** The events of a decoded answer that was not streamed. */
const bufferedEvents = (
  target: Target,
  generation: Generation,
  events: ReadonlyArray<Event>,
  meter: Meter | undefined
): DecodeResult => {
  const wrong = makeCheck(target, generation)(events)
  return wrong === undefined
    ? Result.succeed(stopMatcherOf(generation, target)(events.filter((event) => isPassedOn(event, target, meter))))
    : Result.fail(wrong)
}

/** Decodes the parsed body of an answer that was not streamed, and its text. */
export const decodeBuffered =
  (dialect: Dialect, target: Target, generation: Generation, meter?: Meter) =>
  (body: unknown, text: string): DecodeResult => {
    const { buffered, usageIn } = dialect.generate
    const decoded = Result.flatMap(
      readable(target, () => buffered(body, generation, target, text.length < JsonText.shortest ? undefined : text)),
      (events) => bufferedEvents(target, generation, events, meter)
    )
    if (meter !== undefined && Result.isFailure(decoded)) {
      meter.isSent &&= dialect.errorIn(body, target) === undefined
      meter.reporter = { usage: () => usageIn(body) }
    }
    return decoded
  }

const isCutShort = (reason: InferenceError.Reason): boolean =>
  reason._tag === "UpstreamTimeout" || (reason._tag === "UpstreamFailed" && reason.kind === "cut")

/** Reports what has arrived of an answer that was cut, for its charge, where the answer itself does not say. @param bytes of its body */
export const reportCut = (meter: Meter | undefined, reason: InferenceError.Reason, bytes: number): void => {
  if (meter === undefined || bytes === 0 || !isCutShort(reason)) return
  const reported = meter.reporter?.usage?.()
  if (reported?.promptTokens !== undefined || reported?.completionTokens !== undefined) return
  meter.reporter = { usage: () => ({ completionTokens: estimateTokens(bytes) }) }
}

/** What an answer is decoded with. */
export interface Parts {
  readonly dialect: Dialect
  readonly target: Target
  readonly exchange: Pick<HttpExchange, "clean">
  readonly generation: Generation
  readonly meter: Meter | undefined
}

/** The events of a body that an effect reads. */
export type EventsIn = (
  body: ResponseBody
) => Effect.Effect<Stream.Stream<Event, InferenceError.InferenceError>, InferenceError.InferenceError>

const noBytes = new Uint8Array()

/** Passes the events of a body on to a receiver as soon as it is complete. */
export class BufferedAnswer implements BodyReceiver, StartedAnswer {
  readonly #parts: Parts
  readonly #receiver: EventReceiver
  readonly #eventsIn: EventsIn
  #exchange: StartedExchange | undefined
  #body: Uint8Array = noBytes
  #isClosed = false

  /** @param eventsIn the events of a body that an effect goes on with */
  constructor(parts: Parts, receiver: EventReceiver, eventsIn: EventsIn) {
    this.#parts = parts
    this.#receiver = receiver
    this.#eventsIn = eventsIn
  }

  /** Called before the response begins. */
  follow(exchange: StartedExchange): void {
    this.#exchange = exchange
  }

  data(bytes: Uint8Array): void {
    this.#body = bytes
  }

  end(): void {
    // A defect must not reach the event loop, which would end the process.
    try {
      this.#decode()
    } catch (defect) {
      if (!this.#isClosed) this.#receiver.died(defect)
    }
  }

  #decode(): void {
    const { dialect, generation, meter, target } = this.#parts
    const decoded = decodeBody(target, this.#body, decodeBuffered(dialect, target, generation, meter))
    if (Result.isFailure(decoded)) {
      this.#exchange!.note(decoded.failure)
      return this.failed(decoded.failure)
    }
    this.#receiver.events(decoded.success)
    // The receiver may have closed the answer.
    if (!this.#isClosed) this.#receiver.end()
  }

  failed(reason: InferenceError.Reason): void {
    reportCut(this.#parts.meter, reason, this.#body.length)
    this.#receiver.failed(InferenceError.make(this.#parts.exchange.clean(reason)))
  }

  rest(body: Parameters<BodyReceiver["rest"]>[0]): void {
    this.#receiver.rest(Stream.unwrap(Effect.flatMap(body, this.#eventsIn)))
  }

  /** All events arrive at once. */
  pause(): void {}

  resume(): void {}

  close(): void {
    this.#isClosed = true
    this.#exchange!.close()
  }
}
