/**
 * The actors: each deployment that is in use has one, which owns its engine and starts it again when it crashes.
 *
 * **Details**
 *
 * An actor is a scope in an `RcMap`: counted references, one load for many callers and the idle time are the map's. Its
 * supervisor is one fiber: start the engine, hand it to whoever waits, wait until it crashes, begin again by
 * `Policies.restart`.
 */
import { Cause, Clock, Deferred, Duration, Effect, Fiber, Layer, Option, RcMap, Semaphore } from "effect"
import type { Engine, Generation } from "../services/Engine.ts"
import { Engines } from "../services/Engine.ts"
import type { InferenceError } from "../services/InferenceError.ts"
import { EngineFailed, make as makeError } from "../services/InferenceError.ts"
import type { Deployment } from "../services/Model.ts"
import { defaultSlots } from "../services/Model.ts"
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
  /** The engine that crashed last had run for `Policies.stableAfter`. */
  ranWell: boolean
  /** Borrowers that wait for the engine. */
  waiting: number
  readonly slots: Semaphore.Semaphore
  running: number
  queued: number
}

const makeActor = (deployment: Deployment): Actor => ({
  deployment,
  state: "loading",
  lastFailure: undefined,
  engine: Deferred.makeUnsafe(),
  current: undefined,
  ranWell: false,
  waiting: 0,
  slots: Semaphore.makeUnsafe((deployment.options.slots ?? defaultSlots) * (deployment.options.replicas ?? 1)),
  running: 0,
  queued: 0
})

/** A crash, noted before the engine's scope closes: from here on borrowers wait for the next engine. */
const noteCrash = (actor: Actor, ready: number) => (error: InferenceError) =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    actor.ranWell = now - ready >= Duration.toMillis(Policies.stableAfter)
    actor.state = "loading"
    actor.engine = Deferred.makeUnsafe()
    actor.current = undefined
    return error.reason._tag === "EngineCrashed" ? Effect.logWarning(error.message) : Effect.void
  })

/** Runs one engine until it crashes; never succeeds. */
const runEngine = Effect.fnUntraced(function*(actor: Actor) {
  const engines = yield* Engines
  actor.state = "loading"
  actor.ranWell = false
  const started = yield* Clock.currentTimeMillis
  const engine = yield* engines.start(actor.deployment)
  const ready = yield* Clock.currentTimeMillis
  yield* Effect.logDebug(`${actor.deployment.id} is loaded after ${ready - started} ms.`)
  actor.state = "ready"
  actor.current = engine
  yield* Deferred.succeed(actor.engine, engine)
  return yield* Effect.tapError(engine.crashed, noteCrash(actor, ready))
}, Effect.scoped)

/** Keeps an engine running; fails when it cannot be loaded or the restarts are used up. */
const supervise = (actor: Actor) =>
  runEngine(actor).pipe(
    Effect.tapError((error) =>
      Effect.sync(() => {
        actor.lastFailure = error.message
      })
    ),
    // An engine that ran well is started again as if it never crashed before.
    Effect.catch((error) => actor.ranWell ? Effect.void : Effect.fail(error)),
    Effect.retry(Policies.restart),
    Effect.forever
  )

/** Why the supervisor has given up, of which an error nobody foresaw is a reason too. */
const givenUp = ({ deployment }: Actor, cause: Cause.Cause<InferenceError>): InferenceError =>
  Option.getOrElse(Cause.findErrorOption(cause), () => {
    const [detail = ""] = String(Cause.squash(cause)).split("\n")
    return makeError(new EngineFailed({ deployment: deployment.id, detail }))
  })

/** Waits for the engine; the last to leave before it is there abandons it. */
const awaitEngine = (actor: Actor, abandon: Effect.Effect<void>) =>
  Effect.acquireUseRelease(
    Effect.sync(() => actor.waiting++),
    () => Deferred.await(actor.engine),
    () => Effect.sync(() => actor.waiting--)
  ).pipe(
    Effect.onInterrupt(() =>
      Effect.suspend(() => actor.waiting === 0 && actor.current === undefined ? abandon : Effect.void)
    )
  )

/** The engine for one job; the slot goes back when the scope is closed and the engine has let go of the job. */
const withSlot = Effect.fnUntraced(function*(actor: Actor, engine: Engine) {
  actor.queued++
  yield* actor.slots.take(1).pipe(Effect.interruptible, Effect.ensuring(Effect.sync(() => actor.queued--)))
  actor.running++
  let holders = 1
  const release = () => {
    holders--
    if (holders > 0) return
    actor.running--
    Effect.runFork(actor.slots.release(1))
  }
  yield* Effect.addFinalizer(() => Effect.sync(release))
  return {
    ...engine,
    generate: (generation: Generation) =>
      engine.generate(generation, () => {
        holders++
        return release
      })
  }
}, Effect.uninterruptible)

const statusOf = (id: string, actor: Actor | undefined): Effect.Effect<Status> =>
  Effect.map(actor?.current?.memoryBytes ?? Effect.succeed(0), (memoryBytes) => ({
    deployment: id,
    state: actor?.state ?? "cold",
    running: actor?.running ?? 0,
    queued: actor?.queued ?? 0,
    memoryBytes,
    ...(actor?.lastFailure === undefined ? {} : { lastFailure: actor.lastFailure })
  }))

const stopAll = (actors: Iterable<Actor>) =>
  Effect.forEach(actors, ({ current }) => current?.stop ?? Effect.void, { concurrency: "unbounded", discard: true })

export const layer = Layer.effect(
  Models,
  Effect.gen(function*() {
    const house = yield* Effect.scope
    const context = yield* Effect.context<Engines>()
    const actors = new Map<string, Actor>()
    const deployments = new Map<string, Deployment>()

    /** Fails who waits; the next borrower begins anew. */
    const giveUp = (id: string, actor: Actor) => (cause: Cause.Cause<InferenceError>) => {
      if (Cause.hasInterruptsOnly(cause)) return Effect.void
      const error = givenUp(actor, cause)
      actor.state = "failed"
      actor.lastFailure = error.message
      // Not on the supervisor's fiber, which the actor's end interrupts.
      return Effect.forkIn(Effect.andThen(drop(id, actor), Deferred.fail(actor.engine, error)), house)
    }

    const lookup = Effect.fnUntraced(function*(id: string) {
      const actor = makeActor(deployments.get(id)!)
      actors.set(id, actor)
      yield* Effect.addFinalizer(() => {
        if (actors.get(id) === actor && actor.state !== "failed") actors.delete(id)
        return actor.state === "ready" ? Effect.logDebug(`${id} is unloaded.`) : Effect.void
      })
      // In the house's context: the supervisor's logs are not part of the request that happened to come first.
      Effect.runForkWith(context)(Effect.catchCause(supervise(actor), giveUp(id, actor))).pipe(
        Fiber.runIn(yield* Effect.scope)
      )
      return actor
    })

    const map: RcMap.RcMap<string, Actor> = yield* RcMap.make({
      lookup,
      idleTimeToLive: (id: string) => deployments.get(id)!.idleUnload
    })

    /** Ends the actor once nobody has borrowed it, and leaves one that has taken its place alone. */
    const drop = (id: string, actor: Actor) =>
      Effect.suspend(() => actors.get(id) === actor ? RcMap.invalidate(map, id) : Effect.void)

    // The map ends its actors one after another; engines that are slow to end would add up.
    yield* Effect.addFinalizer(() =>
      Effect.forEach([...actors], ([id, actor]) => drop(id, actor), { concurrency: "unbounded", discard: true })
    )

    const reference = Effect.fnUntraced(function*(deployment: Deployment) {
      deployments.set(deployment.id, deployment)
      const actor = yield* RcMap.get(map, deployment.id)
      if (actor.current === undefined) yield* awaitEngine(actor, drop(deployment.id, actor))
      return actor
    })

    const borrow = Effect.fnUntraced(function*(deployment: Deployment) {
      const actor = yield* reference(deployment)
      return yield* withSlot(actor, actor.current!)
    })

    return Models.of({
      borrow,
      load: (deployment) => Effect.scoped(reference(deployment)),
      stop: Effect.suspend(() => stopAll(actors.values())),
      status: ({ id }) => Effect.suspend(() => statusOf(id, actors.get(id))),
      statuses: Effect.suspend(() => Effect.forEach(actors, ([id, actor]) => statusOf(id, actor)))
    })
  })
)
