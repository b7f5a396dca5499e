/**
 * Responses as server-sent events.
 *
 * **Details**
 *
 * The status is chosen when the first content is there: until then every failure is an ordinary error response. Afterwards a
 * failure is a frame in the stream, which then has no terminator. A refusal that a provider sent as an answer is the end of
 * that answer, also after reasoning or other choices: its frames are those that the provider sent.
 */
import { Array as Arr, Cause, Channel, Effect, Option, Pull, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { ServerResponse } from "node:http"
import * as Caller from "../../domain/Caller.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { AnswerSink, Event, Request } from "../../domain/Inference.ts"
import type { ContentRefused, InferenceError, Reason } from "../../domain/InferenceError.ts"
import type { Inference } from "../../services/inference/Inference.ts"
import type { Responding, RoutingHeaders } from "./Endpoint.ts"
import { answerHeaders, errorHeaders, logName, written } from "./Endpoint.ts"

const encoder = new TextEncoder()

/** The last frame of a stream that fails after its first content. */
export interface FailureFrames {
  readonly error: (reason: Reason) => string
  readonly defect: () => string
}

/** Encodes one answer as frames. */
export interface AnswerFrames extends FailureFrames {
  readonly events: (events: ReadonlyArray<Event>) => string
  /** The last frames. */
  readonly end: () => string
  /** The frames of a refusal that a provider sent as an answer, after the frames before; undefined if it is an error. */
  readonly refuse: (reason: ContentRefused) => string | undefined
}

const contentType = "text/event-stream; charset=utf-8"
const caching = { "cache-control": "no-cache" }

type BytesPull = Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>>

/**
 * @param framesOf makes the frames, whose first pull fails if the request fails before any content; it is given a function
 *   that sets the headers of the response, to be called before the first frames
 */
export const respond = Effect.fnUntraced(function*(
  { headers: idHeaders, id }: Pick<Responding, "headers" | "id">,
  failureFrames: FailureFrames,
  framesOf: (setHeaders: (headers: RoutingHeaders) => void) => Stream.Stream<string, InferenceError>
) {
  let headers: RoutingHeaders = {}
  const frames = framesOf((found) => {
    headers = found
  })
  // Not `Stream.toPull`, which guards each pull against concurrent ones.
  const pullFrames = yield* Channel.toPullScoped(Stream.toChannel(frames), yield* Effect.scope)
  const hops = yield* Caller.HopCount
  // The body is pulled after the handler has ended, without the services that were provided to it; a failover needs `HopCount`.
  const pull = hops === 0 ? pullFrames : Effect.provideService(pullFrames, Caller.HopCount, hops)
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
        Effect.logWarning(`${logName(id, headers)}: ${error.value.message}`),
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
    contentType,
    headers: { ...caching, ...headers, ...idHeaders }
  })
})

/** Logs why an answer failed after its beginning. */
const logFailure = (name: string, cause: Cause.Cause<InferenceError>): Effect.Effect<void> => {
  const error = Cause.findErrorOption(cause)
  return Option.isSome(error)
    ? Effect.logWarning(`${name}: ${error.value.message}`)
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

/** Writes an answer to Node's response as it is generated. Before its first events a failure is an error response. */
const writeOne = (
  inference: Inference["Service"],
  request: Request,
  { headers: idHeaders, id }: Pick<Responding, "headers" | "id">,
  frames: AnswerFrames,
  response: ServerResponse
) => {
  let name: string | undefined
  const begin = (headers: RoutingHeaders) => {
    name = logName(id, headers)
    response.writeHead(200, { "content-type": contentType, ...caching, ...headers, ...idHeaders })
  }
  const sink: AnswerSink = {
    begin: (by) => begin(answerHeaders(by)),
    events: (events) => {
      const text = frames.events(events)
      return text === "" || response.write(text)
    },
    whenDrained: (callback) => void response.once("drain", callback)
  }
  const end = (text: string) => {
    response.end(text)
    return written
  }
  return Effect.matchCauseEffect(inference.deliver(request, sink), {
    onSuccess: () => Effect.succeed(end(frames.end())),
    onFailure: (cause) => {
      if (isCancellation(cause)) return Effect.failCause(cause)
      const refusal = refusalOf(frames, cause)
      if (name === undefined) {
        if (refusal === undefined) return Effect.failCause(cause)
        begin(refusal.headers)
      }
      return refusal === undefined
        ? Effect.as(logFailure(name!, cause), end(failureFrame(frames, cause)))
        : Effect.succeed(end(refusal.text))
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
