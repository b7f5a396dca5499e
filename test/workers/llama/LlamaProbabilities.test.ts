/** Probabilities that are read with samplers that leave few tokens. */
import * as fc from "fast-check"
import type { Token } from "node-llama-cpp"
import { assert, describe, it } from "vitest"
import type { Sampled, Sampler } from "../../../src/workers/llama/LlamaProbabilities.ts"
import { makeReadProbabilities } from "../../../src/workers/llama/LlamaProbabilities.ts"

interface Config {
  readonly topK?: number
  readonly minP: number
  readonly tokenBiasKeys?: Uint32Array
  readonly tokenBiasValues?: Float32Array
}

/** The library's sampler over these logits; it draws the token at the place `draw` of those that are left. */
const makeLibrary = (logits: ReadonlyArray<number>, draw: number) => {
  const handed: Array<number> = []
  let running = 0
  class Fake implements Sampler {
    config: Config | undefined
    applyConfig(config: object) {
      assert.strictEqual(running, 0)
      this.config = config as Config
    }
    dispose() {}
  }
  const sample = async (_: number, sampler: Sampler, probabilities?: boolean): Promise<Sampled> => {
    running++
    await Promise.resolve()
    running--
    const { minP, tokenBiasKeys, tokenBiasValues, topK } = (sampler as Fake).config!
    const biased = logits.map((logit, token) => {
      const at = tokenBiasKeys?.indexOf(token) ?? -1
      return Math.fround(at < 0 ? logit : logit + tokenBiasValues![at]!)
    })
    const most = Math.max(...biased)
    const sorted = biased.map((logit, token) => ({ token: token as Token, weight: Math.exp(logit - most) }))
      .sort((a, b) => b.weight - a.weight)
      .slice(0, topK)
      .filter(({ weight }) => weight >= minP)
    const sum = sorted.reduce((sum, { weight }) => sum + weight, 0)
    const { token, weight } = sorted[draw % sorted.length]!
    if (probabilities !== true) return [token, [], weight / sum]
    const pairs = sorted.flatMap(({ token, weight }) => [token, Math.fround(weight / sum)])
    handed.push(pairs.length)
    return [token, pairs]
  }
  return { read: makeReadProbabilities(sample, () => new Fake()), handed }
}

const someLogits = fc.array(fc.double({ min: -60, max: 20, noNaN: true }), { minLength: 2, maxLength: 200 })

describe("probabilities", () => {
  it("are those of the whole vocabulary, whichever token is drawn for the sum", async () => {
    await fc.assert(fc.asyncProperty(someLogits, fc.nat(), fc.nat(), async (logits, any, draw) => {
      const token = any % logits.length as Token
      const most = Math.max(...logits)
      const sum = logits.reduce((sum, logit) => sum + Math.exp(logit - most), 0)
      const found = await makeLibrary(logits, draw).read(0, token)
      assert.isTrue(found.has(token))
      const [first] = found.values()
      assert.closeTo(Math.log(first!), -Math.log(sum), 1e-4)
      for (const [one, probability] of found) {
        assert.closeTo(Math.log(probability), logits[one]! - most - Math.log(sum), 1e-4)
      }
    }))
  })

  it("do not hand over the vocabulary, and read one after another", async () => {
    const logits = Array.from({ length: 5_000 }, (_, token) => Math.sin(token) * 5)
    const { handed, read } = makeLibrary(logits, 4_000)
    await Promise.all([read(0, 7 as Token), read(0, 9 as Token), read(0, 4_999 as Token)])
    assert.isAtMost(Math.max(...handed), 40)
  })

  it("are zero for a token that is much less likely than any other", async () => {
    const { read } = makeLibrary([1, 0, -200], 0)
    assert.strictEqual((await read(0, 2 as Token)).get(2 as Token), 0)
  })
})
