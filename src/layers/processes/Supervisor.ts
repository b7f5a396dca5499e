/**
 * The supervisor of a service of several processes: it starts them, passes their messages on, starts those again that end, and
 * ends all of them.
 *
 * **Details**
 *
 * The first process starts alone. It finds what is wrong with the configuration, the port and the models, so that a problem is
 * reported once; the others follow when it takes requests. A process that ends later is started again after
 * `Defaults.processRestart`.
 *
 * It has what the processes share (`SharedState`): it does not handle requests, and so is the last to end.
 */
import { Clock, Deferred, Duration, Effect, Exit, Scope } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { Bound } from "../../services/processes/ProcessGroup.ts"
import type { LeasedLimit } from "../../services/processes/Shares.ts"
import { first } from "../../services/processes/Shares.ts"
import type { Configuration, ProcessEnded } from "./Generation.ts"
import { Generation } from "./Generation.ts"
import { SharedState } from "./SharedState.ts"
import type { Spawn } from "./Spawn.ts"

/** What one generation of processes runs with. */
export interface GenerationOptions {
  /** The number of processes. */
  readonly count: number
  readonly configuration: string | undefined
  /** Of the deployments that several processes call: their concurrency, by their ids. */
  readonly limits: ReadonlyMap<string, LeasedLimit>
  /** Left out, the configuration stays as it is. */
  readonly reload?: Configuration | undefined
  /** How long the processes may take to end after a signal, before they are killed. */
  readonly grace: Duration.Duration
}

export interface Options extends GenerationOptions {
  readonly spawn: Spawn
  /** 0 for any free port. */
  readonly port: number
}

/** A generation that takes requests. */
export interface Started {
  readonly generation: Generation
  /** Undefined if the configuration stays as it is. */
  readonly reload: Generation["reload"]
  readonly bound: Bound
  /** Ends its processes, and waits for them. */
  readonly stop: Effect.Effect<void>
}

/** A service that runs. */
export interface Supervised extends Started {
  /** Starts another generation, beside one at this port. */
  readonly startBeside: (options: GenerationOptions, running: Generation) => Effect.Effect<Started, ProcessEnded>
}

/** Runs one process until it ends. */
const runProcess = (group: Generation, index: number): Effect.Effect<never, ProcessEnded> =>
  Effect.flatMap(Clock.Clock, (clock) =>
    Effect.callback((resume) => {
      if (group.isStopping) return
      const now = () => clock.currentTimeMillisUnsafe()
      group.start(index, now(), now, (error) => resume(Effect.fail(error)))
    }))

/** Runs a process, and another in its place when it ends. Returns if the process has never taken requests. */
const keepRunning = (group: Generation, index: number): Effect.Effect<void> => {
  const logged = Effect.tapError(
    runProcess(group, index),
    (error) =>
      error.hasServed && !group.isStopping ? Effect.logWarning(`${error.message} Another one starts.`) : Effect.void
  )
  const isStable = ({ uptimeMs }: ProcessEnded) => uptimeMs >= Duration.toMillis(Defaults.stableAfter)
  return Effect.retry(logged, {
    schedule: Defaults.processRestart,
    while: (error) => error.hasServed && !isStable(error)
  }).pipe(
    Effect.catch((error): Effect.Effect<void> => error.hasServed ? keepRunning(group, index) : Effect.void)
  )
}

/** Ends all processes, and waits for them. */
const stopAll = (group: Generation, grace: Duration.Duration): Effect.Effect<void> =>
  Effect.callback<void>((resume) => group.stop(() => resume(Effect.void))).pipe(
    Effect.timeoutOrElse({
      duration: grace,
      orElse: () =>
        Effect.andThen(
          Effect.logWarning("A service process did not stop in time and is killed."),
          Effect.callback<void>((resume) => {
            group.stop(() => resume(Effect.void))
            group.kill()
          })
        )
    })
  )

/** Starts the first process, and the others when it takes requests; keeps them running until the scope ends. */
const startAll = Effect.fnUntraced(function*(group: Generation, grace: Duration.Duration) {
  yield* Effect.addFinalizer(() => stopAll(group, grace))
  const start = (index: number) =>
    Effect.andThen(Effect.forkScoped(keepRunning(group, index)), Deferred.await(group.listening.get(index)!))
  const bound = yield* start(first)
  const others = Array.from({ length: group.place.count - 1 }, (_, index) => first + 1 + index)
  yield* Effect.forEach(others, start, { concurrency: "unbounded", discard: true })
  return bound
})

/**
 * Starts the processes and keeps them running until the scope ends. Returns when all take requests; fails if one ends before
 * that.
 */
export const supervise = Effect.fnUntraced(function*(options: Options) {
  const clock = yield* Clock.Clock
  const scope = yield* Effect.scope
  const shared = new SharedState(
    () => clock.currentTimeMillisUnsafe(),
    () => Number(clock.monotonicTimeNanosUnsafe()) / 1e6
  )
  const services = yield* Effect.context()
  const fork = (effect: Effect.Effect<void>) => void Effect.runForkWith(services)(Effect.forkIn(effect, scope))
  const since = clock.currentTimeMillisUnsafe()
  let seats = 0
  const start = Effect.fnUntraced(
    function*({ configuration, count, grace, limits, reload }: GenerationOptions, port: number, running?: Generation) {
      const place = {
        generation: (running?.place.generation ?? 0) + 1,
        isBeside: running !== undefined,
        count,
        since,
        port,
        configuration,
        numbering: [],
        ...(running?.place.adminPort === undefined ? {} : { adminPort: running.place.adminPort })
      }
      const leases = shared.leasesOf(limits, count)
      const generation = new Generation(
        { place, spawn: options.spawn, leases, seatsAfter: seats, reload, fork },
        shared
      )
      if (running !== undefined) generation.onReload = running.onReload
      seats += count
      const own = yield* Scope.fork(scope)
      const stop = Scope.close(own, Exit.void)
      const bound = yield* Effect.provideService(startAll(generation, grace), Scope.Scope, own).pipe(
        Effect.onError(() => stop)
      )
      return { generation, reload: generation.reload, bound, stop }
    }
  )
  const started = yield* start(options, options.port)
  const supervised: Supervised = {
    ...started,
    startBeside: (next, running) => start(next, running.place.port, running)
  }
  return supervised
})
