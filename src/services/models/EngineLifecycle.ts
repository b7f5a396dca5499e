/**
 * The lifecycle of engine instances: load, serve, crash and restart, drain and end.
 *
 * **Details**
 *
 * Each instance is one fiber. It reserves memory, starts the engine, dispatches waiting callers, waits for a crash, and
 * restarts by `engines.restarts` (`Defaults.restart`). Interrupting the fiber ends the engine and releases its memory.
 */
import type { Clock } from "effect"
import { Cause, Duration, Effect, Fiber, Option, Schedule } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { EngineFailed, EngineStopped, make as makeError, UpstreamTimeout } from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"
import type { Engine } from "../engines/Engine.ts"
import { Engines } from "../engines/Engine.ts"
import type { ActorEvent, EngineInstance } from "./Actor.ts"
import * as Actor from "./Actor.ts"
import type { MemoryScheduler } from "./MemoryScheduler.ts"
import type { SlotLease } from "./SlotLeases.ts"

/** State and services that all actors share. */
export interface ActorContext {
  /** Actors whose deployment is in use or has failed, by the deployment's id. */
  readonly actors: Map<string, Actor.Actor>
  /** The deployment that replaced the configured one of the same id, which callers still pass. */
  readonly replaced: Map<string, Deployment>
  /** By the deployment's id. */
  readonly leases: ReadonlyMap<string, SlotLease>
  readonly clock: Clock.Clock
  /** Troupe shuts down: no load starts any more. */
  stopping: boolean
  readonly memory: MemoryScheduler
  readonly restarts: Defaults.EngineRestarts
  /** Records the memory that an instance's engine uses. */
  readonly measure: (instance: EngineInstance, engine: Engine) => Effect.Effect<void>
  readonly emit: (event: Omit<ActorEvent, "at">) => void
  /** Runs until the layer ends, in the layer's context, so that its logs are not those of the first request. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E, Engines>) => Fiber.Fiber<A, E>
}

/** monotonic ms */
export const now = ({ clock }: ActorContext): number => Time.nowOf(clock)

/** Emits a change of the deployment. An added instance is none: the deployment stays as it is. */
const emit = (
  context: ActorContext,
  { actor, isAdded }: EngineInstance,
  event: Omit<ActorEvent, "at" | "deployment">
) => {
  if (!isAdded) context.emit(eventOf(actor, event))
}

/** An event of the actor's deployment. */
const eventOf = (
  { deployment, id }: Actor.Actor,
  event: Omit<ActorEvent, "at" | "deployment">
): Omit<ActorEvent, "at"> => ({
  deployment: id,
  ...event,
  ...(isRemote(deployment.options) ? { isRemote: true } : {})
})

/** Logs what happens to the engine of a local model; a remote one has nothing that is loaded. */
const logLocal = ({ deployment }: Actor.Actor, event: string, message: string, figures = {}): Effect.Effect<void> => {
  const log = isRemote(deployment.options) ? Effect.logDebug(message) : Effect.logInfo(message)
  return Effect.annotateLogs(log, { event, deployment: deployment.id, ...figures })
}

/** The actor has another configuration of its deployment from now on. */
export const configure = (context: ActorContext, actor: Actor.Actor, deployment: Deployment): void =>
  Actor.configure(actor, deployment, () => Actor.dispatch(actor, now(context)))

/** Removes an actor that has no instance, no waiting caller and no failure to report. */
const forget = ({ actors }: ActorContext, actor: Actor.Actor): void => {
  if (Actor.stateOf(actor) === "cold" && !Actor.isWanted(actor) && actors.get(actor.id) === actor) {
    actors.delete(actor.id)
  }
}

/** Whether an error ends the engine, so that a restart can help. */
const isEngineEnd = ({ reason }: InferenceError): boolean =>
  reason._tag === "EngineCrashed" || reason._tag === "EngineHung"

const advice = / (?:Try again|Retry the request)\.$/

/** Logs the end of an engine with what happens next, without the advice for callers. */
const logEnd = ({ actor, state }: EngineInstance, error: InferenceError, next: string): Effect.Effect<void> => {
  if (!isEngineEnd(error)) return Effect.void
  const then = state === "draining" ? "It was about to be unloaded." : next
  return Effect.annotateLogs(Effect.logWarning(`${error.message.replace(advice, "")} ${then}`), {
    event: "engine_ended",
    deployment: actor.id
  })
}

/** Records a crash before the engine's scope closes: callers wait for the next engine from here on. */
const recordCrash = (context: ActorContext, instance: EngineInstance) => (error: InferenceError) =>
  Effect.sync(() => {
    instance.engine = undefined
    instance.actor.restarts++
    if (instance.state === "draining") return
    instance.state = "loading"
    emit(context, instance, { state: "loading", cause: error.message })
  })

const describedBy = ({ engine }: EngineInstance) =>
  engine === undefined
    ? {}
    : { capabilities: engine.describe.capabilities, contextWindow: engine.describe.contextWindow }

/**
 * The engine is ready, for the first time or after a restart: it gets jobs, in place of the instance before. One that is
 * held gets them later.
 */
export const serve = (context: ActorContext, instance: EngineInstance) => {
  const { actor } = instance
  if (instance.state === "draining") return
  if (instance.held) return Actor.resolve(instance.waiters, Effect.void)
  instance.state = "ready"
  instance.detached = false
  emit(context, instance, { state: "ready", ...describedBy(instance) })
  if (actor.instance !== instance && !instance.isAdded) takeOver(context, instance)
  actor.failed = false
  actor.downUntil = 0
  actor.lastUsed = now(context)
  Actor.dispatch(actor, now(context))
  Actor.resolve(actor.loadWaiters, Effect.void)
  Actor.resolve(instance.waiters, Effect.void)
  context.memory.replan()
  scheduleUnload(context, actor)
}

/**
 * Gets the jobs in place of the instance before and of those added to it, which drain. It has as many replicas as they had.
 * Later loads of this id use its deployment.
 */
const takeOver = (context: ActorContext, instance: EngineInstance) => {
  const { actor } = instance
  const before = actor.instance
  const added = [...actor.added]
  const missing = before === undefined ? added.length : before.replicas + added.length - instance.replicas
  actor.others.delete(instance)
  actor.instance = instance
  configure(context, actor, instance.deployment)
  context.replaced.set(actor.id, instance.deployment)
  actor.keepAlive = instance.deployment.idleUnload
  for (const one of added) stop(context, one, "replace")
  if (before !== undefined) context.fork(drain(context, before))
  for (let count = 0; count < missing; count++) addBeside(context, actor)
}

/** Begins to load another instance that shares the jobs of the current one. */
export const addBeside = (context: ActorContext, actor: Actor.Actor): EngineInstance => {
  const instance = Actor.makeInstance(actor, actor.deployment, 1)
  instance.isAdded = true
  actor.added.add(instance)
  begin(context, instance)
  return instance
}

/** A load has its own limit, independent of its callers' limits. */
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

/** Runs one engine until it crashes; never succeeds. Sets `progress.ranWell` if it ran for `restarts.stableAfter`. */
const runEngine = Effect.fnUntraced(
  function*(context: ActorContext, instance: EngineInstance, deployment: Deployment, progress: { ranWell: boolean }) {
    const engines = yield* Engines
    progress.ranWell = false
    // A draining instance needs no other engine.
    if (instance.state === "draining") return yield* Effect.never
    if (context.stopping) return yield* stoppedError(instance.actor)
    const started = yield* Time.now
    instance.actor.loadBegan = started
    const engine = yield* Effect.ensuring(
      startInTime(engines, deployment),
      Effect.sync(() => {
        // The load after this one may wait for memory, or until a restart is due.
        if (instance.actor.loadBegan === started) instance.actor.loadBegan = undefined
      })
    )
    const readyAt = yield* Time.now
    instance.readyAt = readyAt
    instance.loadMs = readyAt - started
    instance.actor.lastLoadMs = instance.loadMs
    instance.engine = engine
    const { actor, loadMs } = instance
    yield* logLocal(actor, "model_loaded", `Loaded ${deployment.id} in ${loadMs} ms.`, { ms: loadMs })
    serve(context, instance)
    return yield* Effect.tapError(engine.crashed, (error) => {
      progress.ranWell = now(context) - readyAt >= Duration.toMillis(context.restarts.stableAfter)
      return recordCrash(context, instance)(error)
    })
  },
  Effect.scoped
)

/** Keeps an engine running; fails when it cannot be loaded or all restarts have failed. */
const supervise = Effect.fnUntraced(function*(context: ActorContext, instance: EngineInstance) {
  const deployment = yield* context.memory.reserve(instance)
  const progress = { ranWell: false }
  return yield* runEngine(context, instance, deployment, progress).pipe(
    Effect.tapError((error) =>
      Effect.sync(() => {
        instance.actor.lastFailure = error.message
      })
    ),
    // A stable run resets the restart schedule.
    Effect.catch((error) => progress.ranWell ? logEnd(instance, error, "It starts again now.") : Effect.fail(error)),
    Effect.retry(Schedule.tap(
      Defaults.restart(context.restarts),
      ({ duration, input }) => logEnd(instance, input, `It starts again in ${Duration.format(duration)}.`)
    )),
    Effect.tapError((error) =>
      logEnd(
        instance,
        error,
        `Its ${context.restarts.times} restarts are used up: the next load follows a later request.`
      )
    ),
    Effect.forever
  )
}, Effect.scoped)

/** The error of callers that wait for an engine that is stopped; without `by`, because Troupe closes its engine. */
export const stoppedError = ({ id }: Actor.Actor, by?: EngineStopped["by"]): InferenceError =>
  makeError(new EngineStopped({ deployment: id, ...(by === undefined ? {} : { by }) }))

/** Why supervision ended; a defect becomes `EngineFailed`. */
const reasonFor = ({ id }: Actor.Actor, cause: Cause.Cause<InferenceError>): InferenceError =>
  Option.getOrElse(Cause.findErrorOption(cause), () => {
    const [detail = ""] = String(Cause.squash(cause)).split("\n")
    return makeError(new EngineFailed({ deployment: id, detail }))
  })

/** When a deployment that failed may be tried again, monotonic ms; 0 for at once. */
const downUntil = (context: ActorContext, error: InferenceError): number => {
  const isDown = isEngineEnd(error) || error.reason._tag === "UpstreamTimeout"
  return isDown ? now(context) + Duration.toMillis(context.restarts.retryAfter) : 0
}

/** An added instance has ended: the others go on. */
const giveUpAdded = (instance: EngineInstance, error: InferenceError): void => {
  instance.state = "gone"
  instance.actor.added.delete(instance)
  Actor.resolve(instance.waiters, Effect.fail(error))
}

/** Supervision has ended: waiting callers fail. The next caller loads again, or is refused while the deployment is down. */
export const giveUp = (context: ActorContext, instance: EngineInstance, cause: Cause.Cause<InferenceError>): void => {
  // The interruption or the drain does the rest.
  if (Cause.hasInterruptsOnly(cause) || instance.state === "draining") return
  const { actor } = instance
  const error = reasonFor(actor, cause)
  if (instance.isAdded) return giveUpAdded(instance, error)
  const wasCurrent = actor.instance === instance
  instance.state = "gone"
  actor.others.delete(instance)
  if (wasCurrent) detach(context, actor)
  actor.lastFailure = error.message
  context.emit(eventOf(actor, { state: "failed", cause: error.message }))
  Actor.resolve(instance.waiters, Effect.fail(error))
  if (actor.instance !== undefined || Actor.successorOf(actor) !== undefined) return
  actor.failed = true
  // Callers that waited while a new version loaded get the old version.
  if (!wasCurrent && !context.stopping) return ensureInstance(context, actor)
  actor.downUntil = downUntil(context, error)
  Actor.failAll(actor, error)
}

/** Ends every load, and starts none from now on. Callers that wait for one fail with `EngineStopped`. */
export const stopLoads = (context: ActorContext): void => {
  context.stopping = true
  for (const actor of context.actors.values()) {
    for (const instance of Actor.instancesOf(actor)) {
      if (instance.state !== "loading") continue
      giveUp(context, instance, Cause.fail(stoppedError(actor, "shutdown")))
      if (instance.fiber !== undefined) context.fork(Fiber.interrupt(instance.fiber))
    }
    if (actor.instance === undefined) Actor.failAll(actor, stoppedError(actor, "shutdown"))
  }
}

/** Starts the instance's fiber. */
export const begin = (context: ActorContext, instance: EngineInstance): void => {
  emit(context, instance, { state: "loading" })
  instance.fiber = context.fork(
    // Callers of the same turn wait for this instance, even if it fails at once.
    Effect.andThen(Effect.yieldNow, supervise(context, instance)).pipe(
      Effect.catchCause((cause) => Effect.sync(() => giveUp(context, instance, cause)))
    )
  )
}

/** Starts an instance if a caller waits and none exists or is about to take over. */
export const ensureInstance = (context: ActorContext, actor: Actor.Actor): void => {
  // A detached load that a caller awaits again has another rank in the memory queue.
  if (actor.instance?.detached === true) context.memory.replan()
  if (actor.instance !== undefined || Actor.successorOf(actor) !== undefined || !Actor.isWanted(actor)) return
  if (context.stopping) return Actor.failAll(actor, stoppedError(actor))
  actor.instance = Actor.makeInstance(actor, actor.deployment)
  actor.failed = false
  begin(context, actor.instance)
}

/** Resolves when no job holds a slot of this instance. */
const untilIdle = (instance: EngineInstance): Effect.Effect<void> =>
  Effect.callback((resume) => {
    const notify = () => resume(Effect.void)
    if (instance.running === 0) return notify()
    instance.onIdle.add(notify)
    return Effect.sync(() => instance.onIdle.delete(notify))
  })

/** Removes the current instance from the actor and its unload timer. One that was added takes its place. */
const detach = (context: ActorContext, actor: Actor.Actor): void => {
  const next = Actor.readyAdded(actor)
  actor.instance = next
  actor.unloadTimer?.fiber?.interruptUnsafe()
  actor.unloadTimer = undefined
  if (next === undefined) return
  next.isAdded = false
  actor.added.delete(next)
  scheduleUnload(context, actor)
}

/** Lets running jobs end, then ends the engine. Callers that wait meanwhile get the next instance. */
export const drain = (context: ActorContext, instance: EngineInstance): Effect.Effect<void, never, Engines> =>
  Effect.suspend(() => {
    if (instance.state === "gone") return Effect.void
    const { actor } = instance
    const first = instance.state !== "draining"
    if (actor.instance === instance) detach(context, actor)
    actor.added.delete(instance)
    actor.others.add(instance)
    instance.state = "draining"
    if (first) emit(context, instance, { state: "draining" })
    const interrupt = Effect.suspend(() => instance.fiber === undefined ? Effect.void : Fiber.interrupt(instance.fiber))
    return untilIdle(instance).pipe(
      Effect.andThen(Effect.suspend(() => measure(context, instance))),
      Effect.andThen(interrupt),
      Effect.andThen(Effect.sync(() => end(context, instance))),
      Effect.andThen(first ? logLocal(actor, "model_unloaded", `Unloaded ${actor.id}.`) : Effect.void)
    )
  })

/** Drains an instance. Callers that wait for its load get the reason. */
export const stop = (context: ActorContext, instance: EngineInstance, by: EngineStopped["by"]): Fiber.Fiber<void> => {
  Actor.resolve(instance.waiters, Effect.fail(stoppedError(instance.actor, by)))
  return context.fork(drain(context, instance))
}

/** Drains everything that gets jobs: those added first, so that none of them takes the place of the current one. */
export const drainAll = (context: ActorContext, actor: Actor.Actor): Effect.Effect<void, never, Engines> =>
  Effect.suspend(() => {
    const ends = [...actor.added, ...(actor.instance === undefined ? [] : [actor.instance])]
      .map((instance) => stop(context, instance, "unload"))
    return Effect.asVoid(Fiber.awaitAll(ends))
  })

/** Records the memory that its engine uses, if it is loaded. */
export const measure = (context: ActorContext, instance: EngineInstance): Effect.Effect<void> =>
  instance.engine === undefined ? Effect.void : context.measure(instance, instance.engine)

const end = (context: ActorContext, instance: EngineInstance) => {
  const { actor } = instance
  if (instance.state === "gone") return
  instance.state = "gone"
  actor.others.delete(instance)
  // Callers that wait for the end of the deployment need the event of its last instance.
  if (!instance.isAdded || Actor.instancesOf(actor).length === 0) context.emit(eventOf(actor, { state: "gone" }))
  context.memory.replan()
  Actor.resolve(instance.waiters, Effect.fail(stoppedError(actor)))
  ensureInstance(context, actor)
  forget(context, actor)
}

/** Sets the timer that unloads an unused model after its idle time. A use meanwhile postpones the unload. */
export const scheduleUnload = (context: ActorContext, actor: Actor.Actor): void => {
  if (!Actor.needsUnloadTimer(actor)) return
  const at = Actor.unloadTimeOf(actor)
  actor.unloadTimer?.fiber?.interruptUnsafe()
  // Set first: if the time is over already, the fiber may complete before `fork` returns.
  const timer: NonNullable<Actor.Actor["unloadTimer"]> = { at, fiber: undefined }
  actor.unloadTimer = timer
  timer.fiber = context.fork(unloadAt(context, actor, at))
}

const unloadAt = (context: ActorContext, actor: Actor.Actor, at: number): Effect.Effect<void, never, Engines> =>
  Effect.andThen(
    Effect.sleep(Math.max(0, at - now(context))),
    Effect.suspend(() => {
      actor.unloadTimer = undefined
      if (!Actor.isUnused(actor)) return Effect.void
      if (now(context) >= Actor.unloadTimeOf(actor)) return drainAll(context, actor)
      return Effect.sync(() => scheduleUnload(context, actor))
    })
  )

/** A waiting caller has left. If it was the last one, a first load that is not detached stops. */
export const abandon = (context: ActorContext, actor: Actor.Actor): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { instance } = actor
    if (instance !== undefined && instance.readyAt === undefined && !instance.detached && !Actor.isWanted(actor)) {
      return Effect.asVoid(Fiber.await(context.fork(drain(context, instance))))
    }
    if (instance === undefined) forget(context, actor)
    else if (instance.detached) context.memory.replan()
    else scheduleUnload(context, actor)
    return Effect.void
  })
