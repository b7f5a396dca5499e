/**
 * A Troupe model as `effect/ai`'s `EmbeddingModel`; texts that are embedded at the same time go as one request.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const { embed } = yield* EmbeddingModel.EmbeddingModel
 *   const { vector } = yield* embed("The cat sits outside.")
 *   return vector.length
 * }).pipe(
 *   Effect.provide(AiEmbeddingModel.layer("my-embedder")),
 *   Effect.provide(App.layer())
 * )
 * ```
 */
import { Effect, Layer } from "effect"
import { EmbeddingModel, Model } from "effect/ai"
import type { EmbedRequest } from "../../domain/Inference.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { fromInferenceError } from "./AiFailure.ts"

/** The tenant and priority of the requests. */
export type Options = Omit<EmbedRequest, "model" | "inputs">

/** `EmbeddingModel` over `Inference`; a model that has no vectors fails with an `AiError`. */
export const layer = (
  model: string,
  options: Options = {}
): Layer.Layer<EmbeddingModel.EmbeddingModel, never, Inference> =>
  Layer.effect(
    EmbeddingModel.EmbeddingModel,
    Effect.flatMap(Inference, (inference) =>
      EmbeddingModel.make({
        embedMany: ({ inputs }) =>
          inference.embed({ ...options, model, inputs }).pipe(
            Effect.map(({ promptTokens, vectors }) => ({
              results: vectors.map((vector) => Array.from(vector)),
              usage: { inputTokens: promptTokens }
            })),
            Effect.mapError(fromInferenceError("embedMany"))
          )
      }))
  )

/**
 * The same as an `effect/ai` `Model`.
 *
 * @param dimensions length of its vectors, which programs can read before the first request
 */
export const model = (name: string, { dimensions, ...options }: Options & { readonly dimensions: number }) =>
  Model.make(
    "troupe",
    name,
    Layer.merge(layer(name, options), Layer.succeed(EmbeddingModel.Dimensions, dimensions))
  )
