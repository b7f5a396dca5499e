/**
 * A Troupe model's tokens as `effect/ai`'s `Tokenizer`.
 *
 * **Gotchas**
 *
 * A prompt is a conversation: its tokens include those of the model's chat template.
 *
 * **Example**
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const { truncate } = yield* Tokenizer.Tokenizer
 *   return yield* truncate(history, 400)
 * }).pipe(
 *   Effect.provide(AiTokenizer.layer("tiny-chat")),
 *   Effect.provide(App.layer())
 * )
 * ```
 */
import { Effect, Layer } from "effect"
import { Tokenizer } from "effect/ai"
import type { TokenizeRequest } from "../../domain/Inference.ts"
import { Inference } from "../../services/inference/Inference.ts"
import { fromInferenceError } from "./AiFailure.ts"
import { toMessages } from "./AiPrompt.ts"

/** The tenant and priority of the requests. */
export type Options = Omit<TokenizeRequest, "model" | "input">

const method = "tokenize"

/** `Tokenizer` over `Inference`. */
export const layer = (
  model: string,
  options: Options = {}
): Layer.Layer<Tokenizer.Tokenizer, never, Inference> =>
  Layer.effect(
    Tokenizer.Tokenizer,
    Effect.map(Inference, (inference) =>
      Tokenizer.make({
        tokenize: Effect.fnUntraced(function*(prompt) {
          const messages = yield* toMessages(method, prompt)
          const { tokens } = yield* Effect.mapError(
            inference.tokenize({ ...options, model, input: { messages } }),
            fromInferenceError(method)
          )
          return Array.from(tokens)
        })
      }))
  )
