/**
 * An answer as server-sent events.
 *
 * **Details**
 *
 * The status of an answer is chosen when its first content is there: until then every failure is an ordinary error
 * response. Afterwards a failure is a frame in the stream, which then ends as no whole answer does.
 */
import { Array as Arr, Effect, Pull, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import type { InferenceError, Reason } from "../../services/InferenceError.ts"

const encoder = new TextEncoder()

/** The last frames of a stream that fails once it has begun. */
export interface Endings {
  readonly failed: (reason: Reason) => string
  /** Of a defect. */
  readonly broken: () => string
}

/** @param frames fails in its first pull where the request fails before any content */
export const respond = Effect.fnUntraced(function*<R>(
  id: string,
  frames: Stream.Stream<string, InferenceError, R>,
  { broken, failed }: Endings
) {
  const pull = yield* Stream.toPull(frames)
  const first = yield* Pull.catchDone(pull, () => Effect.succeed([] as ReadonlyArray<string>))
  const rest = Stream.fromPull(Effect.succeed(pull)).pipe(
    Stream.catchTag("InferenceError", (error) =>
      Stream.fromEffect(Effect.as(
        Effect.logWarning(`${id}: ${error.message}`),
        failed(error.reason)
      ))),
    Stream.catchDefect((defect) =>
      Stream.fromEffect(Effect.as(
        Effect.logError(`${id} ended in a defect.`, defect),
        broken()
      ))
    )
  )
  const bytes = Stream.concat(Stream.fromArray(first), rest).pipe(
    Stream.mapArray((texts) => Arr.of(encoder.encode(texts.join(""))))
  )
  return HttpServerResponse.stream(bytes, {
    contentType: "text/event-stream; charset=utf-8",
    headers: { "cache-control": "no-cache" }
  })
})
