/**
 * The events that tell the caller of a stream where its request waits. A caller asks for them by a header, since clients that
 * parse every event of a dialect fail at one that the dialect does not have.
 */
import { Duration, Effect, Fiber, Result } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import { progressEvent, progressHeader, Waits } from "../../services/models/Waits.ts"
import type { RequestHeaders } from "./Dialect.ts"

/** Between two events, ms. */
export const intervalMs = Duration.toMillis(Defaults.waitEvents)

const invalid = (value: string): InvalidRequest =>
  new InvalidRequest({
    path: progressHeader,
    detail: `Expected true or false, not ${JSON.stringify(value.slice(0, 50))}`
  })

/** The waits that a caller asks for; undefined if it does not. */
export const ofHeaders = (headers: RequestHeaders): Result.Result<Waits | undefined, InvalidRequest> => {
  const value = headers[progressHeader]
  if (value === undefined) return Result.succeed(undefined)
  const asked = value.trim().toLowerCase()
  if (asked === "true") return Result.succeed(new Waits())
  return asked === "false" ? Result.succeed(undefined) : Result.fail(invalid(value))
}

/** The event of where the request waits now; undefined if it does not wait. */
export const next = (waits: Waits): string | undefined => {
  const progress = waits.look()
  return progress === undefined
    ? undefined
    : `event: ${progressEvent}\ndata: ${JSON.stringify({ type: progressEvent, ...progress })}\n\n`
}

/** Writes the events until the answer begins or `answered` ends. The first is written after the interval. */
export const during = <A, E, R>(
  waits: Waits,
  write: (event: string) => void,
  answered: Effect.Effect<A, E, R>
): Effect.Effect<A, E, R> => {
  const tell = Effect.sync(() => {
    const event = next(waits)
    if (event !== undefined) write(event)
    return waits.isOver
  })
  const telling = Effect.repeat(Effect.delay(tell, intervalMs), { until: (isOver) => isOver })
  return Effect.flatMap(Effect.forkChild(telling), (fiber) => Effect.ensuring(answered, Fiber.interrupt(fiber)))
}
