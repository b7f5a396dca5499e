import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { EmbeddingModel, Model } from "effect/ai"
import type { EmbedRequest } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as AiEmbeddingModel from "../../../src/layers/ai/AiEmbeddingModel.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"

const stage = (failure?: InferenceError.Reason) => {
  const requests: Array<EmbedRequest> = []
  const embed = (request: EmbedRequest) =>
    Effect.suspend(() => {
      requests.push(request)
      if (failure !== undefined) return Effect.fail(InferenceError.make(failure))
      const vectors = request.inputs.map((input) => new Float32Array([input.length, 0.5]))
      return Effect.succeed({ vectors, promptTokens: 9, deployment: "x#0", attempts: 1, decision: "dec-1" })
    })
  const model = AiEmbeddingModel.model("x", { tenant: "t", dimensions: 2 })
  return { requests, layer: Layer.provide(model, Layer.mock(Inference, { embed })) }
}

describe("AiEmbeddingModel", () => {
  it.effect("returns each text's vector and the usage", () => {
    const { layer, requests } = stage()
    return Effect.gen(function*() {
      const { embedMany } = yield* EmbeddingModel.EmbeddingModel
      const { embeddings, usage } = yield* embedMany(["a", "bb"])
      assert.deepStrictEqual(embeddings.map(({ vector }) => vector), [[1, 0.5], [2, 0.5]])
      assert.strictEqual(usage.inputTokens, 9)
      assert.deepStrictEqual(requests, [{ model: "x", inputs: ["a", "bb"], tenant: "t" }])
    }).pipe(Effect.provide(layer))
  })

  it.effect("asks once for texts that are embedded at the same time", () => {
    const { layer, requests } = stage()
    return Effect.gen(function*() {
      const { embed } = yield* EmbeddingModel.EmbeddingModel
      const all = yield* Effect.all([embed("a"), embed("bb")], { concurrency: "unbounded" })
      assert.deepStrictEqual(all.map(({ vector }) => vector[0]), [1, 2])
      assert.strictEqual(requests.length, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("fails in effect/ai's words", () =>
    Effect.gen(function*() {
      const { embed } = yield* EmbeddingModel.EmbeddingModel
      const error = yield* Effect.flip(embed("a"))
      assert.strictEqual(error.reason._tag, "InvalidRequestError")
      assert.include(error.message, "No vectors.")
    }).pipe(Effect.provide(stage(new InferenceError.InvalidRequest({ detail: "No vectors." })).layer)))

  it.effect("provides its name and its dimensions", () =>
    Effect.gen(function*() {
      assert.strictEqual(yield* Model.ModelName, "x")
      assert.strictEqual(yield* EmbeddingModel.Dimensions, 2)
    }).pipe(Effect.provide(stage().layer)))
})
