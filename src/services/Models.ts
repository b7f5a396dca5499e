/**
 * The loaded models: one supervised actor a deployment, borrowed by reference.
 *
 * **Details**
 *
 * The first borrower loads the model, and however many borrow meanwhile wait for that one load. A model that nobody
 * has borrowed for its idle time is unloaded. An engine that crashes is started again by `Policies.restart`; borrowers
 * wait for it. When the restarts are used up, borrowers fail with the reason, and the next one after them begins anew.
 */
import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { Engine, Load } from "./Engine.ts"
import type { InferenceError } from "./InferenceError.ts"
import type { Deployment } from "./Model.ts"

/** Where an actor is in its life. `cold` is a deployment that has no actor. */
export type State = "cold" | "loading" | "ready" | "failed"

/** What is known of a deployment now. */
export interface Status extends Load {
  readonly deployment: string
  readonly state: State
  /** Why it failed last. */
  readonly lastFailure?: string
}

export class Models extends Context.Service<Models, {
  /** The loaded engine, not unloaded while the scope is open. */
  readonly borrow: (deployment: Deployment) => Effect.Effect<Engine, InferenceError, Scope.Scope>
  /** Ends every engine now; what runs fails with `EngineStopped`. */
  readonly stop: Effect.Effect<void>
  readonly status: (deployment: Deployment) => Effect.Effect<Status>
  /** Of every deployment that has an actor. */
  readonly statuses: Effect.Effect<ReadonlyArray<Status>>
}>()("troupe/services/Models") {}
