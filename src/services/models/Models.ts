/**
 * The models as supervised actors, one a deployment: who borrows one gets a slot of its engine.
 *
 * **Details**
 *
 * The first borrower loads the model, and however many borrow meanwhile wait for that one load, which stops when its
 * last waiter leaves, and ends with `UpstreamTimeout` when it takes longer than the deployment's `loadTimeout`. Borrowers wait in a queue that is bounded (`QueueFull`), fair among tenants and by priority. A
 * model that nobody has used for its idle time is unloaded, unless it is pinned. An engine that crashes is started again by
 * `Policies.restart`; when the restarts are used up, the deployment is down, and borrowers fail at once with
 * `DeploymentDown` until `Policies.probeAfter` has passed, when the next one tries it, or until `load` is called.
 *
 * A model loads when there is memory for it: see `MemoryFit`. Models that do not fit together take turns.
 */
import type { Duration, Effect, Scope, Stream } from "effect"
import { Context } from "effect"
import type { Standing } from "../../domain/Caller.ts"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Ability } from "../../domain/EngineProtocol.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Engine } from "../engines/Engine.ts"

export type { Standing } from "../../domain/Caller.ts"

/**
 * Where a deployment is in its life: not loaded, loading, ready for jobs, letting its last jobs end, or failed. `gone`
 * is told once when its engine has ended; after that it is `cold`.
 */
export type State = "cold" | "loading" | "ready" | "draining" | "failed"

/** A change of a deployment's state, told when it has happened. */
export interface ActorEvent {
  readonly deployment: string
  readonly state: Exclude<State, "cold"> | "gone"
  /** Why it loads again or has failed. */
  readonly cause?: string
  /** What its engine can do; of `ready`. */
  readonly abilities?: ReadonlyArray<Ability>
  /** ms since 1970 */
  readonly at: number
}

/** How busy a deployment is. */
export interface Load {
  /** Jobs that hold a slot. */
  readonly running: number
  /** Callers that wait for the engine or a slot. */
  readonly queued: number
  /** Resident memory outside this process, bytes. */
  readonly memoryBytes: number
}

/** What is known of a deployment now. */
export interface Status extends Load {
  readonly deployment: string
  readonly state: State
  /** Why it failed last. */
  readonly lastFailure?: string
}

export class Models extends Context.Service<Models, {
  /**
   * The loaded engine with a slot of it, for one job. The slot is held until the scope is closed and the engine has let
   * go of the job; the model is not unloaded before that.
   *
   * @param movedOn asked when it is interrupted while it waits: `true`, its caller has gone on with another deployment, and
   * a load that it began continues; default `false`, its caller has left, which stops a load that no other waits for
   */
  readonly borrow: (
    deployment: Deployment,
    standing: Standing,
    movedOn?: () => boolean
  ) => Effect.Effect<Engine, InferenceError, Scope.Scope>
  /** Loads the model if it is not loaded, and tries again at once where it is down. */
  readonly load: (deployment: Deployment) => Effect.Effect<void, InferenceError>
  /**
   * Lets what runs end, then unloads the model. A load that is not done is stopped: a `load` or `replace` that waits for it
   * fails with `EngineStopped`, and requests that wait load the model again.
   */
  readonly unload: (deployment: Deployment) => Effect.Effect<void>
  /**
   * Exchanges a deployment for one of the same id with other options, or whose file has changed: the new one loads
   * beside the old, new jobs go to it, and the old one ends when its last job has. From then on it is what loads for
   * this id, also where the old one is asked for. Where the new one fails, the old one stays. A later `replace` stops the
   * load of an earlier one: with an equal deployment both have the later one's outcome, with another one the earlier fails
   * with `EngineStopped`.
   */
  readonly replace: (deployment: Deployment) => Effect.Effect<void, InferenceError>
  /** Unloads what nobody uses, is not pinned and has been idle for so long; tells how many that were. */
  readonly unloadIdle: (idleFor: Duration.Duration) => Effect.Effect<number>
  /** What happens from now on. A watcher who falls behind by 1,024 events misses the oldest. */
  readonly events: Stream.Stream<ActorEvent>
  /** Ends every engine now; what runs fails with `EngineStopped`. */
  readonly stop: Effect.Effect<void>
  readonly status: (deployment: Deployment) => Effect.Effect<Status>
  /** Of every deployment that has an actor. */
  readonly statuses: Effect.Effect<ReadonlyArray<Status>>
}>()("troupe/services/models/Models") {}
