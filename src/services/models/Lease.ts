/** What callers do with an engine: borrow a slot for one job, load it, replace it by another, unload it. */
import { Deferred, Effect, Equal, Fiber, Scope } from "effect"
import { CallerAddress } from "../../domain/CallerAddress.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Counted, Generation } from "../../domain/Generation.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { DeploymentDown, make as makeError } from "../../domain/InferenceError.ts"
import * as Source from "../../domain/Source.ts"
import type { Engine, Hold } from "../engines/Engine.ts"
import type { Actor, Life } from "./Actor.ts"
import * as Actors from "./Actor.ts"
import type { House } from "./ActorContext.ts"
import { now } from "./ActorContext.ts"
import * as Lives from "./EngineLifecycle.ts"
import type { Standing } from "./Models.ts"

const actorOf = (house: House, asked: Deployment): Actor => {
  const { actors, replaced } = house
  const deployment = replaced.get(asked.id) ?? asked
  const known = actors.get(deployment.id)
  if (known !== undefined) {
    // Where nothing serves, what served last or is asked for counts, not what failed to load in its place.
    if (known.life === undefined) known.deployment = deployment
    return known
  }
  const made = Actors.make(deployment, now(house))
  actors.set(deployment.id, made)
  return made
}

const down = (house: House, { downUntil, id, lastFailure }: Actor): InferenceError =>
  makeError(
    new DeploymentDown({ deployment: id, detail: lastFailure ?? "", retryAfterMs: downUntil - now(house) })
  )

/** Gives a slot back when all who hold it have let go: its borrower's scope, and the engine's job. */
const makeHold = (house: House, life: Life) => {
  const taken = now(house)
  let holders = 1
  const release = () => {
    holders--
    if (holders > 0) return
    Actors.release(life, taken, now(house))
    if (life.running > 0) return
    house.room.changed()
    Lives.settleDown(house, life.actor)
  }
  const hold = () => {
    holders++
    return release
  }
  return { hold, release }
}

const enter = (house: House, deployment: Deployment, standing: Standing) =>
  Effect.withFiber((fiber) => {
    const actor = actorOf(house, deployment)
    if (actor.downUntil > now(house)) return Effect.fail(down(house, actor))
    actor.keepAlive = standing.keepAlive ?? actor.deployment.idleUnload
    const waiting = Actors.enqueue(actor, standing, fiber.getRef(CallerAddress)(fiber.context), now(house))
    Actors.pump(actor, now(house))
    Lives.ensureLife(house, actor)
    return Effect.succeed({ actor, waiting })
  })

/** A caller who leaves gives up his place, or the slot that he was given this moment. */
const leave = (house: House, actor: Actor, waiting: ReturnType<typeof Actors.enqueue>, movedOn: () => boolean) =>
  Effect.suspend(() => {
    const { life } = waiting.value
    if (life !== undefined) return Effect.sync(makeHold(house, life).release)
    actor.mailbox.remove(waiting)
    if (actor.life !== undefined && movedOn()) actor.life.continues = true
    return Lives.abandon(house, actor)
  })

/** Tools that must not be called are shown to a model that knows tools, and to another they are not. */
const shown = (generation: Generation, { describe: { abilities } }: Engine): Generation => {
  if (generation.toolChoice !== "none" || abilities.includes("tools")) return generation
  const { source, toolChoice: _, tools: __, ...rest } = generation
  return source === undefined ? rest : { ...rest, source: Source.without(source, ["tools", "tool_choice"]) }
}

/** The engine, whose every job holds the slot until it is let go of. */
const lend = (engine: Engine, hold: Hold): Engine => ({
  ...engine,
  generate: (generation) => engine.generate(shown(generation, engine), hold),
  embed: (inputs) => engine.embed(inputs, hold),
  rerank: (query, documents) => engine.rerank(query, documents, hold),
  classify: (inputs) => engine.classify(inputs, hold),
  tokenize: (input) => engine.tokenize(input, hold),
  ...(engine.embedNative === undefined
    ? {}
    : { embedNative: (source: Source.Source) => engine.embedNative!(source, hold) }),
  ...(engine.count === undefined ? {} : { count: (input: Counted) => engine.count!(input, hold) })
})

/** See `Models.borrow`. */
export const borrow = (
  house: House,
  deployment: Deployment,
  standing: Standing,
  movedOn = () => false
): Effect.Effect<Engine, InferenceError, Scope.Scope> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.flatMap(enter(house, deployment, standing), ({ actor, waiting }) => {
      const given = Effect.onInterrupt(
        restore(Deferred.await(waiting.value.slot)),
        () => leave(house, actor, waiting, movedOn)
      )
      return Effect.flatMap(given, ({ engine, life }) =>
        Effect.flatMap(Effect.scope, (scope) => {
          const { hold, release } = makeHold(house, life)
          // Not `Effect.addFinalizer`, which copies the whole context for a finalizer that needs none of it.
          return Effect.as(Scope.addFinalizer(scope, Effect.sync(release)), lend(engine, hold))
        }))
    })
  )

/** See `Models.load`. */
export const load = (house: House, deployment: Deployment): Effect.Effect<void, InferenceError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const actor = actorOf(house, deployment)
      actor.downUntil = 0
      if (actor.life?.state === "ready") return Effect.void
      const watcher = Deferred.makeUnsafe<void, InferenceError>()
      actor.watchers.add(watcher)
      Lives.ensureLife(house, actor)
      return Effect.onInterrupt(
        restore(Deferred.await(watcher)),
        () => {
          actor.watchers.delete(watcher)
          return Lives.abandon(house, actor)
        }
      )
    })
  )

/**
 * Stops a load for a newer one. What waits for it waits for the newer one where that loads the same deployment, whose file
 * may have changed since.
 */
const supersede = (house: House, before: Life, next: Life): void => {
  if (Equal.equals(before.deployment, next.deployment)) {
    for (const waiter of before.waiters) next.waiters.add(waiter)
    before.waiters.clear()
  } else Actors.resolve(before.waiters, Effect.fail(Lives.stoppedError(before.actor, "replace")))
  house.fork(Lives.drain(house, before))
}

/** The caller of a `replace` has left; the last one stops the load. What serves already stays. */
const leaveReplacement = (house: House, { others }: Actor, waiter: Deferred.Deferred<void, InferenceError>) =>
  Effect.suspend(() => {
    const life = [...others].find(({ waiters }) => waiters.has(waiter))
    if (life === undefined) return Effect.void
    life.waiters.delete(waiter)
    return life.waiters.size > 0 ? Effect.void : Effect.asVoid(Fiber.await(house.fork(Lives.drain(house, life))))
  })

/** See `Models.replace`. */
export const replace = (house: House, deployment: Deployment): Effect.Effect<void, InferenceError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const actor = actorOf(house, deployment)
      const superseded = Actors.successorOf(actor)
      const next = Actors.makeLife(actor, deployment)
      const waiter = Deferred.makeUnsafe<void, InferenceError>()
      next.waiters.add(waiter)
      actor.others.add(next)
      if (superseded !== undefined) supersede(house, superseded, next)
      Lives.begin(house, next)
      return Effect.onInterrupt(
        restore(Deferred.await(waiter)),
        () => leaveReplacement(house, actor, waiter)
      )
    })
  )

/** See `Models.unload`. */
export const unload = (house: House, { id }: Deployment): Effect.Effect<void> =>
  Effect.suspend(() => {
    const actor = house.actors.get(id)
    if (actor === undefined) return Effect.void
    const successor = Actors.successorOf(actor)
    const stopped = Effect.fail(Lives.stoppedError(actor, "unload"))
    Actors.resolve(actor.watchers, stopped)
    if (successor !== undefined) Actors.resolve(successor.waiters, stopped)
    return Effect.forEach(
      [actor.life, successor],
      (life) => life === undefined ? Effect.void : Fiber.await(house.fork(Lives.drain(house, life))),
      { concurrency: "unbounded", discard: true }
    )
  })
