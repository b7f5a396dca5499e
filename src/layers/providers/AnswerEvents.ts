/** The events of a streamed body that an effect reads. */
import type { Pull } from "effect"
import { Cause, Duration, Effect, Stream } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { Event } from "../../domain/Inference.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"
import type { EventReader } from "./EventReader.ts"
import type { HttpExchange, ResponseBody } from "./HttpExchange.ts"

type EventPull = Pull.Pull<readonly [Event, ...Array<Event>], InferenceError.InferenceError>

/** Reads the rest of a body whose answer is complete, so that its connection can be reused. */
export const drain = <E>(pull: Pull.Pull<Uint8Array, E>): Pull.Pull<never> =>
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
