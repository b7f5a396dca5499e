/**
 * The models as supervised actors, one for each deployment that is in use. A caller leases a slot of an engine.
 *
 * **Details**
 *
 * The first lease loads the model; further callers wait for the same load. It stops when its last waiting caller leaves,
 * and fails with `UpstreamTimeout` when it takes longer than the deployment's `loadTimeout`. Callers wait in a mailbox
 * that is bounded (`QueueFull`), fair among tenants, and ordered by priority. A model that is unused for its idle time is
 * unloaded, unless it is pinned. A crashed engine is restarted as `engines.restarts` says; when all restarts have failed, the
 * deployment is down: callers fail at once with `DeploymentDown` until `retryAfter` has passed, when the next
 * request tries it, or until `load` is called.
 *
 * A model loads when there is memory for it: see `MemoryScheduler`. Models that do not fit together take turns.
 */
import type { Scope } from "effect"
import { Cause, Clock, Context, Duration, Effect, Fiber, Layer, PubSub, Stream } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { GpuMemory } from "../../domain/EngineProtocol.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Engine, Engines } from "../engines/Engine.ts"
import { ModelFiles } from "../engines/ModelFiles.ts"
import { Settings } from "../settings/Settings.ts"
import type { ActorEvent, EngineInstance, Status } from "./Actor.ts"
import * as Actor from "./Actor.ts"
import type { ObservedAttempt } from "./ConcurrencyLimiter.ts"
import { Drains, progressOf } from "./Drains.ts"
import type { ActorContext } from "./EngineLifecycle.ts"
import * as EngineLifecycle from "./EngineLifecycle.ts"
import { now } from "./EngineLifecycle.ts"
import * as Lease from "./Lease.ts"
import * as LoadCandidates from "./LoadCandidates.ts"
import type { Budget } from "./Memory.ts"
import { budgetOf, Memory } from "./Memory.ts"
import * as MemoryScheduler from "./MemoryScheduler.ts"
import * as Replicas from "./Replicas.ts"
import { SlotLeases } from "./SlotLeases.ts"

export type { ActorEvent, State, Status } from "./Actor.ts"

/** The memory of local models, bytes. */
export interface MemoryUse {
  /** What they may use together now. */
  readonly budgetBytes: number
  /** What those that load or are loaded have been granted of it. */
  readonly grantedBytes: number
  /** Of the GPUs of this machine; undefined if no loaded model uses one. */
  readonly gpu: GpuMemory | undefined
}

/** One actor for each deployment. */
export class Models extends Context.Service<Models, {
  /**
   * The loaded engine with a slot of it, for one job. The slot is held until the scope closes and the engine has ended
   * the job; the model is not unloaded before that.
   *
   * @param movedOn called when the caller is interrupted while it waits: `true`, the request went on with another
   * deployment, and a load that it began continues; default `false`, which stops a load that no other caller waits for
   */
  readonly lease: (
    deployment: Deployment,
    standing: Caller,
    movedOn?: () => boolean
  ) => Effect.Effect<Engine, InferenceError, Scope.Scope>
  /** A slot of a loaded engine, if one is free and no caller waits; undefined: `lease` waits for one. */
  readonly tryLease: (deployment: Deployment, standing: Caller) => Lease.Slot | undefined
  /** Loads the model if it is not loaded, at once even if it is down. */
  readonly load: (deployment: Deployment) => Effect.Effect<void, InferenceError>
  /**
   * Lets running jobs end, then unloads the model. A load in progress is stopped: a `load` or `replace` that waits for it
   * fails with `EngineStopped`, and waiting requests load the model again.
   */
  readonly unload: (deployment: Deployment) => Effect.Effect<void>
  /**
   * Replaces a deployment by one of the same id with other options, or whose file has changed: the new one loads beside
   * the old one and gets the new jobs when it is ready; the old one ends after its last job. From then on, loads of
   * this id load the new deployment, also for callers that pass the old one. If it fails, the old one stays. A later
   * `replace` stops the load of an earlier one: with an equal deployment both calls have the later outcome, with
   * another deployment the earlier call fails with `EngineStopped`.
   */
  readonly replace: (deployment: Deployment) => Effect.Effect<void, InferenceError>
  /**
   * Loads the engine of a changed deployment beside the current one of its id, which gets the jobs until `commit`. Fails as
   * `replace` does, and then nothing has changed.
   */
  readonly prepare: (deployment: Deployment) => Effect.Effect<Lease.Prepared, InferenceError>
  /** Gives a deployment other limits, idle time or traits; its engine continues. */
  readonly renew: (deployment: Deployment) => void
  /**
   * Ends a deployment that no new request gets, beginning at once: the effect waits until its requests, those that wait for a
   * slot included, have ended and it is unloaded.
   */
  readonly retire: (deployment: Deployment) => Effect.Effect<void>
  /**
   * Loads one more engine of a loaded deployment, which shares its jobs. It takes memory that is free, and none from another
   * model: otherwise it fails with `InsufficientMemory`. False if the deployment is not loaded.
   */
  readonly addReplica: (deployment: Deployment) => Effect.Effect<boolean, InferenceError>
  /**
   * Ends one of the engines that `addReplica` has loaded, the one with the fewest jobs: it gets no new ones, and is unloaded
   * after its last one, which the effect does not wait for. False if there is none.
   */
  readonly removeReplica: (deployment: Deployment) => Effect.Effect<boolean>
  /**
   * Ends or adds engines until a deployment has this number of replicas, those that load included. Does not wait for their
   * ends and loads.
   */
  readonly keepReplicas: (deployment: Deployment, count: number) => Effect.Effect<void>
  /**
   * Gives a deployment no new requests until `resume`, beginning at once: the router excludes it. Does not wait for the end of
   * those that it has, after which a local one is unloaded.
   */
  readonly drain: (deployment: Deployment) => Effect.Effect<void>
  /** Ends the drain of a deployment; one that is not drained stays as it is. */
  readonly resume: (deployment: Deployment) => Effect.Effect<void>
  /** The drained deployments by id; left out, none is. */
  readonly drained?: ReadonlyMap<string, Deployment>
  /** How much of a loaded deployment's slots is used; undefined if it is not loaded. */
  readonly occupancy: (deployment: string) => Effect.Effect<Actor.Occupancy | undefined>
  /** Unloads models that are unused, not pinned, and idle for at least this long. Returns their number. */
  readonly unloadIdle: (idleFor: Duration.Duration) => Effect.Effect<number>
  /** Events from now on. A subscriber that falls behind by 1,024 events misses the oldest. */
  readonly events: Stream.Stream<ActorEvent>
  /**
   * Ends every load now, and starts none from now on: callers that wait for one fail with `EngineStopped`. Loaded engines
   * continue. For a shutdown that waits for running requests.
   */
  readonly stopLoads: Effect.Effect<void>
  /** Ends every engine now; running jobs and waiting callers fail with `EngineStopped`. */
  readonly stop: Effect.Effect<void>
  readonly status: (deployment: Deployment) => Effect.Effect<Status>
  /** The part of a deployment's status that is in memory, for the router. */
  readonly snapshot: (deployment: string) => Actor.Snapshot
  /** Observes an attempt that has its slot, for the deployment's adaptive limit; undefined if it has none. */
  readonly observe?: (deployment: string) => ObservedAttempt | undefined
  /** The path of the file that is loaded, of a deployment that has several; undefined otherwise. */
  readonly variant: (deployment: string) => Effect.Effect<string | undefined>
  /** Why the engine of a deployment cannot take a request now; undefined if it can, or is not loaded. */
  readonly loading: (deployment: string) => Effect.Effect<Actor.Loading | undefined>
  /** Of every deployment that has an actor. */
  readonly statuses: Effect.Effect<ReadonlyArray<Status>>
  readonly memory: Effect.Effect<MemoryUse>
}>()("troupe/services/models/Models") {}

/** How memory is granted and measured. */
type MemoryOptions =
  & Pick<MemoryScheduler.Options, "budget" | "candidates" | "holdMs" | "quantization">
  & Pick<ActorContext, "measure">

/** Every model fits. */
const unbounded: MemoryOptions = {
  budget: Effect.succeed(() => Number.POSITIVE_INFINITY),
  candidates: (deployment) => Effect.succeed([{ name: deployment.id, bytes: 0, deployment }]),
  measure: () => Effect.void,
  holdMs: Duration.toMillis(Defaults.memoryHold)
}

const eventsKept = 1_024

const makeContext = Effect.fnUntraced(function*(memory: MemoryOptions, restarts: Defaults.EngineRestarts) {
  const scope = yield* Effect.scope
  const services = yield* Effect.context<Engines>()
  const clock = yield* Clock.Clock
  const events = yield* PubSub.sliding<ActorEvent>(eventsKept)
  const context: ActorContext = {
    actors: new Map<string, Actor.Actor>(),
    replaced: new Map<string, Deployment>(),
    leases: yield* SlotLeases,
    clock,
    stopping: false,
    restarts,
    measure: memory.measure,
    memory: MemoryScheduler.make({
      ...memory,
      instances: () => [...context.actors.values()].flatMap(Actor.instancesOf),
      fork: (effect) => context.fork(effect),
      unload: (instance) => Effect.asVoid(Fiber.await(context.fork(EngineLifecycle.drain(context, instance)))),
      resume(instance) {
        instance.paused = false
        Actor.dispatch(instance.actor, now(context))
      }
    }),
    emit: (event) => void PubSub.publishUnsafe(events, { ...event, at: clock.currentTimeMillisUnsafe() }),
    fork: (effect) => Fiber.runIn(Effect.runForkWith(services)(effect), scope)
  }
  return { context, events }
})

/** What can be unloaded of an actor that has been unused for long enough; replicas without a job, if another has some. */
const idleOf = (actor: Actor.Actor): ReadonlyArray<EngineInstance> => {
  const { added, instance } = actor
  const spare = [...added].filter(({ running, state }) => running === 0 && state === "ready")
  if (!Actor.isUnused(actor) || instance?.state !== "ready" || instance.deployment.pinned) return spare
  // Those that were added first: otherwise one of them would take the place of the current one.
  return [...added, instance]
}

const unloadIdle = (context: ActorContext, idleFor: Duration.Duration): Effect.Effect<number, never, Engines> =>
  Effect.suspend(() => {
    const longIdle = [...context.actors.values()].filter(({ lastUsed }) =>
      now(context) - lastUsed >= Duration.toMillis(idleFor)
    )
    // A remote deployment has nothing in memory.
    const loaded = longIdle.flatMap(idleOf).filter(({ deployment }) => !isRemote(deployment.options))
    const ends = loaded.map((instance) => context.fork(EngineLifecycle.drain(context, instance)))
    return Effect.as(Fiber.awaitAll(ends), ends.length)
  })

/** Ends an instance now, with running jobs. */
const stopInstance = (context: ActorContext, instance: EngineInstance): Effect.Effect<void> => {
  if (instance.engine !== undefined) return instance.engine.stop
  const giveUp = Effect.sync(() =>
    EngineLifecycle.giveUp(context, instance, Cause.fail(EngineLifecycle.stoppedError(instance.actor)))
  )
  return Effect.andThen(instance.fiber === undefined ? Effect.void : Fiber.interrupt(instance.fiber), giveUp)
}

const stopAll = (context: ActorContext): Effect.Effect<void> => {
  for (const actor of context.actors.values()) Actor.failAll(actor, EngineLifecycle.stoppedError(actor))
  return Effect.forEach(
    [...context.actors.values()].flatMap(Actor.instancesOf),
    (instance) => stopInstance(context, instance),
    { concurrency: "unbounded", discard: true }
  )
}

const memoryUse = (budget: Budget, instances: () => ReadonlyArray<EngineInstance>): Effect.Effect<MemoryUse> =>
  Effect.map(budget, (budgetOf) => {
    const granted = instances().filter(({ bytes }) => bytes > 0)
    return {
      budgetBytes: budgetOf(granted),
      grantedBytes: granted.reduce((sum, { bytes }) => sum + bytes, 0),
      // Engines see the same GPUs.
      gpu: granted.map(({ engine }) => engine?.gpuMemory?.()).find((gpu) => gpu !== undefined)
    }
  })

/** Ends all engines, concurrently, so that slow ends do not add up. */
const endAll = ({ actors }: ActorContext, instances: ReadonlyArray<EngineInstance>): Effect.Effect<void> =>
  Effect.forEach(
    instances,
    ({ fiber }) => fiber === undefined ? Effect.void : Fiber.interrupt(fiber),
    { concurrency: "unbounded", discard: true }
  ).pipe(
    Effect.andThen(Effect.sync(() => {
      for (const actor of actors.values()) Actor.failAll(actor, EngineLifecycle.stoppedError(actor))
    }))
  )

/** The status of a deployment, with what an operator has changed of it. */
const statusIn = (context: ActorContext, drains: Drains) => (deployment: Deployment) =>
  Effect.suspend(() => {
    const { id, pinned } = deployment
    const isPinned = context.replaced.get(id)?.pinned ?? pinned
    return Effect.map(
      Actor.statusOf(id, context.actors.get(id), now(context)),
      (status) => ({
        ...status,
        ...(isPinned === pinned ? {} : { pinned: isPinned }),
        ...(drains.has(id) ? { drain: progressOf(deployment, status) } : {})
      })
    )
  })

const make = Effect.fnUntraced(function*(memory: MemoryOptions, restarts = Defaults.engineRestarts) {
  const { context, events } = yield* makeContext(memory, restarts)
  const { actors, fork } = context
  const instances = () => [...actors.values()].flatMap(Actor.instancesOf)
  const drains = new Drains((deployment) => Lease.renew(context, deployment))
  yield* Effect.addFinalizer(() => endAll(context, instances()))
  return Models.of({
    lease: Lease.lease(context),
    tryLease: Lease.tryLease(context),
    load: (deployment) => Lease.load(context, deployment),
    unload: (deployment) => Lease.unload(context, deployment),
    replace: (deployment) => Lease.replace(context, deployment),
    prepare: (deployment) => Lease.prepare(context, deployment),
    renew: (deployment) => Lease.renew(context, drains.renewed(deployment)),
    retire: (deployment) =>
      Effect.suspend(() => {
        drains.forget(deployment.id)
        return Lease.retire(context, deployment, events)
      }),
    drain: (deployment) => Effect.sync(() => drains.drain(context.replaced.get(deployment.id) ?? deployment)),
    resume: (deployment) => Effect.sync(() => drains.resume(deployment)),
    drained: drains.all,
    addReplica: (deployment) => Replicas.add(context, deployment),
    removeReplica: (deployment) => Replicas.remove(context, deployment),
    keepReplicas: (deployment, count) => Replicas.keep(context, deployment, count),
    occupancy: (id) => Effect.sync(() => Actor.occupancyOf(actors.get(id))),
    unloadIdle: (idleFor) => Effect.suspend(() => Fiber.join(fork(unloadIdle(context, idleFor)))),
    events: Stream.fromPubSub(events),
    stopLoads: Effect.sync(() => EngineLifecycle.stopLoads(context)),
    stop: Effect.suspend(() => stopAll(context)),
    snapshot: (id) => Actor.snapshotOf(actors.get(id)),
    observe: (id) => Actor.observe(actors.get(id), now(context)),
    variant: (id) => Effect.sync(() => Actor.variantOf(actors.get(id))),
    loading: (id) => Effect.sync(() => Actor.loadingOf(actors.get(id), now(context))),
    memory: memoryUse(memory.budget, instances),
    status: statusIn(context, drains),
    statuses: Effect.suspend(() =>
      Effect.andThen(
        Effect.forEach(instances(), (instance) => EngineLifecycle.measure(context, instance), { discard: true }),
        Effect.forEach([...actors], ([id, actor]) => Actor.statusOf(id, actor, now(context)))
      )
    )
  })
})

/** Without a memory limit: every model fits. */
export const layerUnbounded = Layer.effect(Models, make(unbounded))

/** Within the memory budget of the settings, or the memory of the machine. */
export const layer = Layer.effect(
  Models,
  Effect.gen(function*() {
    const { engineHost, engineRestarts, memory } = yield* Settings
    const budget = budgetOf(memory, yield* Memory)
    const candidates = LoadCandidates.make(yield* ModelFiles, engineHost)
    const { hold, quantization } = memory
    return yield* make({ ...candidates, budget, quantization, holdMs: Duration.toMillis(hold) }, engineRestarts)
  })
)
