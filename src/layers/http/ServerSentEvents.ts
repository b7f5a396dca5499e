/**
 * Responses as server-sent events.
 *
 * **Details**
 *
 * The status is chosen when the first content is there: until then every failure is an ordinary error response. Afterwards a
 * failure is a frame in the stream, which then has no terminator.
 */
import { Array as Arr, Cause, Channel, Effect, Option, Pull, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import * as Caller from "../../domain/Caller.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"
import type { RoutingHeaders } from "./Endpoint.ts"
import { logName } from "./Endpoint.ts"

const encoder = new TextEncoder()

/** The last frame of a stream that fails after its first content. */
export interface FailureFrames {
  readonly error: (reason: Reason) => string
  readonly defect: () => string
}

type BytesPull = Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>>

/**
 * @param framesOf makes the frames, whose first pull fails if the request fails before any content; it is given a function
 *   that sets the headers of the response, to be called before the first frames
 */
export const respond = Effect.fnUntraced(function*(
  id: string,
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
    contentType: "text/event-stream; charset=utf-8",
    headers: { "cache-control": "no-cache", ...headers }
  })
})
