/**
 * A Troupe model as `effect/ai`'s `LanguageModel`: `generateText`, `streamText` and `generateObject`, with toolkits, on
 * local engines.
 *
 * **Details**
 *
 * Tools, tool choice and tool results are supported. `generateObject` constrains the answer to the schema during
 * generation. A request that the engine does not support fails with an `AiError`; its `metadata.troupe` has Troupe's
 * reason, if the class has metadata.
 *
 * **Gotchas**
 *
 * Files in a prompt are rejected. An answer that `maxTokens` ends within a tool call's arguments does not contain the
 * call.
 *
 * **Example**
 *
 * ```ts
 * const program = LanguageModel.generateText({ prompt: "What is the capital of Japan?" }).pipe(
 *   Effect.map((response) => response.text),
 *   Effect.provide(AiModel.model("tiny-chat", { temperature: 0 })),
 *   Effect.provide(App.layer())
 * )
 * ```
 */
import { Context, Effect, Layer, Stream } from "effect"
import { LanguageModel, Model } from "effect/ai"
import type { Generation } from "../../domain/Generation.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { fromInferenceError } from "./AiFailure.ts"
import { fromAnswer, fromEvents } from "./AiParts.ts"
import type { Options } from "./AiRequest.ts"
import { codecTransformer, toRequest } from "./AiRequest.ts"

export type { Options } from "./AiRequest.ts"

/** Options of calls in the context where it is provided; they override those of the model. */
export const CurrentOptions = Context.Reference<Options>("troupe/layers/ai/AiModel/CurrentOptions", {
  defaultValue: () => ({})
})

/** Passes the options of a generation to a model of this module that is a deployment itself: see `LanguageModels`. */
export const configure = ({ maxTokens, sampling, stop }: Generation): Context.Context<never> => {
  const options = { ...sampling, maxTokens, ...(stop.length === 0 ? {} : { stop }) }
  const given = Object.entries(options).filter(([, value]) => value !== undefined)
  return Context.make(CurrentOptions, Object.fromEntries(given))
}

/** `LanguageModel` over `Inference`. */
export const layer = (
  model: string,
  options: Options = {}
): Layer.Layer<LanguageModel.LanguageModel, never, Inference> =>
  Layer.effect(
    LanguageModel.LanguageModel,
    Effect.gen(function*() {
      const inference = yield* Inference
      const requestOf = (method: string, call: LanguageModel.ProviderOptions) =>
        Effect.flatMap(CurrentOptions, (current) => toRequest(method, model, { ...options, ...current }, call))
      return yield* LanguageModel.make({
        codecTransformer,
        generateText: Effect.fnUntraced(function*(call) {
          const method = "generateText"
          const request = yield* requestOf(method, call)
          const answer = yield* Effect.mapError(inference.generate(request), fromInferenceError(method))
          return yield* fromAnswer(method, answer)
        }),
        streamText: (call) => {
          const method = "streamText"
          return Stream.unwrap(
            Effect.map(requestOf(method, call), (request) =>
              fromEvents(method, Stream.mapError(inference.stream(request), fromInferenceError(method))))
          )
        }
      })
    })
  )

/** The same as an `effect/ai` `Model`, which an `ExecutionPlan` can name. */
export const model = (name: string, options?: Options) => Model.make("troupe", name, layer(name, options))
