/**
 * The actors: each deployment that is in use has one, which owns its engine and starts it again when it crashes.
 *
 * **Details**
 *
 * An actor is a scope in an `RcMap`: counted references, one load for many callers and the idle time are the map's. Its
 * supervisor is one fiber: start the engine, hand it to whoever waits, wait until it crashes, begin again by
 * `Policies.restart`.
 */
import { Clock, Deferred, Duration, Effect, Layer, RcMap } from "effect"
import type { Engine } from "../services/Engine.ts"
import { Engines } from "../services/Engine.ts"
import type { InferenceError } from "../services/InferenceError.ts"
import type { Deployment } from "../services/Model.ts"
import type { State, Status } from "../services/Models.ts"
import { Models } from "../services/Models.ts"
import * as Policies from "../services/Policies.ts"

interface Actor {
  readonly deployment: Deployment
  state: State
  lastFailure: string | undefined
  /** The engine, or the next one while it is being started. */
  engine: Deferred.Deferred<Engine, InferenceError>
  current: Engine | undefined
}

/** Runs one engine until it crashes; fails always. */
const runEngine = Effect.fnUntraced(
  function*(actor: Actor) {
    const engines = yield* Engines
    actor.state = "loading"
    const started = yield* Clock.currentTimeMillis
    const engine = yield* engines.start(actor.deployment)
    const ready = yield* Clock.currentTimeMillis
    yield* Effect.logDebug(`${actor.deployment.id} is loaded after ${ready - started} ms.`)
    actor.state = "ready"
    actor.current = engine
    yield* Deferred.succeed(actor.engine, engine)
    return yield* engine.crashed
  },
  Effect.scoped,
  (effect, actor) =>
    Effect.tapError(effect, (error) =>
      Effect.suspend(() => {
        if (actor.state === "ready") actor.engine = Deferred.makeUnsafe()
        actor.state = "loading"
        actor.current = undefined
        actor.lastFailure = error.message
        // A failure to load is told to whoever asked for the model; a crash may have no one to tell.
        return error.reason._tag === "EngineCrashed" ? Effect.logWarning(error.message) : Effect.void
      }))
)

/** An engine that ran well for a while is started again as if it never crashed before. */
const supervise = (actor: Actor) =>
  Effect.suspend(() => {
    let since = 0
    const stable = Clock.currentTimeMillis.pipe(
      Effect.map((now) => now - since >= Duration.toMillis(Policies.stableAfter))
    )
    const once = Effect.andThen(
      Effect.map(Clock.currentTimeMillis, (now) => {
        since = now
      }),
      runEngine(actor)
    )
    return once.pipe(
      Effect.catch((error) => Effect.flatMap(stable, (reset) => reset ? Effect.void : Effect.fail(error))),
      Effect.retry(Policies.restart),
      Effect.forever
    )
  })

const statusOf = (id: string, actor: Actor | undefined): Effect.Effect<Status> =>
  Effect.map(actor?.current?.load ?? Effect.succeed({ running: 0, queued: 0, memoryBytes: 0 }), (load) => ({
    deployment: id,
    state: actor?.state ?? "cold",
    ...load,
    ...(actor?.lastFailure === undefined ? {} : { lastFailure: actor.lastFailure })
  }))

export const layer = Layer.effect(
  Models,
  Effect.gen(function*() {
    const house = yield* Effect.scope
    const actors = new Map<string, Actor>()
    const deployments = new Map<string, Deployment>()

    const lookup = Effect.fnUntraced(function*(id: string) {
      const deployment = deployments.get(id)!
      const actor: Actor = {
        deployment,
        state: "loading",
        lastFailure: undefined,
        engine: Deferred.makeUnsafe(),
        current: undefined
      }
      actors.set(id, actor)
      yield* Effect.addFinalizer(() => {
        if (actors.get(id) === actor && actor.state !== "failed") actors.delete(id)
        return actor.state === "ready" ? Effect.logDebug(`${id} is unloaded.`) : Effect.void
      })
      yield* supervise(actor).pipe(
        Effect.catch((error) =>
          Effect.suspend(() => {
            actor.state = "failed"
            actor.lastFailure = error.message
            // The next borrower after those who wait begins anew. Not on this fiber, which the actor's end interrupts.
            return Effect.andThen(Deferred.fail(actor.engine, error), Effect.forkIn(RcMap.invalidate(map, id), house))
          })
        ),
        Effect.forkScoped
      )
      return actor
    })

    const map: RcMap.RcMap<string, Actor> = yield* RcMap.make({
      lookup,
      idleTimeToLive: (id: string) => deployments.get(id)!.idleUnload
    })

    const borrow = Effect.fnUntraced(function*(deployment: Deployment) {
      deployments.set(deployment.id, deployment)
      const actor = yield* RcMap.get(map, deployment.id)
      return yield* Deferred.await(actor.engine)
    })

    return Models.of({
      borrow,
      status: ({ id }) => Effect.suspend(() => statusOf(id, actors.get(id))),
      statuses: Effect.suspend(() => Effect.forEach(actors, ([id, actor]) => statusOf(id, actor)))
    })
  })
)
