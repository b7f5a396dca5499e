/**
 * An answer as server-sent events.
 *
 * **Details**
 *
 * The status of an answer is chosen when its first content is there: until then every failure is an ordinary error
 * response. Afterwards a failure is a frame in the stream, which then ends as no whole answer does.
 */
import { Array as Arr, Cause, Channel, Effect, Option, Pull, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { isCancellation } from "../../domain/Cancellation.ts"
import * as Hops from "../../domain/HopLimit.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"

const encoder = new TextEncoder()

/** The last frames of a stream that fails once it has begun. */
export interface Endings {
  readonly failed: (reason: Reason) => string
  /** Of a defect. */
  readonly broken: () => string
}

type BytesPull = Pull.Pull<Arr.NonEmptyReadonlyArray<Uint8Array>>

/**
 * @param frames fails in its first pull where the request fails before any content
 * @param headers asked for once the first frames are there
 */
export const respond = Effect.fnUntraced(function*(
  id: string,
  frames: Stream.Stream<string, InferenceError>,
  { broken, failed }: Endings,
  headers: () => Readonly<Record<string, string>> = () => ({})
) {
  // Not `Stream.toPull`, which guards each pull against others beside it.
  const begun = yield* Channel.toPullScoped(Stream.toChannel(frames), yield* Effect.scope)
  const hops = yield* Hops.Hops
  // The body is read when the handler is done, without what that had provided; an answer that breaks off asks again.
  const pull = hops === 0 ? begun : Effect.provideService(begun, Hops.Hops, hops)
  let first: ReadonlyArray<string> | undefined = yield* Pull.catchDone(pull, () => Effect.succeed([]))
  let isOver = false
  const encode = (texts: ReadonlyArray<string>) => Arr.of(encoder.encode(texts.join("")))

  const end = (cause: Cause.Cause<InferenceError | Cause.Done>): BytesPull => {
    if (Pull.isDoneCause(cause) || isCancellation(cause)) {
      return Effect.failCause(cause as Cause.Cause<Cause.Done>)
    }
    isOver = true
    const error = Cause.findErrorOption(cause) as Option.Option<InferenceError>
    return Option.isSome(error)
      ? Effect.as(Effect.logWarning(`${id}: ${error.value.message}`), encode([failed(error.value.reason)]))
      : Effect.as(Effect.logError(`${id} ended in a defect.`, Cause.squash(cause)), encode([broken()]))
  }
  const rest: BytesPull = Effect.matchCauseEffect(pull, {
    onSuccess: (texts) => Effect.succeed(encode(texts)),
    onFailure: end
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
    headers: { "cache-control": "no-cache", ...headers() }
  })
})
