/**
 * The language models of `effect/ai` that an embedding program provides, by the names that deployments give them.
 *
 * **Details**
 *
 * A deployment `{ engine: "language-model", name }` is answered by the model of that name, so that everything above an
 * engine works on it as on a local file. The service and the command line provide none.
 */
import type { Effect, Scope } from "effect"
import { Context } from "effect"
import type { LanguageModel } from "effect/ai"
import type { Generation } from "../../domain/Generation.ts"

/** One language model. */
export interface Source {
  /** Makes the model; the scope's end releases it. */
  readonly start: Effect.Effect<LanguageModel.LanguageModel, unknown, Scope.Scope>
  /** How its provider is told what `LanguageModel` has no words for: sampling, `maxTokens` and `stop`. */
  readonly configure?: ((generation: Generation) => Context.Context<never>) | undefined
}

export type LanguageModels = ReadonlyMap<string, Source>

/** Default none. */
export const LanguageModels = Context.Reference<LanguageModels>("troupe/services/engines/LanguageModels", {
  defaultValue: () => new Map()
})
