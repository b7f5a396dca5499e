/**
 * Troupe as a provider of the AI SDK (`ai` 7): `troupe/ai-sdk`.
 *
 * **Details**
 *
 * Models run in the program's own process, without HTTP. `providerMetadata.troupe` has the decision, the deployment, the
 * attempts and the cost (`costUsd`). Failures are an `APICallError` whose `data` is Troupe's reason.
 *
 * **Example**
 *
 * ```ts
 * import { generateText } from "ai"
 * import { Troupe } from "troupe"
 * import { createTroupe } from "troupe/ai-sdk"
 *
 * const troupe = Troupe.start()
 * const models = createTroupe(troupe)
 * const { text } = await generateText({ model: models("tiny-chat"), prompt: "What is the capital of Japan?", temperature: 0 })
 * await troupe.close()
 * ```
 */
import type { EmbeddingModelV4, LanguageModelV4, ProviderV4, RerankingModelV4 } from "@ai-sdk/provider"
import { NoSuchModelError } from "@ai-sdk/provider"
import type { Calls } from "./layers/aiSdk/AiSdkModels.ts"
import { EmbeddingModel, LanguageModel, PricedCalls, RerankingModel } from "./layers/aiSdk/AiSdkModels.ts"
import type { Options } from "./layers/aiSdk/AiSdkRequest.ts"

export type { Metadata } from "./layers/aiSdk/AiSdkAnswer.ts"
export type { FallbackOptions } from "./layers/aiSdk/AiSdkFallback.ts"
export { fallback } from "./layers/aiSdk/AiSdkFallback.ts"
export type { Calls } from "./layers/aiSdk/AiSdkModels.ts"
export type { Options } from "./layers/aiSdk/AiSdkRequest.ts"

/** The models of a Troupe. */
export interface TroupeProvider extends ProviderV4 {
  /** As `languageModel`. */
  (model: string, options?: Options): LanguageModelV4
  /** @param options of every call; those of one call are in `providerOptions.troupe` */
  readonly languageModel: (model: string, options?: Options) => LanguageModelV4
  readonly embeddingModel: (model: string) => EmbeddingModelV4
  readonly rerankingModel: (model: string) => RerankingModelV4
}

/**
 * A provider of the models of a running Troupe.
 *
 * @param troupe of `Troupe.start`; the program closes it
 */
export const createTroupe = (troupe: Calls): TroupeProvider => {
  const priced = new PricedCalls(troupe)
  const languageModel = (model: string, options: Options = {}) => new LanguageModel(priced, model, options)
  return Object.assign((model: string, options?: Options) => languageModel(model, options), {
    specificationVersion: "v4" as const,
    languageModel,
    embeddingModel: (model: string) => new EmbeddingModel(priced, model),
    rerankingModel: (model: string) => new RerankingModel(priced, model),
    imageModel(modelId: string): never {
      throw new NoSuchModelError({ modelId, modelType: "imageModel" })
    }
  })
}
