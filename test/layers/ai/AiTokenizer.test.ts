import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { Tokenizer } from "effect/ai"
import type { TokenizeRequest } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as AiTokenizer from "../../../src/layers/ai/AiTokenizer.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"

/** A token a character of a message, and one around each. */
const tokens = ({ input }: TokenizeRequest): ReadonlyArray<number> =>
  typeof input === "string"
    ? []
    : input.messages.flatMap(({ content }) => Array.from({ length: content.length + 1 }, (_, index) => index))

const tokensOf = (request: TokenizeRequest) =>
  Effect.succeed({ tokens: tokens(request), deployment: "x#0", attempts: 1, decision: "dec-1" })

const on = (tokenize: Inference["Service"]["tokenize"]) =>
  Effect.provide(Layer.provide(AiTokenizer.layer("x"), Layer.mock(Inference, { tokenize })))

describe("AiTokenizer", () => {
  it.effect("gives a conversation's tokens", () =>
    Effect.gen(function*() {
      const { tokenize } = yield* Tokenizer.Tokenizer
      assert.deepStrictEqual(yield* tokenize("abc"), [0, 1, 2, 3])
    }).pipe(on(tokensOf)))

  it.effect("keeps the last messages that fit", () =>
    Effect.gen(function*() {
      const { truncate } = yield* Tokenizer.Tokenizer
      const history = [
        { role: "user", content: "a long one" },
        { role: "assistant", content: "abc" },
        { role: "user", content: "de" }
      ] as const
      const { content } = yield* truncate(history, 7)
      assert.deepStrictEqual(content.map(({ role }) => role), ["assistant", "user"])
    }).pipe(on(tokensOf)))

  it.effect("fails in effect/ai's words", () =>
    Effect.gen(function*() {
      const { tokenize } = yield* Tokenizer.Tokenizer
      const error = yield* Effect.flip(tokenize("abc"))
      assert.strictEqual(error.reason._tag, "InternalProviderError")
    }).pipe(on(() => Effect.fail(InferenceError.make(new InferenceError.EngineStopped({ deployment: "x#0" }))))))
})
