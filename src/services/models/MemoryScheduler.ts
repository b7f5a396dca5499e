/**
 * Grants engine instances their memory before they load, and unloads others where `MemoryQueue` decides so.
 *
 * **Details**
 *
 * All waiting instances are planned together, again at each change: an instance begins to wait or leaves, memory becomes
 * free, a model becomes idle, a hold time ends. Nothing is locked while an instance waits: granted memory is taken at
 * once, before the evicted models have ended, and only the load that it is for waits for their end.
 *
 * An instance that waits for models in use stops them from getting new jobs once their hold time is over, so that they
 * become idle. They get jobs again when it has its memory or leaves, unless another instance waits for them too.
 *
 * A detached load, for which no request waits, gets memory that is free or idle after all others are planned, and stops
 * no model from getting jobs.
 *
 * An added instance takes memory that is free and that no load waits for, at once, or is refused. It is evicted as an unused
 * model is, also where its deployment is pinned.
 *
 * A deployment that needs no memory here, such as a remote one, is not planned for and never waits.
 */
import type { Cause, Fiber, Scope } from "effect"
import { Deferred, Effect, Exit } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InsufficientMemory, make as makeError } from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"
import type { EngineInstance } from "./Actor.ts"
import * as Actor from "./Actor.ts"
import type { Candidate, Plan, Quantization, Resident, Snapshot } from "./EvictionPlan.ts"
import type { Budget } from "./Memory.ts"
import * as MemoryQueue from "./MemoryQueue.ts"

/** A deployment, or a variant of it, and the memory that it needs. */
export interface LoadCandidate extends Candidate {
  readonly deployment: Deployment
}

export interface MemoryScheduler {
  /** Waits for memory. Returns the deployment or the variant to load; the scope's end releases the memory. */
  readonly reserve: (instance: EngineInstance) => Effect.Effect<Deployment, InferenceError, Scope.Scope>
  /** Plans again: memory may have become free. */
  readonly replan: () => void
}

export interface Options {
  readonly instances: () => ReadonlyArray<EngineInstance>
  /** Begins to unload an idle instance; the effect waits for its end. */
  readonly unload: (instance: EngineInstance) => Effect.Effect<void>
  /** Lets a paused instance get jobs again. */
  readonly resume: (instance: EngineInstance) => void
  readonly candidates: (deployment: Deployment) => Effect.Effect<readonly [LoadCandidate, ...Array<LoadCandidate>]>
  readonly budget: Budget
  readonly holdMs: number
  readonly quantization?: Quantization | undefined
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
}

const keyOf = ({ actor, version }: EngineInstance): string => `${actor.id}@${version}`

const residentOf = (now: number) => (instance: EngineInstance): Resident => ({
  key: keyOf(instance),
  bytes: instance.bytes,
  pinned: instance.deployment.pinned && !instance.isAdded,
  inUse: instance.running > 0 || instance.state !== "ready",
  idleMs: Math.max(0, now - Math.max(instance.actor.lastUsed, instance.readyAt ?? 0)),
  heldMs: instance.state === "ready" ? now - (instance.readyAt ?? now) : 0,
  reloadMs: instance.loadMs,
  demand: instance.actor.served + instance.actor.mailbox.size
})

const refused = (
  { actor }: EngineInstance,
  { availableBytes, neededBytes }: Extract<Plan, { type: "refuse" }>
): InferenceError => makeError(new InsufficientMemory({ deployment: actor.id, neededBytes, availableBytes }))

interface Grant {
  readonly deployment: Deployment
  /** Waits for the end of the evicted instances. */
  readonly evicted: Effect.Effect<void>
}

/** An instance that waits for memory. */
interface Entry {
  readonly instance: EngineInstance
  readonly candidates: ReadonlyArray<LoadCandidate>
  readonly granted: Deferred.Deferred<Grant, InferenceError>
  /** Instances that get no jobs until it has its memory. */
  readonly paused: Set<EngineInstance>
  overtaken: number
}

/** Instances that are evicted for another one, with which their memory counts until they have ended. */
interface Eviction {
  readonly victims: ReadonlyArray<EngineInstance>
  /** Memory that it takes of what was free, bytes. */
  readonly fromFree: number
}

interface State {
  /** In the order in which they began to wait. */
  readonly waiting: Set<Entry>
  /** By the instance that memory was granted to. */
  readonly evictions: Map<EngineInstance, Eviction>
  /** Plans again when a hold time ends. */
  timer: Fiber.Fiber<void> | undefined
  planning: boolean
  /** Whether the state has changed since planning began. */
  stale: boolean
}

/**
 * Stops ready instances from getting jobs. An instance that loads serves its waiting callers first; otherwise they
 * would never be served.
 */
const pause = ({ paused }: Entry, instances: ReadonlyArray<EngineInstance>): void => {
  for (const instance of instances) {
    if (instance.state !== "ready") continue
    instance.paused = true
    paused.add(instance)
  }
}

/** Instances that the entry has paused get jobs again, unless another entry has paused them too. */
const unpause = ({ waiting }: State, { paused }: Entry, resume: Options["resume"]): void => {
  const instances = [...paused]
  paused.clear()
  for (const instance of instances) if (![...waiting].some((other) => other.paused.has(instance))) resume(instance)
}

const leave = (state: State, entry: Entry, resume: Options["resume"]): void => {
  if (state.waiting.delete(entry)) unpause(state, entry, resume)
}

const sum = (instances: ReadonlyArray<EngineInstance>): number =>
  instances.reduce((total, { bytes }) => total + bytes, 0)

/** Takes the memory and begins to evict the instances that have it. */
const grant = (
  state: State,
  entry: Entry,
  candidate: LoadCandidate,
  evict: ReadonlyArray<EngineInstance>,
  options: Options
): void => {
  const { instance } = entry
  instance.bytes = candidate.bytes
  instance.granted = candidate.deployment
  if (evict.length > 0) {
    state.evictions.set(instance, { victims: evict, fromFree: Math.max(0, candidate.bytes - sum(evict)) })
  }
  const ends = evict.map(options.unload)
  leave(state, entry, options.resume)
  const evicted = Effect.forEach(ends, (end) => end, { concurrency: "unbounded", discard: true })
  Deferred.doneUnsafe(entry.granted, Effect.succeed({ deployment: candidate.deployment, evicted }))
}

const snapshotOf = (
  { evictions }: State,
  { holdMs, instances, quantization }: Options,
  now: number,
  budgetOf: Effect.Success<Budget>
): Snapshot => {
  const granted = instances().filter(({ bytes }) => bytes > 0)
  const ending = new Set([...evictions.values()].flatMap(({ victims }) => victims))
  const resident = residentOf(now)
  const residents = granted.filter((instance) => !ending.has(instance)).map((instance) => {
    const eviction = evictions.get(instance)
    if (eviction === undefined) return resident(instance)
    // Memory of the evicted instances beyond the need is free only when they have ended.
    return { ...resident(instance), bytes: Math.max(instance.bytes, sum(eviction.victims) + eviction.fromFree) }
  })
  return { residents, holdMs, quantization, budgetBytes: budgetOf(granted) }
}

/** Carries out the decisions. Returns how long it is until time alone changes something, ms. */
const apply = (state: State, options: Options, decisions: ReadonlyArray<MemoryQueue.Decision>): number => {
  const entries = new Map([...state.waiting].map((entry) => [keyOf(entry.instance), entry]))
  const byKeys = (keys: ReadonlyArray<string>) =>
    options.instances().filter((instance) => keys.includes(keyOf(instance)))
  let soonest = Number.POSITIVE_INFINITY
  const earlier: Array<Entry> = []
  for (const { key, overtakes, plan } of decisions) {
    const entry = entries.get(key)!
    switch (plan.type) {
      case "load": {
        if (overtakes) { for (const one of earlier) one.overtaken++ }
        const candidate = entry.candidates.find(({ name }) => name === plan.candidate.name)!
        grant(state, entry, candidate, byKeys(plan.evict), options)
        break
      }
      case "refuse":
        leave(state, entry, options.resume)
        Deferred.doneUnsafe(entry.granted, Effect.fail(refused(entry.instance, plan)))
        break
      case "wait":
        if (Actor.isAwaited(entry.instance)) pause(entry, byKeys(plan.drain))
        else unpause(state, entry, options.resume)
        soonest = Math.min(soonest, plan.atMostMs)
        earlier.push(entry)
    }
  }
  return soonest
}

/** The waiting instances, those that requests wait for before the detached ones. */
const inOrder = ({ waiting }: State): ReadonlyArray<MemoryQueue.Waiting> => {
  const entries = [...waiting]
  const awaited = entries.filter(({ instance }) => Actor.isAwaited(instance))
  const detached = entries.filter(({ instance }) => !Actor.isAwaited(instance))
  return [...awaited, ...detached].map(({ candidates, instance, overtaken }) => ({
    key: keyOf(instance),
    candidates,
    overtaken
  }))
}

/** What an added instance loads: the file of the current one, on one thread. */
const besideOf = ({ actor }: EngineInstance): Deployment => {
  const { granted } = actor.instance ?? { granted: actor.deployment }
  const { options } = granted
  return isRemote(options) || (options.replicas ?? 1) === 1
    ? granted
    : { ...granted, options: { ...options, replicas: 1 } }
}

/** Memory for an added instance, if it is free. */
const takeFree = (
  state: State,
  options: Options,
  instance: EngineInstance,
  { bytes, deployment }: LoadCandidate
): Effect.Effect<Deployment, InferenceError> =>
  Effect.flatMap(Effect.all([options.budget, Time.now]), ([budgetOf, now]) => {
    const { budgetBytes, residents } = snapshotOf(state, options, now, budgetOf)
    const used = residents.reduce((total, resident) => total + resident.bytes, 0)
    const availableBytes = state.waiting.size > 0 ? 0 : Math.max(0, budgetBytes - used)
    if (bytes > availableBytes) {
      return makeError(new InsufficientMemory({ deployment: instance.actor.id, neededBytes: bytes, availableBytes }))
    }
    instance.bytes = bytes
    instance.granted = deployment
    return Effect.succeed(deployment)
  })

const failAll = ({ waiting }: State, cause: Cause.Cause<never>): void => {
  for (const { granted } of waiting) Deferred.doneUnsafe(granted, Exit.failCause(cause))
}

/** Returns a function that plans for all waiting instances, repeatedly until nothing has changed meanwhile. */
const makeReplan = (state: State, options: Options): () => void => {
  const once = Effect.gen(function*() {
    // Reading memory takes time, so it comes before the snapshot.
    const budgetOf = yield* options.budget
    const now = yield* Time.now
    state.stale = false
    const decisions = MemoryQueue.schedule(inOrder(state), snapshotOf(state, options, now, budgetOf))
    state.timer?.interruptUnsafe()
    const soonest = apply(state, options, decisions)
    if (Number.isFinite(soonest)) state.timer = options.fork(Effect.andThen(Effect.sleep(soonest), Effect.sync(replan)))
  })
  const all = Effect.repeat(once, { while: () => state.stale && state.waiting.size > 0 }).pipe(
    Effect.catchCause((cause) => Effect.sync(() => failAll(state, cause))),
    Effect.ensuring(Effect.sync(() => {
      state.planning = false
    }))
  )
  const replan = () => {
    if (state.waiting.size === 0) return
    state.stale = true
    if (state.planning) return
    state.planning = true
    options.fork(all)
  }
  return replan
}

export const make = (options: Options): MemoryScheduler => {
  const state: State = { waiting: new Set(), evictions: new Map(), timer: undefined, planning: false, stale: false }
  const replan = makeReplan(state, options)

  const wait = (
    instance: EngineInstance,
    candidates: ReadonlyArray<LoadCandidate>
  ): Effect.Effect<Deployment, InferenceError> => {
    const entry: Entry = { instance, candidates, granted: Deferred.makeUnsafe(), paused: new Set(), overtaken: 0 }
    state.waiting.add(entry)
    replan()
    return Deferred.await(entry.granted).pipe(
      Effect.flatMap(({ deployment, evicted }) => Effect.as(evicted, deployment)),
      Effect.ensuring(Effect.sync(() => {
        leave(state, entry, options.resume)
        state.evictions.delete(instance)
        replan()
      }))
    )
  }

  const release = (instance: EngineInstance) =>
    Effect.sync(() => {
      instance.bytes = 0
      replan()
    })

  const reserve = (instance: EngineInstance, candidates: readonly [LoadCandidate, ...Array<LoadCandidate>]) => {
    if (candidates.every(({ bytes }) => bytes === 0)) return Effect.succeed(candidates[0].deployment)
    return instance.isAdded ? takeFree(state, options, instance, candidates[0]) : wait(instance, candidates)
  }

  return {
    reserve: (instance) =>
      Effect.andThen(
        Effect.addFinalizer(() => release(instance)),
        Effect.flatMap(
          Effect.suspend(() => options.candidates(instance.isAdded ? besideOf(instance) : instance.deployment)),
          (candidates) => reserve(instance, candidates)
        )
      ),
    replan
  }
}
