/**
 * Language models of `effect/ai` for deployments: any provider's, or one of the program's own.
 *
 * **Details**
 *
 * A model's layer is built when its deployment is first used and released when that is unloaded. What the layers require
 * is taken where this one is built, and so can be shared among them.
 *
 * **Gotchas**
 *
 * `LanguageModel` has no words for sampling, `maxTokens` and `stop`. A model's `configure` tells its provider: it
 * returns the context that the provider reads its options from. Without one, sampling options other than the defaults
 * are refused, the seed is passed over, and `maxTokens` and `stop` are seen to here.
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

/** A language model, or one with the way to configure it. */
export type Provided<E = unknown, R = never> =
  | ModelLayer<E, R>
  | { readonly layer: ModelLayer<E, R>; readonly configure: NonNullable<Source["configure"]> }

const toSource = <E, R>(provided: Provided<E, R>, context: Context.Context<R>): Source => {
  const { configure, layer } = "configure" in provided ? provided : { layer: provided, configure: undefined }
  return {
    configure,
    start: Effect.gen(function*() {
      // The runtime that asks may be among the layers that this one stands on, with other settings.
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
