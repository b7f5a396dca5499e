/**
 * Calls into code that the embedding program supplies: metrics, tracers, strategies, measurements. An exception or defect
 * there changes no answer.
 *
 * **Details**
 *
 * The first failure of each callback is logged with the callback's name. Later ones are not logged, since they may occur in
 * every request.
 */
import { Cause, Effect } from "effect"

export interface GuardedCallbacks {
  /** The call's result, or `fallback` if it throws. */
  readonly call: <A>(name: string, call: () => A, fallback: A) => A
  /** The effect's result, or `fallback` if it fails, dies or interrupts itself. */
  readonly run: <A, R>(name: string, effect: Effect.Effect<A, unknown, R>, fallback: A) => Effect.Effect<A, never, R>
}

/** Logs with the loggers of the fiber that runs this. */
export const make: Effect.Effect<GuardedCallbacks> = Effect.map(Effect.context(), (context) => {
  const logged = new Set<string>()
  const fork = Effect.runForkWith(context)
  const report = (name: string, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (logged.has(name)) return Effect.void
      logged.add(name)
      return Effect.logError(
        `The ${name} failed. Requests continue without the result; further failures are not logged.`,
        cause
      )
    })
  return {
    call: (name, call, fallback) => {
      try {
        return call()
      } catch (cause) {
        fork(report(name, Cause.die(cause)))
        return fallback
      }
    },
    run: (name, effect, fallback) => Effect.catchCause(effect, (cause) => Effect.as(report(name, cause), fallback))
  }
})
