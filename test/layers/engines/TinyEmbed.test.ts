/** The embedded embedding model, on both runtimes. */
import { assert, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { readFileSync } from "node:fs"
import { describe } from "vitest"
import * as Engines from "../../../src/layers/engines/Engines.ts"
import { embedded } from "../../../src/layers/settings/SettingsFile.ts"
import type { Engine } from "../../../src/services/engines/Engine.ts"
import { deploymentOf } from "../../conformance/engine.ts"
import { sentencePairs } from "../../support/SentencePairs.ts"
import { cosine, rankCorrelation } from "../../support/Similarity.ts"

/** Tokens and vectors of the original in TensorFlow.js, from which the model was converted. */
const originals = JSON.parse(
  readFileSync(new URL("../../fixtures/tinyEmbed.json", import.meta.url), "utf8")
) as ReadonlyArray<{ readonly text: string; readonly tokens: ReadonlyArray<number>; readonly vector: Array<number> }>

const { options } = embedded["tiny-embed"]!

const withEngine = <A, E>(use: (engine: Engine) => Effect.Effect<A, E>, device: "cpu" | "wasm" = "cpu") =>
  Engines.make("thread").start(deploymentOf({ ...options, engine: "onnx", device } as typeof options)).pipe(
    Effect.flatMap(use),
    Effect.scoped
  )

const vectorsOf = (engine: Engine, texts: ReadonlyArray<string>) =>
  Effect.map(engine.embed(texts), (results) => results.map((result) => Result.getOrThrow(result).vector))

describe("tiny-embed", () => {
  for (const device of ["cpu", "wasm"] as const) {
    it.effect(`has the tokens of the original, and nearly its vectors, on ${device}`, () =>
      withEngine((engine) =>
        Effect.gen(function*() {
          const vectors = yield* vectorsOf(engine, originals.map(({ text }) => text))
          for (const [index, { text, tokens, vector }] of originals.entries()) {
            assert.deepStrictEqual(yield* engine.tokenize(text), tokens, text)
            assert.strictEqual(vectors[index]!.length, 512)
            assert.isAbove(cosine(vectors[index]!, vector), 0.999, text)
          }
        }), device))
  }

  it.effect("ranks pairs of sentences nearly as a person does", () =>
    withEngine((engine) =>
      Effect.gen(function*() {
        const vectors = yield* vectorsOf(engine, sentencePairs.flatMap(([one, other]) => [one, other]))
        const similarities = sentencePairs.map((_, index) => cosine(vectors[2 * index]!, vectors[2 * index + 1]!))
        assert.isAbove(rankCorrelation(similarities, sentencePairs.map(([, , judgement]) => judgement)), 0.75)
      })
    ))

  it.effect("reads a line break or several spaces as one space", () =>
    withEngine((engine) =>
      Effect.gen(function*() {
        const [first, ...others] = yield* vectorsOf(engine, ["Hello there!", " Hello\nthere! ", "Hello \t there!"])
        for (const other of others) assert.deepStrictEqual(other, first)
      })
    ))

  it.effect("rejects a text that is longer than its window", () =>
    withEngine((engine) =>
      Effect.gen(function*() {
        const [fits, tooLong] = yield* engine.embed(["word ".repeat(127), "word ".repeat(129)])
        assert.isTrue(Result.isSuccess(fits!))
        assert.isTrue(Result.isFailure(tooLong!) && tooLong.failure.reason._tag === "ContextLengthExceeded")
      })
    ))
})
