/** Which models there are. Reads are of one immutable snapshot. */
import type { Effect } from "effect"
import { Context } from "effect"
import type { Model } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"

export class Registry extends Context.Service<Registry, {
  /** In configured order. */
  readonly models: Effect.Effect<ReadonlyArray<Model>>
  /** Fails with `ModelNotFound`, which names those there are. */
  readonly find: (name: string) => Effect.Effect<Model, InferenceError>
}>()("troupe/services/models/Registry") {}
