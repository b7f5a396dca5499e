/**
 * An actor: the owner of one deployment. Its mailbox holds the callers that wait, its life is an engine that is loading,
 * ready or draining, and lives follow one another.
 *
 * **Details**
 *
 * A mailbox outlives its engine: callers who wait while an engine crashes, is exchanged for another version or makes
 * room for another model are served by the next. Everything here is plain state and takes no time; the fibers that
 * change it are in `Lives` and `layers/Models`.
 */
import type { Fiber } from "effect"
import { Deferred, Duration, Effect } from "effect"
import * as Policies from "../../domain/Defaults.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { make as makeError, QueueFull } from "../../domain/InferenceError.ts"
import type { Engine } from "../engines/Engine.ts"
import type { Waiting } from "./Mailbox.ts"
import { FairQueue } from "./Mailbox.ts"
import type { Standing, State } from "./Models.ts"

/** Calls that wait for an engine and need no slot. */
export type Waiters = Set<Deferred.Deferred<void, InferenceError>>

/** One engine's time, from its load to its end; a restart after a crash belongs to it. */
export interface Life {
  readonly actor: Actor
  readonly version: number
  /** As it was asked for. */
  readonly deployment: Deployment
  /** What was granted memory: the deployment, or a variant of it. */
  granted: Deployment
  state: "loading" | "ready" | "draining" | "gone"
  /** Undefined while it is being started. */
  engine: Engine | undefined
  /** Jobs that hold a slot. */
  running: number
  /** No job is given a slot: another model waits for the memory. */
  paused: boolean
  /** Its first load goes on though nothing waits for it any more: a request that began it went on elsewhere. */
  continues: boolean
  /** Memory that it was granted, bytes. */
  bytes: number
  /** When its engine was ready last, ms; undefined, it never was. */
  readyAt: number | undefined
  /** What loading it took, ms. */
  loadMs: number
  /** Told when no job holds a slot any more. */
  readonly idle: Set<() => void>
  /** Calls of `replace` that wait until it serves. */
  readonly waiters: Waiters
  fiber: Fiber.Fiber<unknown, unknown> | undefined
}

/** A slot of an engine, which may have crashed when its borrower comes to use it: it fails his job then. */
export interface Slot {
  readonly life: Life
  readonly engine: Engine
}

/** A caller in the mailbox. */
export interface Caller {
  readonly slot: Deferred.Deferred<Slot, InferenceError>
  /** The life whose slot he was given. */
  life: Life | undefined
}

export interface Actor {
  readonly id: string
  /** What serves, or will. */
  deployment: Deployment
  /** The one that serves. */
  life: Life | undefined
  /** Those that still drain, and at most one that loads to take over. */
  readonly others: Set<Life>
  readonly mailbox: FairQueue<Caller>
  /** Calls of `load`. */
  readonly watchers: Waiters
  lives: number
  /** Jobs served. */
  served: number
  /** How long a job holds its slot, smoothed, ms. */
  meanJobMs: number
  /** When a job ended last, its engine became ready, or the actor was made, ms of `Monotonic`. */
  lastUsed: number
  keepAlive: Duration.Duration
  /** Why it failed last. */
  lastFailure: string | undefined
  /** It failed and has not been tried again. */
  failed: boolean
  /** After its last restart failed: callers are refused until then, ms. */
  downUntil: number
  unloadTimer: { readonly at: number; fiber: Fiber.Fiber<unknown, unknown> | undefined } | undefined
}

/** @param now ms of `Monotonic`, from which its idle time counts until its first job has ended */
export const make = (deployment: Deployment, now: number): Actor => {
  const actor: Actor = {
    id: deployment.id,
    deployment,
    life: undefined,
    others: new Set(),
    mailbox: new FairQueue({
      // Another version may have another limit.
      get limit() {
        return actor.deployment.queueLimit
      },
      ageing: Duration.toMillis(Policies.queueAgeing)
    }),
    watchers: new Set(),
    lives: 0,
    served: 0,
    meanJobMs: 0,
    lastUsed: now,
    keepAlive: deployment.idleUnload,
    lastFailure: undefined,
    failed: false,
    downUntil: 0,
    unloadTimer: undefined
  }
  return actor
}

export const makeLife = (actor: Actor, deployment: Deployment): Life => ({
  actor,
  version: ++actor.lives,
  deployment,
  granted: deployment,
  state: "loading",
  engine: undefined,
  running: 0,
  paused: false,
  continues: false,
  bytes: 0,
  readyAt: undefined,
  loadMs: 0,
  idle: new Set(),
  waiters: new Set(),
  fiber: undefined
})

/** The one that loads to take over from the one that serves. */
export const successorOf = ({ others }: Actor): Life | undefined =>
  others.size === 0 ? undefined : [...others].find(({ state }) => state === "loading")

export const stateOf = (actor: Actor): State => {
  const life = actor.life ?? successorOf(actor)
  if (life !== undefined && life.state !== "gone") return life.state
  if (actor.others.size > 0) return "draining"
  return actor.failed ? "failed" : "cold"
}

/** Whether anyone waits for its engine. */
export const isWanted = ({ mailbox, watchers }: Actor): boolean => mailbox.size > 0 || watchers.size > 0

/** Whether a request or an operator waits for this load, which otherwise only continues. */
export const isAwaited = ({ actor, continues }: Life): boolean => !continues || isWanted(actor)

const capacityOf = (life: Life, engine: Engine): number =>
  engine.describe.slots * ("replicas" in life.deployment.options ? life.deployment.options.replicas ?? 1 : 1)

/** Gives free slots to whose turn it is. */
export const pump = ({ life, mailbox }: Actor, now: number): void => {
  if (life?.engine === undefined || life.paused || life.state !== "ready") return
  // Its jobs fail before its end is noted: who waits is not to fail with them, but is served by the next.
  if (life.engine.isOver?.() === true) return
  const capacity = capacityOf(life, life.engine)
  while (life.running < capacity) {
    const next = mailbox.next(now)
    if (next === undefined) return
    life.running++
    next.value.life = life
    Deferred.doneUnsafe(next.value.slot, Effect.succeed({ life, engine: life.engine }))
  }
}

/** Ends the wait of all of them. */
export const resolve = (waiters: Waiters, outcome: Effect.Effect<void, InferenceError>): void => {
  const waiting = [...waiters]
  waiters.clear()
  for (const waiter of waiting) Deferred.doneUnsafe(waiter, outcome)
}

/** Fails everyone who waits. */
export const failAll = (actor: Actor, error: InferenceError): void => {
  const failure = Effect.fail(error)
  for (const { value } of actor.mailbox.clear()) Deferred.doneUnsafe(value.slot, failure)
  resolve(actor.watchers, failure)
}

const smoothing = 0.2
const shortestRetry = 1_000

const queueFull = (actor: Actor): InferenceError => {
  const { id, life, mailbox, meanJobMs } = actor
  const slots = life?.engine === undefined ? 1 : capacityOf(life, life.engine)
  return makeError(
    new QueueFull({
      deployment: id,
      limit: actor.deployment.queueLimit,
      retryAfterMs: Math.max(shortestRetry, Math.round(meanJobMs * mailbox.size / slots))
    })
  )
}

/** Puts a caller into the mailbox; where it is full, he or the one who makes room for him fails. */
export const enqueue = (
  actor: Actor,
  { priority = "normal", tenant = "" }: Standing,
  address: string,
  now: number
): Waiting<Caller> => {
  const caller: Caller = { slot: Deferred.makeUnsafe(), life: undefined }
  const waiting = { address, tenant, priority, since: now, value: caller }
  const offer = actor.mailbox.offer(waiting)
  const refused = offer.accepted ? offer.displaced : waiting
  if (refused !== undefined) Deferred.doneUnsafe(refused.value.slot, Effect.fail(queueFull(actor)))
  return waiting
}

/** A job has let go of its slot. */
export const release = (life: Life, taken: number, now: number): void => {
  const { actor } = life
  life.running--
  actor.lastUsed = now
  actor.meanJobMs += (actor.served === 0 ? 1 : smoothing) * (now - taken - actor.meanJobMs)
  actor.served++
  pump(actor, now)
  if (life.running === 0) { for (const tell of life.idle) tell() }
}
