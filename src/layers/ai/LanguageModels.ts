/**
 * Language models of `effect/ai` as deployments: of any provider, or the program's own.
 *
 * **Details**
 *
 * A model's layer is built when its deployment is first used, and released when the deployment is unloaded.
 * Requirements of the layers come from the context in which this layer is built, so the layers can share them.
 *
 * **Gotchas**
 *
 * `LanguageModel` has no parameters for sampling, `maxTokens` and `stop`. A model's `configure` passes them: it returns
 * the context from which the provider reads its options. Without it, sampling options other than the defaults are
 * rejected, the seed is ignored, and Troupe itself applies `maxTokens` and `stop`.
 *
 * **Example**
 *
 * ```ts
 * const models = LanguageModels.layer({
 *   cloud: {
 *     layer: OpenAiLanguageModel.layer({ model: "gpt-5" }),
 *     configure: ({ maxTokens, sampling }) =>
 *       Context.make(OpenAiLanguageModel.Config, { temperature: sampling.temperature, max_output_tokens: maxTokens })
 *   }
 * })
 * ```
 */
import { Context, Effect, Layer } from "effect"
import { LanguageModel } from "effect/ai"
import type { Source } from "../../services/engines/LanguageModelKind.ts"
import { LanguageModels } from "../../services/engines/LanguageModelKind.ts"

type ModelLayer<E, R> = Layer.Layer<LanguageModel.LanguageModel, E, R>

/** The layer of a language model, or the layer with `configure`. */
export type Provided<E = unknown, R = never> =
  | ModelLayer<E, R>
  | { readonly layer: ModelLayer<E, R>; readonly configure: NonNullable<Source["configure"]> }

const toSource = <E, R>(provided: Provided<E, R>, context: Context.Context<R>): Source => {
  const { configure, layer } = "configure" in provided ? provided : { layer: provided, configure: undefined }
  return {
    configure,
    start: Effect.gen(function*() {
      // The calling runtime may be one of the layers below this one, with other settings.
      const memoMap = yield* Layer.makeMemoMap
      const built = yield* Layer.buildWithMemoMap(layer, memoMap, yield* Effect.scope)
      return Context.get(built, LanguageModel.LanguageModel)
    }).pipe(Effect.provideContext(context))
  }
}

/** Provides language models by name. */
export const layer = <E = never, R = never>(
  models: Readonly<Record<string, Provided<E, R>>>
): Layer.Layer<never, never, R> =>
  Layer.effect(
    LanguageModels,
    Effect.map(
      Effect.context<R>(),
      (context) => new Map(Object.entries(models).map(([name, provided]) => [name, toSource(provided, context)]))
    )
  )
