/**
 * Calls into code that a program provides beside its requests: metrics, tracers, strategies, measurements. What they throw
 * or die of changes no answer.
 *
 * **Details**
 *
 * The first failure of each is logged, by name; later ones are not, since they come with every request.
 */
import { Cause, Effect } from "effect"

export interface Foreign {
  /** The call's result, or `otherwise` where it throws. */
  readonly call: <A>(name: string, call: () => A, otherwise: A) => A
  /** The effect's result, or `otherwise` where it fails, dies or interrupts itself. */
  readonly run: <A, R>(name: string, effect: Effect.Effect<A, unknown, R>, otherwise: A) => Effect.Effect<A, never, R>
}

/** Logs with the loggers of where it is made. */
export const make: Effect.Effect<Foreign> = Effect.map(Effect.context(), (context) => {
  const logged = new Set<string>()
  const fork = Effect.runForkWith(context)
  const report = (name: string, cause: Cause.Cause<unknown>): Effect.Effect<void> =>
    Effect.suspend(() => {
      if (logged.has(name)) return Effect.void
      logged.add(name)
      return Effect.logError(`The ${name} failed. Requests go on without it; later failures are not logged.`, cause)
    })
  return {
    call: (name, call, otherwise) => {
      try {
        return call()
      } catch (cause) {
        fork(report(name, Cause.die(cause)))
        return otherwise
      }
    },
    run: (name, effect, otherwise) => Effect.catchCause(effect, (cause) => Effect.as(report(name, cause), otherwise))
  }
})
