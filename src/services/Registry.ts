/** Which models there are. Reads are of one immutable snapshot. */
import type { Effect } from "effect"
import { Context } from "effect"
import type { InferenceError } from "./InferenceError.ts"
import type { Model } from "./Model.ts"

export class Registry extends Context.Service<Registry, {
  /** In configured order. */
  readonly models: Effect.Effect<ReadonlyArray<Model>>
  /** Fails with `ModelNotFound`, which names those there are. */
  readonly find: (name: string) => Effect.Effect<Model, InferenceError>
}>()("troupe/services/Registry") {}
