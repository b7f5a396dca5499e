/**
 * The loaded models: one supervised actor a deployment, borrowed by reference.
 *
 * **Details**
 *
 * The first borrower loads the model, and however many borrow meanwhile wait for that one load. A model that nobody
 * has borrowed for its idle time is unloaded. An engine that crashes is started again by `Policies.restart`; borrowers
 * wait for it. When the restarts are used up, borrowers fail with the reason, and the next one after them begins anew.
 */
import type { Duration, Effect, Scope } from "effect"
import { Context } from "effect"
import type { Engine } from "./Engine.ts"
import type { Priority } from "./Inference.ts"
import type { InferenceError } from "./InferenceError.ts"
import type { Deployment } from "./Model.ts"

/** Where an actor is in its life. `cold` is a deployment that has no actor. */
export type State = "cold" | "loading" | "ready" | "failed"

/** How busy a deployment is. */
export interface Load {
  /** Jobs that hold a slot. */
  readonly running: number
  /** Callers that wait for the engine or a slot. */
  readonly queued: number
  /** Resident memory outside this process, bytes. */
  readonly memoryBytes: number
}

/** How a caller stands among others, and what he wants of the model afterwards: see `Inference.Request`. */
export interface Standing {
  readonly tenant?: string | undefined
  readonly priority?: Priority | undefined
  readonly keepAlive?: Duration.Duration | undefined
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
   */
  readonly borrow: (deployment: Deployment, standing: Standing) => Effect.Effect<Engine, InferenceError, Scope.Scope>
  /** Loads the model if it is not loaded. */
  readonly load: (deployment: Deployment) => Effect.Effect<void, InferenceError>
  /** Ends every engine now; what runs fails with `EngineStopped`. */
  readonly stop: Effect.Effect<void>
  readonly status: (deployment: Deployment) => Effect.Effect<Status>
  /** Of every deployment that has an actor. */
  readonly statuses: Effect.Effect<ReadonlyArray<Status>>
}>()("troupe/services/Models") {}
