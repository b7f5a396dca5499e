/**
 * Memory for lives: each is granted its memory before it loads, and others are unloaded where `MemoryQueue` says so.
 *
 * **Details**
 *
 * Those that wait are planned for together, again at each change: a life that begins to wait or leaves, memory that becomes
 * free, a model that becomes idle or has been held long enough. Nothing is locked while one waits: what is granted is taken
 * at once, before the models that are evicted for it have ended, and only its own load waits for their end.
 *
 * A life that waits for models in use stops them from taking new jobs once their hold time is over, so that they become
 * idle. They take jobs again when it has its memory or leaves, unless another waits for them too.
 *
 * A load that only continues, as every request that waited for it has moved on, gets what memory is free or idle once all
 * others are planned for, and stops no model from taking jobs.
 *
 * A deployment that takes no memory here, as a remote one, is not planned for and never waits.
 */
import type { Cause, Fiber, Scope } from "effect"
import { Deferred, Effect, Exit } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InsufficientMemory, make as makeError } from "../../domain/InferenceError.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import type { Life } from "./Actor.ts"
import * as Actors from "./Actor.ts"
import type { Candidate, Plan, Resident, Snapshot } from "./EvictionPlan.ts"
import * as MemoryQueue from "./MemoryQueue.ts"

/** A deployment, or a variant of it, and what it needs. */
export interface Choice extends Candidate {
  readonly deployment: Deployment
}

export interface Room {
  /** The deployment or the variant of it that there is memory for, which is given back at the scope's end. */
  readonly reserve: (life: Life) => Effect.Effect<Deployment, InferenceError, Scope.Scope>
  /** Something may have become free. */
  readonly changed: () => void
}

export interface Options {
  readonly lives: () => ReadonlyArray<Life>
  /** Begins to unload a life that is idle; the effect waits for its end. */
  readonly unload: (life: Life) => Effect.Effect<void>
  /** Lets it take jobs again. */
  readonly resume: (life: Life) => void
  readonly choices: (deployment: Deployment) => Effect.Effect<readonly [Choice, ...Array<Choice>]>
  /** Bytes that models may use now, given those that are loaded and what they use. */
  readonly budget: Effect.Effect<(lives: ReadonlyArray<Life>) => number>
  readonly holdMs: number
  readonly fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
}

const keyOf = ({ actor, version }: Life): string => `${actor.id}@${version}`

const residentOf = (now: number) => (life: Life): Resident => ({
  key: keyOf(life),
  bytes: life.bytes,
  pinned: life.deployment.pinned,
  inUse: life.running > 0 || life.state !== "ready",
  idleMs: Math.max(0, now - Math.max(life.actor.lastUsed, life.readyAt ?? 0)),
  heldMs: life.state === "ready" ? now - (life.readyAt ?? now) : 0,
  reloadMs: life.loadMs,
  demand: life.actor.served + life.actor.mailbox.size
})

const refused = ({ actor }: Life, { availableBytes, neededBytes }: Extract<Plan, { type: "refuse" }>): InferenceError =>
  makeError(new InsufficientMemory({ deployment: actor.id, neededBytes, availableBytes }))

/** What a life was granted. */
interface Grant {
  readonly deployment: Deployment
  /** Waits for the end of those that are evicted for it. */
  readonly evicted: Effect.Effect<void>
}

/** A life that waits for memory. */
interface Entry {
  readonly life: Life
  readonly candidates: ReadonlyArray<Choice>
  readonly granted: Deferred.Deferred<Grant, InferenceError>
  /** Those that take no jobs until it has its memory. */
  readonly paused: Set<Life>
  overtaken: number
}

/** Lives that end for another one, whose memory counts with theirs until they have ended. */
interface Eviction {
  readonly victims: ReadonlyArray<Life>
  /** What it takes of the memory that was free, bytes. */
  readonly fromFree: number
}

interface State {
  /** In the order in which they began to wait. */
  readonly waiting: Set<Entry>
  /** By a life that has been granted its memory: those that are evicted for it. */
  readonly evictions: Map<Life, Eviction>
  /** The next time at which waiting alone changes something. */
  timer: Fiber.Fiber<void> | undefined
  planning: boolean
  /** Something has changed since the plan that is being made was begun. */
  stale: boolean
}

/** Stops them from taking jobs, but for those that load: they first serve what waits for them, or nothing would be served. */
const pause = ({ paused }: Entry, lives: ReadonlyArray<Life>): void => {
  for (const life of lives) {
    if (life.state !== "ready") continue
    life.paused = true
    paused.add(life)
  }
}

/** What it has paused takes jobs again, unless another waits for that too. */
const unpause = ({ waiting }: State, { paused }: Entry, resume: Options["resume"]): void => {
  const lives = [...paused]
  paused.clear()
  for (const life of lives) if (![...waiting].some((other) => other.paused.has(life))) resume(life)
}

/** It waits no more. */
const leave = (state: State, entry: Entry, resume: Options["resume"]): void => {
  if (state.waiting.delete(entry)) unpause(state, entry, resume)
}

const sum = (lives: ReadonlyArray<Life>): number => lives.reduce((total, { bytes }) => total + bytes, 0)

/** Takes the memory and begins to evict what has it. */
const grant = (state: State, entry: Entry, choice: Choice, evict: ReadonlyArray<Life>, options: Options): void => {
  const { life } = entry
  life.bytes = choice.bytes
  life.granted = choice.deployment
  if (evict.length > 0) {
    state.evictions.set(life, { victims: evict, fromFree: Math.max(0, choice.bytes - sum(evict)) })
  }
  const ends = evict.map(options.unload)
  leave(state, entry, options.resume)
  const evicted = Effect.forEach(ends, (end) => end, { concurrency: "unbounded", discard: true })
  Deferred.doneUnsafe(entry.granted, Effect.succeed({ deployment: choice.deployment, evicted }))
}

/** What is there now. */
const snapshotOf = ({ evictions }: State, { holdMs, lives }: Options, now: number, budgetOf: BudgetOf): Snapshot => {
  const granted = lives().filter(({ bytes }) => bytes > 0)
  const ending = new Set([...evictions.values()].flatMap(({ victims }) => victims))
  const resident = residentOf(now)
  const residents = granted.filter((life) => !ending.has(life)).map((life) => {
    const eviction = evictions.get(life)
    if (eviction === undefined) return resident(life)
    // What it does not need of theirs is free when they have ended, and not before.
    return { ...resident(life), bytes: Math.max(life.bytes, sum(eviction.victims) + eviction.fromFree) }
  })
  return { residents, holdMs, budgetBytes: budgetOf(granted) }
}

type BudgetOf = Effect.Success<Options["budget"]>

/** Does what was decided; how long it is until time alone changes something, ms. */
const act = (state: State, options: Options, decisions: ReadonlyArray<MemoryQueue.Decision>): number => {
  const entries = new Map([...state.waiting].map((entry) => [keyOf(entry.life), entry]))
  const byKeys = (keys: ReadonlyArray<string>) => options.lives().filter((life) => keys.includes(keyOf(life)))
  let soonest = Number.POSITIVE_INFINITY
  const earlier: Array<Entry> = []
  for (const { key, overtakes, plan } of decisions) {
    const entry = entries.get(key)!
    switch (plan.type) {
      case "load": {
        if (overtakes) { for (const one of earlier) one.overtaken++ }
        const choice = entry.candidates.find(({ name }) => name === plan.candidate.name)!
        grant(state, entry, choice, byKeys(plan.evict), options)
        break
      }
      case "refuse":
        leave(state, entry, options.resume)
        Deferred.doneUnsafe(entry.granted, Effect.fail(refused(entry.life, plan)))
        break
      case "wait":
        if (Actors.isAwaited(entry.life)) pause(entry, byKeys(plan.drain))
        else unpause(state, entry, options.resume)
        soonest = Math.min(soonest, plan.atMostMs)
        earlier.push(entry)
    }
  }
  return soonest
}

/** Those that wait, first those that requests wait for. */
const inOrder = ({ waiting }: State): ReadonlyArray<MemoryQueue.Waiting> => {
  const entries = [...waiting]
  const awaited = entries.filter(({ life }) => Actors.isAwaited(life))
  const others = entries.filter(({ life }) => !Actors.isAwaited(life))
  return [...awaited, ...others].map(({ candidates, life, overtaken }) => ({ key: keyOf(life), candidates, overtaken }))
}

const failAll = ({ waiting }: State, cause: Cause.Cause<never>): void => {
  for (const { granted } of waiting) Deferred.doneUnsafe(granted, Exit.failCause(cause))
}

/** Plans for all that wait, until nothing has changed meanwhile. */
const makePlan = (state: State, options: Options): () => void => {
  const once = Effect.gen(function*() {
    // First what takes time.
    const budgetOf = yield* options.budget
    const now = yield* Monotonic.now
    state.stale = false
    const decisions = MemoryQueue.schedule(inOrder(state), snapshotOf(state, options, now, budgetOf))
    state.timer?.interruptUnsafe()
    const soonest = act(state, options, decisions)
    if (Number.isFinite(soonest)) state.timer = options.fork(Effect.andThen(Effect.sleep(soonest), Effect.sync(plan)))
  })
  const all = Effect.repeat(once, { while: () => state.stale && state.waiting.size > 0 }).pipe(
    Effect.catchCause((cause) => Effect.sync(() => failAll(state, cause))),
    Effect.ensuring(Effect.sync(() => {
      state.planning = false
    }))
  )
  const plan = () => {
    if (state.waiting.size === 0) return
    state.stale = true
    if (state.planning) return
    state.planning = true
    options.fork(all)
  }
  return plan
}

export const make = (options: Options): Room => {
  const state: State = { waiting: new Set(), evictions: new Map(), timer: undefined, planning: false, stale: false }
  const plan = makePlan(state, options)

  const wait = (life: Life, candidates: ReadonlyArray<Choice>): Effect.Effect<Deployment, InferenceError> => {
    const entry: Entry = { life, candidates, granted: Deferred.makeUnsafe(), paused: new Set(), overtaken: 0 }
    state.waiting.add(entry)
    plan()
    return Deferred.await(entry.granted).pipe(
      Effect.flatMap(({ deployment, evicted }) => Effect.as(evicted, deployment)),
      Effect.ensuring(Effect.sync(() => {
        leave(state, entry, options.resume)
        state.evictions.delete(life)
        plan()
      }))
    )
  }

  const release = (life: Life) =>
    Effect.sync(() => {
      life.bytes = 0
      plan()
    })

  return {
    reserve: (life) =>
      Effect.andThen(
        Effect.addFinalizer(() => release(life)),
        Effect.flatMap(options.choices(life.deployment), (candidates) =>
          candidates.every(({ bytes }) => bytes === 0)
            ? Effect.succeed(candidates[0].deployment)
            : Effect.suspend(() => wait(life, candidates)))
      ),
    changed: plan
  }
}
