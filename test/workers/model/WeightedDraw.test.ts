/** Draws from weights, compared with subtracting the weights one after another. */
import fc from "fast-check"
import { assert, describe, it } from "vitest"
import { makeRandom, makeSampler } from "../../../src/workers/model/Sampler.ts"
import * as WeightedDraw from "../../../src/workers/model/WeightedDraw.ts"

/** The place of a random number among the weights; that of the last weight if rounding leaves it beyond all. */
const placeOf = (weights: Float64Array, random: number): number => {
  let rest = random * weights.reduce((sum, weight) => sum + weight, 0)
  const found = weights.findIndex((weight) => (rest -= weight) < 0)
  return found === -1 ? weights.findLastIndex((weight) => weight > 0) : found
}

describe("weighted draws", () => {
  it("are those of the weights one after another, without the removed ones", () => {
    fc.assert(fc.property(fc.nat(), fc.integer({ min: 1, max: 2_000 }), (seed, length) => {
      const random = makeRandom(seed)
      const weights = Float64Array.from({ length }, () => Math.exp(-20 * random()))
      const rest = weights.slice()
      const draws = WeightedDraw.make(weights)
      for (let left = Math.min(length, 40); left > 0; left--) {
        const drawn = random()
        const place = draws.draw(drawn)
        assert.strictEqual(place, placeOf(rest, drawn))
        draws.remove(place)
        rest[place] = 0
        assert.closeTo(draws.total(), rest.reduce((sum, weight) => sum + weight, 0), 1e-9)
      }
    }))
  })

  it("never have a weight of zero", () => {
    const weights = new Float64Array(600)
    weights[300] = 1
    const draws = WeightedDraw.make(weights)
    for (const random of [0, 0.5, 1 - 2 ** -53]) assert.strictEqual(draws.draw(random), 300)
  })

  it("give a seed the tokens that single subtractions give it", () => {
    const random = makeRandom(5)
    const logits = Float32Array.from({ length: 5_000 }, () => 6 * (random() + random() + random()))
    const most = logits.reduce((most, logit) => Math.max(most, logit))
    for (let seed = 0; seed < 200; seed++) {
      const sampler = makeSampler({ temperature: 0.8, topP: 1, seed }, logits.length)
      const numbers = makeRandom(seed)
      const weights = Float64Array.from(logits, (logit) => Math.exp((logit - most) / 0.8))
      for (let token = 0; token < 3; token++) assert.strictEqual(sampler.choose(logits), placeOf(weights, numbers()))
    }
  })
})
