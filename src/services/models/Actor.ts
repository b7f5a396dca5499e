/**
 * An actor: the state of one deployment. Its mailbox holds the callers that wait. An engine instance is one run of its
 * engine, from the load to the end; one instance follows another.
 *
 * **Details**
 *
 * The mailbox outlives engine instances: callers that wait while an engine crashes, is replaced or is evicted get a slot
 * of the next instance. This file is plain state with synchronous functions; the fibers that change it are in
 * `EngineLifecycle` and `Models`.
 */
import type { Fiber } from "effect"
import { Deferred, Duration, Effect } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { make as makeError, QueueFull } from "../../domain/InferenceError.ts"
import type { Engine } from "../engines/Engine.ts"
import * as EngineKinds from "../engines/EngineKinds.ts"
import type { ConcurrencyLimiter } from "./ConcurrencyLimiter.ts"
import * as Limiter from "./ConcurrencyLimiter.ts"
import type { Waiting } from "./Mailbox.ts"
import { Mailbox } from "./Mailbox.ts"
import type { SlotLease } from "./SlotLeases.ts"

/**
 * The state of a deployment: not loaded, loading, ready for jobs, finishing its last jobs, or failed. `gone` is emitted
 * once when its engine has ended; the state is `cold` from then on.
 */
export type State = "cold" | "loading" | "ready" | "draining" | "failed"

/** A change of a deployment's state, emitted after it has happened. */
export interface ActorEvent {
  readonly deployment: string
  readonly state: Exclude<State, "cold"> | "gone"
  /** Why it loads again or has failed. */
  readonly cause?: string
  /** Of a deployment at a provider; left out, it runs on this machine. */
  readonly isRemote?: boolean
  /** What its engine can do; of `ready`. */
  readonly capabilities?: ReadonlyArray<EngineCapability>
  /** Tokens that prompt and answer share, 0 if unknown; of `ready`. */
  readonly contextWindow?: number
  /** ms since 1970 */
  readonly at: number
}

/** The current state and load of a deployment. */
export interface Status {
  readonly deployment: string
  readonly state: State
  /** Jobs that hold a slot. */
  readonly running: number
  /** Callers that wait for the engine or a slot. */
  readonly queued: number
  /** Resident memory outside this process, bytes. */
  readonly memoryBytes: number
  /** Of a deployment with several files: the path of the one that is loaded. */
  readonly variant?: string
  /** The reason of the last failure. */
  readonly lastFailure?: string
  /** Of a deployment with an adaptive limit: how many may run now. */
  readonly limit?: number
  /** Whether it stays loaded, where an operator has changed that. */
  readonly pinned?: boolean
  /** Of a loaded deployment: how many jobs may hold a slot now. */
  readonly slots?: number
  /** Of a loaded deployment: the engines that share its jobs. */
  readonly replicas?: number
  /** Of a loaded `llama` deployment: the compute threads of each engine, for answers and for prompts. */
  readonly threads?: { readonly answers: number; readonly prompts: number }
  /** How long the caller has waited that waits longest, ms; left out where none waits. */
  readonly oldestWaitMs?: number
  /** How often its engine has ended without being asked to; left out, never. */
  readonly restarts?: number
  /** Where an operator has drained it: whether requests are left, or a local engine. */
  readonly drain?: Drain
}

/** A deployment that gets no new requests: it ends those that it has, or is done. */
export type Drain = "draining" | "drained"

/** Calls that wait for an engine and need no slot. */
export type Waiters = Set<Deferred.Deferred<void, InferenceError>>

/** One run of an engine, from its load to its end, including its restarts after crashes. */
export interface EngineInstance {
  readonly actor: Actor
  readonly version: number
  /** As requested. */
  deployment: Deployment
  /** The deployment, or the variant of it, that was granted memory. */
  granted: Deployment
  state: "loading" | "ready" | "draining" | "gone"
  /** Undefined while the engine starts. */
  engine: Engine | undefined
  /** Jobs that hold a slot. */
  running: number
  /** Gets no new jobs, because another model waits for its memory. */
  paused: boolean
  /** It is loaded beside the current one, and takes over when its configuration applies. */
  held: boolean
  /** The first load continues without waiting callers: the request that began it went to another deployment. */
  detached: boolean
  /** It was added beside the current one, and shares its jobs; it may become the current one. */
  isAdded: boolean
  /** Engine threads, each with the engine's slots. */
  readonly replicas: number
  /** Granted memory, bytes. */
  bytes: number
  /** When the engine became ready last, ms; undefined if it never did. */
  readyAt: number | undefined
  /** Duration of the last load, ms. */
  loadMs: number
  /** Called when no job holds a slot any more. */
  readonly onIdle: Set<() => void>
  /** Calls of `replace` that wait until this instance is ready. */
  readonly waiters: Waiters
  fiber: Fiber.Fiber<unknown, unknown> | undefined
}

/** A slot of an engine. If the engine has crashed before the job starts, the job fails. */
export interface Slot {
  readonly instance: EngineInstance
  readonly engine: Engine
}

/** A caller in the mailbox. */
export interface SlotRequest {
  readonly slot: Deferred.Deferred<Slot, InferenceError>
  /** The instance whose slot it was given. */
  instance: EngineInstance | undefined
}

export interface Actor {
  readonly id: string
  /** The deployment that is loaded, or will be. */
  deployment: Deployment
  /** The instance that gets the jobs. */
  instance: EngineInstance | undefined
  /** Instances that share the jobs with the current one. Each is one replica. */
  readonly added: Set<EngineInstance>
  /** Instances that drain, and at most one that loads to replace the current one. */
  readonly others: Set<EngineInstance>
  readonly mailbox: Mailbox<SlotRequest>
  /** Its slots, if other processes call the deployment, too. */
  readonly lease: SlotLease | undefined
  /** Undefined unless the limit of its concurrency is adaptive. */
  limiter: ConcurrencyLimiter | undefined
  /** Calls of `load`. */
  readonly loadWaiters: Waiters
  /** Instances made so far. */
  instances: number
  /** Jobs completed. */
  served: number
  /** How long a job holds its slot, exponentially smoothed, ms. */
  meanJobMs: number
  /** When a job ended last, the engine became ready, or the actor was made, monotonic ms. */
  lastUsed: number
  keepAlive: Duration.Duration
  /** The reason of the last failure. */
  lastFailure: string | undefined
  /** How often an engine has ended without being asked to. */
  restarts: number
  /** It failed and has not been loaded since. */
  failed: boolean
  /** When the current load began, monotonic ms; undefined while nothing loads. */
  loadBegan: number | undefined
  /** Duration of the last load that ended well, ms. */
  lastLoadMs: number | undefined
  /** The last restart failed: callers are refused until then, ms. */
  downUntil: number
  unloadTimer: { readonly at: number; fiber: Fiber.Fiber<unknown, unknown> | undefined } | undefined
}

/** @param now monotonic ms; idle time counts from here until the first job has ended */
export const make = (deployment: Deployment, now: number, lease?: SlotLease): Actor => {
  const actor: Actor = {
    id: deployment.id,
    deployment,
    instance: undefined,
    added: new Set(),
    others: new Set(),
    mailbox: new Mailbox({
      // `replace` may change the limit.
      get limit() {
        return actor.deployment.queueLimit
      },
      ageing: Duration.toMillis(Defaults.queueAgeing)
    }),
    lease,
    limiter: undefined,
    loadWaiters: new Set(),
    instances: 0,
    served: 0,
    meanJobMs: 0,
    lastUsed: now,
    keepAlive: deployment.idleUnload,
    lastFailure: undefined,
    restarts: 0,
    failed: false,
    loadBegan: undefined,
    lastLoadMs: undefined,
    downUntil: 0,
    unloadTimer: undefined
  }
  return actor
}

export const makeInstance = (actor: Actor, deployment: Deployment, replicas?: number): EngineInstance => ({
  actor,
  version: ++actor.instances,
  deployment,
  granted: deployment,
  state: "loading",
  engine: undefined,
  running: 0,
  paused: false,
  held: false,
  detached: false,
  isAdded: false,
  replicas: replicas ?? (isRemote(deployment.options) ? 1 : deployment.options.replicas ?? 1),
  bytes: 0,
  readyAt: undefined,
  loadMs: 0,
  onIdle: new Set(),
  waiters: new Set(),
  fiber: undefined
})

/** All instances of an actor, the one that gets the jobs first. */
export const instancesOf = ({ added, instance, others }: Actor): ReadonlyArray<EngineInstance> =>
  instance === undefined ? [...added, ...others] : [instance, ...added, ...others]

/** An added instance that gets jobs. */
export const readyAdded = ({ added }: Actor): EngineInstance | undefined =>
  added.size === 0 ? undefined : [...added].find(({ engine, state }) => state === "ready" && engine !== undefined)

/** The instance that loads to take over. */
export const successorOf = ({ others }: Actor): EngineInstance | undefined =>
  others.size === 0 ? undefined : [...others].find(({ state }) => state === "loading")

export const stateOf = (actor: Actor): State => {
  const instance = readyAdded(actor) ?? actor.instance ?? successorOf(actor)
  if (instance !== undefined && instance.state !== "gone") return instance.state
  if (actor.others.size > 0) return "draining"
  return actor.failed ? "failed" : "cold"
}

/** The part of a status that is in memory. */
export type Snapshot = Pick<Status, "limit" | "queued" | "state">

/** The part of a status that is in memory; without an actor a deployment is cold. */
export const snapshotOf = (actor: Actor | undefined): Snapshot => {
  if (actor === undefined) return { queued: 0, state: "cold" }
  const { limiter, mailbox } = actor
  const state = stateOf(actor)
  return limiter === undefined
    ? { queued: mailbox.size, state }
    : { queued: mailbox.size, state, limit: limiter.limit }
}

/** The state of an engine that cannot take a request now. */
export interface Loading {
  readonly state: Exclude<State, "cold" | "ready">
  /** From 0 to 1: the time since the load began over that of the load before; null if there was none, or nothing loads. */
  readonly progress: number | null
}

/** An estimate does not reach the end before the load does. */
const mostProgress = 0.99

const progressOf = ({ lastLoadMs, loadBegan }: Actor, now: number): number | null =>
  lastLoadMs === undefined || loadBegan === undefined
    ? null
    : Math.min(mostProgress, Math.round(100 * (now - loadBegan) / Math.max(1, lastLoadMs)) / 100)

/** @param now monotonic ms; undefined if the deployment is ready, or nothing has asked for it */
export const loadingOf = (actor: Actor | undefined, now: number): Loading | undefined => {
  const state = actor === undefined ? "cold" : stateOf(actor)
  if (state === "ready" || state === "cold") return undefined
  return { state, progress: state === "loading" ? progressOf(actor!, now) : null }
}

/** Jobs that hold a slot. */
export const runningOf = (actor: Actor): number => instancesOf(actor).reduce((sum, { running }) => sum + running, 0)

/** Observes an attempt that has just got its slot, if the limit is adaptive. */
export const observe = (actor: Actor | undefined, now: number): Limiter.ObservedAttempt | undefined =>
  actor?.limiter &&
  new Limiter.ObservedAttempt(actor.limiter, { startedAt: now, inFlight: Math.max(1, runningOf(actor)) })

/** The path of the file that is loaded, of a deployment that has several. */
export const variantOf = (actor: Actor | undefined): string | undefined => {
  const instance = actor?.instance
  return instance?.engine === undefined || EngineKinds.alternativesOf(instance.deployment.options).length < 2
    ? undefined
    : EngineKinds.pathOf(instance.granted.options)
}

const loadedVariant = (actor: Actor | undefined): Pick<Status, "variant"> => {
  const variant = variantOf(actor)
  return variant === undefined ? {} : { variant }
}

/** Of the instances that get jobs, bytes. */
const memoryOf = (actor: Actor | undefined): Effect.Effect<number> => {
  const current = actor?.instance?.engine?.memoryBytes ?? Effect.succeed(0)
  if (actor === undefined || actor.added.size === 0) return current
  const added = [...actor.added].flatMap(({ engine }) => engine?.memoryBytes ?? [])
  return Effect.map(Effect.all([current, ...added]), (all) => all.reduce((sum, bytes) => sum + bytes, 0))
}

const detailsOf = (
  actor: Actor,
  now: number
): Pick<Status, "lastFailure" | "oldestWaitMs" | "replicas" | "restarts" | "slots" | "threads"> => {
  const { instance, lastFailure, mailbox, restarts } = actor
  const threads = instance?.engine?.describe.threads
  const occupancy = occupancyOf(actor)
  const since = mailbox.oldestSince
  return {
    ...(lastFailure === undefined ? {} : { lastFailure }),
    ...(occupancy === undefined ? {} : { slots: occupancy.slots, replicas: occupancy.replicas }),
    ...(threads === undefined ? {} : { threads }),
    ...(since === undefined ? {} : { oldestWaitMs: Math.max(0, Math.round(now - since)) }),
    ...(restarts === 0 ? {} : { restarts })
  }
}

/** Of a deployment. */
export const statusOf = (id: string, actor: Actor | undefined, now: number): Effect.Effect<Status> =>
  Effect.map(memoryOf(actor), (memoryBytes) => ({
    deployment: id,
    ...snapshotOf(actor),
    running: actor === undefined ? 0 : runningOf(actor),
    memoryBytes,
    ...loadedVariant(actor),
    ...(actor === undefined ? {} : detailsOf(actor, now))
  }))

/** Whether any caller waits for the engine. */
export const isWanted = ({ loadWaiters, mailbox }: Actor): boolean => mailbox.size > 0 || loadWaiters.size > 0

/** Whether a request or an operator waits for this load; a detached load may have no waiting caller. */
export const isAwaited = ({ actor, detached }: EngineInstance): boolean => !detached || isWanted(actor)

/** Another configuration of the deployment. An adaptive limit stays as it is, if the same model serves. */
export const configure = (actor: Actor, deployment: Deployment, onRaise: () => void): void => {
  actor.limiter = Limiter.follow(actor.limiter, actor.deployment, deployment, onRaise, actor.lease)
  actor.deployment = deployment
}

const capacityOf = ({ actor: { limiter }, replicas }: EngineInstance, engine: Engine): number => {
  const slots = engine.describe.slots * replicas
  return limiter === undefined ? slots : Math.min(slots, limiter.limit)
}

/** Jobs that use its slots: also those of the instances before it, if they are at the same provider. */
const usedSlots = (instance: EngineInstance): number => {
  const { actor: { others }, deployment, running } = instance
  if (others.size === 0 || !isRemote(deployment.options)) return running
  return [...others].reduce(
    (sum, other) => Limiter.isSameServer(other.deployment, deployment) ? sum + other.running : sum,
    running
  )
}

/** Whether its own limit holds callers back, so that no slot of another process helps. */
const isAtLimit = ({ instance, limiter }: Actor): boolean =>
  limiter !== undefined && instance !== undefined && usedSlots(instance) >= limiter.limit

/** Whether a job can start. An engine refuses jobs before its crash is recorded: callers wait for the next instance. */
const isOpen = (instance: EngineInstance | undefined): instance is EngineInstance & { readonly engine: Engine } =>
  instance?.engine !== undefined && !instance.paused && instance.state === "ready" &&
  instance.engine.isOver?.() !== true && usedSlots(instance) < capacityOf(instance, instance.engine)

/** The open instance that uses the smallest share of its slots. */
const emptiest = ({ added, instance }: Actor): (EngineInstance & { readonly engine: Engine }) | undefined => {
  const [first, ...others] = [instance, ...added].filter(isOpen)
  const shareOf = (one: EngineInstance & { readonly engine: Engine }) => one.running / capacityOf(one, one.engine)
  return first && others.reduce((least, one) => shareOf(one) < shareOf(least) ? one : least, first)
}

/** A free slot, which the job then holds; undefined if there is none. */
const freeSlot = (actor: Actor): Slot | undefined => {
  const { added, lease } = actor
  const instance = added.size === 0 ? actor.instance : emptiest(actor)
  if (!isOpen(instance) || lease !== undefined && runningOf(actor) >= lease.slots) return undefined
  instance.running++
  return { instance, engine: instance.engine }
}

/** The slots of all instances that get jobs, and what uses them. */
export interface Occupancy {
  /** Jobs that hold a slot, and callers that wait. */
  readonly demand: number
  readonly slots: number
  /** Loaded ones; those of the current instance included. */
  readonly replicas: number
  /** Whether one that was added is not ready yet. */
  readonly isLoading: boolean
}

/** Undefined if the deployment is not loaded. */
export const occupancyOf = (actor: Actor | undefined): Occupancy | undefined => {
  if (actor?.instance?.engine === undefined || actor.instance.state !== "ready") return undefined
  const serving = [actor.instance, ...actor.added].filter(({ state }) => state === "ready")
  const sumOf = (of: (instance: EngineInstance) => number) => serving.reduce((sum, one) => sum + of(one), 0)
  return {
    demand: sumOf(({ running }) => running) + actor.mailbox.size,
    slots: sumOf((one) => one.engine === undefined ? 0 : capacityOf(one, one.engine)),
    replicas: sumOf(({ replicas }) => replicas),
    isLoading: actor.added.size + 1 > serving.length
  }
}

/** A slot without waiting: if one is free and no caller waits. */
export const takeSlot = (actor: Actor): Slot | undefined =>
  actor.mailbox.size === 0 && actor.deployment.queueLimit > 0 ? freeSlot(actor) : undefined

/** Gives free slots to waiting callers, in the mailbox's order. */
export const dispatch = (actor: Actor, now: number): void => {
  while (actor.mailbox.size > 0) {
    const slot = freeSlot(actor)
    if (slot === undefined) return isAtLimit(actor) ? undefined : actor.lease?.wait(actor.mailbox.size)
    const { value } = actor.mailbox.next(now)!
    value.instance = slot.instance
    Deferred.doneUnsafe(value.slot, Effect.succeed(slot))
  }
}

/** Completes all of them with this outcome. */
export const resolve = (waiters: Waiters, outcome: Effect.Effect<void, InferenceError>): void => {
  const waiting = [...waiters]
  waiters.clear()
  for (const waiter of waiting) Deferred.doneUnsafe(waiter, outcome)
}

/** Fails every caller that waits for the engine. */
export const failAll = (actor: Actor, error: InferenceError): void => {
  const failure = Effect.fail(error)
  for (const { value } of actor.mailbox.clear()) Deferred.doneUnsafe(value.slot, failure)
  resolve(actor.loadWaiters, failure)
}

const smoothing = 0.2
/** ms */
const shortestRetry = 1_000

const queueFull = (actor: Actor): InferenceError => {
  const { added, id, instance, mailbox, meanJobMs } = actor
  const slotsOf = (one: EngineInstance) => one.engine === undefined ? 0 : capacityOf(one, one.engine)
  const slots = instance === undefined ? 1 : [instance, ...added].reduce((sum, one) => sum + slotsOf(one), 0) || 1
  return makeError(
    new QueueFull({
      deployment: id,
      limit: actor.deployment.queueLimit,
      retryAfterMs: Math.max(shortestRetry, Math.round(meanJobMs * mailbox.size / slots))
    })
  )
}

/** Puts a caller into the mailbox. If it is full, either this caller or the one that it displaces fails. */
export const enqueue = (
  actor: Actor,
  { priority = "normal", tenant = "" }: Caller,
  address: string,
  now: number
): Waiting<SlotRequest> => {
  const request: SlotRequest = { slot: Deferred.makeUnsafe(), instance: undefined }
  const waiting = { address, tenant, priority, since: now, value: request }
  const offer = actor.mailbox.offer(waiting)
  const refused = offer.accepted ? offer.displaced : waiting
  if (refused !== undefined) Deferred.doneUnsafe(refused.value.slot, Effect.fail(queueFull(actor)))
  return waiting
}

/** A slot is free again, without a job. */
export const giveBack = (instance: EngineInstance, now: number): void => {
  instance.running--
  instance.actor.lease?.released(now)
  dispatch(instance.actor, now)
  if (instance.running === 0) { for (const notify of instance.onIdle) notify() }
}

/** A job has released its slot. */
export const release = (instance: EngineInstance, takenAt: number, now: number): void => {
  const { actor } = instance
  actor.lastUsed = now
  actor.meanJobMs += (actor.served === 0 ? 1 : smoothing) * (now - takenAt - actor.meanJobMs)
  actor.served++
  giveBack(instance, now)
}

/** Whether it is loaded and unused, so that its idle time counts. */
export const isUnused = (actor: Actor): actor is Actor & { readonly instance: EngineInstance } =>
  actor.instance?.readyAt !== undefined && actor.instance.running === 0 && !isWanted(actor) &&
  (actor.added.size === 0 || [...actor.added].every(({ running }) => running === 0))

/** When it is unloaded if it stays unused, monotonic ms. */
export const unloadTimeOf = ({ deployment, keepAlive, lastUsed }: Actor): number =>
  deployment.pinned ? Number.POSITIVE_INFINITY : lastUsed + Duration.toMillis(keepAlive)

/** Whether it needs an unload timer, or an earlier one than it has. */
export const needsUnloadTimer = (actor: Actor): boolean => {
  if (!isUnused(actor)) return false
  const at = unloadTimeOf(actor)
  return Number.isFinite(at) && (actor.unloadTimer === undefined || actor.unloadTimer.at > at)
}
