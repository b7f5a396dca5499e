/** The operations of callers: lease a slot for one job, load, replace, unload. */
import { Deferred, Effect, Equal, Fiber, PubSub, Scope } from "effect"
import type { Caller } from "../../domain/Caller.ts"
import { CallerAddress } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Counted, Generation } from "../../domain/Generation.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { DeploymentDown, make as makeError } from "../../domain/InferenceError.ts"
import type { RankingInput } from "../../domain/Job.ts"
import * as Source from "../../domain/Source.ts"
import * as Time from "../../domain/Time.ts"
import type { Engine, EventReceiver, Meter, Retain, StartedAnswer } from "../engines/Engine.ts"
import type { EngineInstance } from "./Actor.ts"
import * as Actor from "./Actor.ts"
import { endingOf } from "./Drains.ts"
import type { ActorContext } from "./EngineLifecycle.ts"
import * as EngineLifecycle from "./EngineLifecycle.ts"
import { progressOf, RequestWaits } from "./Waits.ts"

/** Monotonic ms. */
const now = ({ clock }: ActorContext): number => Time.nowOf(clock)

const actorOf = (context: ActorContext, requested: Deployment): Actor.Actor => {
  const { actors, replaced } = context
  const deployment = replaced.get(requested.id) ?? requested
  const known = actors.get(deployment.id)
  if (known !== undefined) {
    // Without an instance, the deployment that served last or is requested counts, not one that failed to replace it.
    if (known.instance === undefined) EngineLifecycle.configure(context, known, deployment)
    return known
  }
  const lease = context.leases.get(deployment.id)
  const made = Actor.make(deployment, now(context), lease)
  lease?.useFor({ running: () => Actor.runningOf(made), dispatch: () => Actor.dispatch(made, now(context)) })
  EngineLifecycle.configure(context, made, deployment)
  actors.set(deployment.id, made)
  return made
}

const down = (context: ActorContext, { downUntil, id, lastFailure }: Actor.Actor): InferenceError =>
  makeError(
    new DeploymentDown({ deployment: id, detail: lastFailure ?? "", retryAfterMs: downUntil - now(context) })
  )

/** Counts the holders of a slot: the caller's scope and the engine's job. The slot is released when none is left. */
class SlotHold {
  readonly #context: ActorContext
  readonly #instance: EngineInstance
  readonly #takenAt: number
  #holders = 1

  constructor(context: ActorContext, instance: EngineInstance) {
    this.#context = context
    this.#instance = instance
    this.#takenAt = now(context)
  }

  release(): void {
    this.#holders--
    if (this.#holders > 0) return
    const context = this.#context
    const instance = this.#instance
    Actor.release(instance, this.#takenAt, now(context))
    if (instance.running > 0) return
    // Only an instance that has memory can be evicted for one that waits for memory.
    if (instance.bytes > 0) context.memory.replan()
    if (Actor.needsUnloadTimer(instance.actor)) EngineLifecycle.scheduleUnload(context, instance.actor)
  }

  retain(): () => void {
    this.#holders++
    return () => this.release()
  }
}

/** Whether a call would wait for a load that cannot start, because Troupe shuts down. */
const isStopping = ({ stopping }: ActorContext, { instance }: Actor.Actor): boolean =>
  stopping && instance?.state !== "ready"

/** Why the actor accepts no request now. */
const refusalOf = (context: ActorContext, actor: Actor.Actor): InferenceError | undefined => {
  if (actor.downUntil > 0 && actor.downUntil > now(context)) return down(context, actor)
  return isStopping(context, actor) ? EngineLifecycle.stoppedError(actor) : undefined
}

/** An interrupted caller gives up its place in the mailbox, or the slot that it has just been given. */
const leave = (
  context: ActorContext,
  actor: Actor.Actor,
  waiting: ReturnType<typeof Actor.enqueue>,
  movedOn: () => boolean
) =>
  Effect.suspend(() => {
    const { instance } = waiting.value
    if (instance !== undefined) return Effect.sync(() => new SlotHold(context, instance).release())
    actor.mailbox.remove(waiting)
    if (actor.instance !== undefined && movedOn()) actor.instance.detached = true
    return EngineLifecycle.abandon(context, actor)
  })

/** Waits in the mailbox for a slot; the engine is loaded if it is not. */
const waitForSlot = (
  context: ActorContext,
  actor: Actor.Actor,
  standing: Caller,
  restore: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>,
  movedOn: () => boolean
): Effect.Effect<Actor.Slot, InferenceError> =>
  Effect.withFiber((fiber) => {
    const waiting = Actor.enqueue(actor, standing, fiber.getRef(CallerAddress)(fiber.context), now(context))
    Actor.dispatch(actor, now(context))
    EngineLifecycle.ensureInstance(context, actor)
    fiber.getRef(RequestWaits)?.add(() => progressOf(actor, waiting, now(context)))
    return Effect.onInterrupt(
      restore(Deferred.await(waiting.value.slot)),
      () => leave(context, actor, waiting, movedOn)
    )
  })

/** With `toolChoice: none`, a model without tool support does not see the tools. */
const withoutUnusedTools = (generation: Generation, { describe: { capabilities } }: Engine): Generation => {
  if (generation.toolChoice !== "none" || capabilities.includes("tools")) return generation
  const { source, toolChoice: _, tools: __, ...rest } = generation
  return source === undefined ? rest : { ...rest, source: Source.without(source, ["tools", "tool_choice"]) }
}

/** The engine, each of whose jobs retains the slot until it ends. */
const retaining = (engine: Engine, retain: Retain): Engine => ({
  ...engine,
  generate: (generation, _, meter) => engine.generate(withoutUnusedTools(generation, engine), retain, meter),
  embed: (inputs) => engine.embed(inputs, retain),
  rerank: (query, documents) => engine.rerank(query, documents, retain),
  ...(engine.rankEach === undefined
    ? {}
    : { rankEach: (inputs: ReadonlyArray<RankingInput>) => engine.rankEach!(inputs, retain) }),
  classify: (inputs) => engine.classify(inputs, retain),
  tokenize: (input) => engine.tokenize(input, retain),
  ...(engine.embedNative === undefined
    ? {}
    : { embedNative: (source: Source.Source) => engine.embedNative!(source, retain) }),
  ...(engine.count === undefined ? {} : { count: (input: Counted) => engine.count!(input, retain) })
})

/** The slot's engine; the slot is held until the scope closes and the engine has ended the job. */
const hold = (context: ActorContext, { engine, instance }: Actor.Slot): Effect.Effect<Engine, never, Scope.Scope> =>
  Effect.flatMap(Effect.scope, (scope) => {
    const held = new SlotHold(context, instance)
    // `Effect.addFinalizer` would copy the whole context for a finalizer that needs none of it.
    return Effect.as(
      Scope.addFinalizer(scope, Effect.sync(() => held.release())),
      retaining(engine, () => held.retain())
    )
  })

/** See `Models.lease`. */
export const lease = (context: ActorContext) =>
(
  deployment: Deployment,
  standing: Caller,
  movedOn = () => false
): Effect.Effect<Engine, InferenceError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) => {
    const actor = actorOf(context, deployment)
    const refusal = refusalOf(context, actor)
    if (refusal !== undefined) return Effect.fail(refusal)
    actor.keepAlive = standing.keepAlive ?? actor.deployment.idleUnload
    const slot = Actor.takeSlot(actor)
    return slot === undefined
      ? Effect.flatMap(waitForSlot(context, actor, standing, restore, movedOn), (slot) => hold(context, slot))
      : hold(context, slot)
  })

/** A slot of an engine that can `start`, held until `release`, or `cancel` if it was not used. */
export interface Slot {
  start(generation: Generation, hops: number, receiver: EventReceiver, meter: Meter): StartedAnswer | undefined
  release(): void
  cancel(): void
}

class StartingSlot extends SlotHold implements Slot {
  readonly #context: ActorContext
  readonly #slot: Actor.Slot

  constructor(context: ActorContext, slot: Actor.Slot) {
    super(context, slot.instance)
    this.#context = context
    this.#slot = slot
  }

  start(generation: Generation, hops: number, receiver: EventReceiver, meter: Meter): StartedAnswer | undefined {
    const { engine } = this.#slot
    return engine.start!(withoutUnusedTools(generation, engine), hops, receiver, () => this.retain(), meter)
  }

  cancel(): void {
    Actor.giveBack(this.#slot.instance, now(this.#context))
  }
}

/** See `Models.tryLease`. */
export const tryLease = (context: ActorContext) => (deployment: Deployment, standing: Caller): Slot | undefined => {
  const actor = actorOf(context, deployment)
  if (actor.instance?.engine?.start === undefined || refusalOf(context, actor) !== undefined) return undefined
  const slot = Actor.takeSlot(actor)
  if (slot === undefined) return undefined
  actor.keepAlive = standing.keepAlive ?? actor.deployment.idleUnload
  return new StartingSlot(context, slot)
}

/** See `Models.load`. */
export const load = (context: ActorContext, deployment: Deployment): Effect.Effect<void, InferenceError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const actor = actorOf(context, deployment)
      actor.downUntil = 0
      if (actor.instance?.state === "ready") return Effect.void
      if (isStopping(context, actor)) return Effect.fail(EngineLifecycle.stoppedError(actor))
      const waiter = Deferred.makeUnsafe<void, InferenceError>()
      actor.loadWaiters.add(waiter)
      EngineLifecycle.ensureInstance(context, actor)
      return Effect.onInterrupt(
        restore(Deferred.await(waiter)),
        () => {
          actor.loadWaiters.delete(waiter)
          return EngineLifecycle.abandon(context, actor)
        }
      )
    })
  )

/**
 * Stops a replacement that still loads in favor of a newer one. If both load the same deployment (its file may have
 * changed), the callers of the earlier one wait for the newer one.
 */
const supersede = (context: ActorContext, before: EngineInstance, next: EngineInstance): void => {
  if (Equal.equals(before.deployment, next.deployment)) {
    for (const waiter of before.waiters) next.waiters.add(waiter)
    before.waiters.clear()
  } else Actor.resolve(before.waiters, Effect.fail(EngineLifecycle.stoppedError(before.actor, "replace")))
  context.fork(EngineLifecycle.drain(context, before))
}

/** An interrupted caller of `replace` has left; without another caller the load stops. The current instance stays. */
const leaveReplacement = (
  context: ActorContext,
  { others }: Actor.Actor,
  waiter: Deferred.Deferred<void, InferenceError>
) =>
  Effect.suspend(() => {
    const instance = [...others].find(({ waiters }) => waiters.has(waiter))
    if (instance === undefined) return Effect.void
    instance.waiters.delete(waiter)
    return instance.waiters.size > 0
      ? Effect.void
      : Effect.asVoid(Fiber.await(context.fork(EngineLifecycle.drain(context, instance))))
  })

/** Begins to load an instance that takes over when it is ready, or is held when it is. */
const beginSuccessor = (context: ActorContext, actor: Actor.Actor, deployment: Deployment, held: boolean) => {
  const superseded = Actor.successorOf(actor)
  const next = Actor.makeInstance(actor, deployment)
  const waiter = Deferred.makeUnsafe<void, InferenceError>()
  next.held = held
  next.waiters.add(waiter)
  actor.others.add(next)
  if (superseded !== undefined) supersede(context, superseded, next)
  EngineLifecycle.begin(context, next)
  return { next, waiter }
}

const loadBeside = (context: ActorContext, deployment: Deployment, held: boolean) =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const actor = actorOf(context, deployment)
      if (context.stopping) return Effect.fail(EngineLifecycle.stoppedError(actor))
      const { next, waiter } = beginSuccessor(context, actor, deployment, held)
      return Effect.as(
        Effect.onInterrupt(restore(Deferred.await(waiter)), () => leaveReplacement(context, actor, waiter)),
        next
      )
    })
  )

/** See `Models.replace`. */
export const replace = (context: ActorContext, deployment: Deployment): Effect.Effect<void, InferenceError> =>
  Effect.asVoid(loadBeside(context, deployment, false))

/** An engine that is loaded beside the current one of its deployment, which still gets the jobs. */
export interface Prepared {
  /** It gets the jobs from now on; the engine before drains. */
  readonly commit: () => void
  /** Unloads it. */
  readonly cancel: Effect.Effect<void>
}

/** See `Models.prepare`. */
export const prepare = (context: ActorContext, deployment: Deployment): Effect.Effect<Prepared, InferenceError> =>
  Effect.map(loadBeside(context, deployment, true), (instance) => ({
    commit: () => {
      instance.held = false
      // One that has crashed meanwhile takes over when it has restarted.
      if (instance.engine !== undefined) EngineLifecycle.serve(context, instance)
    },
    cancel: Effect.suspend(() => Effect.asVoid(Fiber.await(context.fork(EngineLifecycle.drain(context, instance)))))
  }))

/** See `Models.renew`. */
export const renew = (context: ActorContext, deployment: Deployment): void => {
  const { id, idleUnload } = deployment
  context.replaced.set(id, deployment)
  const actor = context.actors.get(id)
  if (actor === undefined) return
  EngineLifecycle.configure(context, actor, deployment)
  actor.keepAlive = idleUnload
  if (actor.instance !== undefined) actor.instance.deployment = deployment
  EngineLifecycle.scheduleUnload(context, actor)
}

/** Callers that still wait for it are served. See `Models.retire`. The effect ends when nothing of it is left. */
export const retire = (
  context: ActorContext,
  deployment: Deployment,
  events: PubSub.PubSub<Actor.ActorEvent>
): Effect.Effect<void> => {
  const { id } = deployment
  renew(context, endingOf(deployment))
  const successor = context.actors.get(id) && Actor.successorOf(context.actors.get(id)!)
  if (successor !== undefined) context.fork(EngineLifecycle.drain(context, successor))
  const isOver = () => ["cold", "failed"].includes(Actor.snapshotOf(context.actors.get(id)).state)
  return Effect.scoped(Effect.gen(function*() {
    const subscription = yield* PubSub.subscribe(events)
    while (!isOver()) yield* PubSub.take(subscription)
  }))
}

/** See `Models.unload`. */
export const unload = (context: ActorContext, { id }: Deployment): Effect.Effect<void> =>
  Effect.suspend(() => {
    const actor = context.actors.get(id)
    if (actor === undefined) return Effect.void
    const successor = Actor.successorOf(actor)
    const stopped = Effect.fail(EngineLifecycle.stoppedError(actor, "unload"))
    Actor.resolve(actor.loadWaiters, stopped)
    if (successor !== undefined) Actor.resolve(successor.waiters, stopped)
    const ends = [
      EngineLifecycle.drainAll(context, actor),
      ...(successor === undefined ? [] : [EngineLifecycle.drain(context, successor)])
    ].map((end) => context.fork(end))
    return Effect.asVoid(Fiber.awaitAll(ends))
  })
