/** What all actors share: the clock, the memory, who hears of what happens, and the fibers that run their lives. */
import type { Clock, Effect, Fiber } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import * as Monotonic from "../../domain/Monotonic.ts"
import type { Engine, Engines } from "../engines/Engine.ts"
import type { Actor, Life } from "./Actor.ts"
import * as Actors from "./Actor.ts"
import type { Room } from "./MemoryScheduler.ts"
import type { ActorEvent } from "./Models.ts"

export interface House {
  /** Those whose deployment is in use or has failed, by its id. */
  readonly actors: Map<string, Actor>
  /** What took over from the deployment of the same id that callers still name. */
  readonly replaced: Map<string, Deployment>
  readonly clock: Clock.Clock
  readonly room: Room
  /** Learns what a life's engine takes. */
  readonly measure: (life: Life, engine: Engine) => Effect.Effect<void>
  readonly tell: (event: Omit<ActorEvent, "at">) => void
  /** Runs until the house closes, in its context: what a life logs is not part of the request that came first. */
  readonly fork: <A, E>(effect: Effect.Effect<A, E, Engines>) => Fiber.Fiber<A, E>
}

/** ms of `Monotonic` */
export const now = ({ clock }: House): number => Monotonic.nowOf(clock)

export const livesOf = ({ life, others }: Actor): ReadonlyArray<Life> =>
  life === undefined ? [...others] : [life, ...others]

/** An actor without a life, a caller or a failure to tell of need not be kept. */
export const forget = ({ actors }: House, actor: Actor): void => {
  if (Actors.stateOf(actor) === "cold" && !Actors.isWanted(actor) && actors.get(actor.id) === actor) {
    actors.delete(actor.id)
  }
}
