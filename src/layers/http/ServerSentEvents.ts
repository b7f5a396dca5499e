/**
 * Responses as server-sent events, or as frames of another type that a dialect has.
 *
 * **Details**
 *
 * The status is chosen when the first content is there: until then every failure is an ordinary error response. Afterwards a
 * failure is a frame in the stream, which then has no terminator. A refusal that a provider sent as an answer is the end of
 * that answer, also after reasoning or other choices: its frames are those that the provider sent.
 *
 * A stream that has had no frame for `server.streamKeepAlive` gets one without content. If that is its first one, the status is
 * sent with it, and a later failure is a frame. The events of `WaitEvents`, which a caller asks for, do the same.
 */
import { Array as Arr, Cause, Channel, Context, Duration, Effect, Fiber, Option, Pull, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { ServerResponse } from "node:http"
import * as Caller from "../../domain/Caller.ts"
import * as Defaults from "../../domain/Defaults.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { AnsweredBy, AnswerSink, Event, Request } from "../../domain/Inference.ts"
import type { ContentRefused, InferenceError, Reason } from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import type { Inference } from "../../services/inference/Inference.ts"
import type { Waits } from "../../services/models/Waits.ts"
import { RequestWaits } from "../../services/models/Waits.ts"
import { warnAlone } from "../../services/observability/RequestLog.ts"
import type { Responding, RoutingHeaders } from "./Endpoint.ts"
import { answerHeaders, writeHead, written } from "./Endpoint.ts"
import { errorHeaders, logName } from "./EndpointFailure.ts"
import type { OpenStreams } from "./NodeServer.ts"
import { streamsOf } from "./NodeServer.ts"
import * as WaitEvents from "./WaitEvents.ts"

const encoder = new TextEncoder()

/** The last frame of a stream that fails after its first content. */
export interface FailureFrames {
  /** Default server-sent events. */
  readonly contentType?: string
  readonly error: (reason: Reason) => string
  readonly defect: () => string
  /** The frame without content; default a comment of server-sent events, and none in frames of another type. */
  readonly keepAlive?: string
}

/**
 * The time without a frame after which a response that is not Node's is kept alive, ms; undefined: it is not. A response of
 * Node's has that of its server.
 */
export const WebKeepAliveMs = Context.Reference<number | undefined>(
  "troupe/layers/http/ServerSentEvents/WebKeepAliveMs",
  {
    defaultValue: () => Duration.toMillis(Defaults.streamKeepAlive)
  }
)

const keepAliveComment = ": keep-alive\n\n"

/** Undefined if the type of the frames has no room for one. */
const keepAliveFrame = ({ contentType, keepAlive }: FailureFrames): string | undefined =>
  keepAlive ?? (contentType === undefined ? keepAliveComment : undefined)

/** Encodes one answer as frames. */
export interface AnswerFrames extends FailureFrames {
  /** Called before the first events. */
  readonly begin?: (by: AnsweredBy) => void
  readonly events: (events: ReadonlyArray<Event>) => string
  /** The last frames. */
  readonly end: () => string
  /** The frames of a refusal that a provider sent as an answer, after the frames before; undefined if it is an error. */
  readonly refuse: (reason: ContentRefused) => string | undefined
}

const eventStream = "text/event-stream; charset=utf-8"
const caching = { "cache-control": "no-cache" }
const headersOf = (contentType: string) => ["content-type", contentType, "cache-control", "no-cache"]
const eventStreamHeaders = headersOf(eventStream)

type Frames = Arr.NonEmptyReadonlyArray<string>

/** What is sent while no frame comes. */
interface Quiet {
  /** The frame without content. */
  readonly frame: string | undefined
  /** Time without a frame until it is given; undefined: never. */
  readonly afterMs: number | undefined
  readonly waits: Waits | undefined
}

/** Gives the frames that keep a quiet stream alive. The quiet time is reported in pieces. */
const makeQuietFrames = ({ afterMs = Number.POSITIVE_INFINITY, frame, waits }: Quiet) => {
  let quietMs = 0
  return {
    tickMs: waits === undefined ? afterMs : WaitEvents.intervalMs,
    restart: () => {
      quietMs = 0
    },
    after: (ms: number): string | undefined => {
      quietMs += ms
      const found = (waits && WaitEvents.next(waits)) ?? (quietMs >= afterMs ? frame : undefined)
      if (found !== undefined) quietMs = 0
      return found
    }
  }
}

/**
 * A pull that gives other frames where none comes for a while. It goes on in a fiber of the scope, which ends when the client
 * leaves.
 */
const keptPull = Effect.fnUntraced(function*<E>(pull: Pull.Pull<Frames, E>, quiet: Quiet) {
  const scope = yield* Effect.scope
  const { after, restart, tickMs } = makeQuietFrames(quiet)
  let running: Fiber.Fiber<Frames, E | Cause.Done> | undefined
  const kept: Pull.Pull<Frames, E> = Effect.gen(function*() {
    running ??= yield* Effect.forkIn(pull, scope, { startImmediately: true })
    for (;;) {
      const ended = running.pollUnsafe() ??
        Option.getOrUndefined(yield* Effect.timeoutOption(Fiber.await(running), tickMs))
      if (ended !== undefined) {
        running = undefined
        restart()
        return yield* ended
      }
      const frame = after(tickMs)
      if (frame !== undefined) return Arr.of(frame)
    }
  })
  return kept
})

type BytesPull = Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>>

/**
 * @param framesOf makes the frames, whose first pull fails if the request fails before any content; it is given a function
 *   that sets the headers of the response, to be called before the first frames
 */
export const respond = Effect.fnUntraced(function*(
  { headers: idHeaders, id, response, waits }: Responding,
  failureFrames: FailureFrames,
  framesOf: (setHeaders: (headers: RoutingHeaders) => void) => Stream.Stream<string, InferenceError>
) {
  let headers: RoutingHeaders = {}
  const frames = framesOf((found) => {
    headers = found
    waits?.end()
  })
  // Not `Stream.toPull`, which guards each pull against concurrent ones.
  const pullFrames = yield* Channel.toPullScoped(Stream.toChannel(frames), yield* Effect.scope)
  const hops = yield* Caller.HopCount
  // The body is pulled after the handler has ended, without the services that were provided to it; a failover needs these.
  const counted = hops === 0 ? pullFrames : Effect.provideService(pullFrames, Caller.HopCount, hops)
  const own = waits === undefined ? counted : Effect.provideService(counted, RequestWaits, waits)
  const frame = keepAliveFrame(failureFrames)
  const afterMs = response === undefined ? yield* WebKeepAliveMs : streamsOf(response)?.afterMs
  const isKept = frame !== undefined && (afterMs !== undefined || waits !== undefined)
  const pull = isKept ? yield* keptPull(own, { frame, afterMs, waits }) : own
  let first: ReadonlyArray<string> | undefined = yield* Pull.catchDone(pull, () => Effect.succeed([]))
  let isOver = false
  const encode = (texts: ReadonlyArray<string>) => Arr.of(encoder.encode(texts.join("")))

  const failureOf = (cause: Cause.Cause<InferenceError | Cause.Done>): BytesPull => {
    if (Pull.isDoneCause(cause) || isCancellation(cause)) {
      return Effect.failCause(cause as Cause.Cause<Cause.Done>)
    }
    isOver = true
    const error = Cause.findErrorOption(cause) as Option.Option<InferenceError>
    return Option.isSome(error)
      ? Effect.as(
        warnAlone(() => `${logName(id, headers)}: ${ReasonMessage.recorded(error.value.reason)}`),
        encode([failureFrames.error(error.value.reason)])
      )
      : Effect.as(Effect.logError(`${id} failed with a defect.`, Cause.squash(cause)), encode([failureFrames.defect()]))
  }
  const rest: BytesPull = Effect.matchCauseEffect(pull, {
    onSuccess: (texts) => Effect.succeed(encode(texts)),
    onFailure: failureOf
  })
  const next: BytesPull = Effect.suspend(() => {
    if (isOver) return Cause.done()
    if (first === undefined) return rest
    const texts = first
    first = undefined
    return texts.length === 0 ? Cause.done() : Effect.succeed(encode(texts))
  })
  return HttpServerResponse.stream(Stream.fromPull(Effect.succeed(next)), {
    contentType: failureFrames.contentType ?? eventStream,
    headers: { ...caching, ...headers, ...idHeaders }
  })
})

/** Logs why an answer failed after its beginning. */
const logFailure = (name: string, cause: Cause.Cause<InferenceError>): Effect.Effect<void> => {
  const error = Cause.findErrorOption(cause)
  return Option.isSome(error)
    ? warnAlone(() => `${name}: ${ReasonMessage.recorded(error.value.reason)}`)
    : Effect.logError(`${name} failed with a defect.`, Cause.squash(cause))
}

const failureFrame = (frames: FailureFrames, cause: Cause.Cause<InferenceError>): string => {
  const error = Cause.findErrorOption(cause)
  return Option.isSome(error) ? frames.error(error.value.reason) : frames.defect()
}

const refusalOf = (frames: AnswerFrames, cause: Cause.Cause<InferenceError>) => {
  const error = Option.getOrUndefined(Cause.findErrorOption(cause))
  const text = error?.reason._tag === "ContentRefused" ? frames.refuse(error.reason) : undefined
  return error === undefined || text === undefined ? undefined : { text, headers: errorHeaders(error) }
}

/** More characters of frames are written without waiting for the end of the turn. */
const manyCharacters = 16 * 1024

const flush = (writer: FrameWriter): void => writer.flush()

/** The longest time between two looks at the open streams, ms. */
const longestTick = 1_000

/** The streams of a server that have not ended. One timer looks at all of them: a request sets none. */
export class KeptStreams implements OpenStreams {
  readonly afterMs: number
  readonly #all: Array<FrameWriter> = []
  readonly #tickMs: number
  /** Looks without a frame after which a stream is kept alive. */
  readonly #most: number
  #timer: NodeJS.Timeout | undefined

  /** @param afterMs time without a frame after which a stream is kept alive */
  constructor(afterMs: number) {
    this.afterMs = afterMs
    this.#tickMs = Math.min(longestTick, Math.ceil(afterMs / 4))
    this.#most = Math.ceil(afterMs / this.#tickMs)
  }

  add(stream: FrameWriter): void {
    stream.place = this.#all.push(stream) - 1
    this.#timer ??= setInterval(() => this.#look(), this.#tickMs).unref()
  }

  remove(stream: FrameWriter): void {
    if (this.#all[stream.place] !== stream) return
    const last = this.#all.pop()!
    if (last === stream) return
    this.#all[stream.place] = last
    last.place = stream.place
  }

  #look(): void {
    if (this.#all.length === 0) {
      clearInterval(this.#timer)
      this.#timer = undefined
    }
    // From the last one: one that has ended is replaced by the last one.
    for (let index = this.#all.length - 1; index >= 0; index--) {
      const stream = this.#all[index]!
      if (stream.isOver) this.remove(stream)
      else if (++stream.looks > this.#most) stream.keepAlive()
    }
  }
}

/** Writes the frames of one answer to Node's response: those of one turn of the event loop in one write. */
class FrameWriter implements AnswerSink {
  readonly #response: ServerResponse
  readonly #call: Pick<Responding, "headers" | "id" | "waits">
  readonly #frames: AnswerFrames
  readonly #streams: KeptStreams | undefined
  #waiting = ""
  /** The ids of the request in log entries, once the response has begun. */
  name: string | undefined
  /** The index among the open streams. */
  place = 0
  /** Looks at the open streams since the last frame. */
  looks = 0

  constructor(response: ServerResponse, call: Pick<Responding, "headers" | "id" | "waits">, frames: AnswerFrames) {
    this.#response = response
    this.#call = call
    this.#frames = frames
    this.#streams = keepAliveFrame(frames) === undefined ? undefined : streamsOf(response) as KeptStreams | undefined
    this.#streams?.add(this)
  }

  /** Whether nothing more can be written. */
  get isOver(): boolean {
    return this.#response.destroyed || this.#response.writableEnded
  }

  keepAlive(): void {
    this.writeQuiet(keepAliveFrame(this.#frames)!)
  }

  /** Writes a frame without content, unless the reader has not taken the last one. */
  writeQuiet(frame: string): void {
    if (this.#response.writableLength > 0 || this.isOver) return
    if (this.name === undefined) this.beginWith({})
    this.looks = 1
    this.#response.write(frame)
  }

  begin(by: AnsweredBy): void {
    this.#call.waits?.end()
    this.#frames.begin?.(by)
    this.beginWith(answerHeaders(by))
  }

  beginWith(headers: RoutingHeaders): void {
    const { contentType } = this.#frames
    const hasHead = this.name !== undefined
    this.name = logName(this.#call.id, headers)
    if (hasHead) return
    const fixed = contentType === undefined ? eventStreamHeaders : headersOf(contentType)
    writeHead(this.#response, fixed, headers, this.#call.headers)
  }

  events(events: ReadonlyArray<Event>): boolean {
    const text = this.#frames.events(events)
    if (text !== "") this.#add(text)
    return !this.#response.writableNeedDrain
  }

  #add(text: string): void {
    if (this.#waiting === "") process.nextTick(flush, this)
    this.#waiting += text
    if (this.#waiting.length > manyCharacters) this.flush()
  }

  /** Another writer responds. */
  leave(): void {
    this.#streams?.remove(this)
  }

  whenDrained(callback: () => void): void {
    this.#response.once("drain", callback)
  }

  /** Nothing is written after the end of a response, which Effect's server ends for an interrupted request. */
  flush(): void {
    const text = this.#waiting
    this.#waiting = ""
    if (text === "" || this.isOver) return
    this.looks = 0
    this.#response.write(text)
  }

  end(text: string): HttpServerResponse.HttpServerResponse {
    const last = this.#waiting + text
    this.#waiting = ""
    this.#streams?.remove(this)
    this.#response.end(last)
    return written
  }
}

/** Writes an answer to Node's response as it is generated. Before its first events a failure is an error response. */
const writeOne = (
  inference: Inference["Service"],
  request: Request,
  call: Pick<Responding, "headers" | "id" | "waits">,
  frames: AnswerFrames,
  response: ServerResponse
) => {
  const writer = new FrameWriter(response, call, frames)
  const { waits } = call
  const answered = inference.deliver(request, writer)
  const delivered = waits === undefined || keepAliveFrame(frames) === undefined
    ? answered
    : WaitEvents.during(waits, (event) => writer.writeQuiet(event), answered)
  return Effect.matchCauseEffect(delivered, {
    onSuccess: () => Effect.succeed(writer.end(frames.end())),
    onFailure: (cause) => {
      if (isCancellation(cause)) return Effect.failCause(cause)
      const refusal = refusalOf(frames, cause)
      if (writer.name === undefined) {
        if (refusal === undefined) {
          writer.leave()
          return Effect.failCause(cause)
        }
        writer.beginWith(refusal.headers)
      }
      return refusal === undefined
        ? Effect.as(logFailure(writer.name!, cause), writer.end(failureFrame(frames, cause)))
        : Effect.succeed(writer.end(refusal.text))
    }
  })
}

/** The frames of an answer, for a response that is not Node's. */
const framesOfOne = (
  inference: Inference["Service"],
  request: Request,
  frames: AnswerFrames,
  setHeaders: (headers: RoutingHeaders) => void
) => {
  const opened = Effect.map(inference.open(request), ({ events, ...by }) => {
    setHeaders(answerHeaders(by))
    frames.begin?.(by)
    return Stream.mapArray(events, (some) => Arr.of(frames.events(some)))
  })
  return Stream.unwrap(opened).pipe(
    Stream.concat(Stream.sync(frames.end)),
    Stream.catchTag("InferenceError", (error) => {
      const refusal = refusalOf(frames, Cause.fail(error))
      if (refusal === undefined) return Stream.fail(error)
      setHeaders(refusal.headers)
      return Stream.succeed(refusal.text)
    })
  )
}

/** Responds with one answer as it is generated. */
export const respondOne = (
  inference: Inference["Service"],
  request: Request,
  call: Responding,
  frames: AnswerFrames
) =>
  call.response === undefined
    ? respond(call, frames, (setHeaders) => framesOfOne(inference, request, frames, setHeaders))
    : writeOne(inference, request, call, frames, call.response)
