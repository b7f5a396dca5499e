/**
 * The lives of engines: load, serve, crash and start again, drain and end.
 *
 * **Details**
 *
 * Each life is one fiber: it asks for memory, starts the engine, hands it to whoever waits, waits until it crashes, and
 * begins again by `Policies.restart`. Interrupting the fiber ends the engine and gives its memory back.
 */
import { Cause, Duration, Effect, Fiber, Option } from "effect"
import * as Policies from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { EngineFailed, EngineStopped, make as makeError, UpstreamTimeout } from "../../domain/InferenceError.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import { Engines } from "../engines/Engine.ts"
import type { Actor, Life } from "./Actor.ts"
import * as Actors from "./Actor.ts"
import type { House } from "./ActorContext.ts"
import { forget, now } from "./ActorContext.ts"

/** Whether an error is the engine's death, after which another may live. */
const isDeath = ({ reason }: InferenceError): boolean => reason._tag === "EngineCrashed" || reason._tag === "EngineHung"

/** A crash, noted before the engine's scope closes: from here on callers wait for the next engine. */
const noteCrash = (house: House, life: Life) => (error: InferenceError) =>
  Effect.suspend(() => {
    life.engine = undefined
    if (life.state !== "draining") {
      life.state = "loading"
      house.tell({ deployment: life.actor.id, state: "loading", cause: error.message })
    }
    return isDeath(error) ? Effect.logWarning(error.message) : Effect.void
  })

const abilitiesOf = ({ engine }: Life) => engine === undefined ? {} : { abilities: engine.describe.abilities }

/** The engine is there, for the first time or again: it serves, also in place of the one before. */
const serve = (house: House, life: Life) => {
  const { actor } = life
  if (life.state === "draining") return
  life.state = "ready"
  life.continues = false
  house.tell({ deployment: actor.id, state: "ready", ...abilitiesOf(life) })
  if (actor.life !== life) takeOver(house, life)
  actor.failed = false
  actor.downUntil = 0
  actor.lastUsed = now(house)
  Actors.pump(actor, now(house))
  Actors.resolve(actor.watchers, Effect.void)
  Actors.resolve(life.waiters, Effect.void)
  house.room.changed()
  settleDown(house, actor)
}

/** It serves in place of the one before, which lets its jobs end; so does whatever is loaded for its id from now on. */
const takeOver = (house: House, life: Life) => {
  const { actor } = life
  const before = actor.life
  actor.others.delete(life)
  actor.life = life
  actor.deployment = life.deployment
  house.replaced.set(actor.id, life.deployment)
  actor.keepAlive = life.deployment.idleUnload
  if (before !== undefined) house.fork(drain(house, before))
}

/** A load has a limit of its own, whoever waits for it. */
const startInTime = (engines: Engines["Service"], deployment: Deployment) =>
  Effect.timeoutOrElse(engines.start(deployment), {
    duration: deployment.loadTimeout,
    orElse: () =>
      makeError(
        new UpstreamTimeout({
          deployment: deployment.id,
          phase: "load",
          afterMs: Duration.toMillis(deployment.loadTimeout)
        })
      )
  })

/** Runs one engine until it crashes; never succeeds. `progress.ranWell` tells whether it had run for long. */
const runEngine = Effect.fnUntraced(
  function*(house: House, life: Life, deployment: Deployment, progress: { ranWell: boolean }) {
    const engines = yield* Engines
    progress.ranWell = false
    // Nobody needs another engine of a life that ends.
    if (life.state === "draining") return yield* Effect.never
    const started = yield* Monotonic.now
    const engine = yield* startInTime(engines, deployment)
    const readyAt = yield* Monotonic.now
    life.readyAt = readyAt
    life.loadMs = readyAt - started
    life.engine = engine
    yield* Effect.logDebug(`${deployment.id} is loaded after ${life.loadMs} ms.`)
    serve(house, life)
    return yield* Effect.tapError(engine.crashed, (error) => {
      progress.ranWell = now(house) - readyAt >= Duration.toMillis(Policies.stableAfter)
      return noteCrash(house, life)(error)
    })
  },
  Effect.scoped
)

/** Keeps an engine running; fails when it cannot be loaded or the restarts are used up. */
const supervise = Effect.fnUntraced(function*(house: House, life: Life) {
  const deployment = yield* house.room.reserve(life)
  const progress = { ranWell: false }
  return yield* runEngine(house, life, deployment, progress).pipe(
    Effect.tapError((error) =>
      Effect.sync(() => {
        life.actor.lastFailure = error.message
      })
    ),
    // An engine that ran well is started again as if it never crashed before.
    Effect.catch((error) => progress.ranWell ? Effect.void : Effect.fail(error)),
    Effect.retry(Policies.restart),
    Effect.forever
  )
}, Effect.scoped)

/** The error of what waits for an engine that is ended on purpose; without `by`, as Troupe is closed. */
export const stoppedError = ({ id }: Actor, by?: EngineStopped["by"]): InferenceError =>
  makeError(new EngineStopped({ deployment: id, ...(by === undefined ? {} : { by }) }))

/** Why the supervisor has given up, of which an error nobody foresaw is a reason too. */
const reasonFor = ({ id }: Actor, cause: Cause.Cause<InferenceError>): InferenceError =>
  Option.getOrElse(Cause.findErrorOption(cause), () => {
    const [detail = ""] = String(Cause.squash(cause)).split("\n")
    return makeError(new EngineFailed({ deployment: id, detail }))
  })

/** The engine cannot be had: who waits fails, and the next one tries again, or is refused while it is down. */
export const giveUp = (house: House, life: Life, cause: Cause.Cause<InferenceError>): void => {
  // Whoever interrupts or drains it sees to the rest.
  if (Cause.hasInterruptsOnly(cause) || life.state === "draining") return
  const { actor } = life
  const error = reasonFor(actor, cause)
  const served = actor.life === life
  life.state = "gone"
  actor.others.delete(life)
  if (served) leave(actor)
  actor.lastFailure = error.message
  house.tell({ deployment: actor.id, state: "failed", cause: error.message })
  Actors.resolve(life.waiters, Effect.fail(error))
  if (actor.life !== undefined || Actors.successorOf(actor) !== undefined) return
  actor.failed = true
  // Who waited while a new version loaded is served by the old one.
  if (!served) return ensureLife(house, actor)
  const isDown = isDeath(error) || error.reason._tag === "UpstreamTimeout"
  actor.downUntil = isDown ? now(house) + Duration.toMillis(Policies.probeAfter) : 0
  Actors.failAll(actor, error)
}

/** Starts a life's fiber. */
export const begin = (house: House, life: Life): void => {
  house.tell({ deployment: life.actor.id, state: "loading" })
  life.fiber = house.fork(
    // Whoever else asks in this turn waits for the same life, however soon it fails.
    Effect.andThen(Effect.yieldNow, supervise(house, life)).pipe(
      Effect.catchCause((cause) => Effect.sync(() => giveUp(house, life, cause)))
    )
  )
}

/** Starts the life that is to serve, where one is wanted and none is there or about to take over. */
export const ensureLife = (house: House, actor: Actor): void => {
  // Memory is planned again for a load that only continued and is awaited now.
  if (actor.life?.continues === true) house.room.changed()
  if (actor.life !== undefined || Actors.successorOf(actor) !== undefined || !Actors.isWanted(actor)) return
  actor.life = Actors.makeLife(actor, actor.deployment)
  actor.failed = false
  begin(house, actor.life)
}

/** Resolves when no job holds a slot of this life. */
const untilIdle = (life: Life): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const tell = () => resume(Effect.void)
    if (life.running === 0) return tell()
    life.idle.add(tell)
    return Effect.sync(() => life.idle.delete(tell))
  })

/** The actor has no engine to unload: the timer that would unload it ends too. */
const leave = (actor: Actor): void => {
  actor.life = undefined
  actor.unloadTimer?.fiber?.interruptUnsafe()
  actor.unloadTimer = undefined
}

/** Lets running jobs end, then ends the engine. Who waits meanwhile is served by the next life. */
export const drain = (house: House, life: Life): Effect.Effect<void, never, Engines> =>
  Effect.suspend(() => {
    if (life.state === "gone") return Effect.void
    const { actor } = life
    const first = life.state !== "draining"
    if (actor.life === life) leave(actor)
    actor.others.add(life)
    life.state = "draining"
    if (first) house.tell({ deployment: actor.id, state: "draining" })
    const interrupt = Effect.suspend(() => life.fiber === undefined ? Effect.void : Fiber.interrupt(life.fiber))
    return untilIdle(life).pipe(
      Effect.andThen(Effect.suspend(() => measure(house, life))),
      Effect.andThen(interrupt),
      Effect.andThen(Effect.sync(() => end(house, life)))
    )
  })

/** Learns what its engine takes, if there is one. */
export const measure = (house: House, life: Life): Effect.Effect<void> =>
  life.engine === undefined ? Effect.void : house.measure(life, life.engine)

const end = (house: House, life: Life) => {
  const { actor } = life
  if (life.state === "gone") return
  life.state = "gone"
  actor.others.delete(life)
  house.tell({ deployment: actor.id, state: "gone" })
  house.room.changed()
  Actors.resolve(life.waiters, Effect.fail(stoppedError(actor)))
  ensureLife(house, actor)
  forget(house, actor)
}

/** Whether it has been loaded and has no use: only then does its idle time count. */
export const isUnused = (actor: Actor): actor is Actor & { readonly life: Life } =>
  actor.life?.readyAt !== undefined && actor.life.running === 0 && !Actors.isWanted(actor)

/** When it is unloaded if nobody uses it until then, ms. */
const unloadTimeOf = ({ deployment, keepAlive, lastUsed }: Actor): number =>
  deployment.pinned ? Number.POSITIVE_INFINITY : lastUsed + Duration.toMillis(keepAlive)

/** Nobody uses it: it is unloaded when its time is over, which whoever uses it meanwhile puts off. */
export const settleDown = (house: House, actor: Actor): void => {
  if (!isUnused(actor)) return
  const at = unloadTimeOf(actor)
  if (!Number.isFinite(at)) return
  if (actor.unloadTimer !== undefined && actor.unloadTimer.at <= at) return
  actor.unloadTimer?.fiber?.interruptUnsafe()
  // Set first: where the time is over already, the fiber may be through before `fork` returns.
  const timer: NonNullable<Actor["unloadTimer"]> = { at, fiber: undefined }
  actor.unloadTimer = timer
  timer.fiber = house.fork(unloadAt(house, actor, at))
}

const unloadAt = (house: House, actor: Actor, at: number): Effect.Effect<void, never, Engines> =>
  Effect.andThen(
    Effect.sleep(Math.max(0, at - now(house))),
    Effect.suspend(() => {
      actor.unloadTimer = undefined
      if (!isUnused(actor)) return Effect.void
      if (now(house) >= unloadTimeOf(actor)) return drain(house, actor.life)
      return Effect.sync(() => settleDown(house, actor))
    })
  )

/**
 * One who waited has left; the last to leave before the engine is there for the first time stops its load, unless it is to
 * continue.
 */
export const abandon = (house: House, actor: Actor): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { life } = actor
    if (life !== undefined && life.readyAt === undefined && !life.continues && !Actors.isWanted(actor)) {
      return Effect.asVoid(Fiber.await(house.fork(drain(house, life))))
    }
    if (life === undefined) forget(house, actor)
    else if (life.continues) house.room.changed()
    else settleDown(house, actor)
    return Effect.void
  })
