/**
 * The engine kind `language-model`: a language model of `effect/ai` that the embedding program provides by name.
 *
 * **Details**
 *
 * Everything above an engine treats a deployment `{ engine: "language-model", name }` like a local file. The service and
 * the command line provide no language models.
 */
import type { Scope } from "effect"
import { Context, Effect, Schema } from "effect"
import type { LanguageModel } from "effect/ai"
import { Count, described, optional, traits } from "../../domain/Fields.ts"
import type { Generation } from "../../domain/Generation.ts"
import type { EngineKind } from "./EngineKind.ts"
import { noMemory } from "./EngineKind.ts"

const name = "language-model"

const LanguageModelOptions = Schema.Struct({
  engine: Schema.Literal(name),
  name: described("Name under which the embedding program provides it.", Schema.NonEmptyString),
  contextSize: optional("Context window of prompt and answer, tokens. Default unknown.", Count),
  slots: optional("Maximum number of concurrent requests. Default 4.", Count),
  ...traits
})
export type LanguageModelOptions = typeof LanguageModelOptions.Type

export const languageModel = {
  name,
  options: LanguageModelOptions,
  capabilities: ["generate", "tools", "format", "images"],
  isNative: false,
  isExternal: true,
  source: (options) => options.name,
  describe: () => Effect.succeed(noMemory)
} as const satisfies EngineKind<LanguageModelOptions>

/** One language model. */
export interface Source {
  /** Makes the model; the scope's end releases it. */
  readonly start: Effect.Effect<LanguageModel.LanguageModel, unknown, Scope.Scope>
  /** Passes settings to its provider that `LanguageModel` has no parameters for: sampling, `maxTokens` and `stop`. */
  readonly configure?: ((generation: Generation) => Context.Context<never>) | undefined
}

/** The language models that the program provides, by name. */
export type LanguageModels = ReadonlyMap<string, Source>

/** Default none. */
export const LanguageModels = Context.Reference<LanguageModels>("troupe/services/engines/LanguageModels", {
  defaultValue: () => new Map()
})
