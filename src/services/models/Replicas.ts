/**
 * Further instances of a loaded deployment, which share its jobs.
 *
 * **Details**
 *
 * Each is an engine of its own: it loads beside, is supervised and restarted on its own, and ends after its last job. A job gets
 * the instance that uses the smallest share of its slots. If the first instance ends, an added one takes its place; if the
 * deployment is replaced, the new one gets as many; if it is unloaded, all of them are.
 */
import { Deferred, Effect, Fiber } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Actor from "./Actor.ts"
import type { ActorContext } from "./EngineLifecycle.ts"
import * as EngineLifecycle from "./EngineLifecycle.ts"

/** See `Models.addReplica`. */
export const add = (context: ActorContext, { id }: Deployment): Effect.Effect<boolean, InferenceError> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.suspend(() => {
      const actor = context.actors.get(id)
      if (context.stopping || actor === undefined || Actor.occupancyOf(actor) === undefined) {
        return Effect.succeed(false)
      }
      const instance = EngineLifecycle.addBeside(context, actor)
      const waiter = Deferred.makeUnsafe<void, InferenceError>()
      instance.waiters.add(waiter)
      const end = Effect.suspend(() => Fiber.await(context.fork(EngineLifecycle.drain(context, instance))))
      return Effect.as(Effect.onInterrupt(restore(Deferred.await(waiter)), () => end), true)
    })
  )

/** Those that load first, then the one with the fewest jobs. */
const leastUsed = ({ added }: Actor.Actor): Actor.EngineInstance | undefined => {
  const rankOf = ({ running, state }: Actor.EngineInstance) => state === "ready" ? running : -1
  return [...added].toSorted((one, other) => rankOf(one) - rankOf(other))[0]
}

/** See `Models.removeReplica`. */
export const remove = (context: ActorContext, { id }: Deployment): Effect.Effect<boolean> =>
  Effect.sync(() => {
    const actor = context.actors.get(id)
    const instance = actor && leastUsed(actor)
    if (instance !== undefined) EngineLifecycle.stop(context, instance, "scaling")
    return instance !== undefined
  })

/** See `Models.keepReplicas`. */
export const keep = (context: ActorContext, { id }: Deployment, count: number): Effect.Effect<void> =>
  Effect.sync(() => {
    const actor = context.actors.get(id)
    if (actor === undefined) return
    // Without a current instance, the next one has all of them.
    const others = Math.max(0, count - (actor.instance?.replicas ?? count))
    while (actor.added.size > others) EngineLifecycle.stop(context, leastUsed(actor)!, "scaling")
    while (actor.added.size < others && !context.stopping) EngineLifecycle.addBeside(context, actor)
  })
