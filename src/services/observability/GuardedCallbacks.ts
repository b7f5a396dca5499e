/**
 * Calls into code that the embedding program supplies: metrics, tracers, strategies, measurements. An exception or defect
 * there changes no answer, and an Effect that does not end holds none back.
 *
 * **Details**
 *
 * The first failure of each callback is logged with the callback's name. Later ones are not logged, since they may occur in
 * every request.
 */
import type { Context, Scope } from "effect"
import { Cause, Duration, Effect, Fiber } from "effect"
import * as Defaults from "../../domain/Defaults.ts"

export interface GuardedCallbacks {
  /** The call's result, or `fallback` if it throws. */
  readonly call: <A>(name: string, call: () => A, fallback: A) => A
  /** The result of an effect that does not wait, or `fallback` if it fails, dies or interrupts itself. */
  readonly run: <A, R>(name: string, effect: Effect.Effect<A, unknown, R>, fallback: A) => Effect.Effect<A, never, R>
  /** As `run`, for an effect that may wait: `fallback` also after `Defaults.callbackLimit`. */
  readonly runWithin: <A, R>(
    name: string,
    effect: Effect.Effect<A, unknown, R>,
    fallback: A
  ) => Effect.Effect<A, never, R>
  /**
   * Calls it without waiting for the effect that it returns, if any. That effect runs on a fiber of the runtime, for at most
   * `Defaults.callbackLimit`, also when the caller's scope has ended.
   *
   * @param context of the caller
   * @param after the fiber of an earlier call that ends first
   * @returns the fiber; undefined if nothing is left to run
   */
  readonly notify: (
    name: string,
    call: () => Effect.Effect<void> | void,
    context: Context.Context<never>,
    after?: Fiber.Fiber<void>
  ) => Fiber.Fiber<void> | undefined
}

/** The most effects of `notify` that run at a time; the effects of further calls are not run. */
const mostPending = 1_000

type Report = (name: string, cause: Cause.Cause<unknown>) => Effect.Effect<void>

const makeReport = (): Report => {
  const logged = new Set<string>()
  return (name, cause) =>
    Effect.suspend(() => {
      if (logged.has(name)) return Effect.void
      logged.add(name)
      return Effect.logError(
        `The ${name} failed. Requests continue without the result; further failures are not logged.`,
        cause
      )
    })
}

const exceeded = () => Cause.fail(`It did not end within ${Duration.format(Defaults.callbackLimit)}.`)
const tooMany = () => Cause.fail(`${mostPending} of its effects have not ended: further ones are not run.`)

/** Runs effects beside the requests; the end of the scope waits for those that are within their limit. */
const makeStart = Effect.fnUntraced(function*(report: Report) {
  const pending = new Set<Fiber.Fiber<void>>()
  yield* Effect.addFinalizer(() => Effect.suspend(() => Fiber.awaitAll(pending)))
  return (
    name: string,
    effect: Effect.Effect<void>,
    context: Context.Context<never>,
    after: Fiber.Fiber<void> | undefined
  ): Fiber.Fiber<void> | undefined => {
    const fork = Effect.runForkWith(context)
    if (pending.size >= mostPending) {
      fork(report(name, tooMany()))
      return undefined
    }
    const guarded = Effect.catchCause(effect, (cause) => report(name, cause))
    const fiber = fork(after === undefined ? guarded : Effect.andThen(Fiber.await(after), guarded))
    if (fiber.pollUnsafe() !== undefined) return undefined
    // Not a timeout of the effect itself, which would wait for its interruption.
    const watched: Fiber.Fiber<void> = fork(Effect.timeoutOrElse(Effect.asVoid(Fiber.await(fiber)), {
      duration: Defaults.callbackLimit,
      orElse: () => Effect.andThen(report(name, exceeded()), Effect.sync(() => fiber.interruptUnsafe()))
    }))
    pending.add(watched)
    watched.addObserver(() => pending.delete(watched))
    return watched
  }
})

/** Logs with the loggers of the fiber that runs this; the end of its scope waits for the effects of `notify`. */
export const make: Effect.Effect<GuardedCallbacks, never, Scope.Scope> = Effect.gen(function*() {
  const fork = Effect.runForkWith(yield* Effect.context())
  const report = makeReport()
  const start = yield* makeStart(report)
  const call: GuardedCallbacks["call"] = (name, call, fallback) => {
    try {
      return call()
    } catch (cause) {
      fork(report(name, Cause.die(cause)))
      return fallback
    }
  }
  const run: GuardedCallbacks["run"] = (name, effect, fallback) =>
    Effect.catchCause(effect, (cause) => Effect.as(report(name, cause), fallback))
  return {
    call,
    run,
    runWithin: (name, effect, fallback) =>
      run(
        name,
        Effect.timeoutOrElse(effect, {
          duration: Defaults.callbackLimit,
          orElse: () => Effect.failCause(exceeded())
        }),
        fallback
      ),
    notify: (name, callback, context, after) => {
      const effect = call<Effect.Effect<void> | void>(name, callback, undefined)
      return Effect.isEffect(effect) ? start(name, effect, context, after) : undefined
    }
  }
})
