import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import type { Observation } from "../../../src/services/rollout/Tally.ts"
import * as Tally from "../../../src/services/rollout/Tally.ts"

const value = fc.option(fc.double({ min: 0, max: 100_000, noNaN: true }), { nil: undefined })
const observation: fc.Arbitrary<Observation> = fc.record({
  failed: fc.boolean(),
  refused: fc.boolean(),
  firstTokenMs: value,
  tokensPerSecond: value,
  score: fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: undefined })
})

const tallyOf = (observations: ReadonlyArray<Observation>): Tally.Tally => {
  const tally = Tally.empty()
  for (const each of observations) Tally.record(tally, each)
  return tally
}

describe("a tally", () => {
  it("of two halves is that of the whole, and survives JSON", () => {
    const json = Schema.fromJsonString(Tally.Tally)
    fc.assert(fc.property(fc.array(observation), fc.array(observation), (a, b) => {
      const sum = Tally.add(tallyOf(a), tallyOf(b))
      assert.deepStrictEqual(sum, tallyOf([...a, ...b]))
      assert.deepStrictEqual(Schema.decodeSync(json)(Schema.encodeSync(json)(sum)), sum)
    }))
  })

  it.each(Object.entries(Tally.scales))("puts each value of %s between its levels", (_, { bucketOf, levels }) => {
    fc.assert(fc.property(fc.double({ min: 0, max: levels.at(-1)! * 2, noNaN: true }), (value) => {
      const bucket = bucketOf(value)
      const [from = -1, to = Infinity] = [levels[bucket - 1], levels[bucket]]
      return value >= from * (1 - 1e-8) && value < to
    }))
    for (const [index, level] of levels.entries()) assert.strictEqual(bucketOf(level), index + 1)
  })

  it("has medians to a step of its scale", () => {
    const tally = tallyOf([90, 100, 5_000].map((firstTokenMs) => ({ failed: false, refused: false, firstTokenMs })))
    assert.isTrue(Math.abs(Math.log(Tally.median(tally.firstToken, Tally.scales.firstToken)! / 100)) <= Math.log(1.1))
    assert.isUndefined(Tally.median(tally.speed, Tally.scales.speed))
  })

  it("converts a tolerance to steps of a scale", () => {
    assert.deepStrictEqual([0, 0.1, 0.2, 0.21, 0.5].map(Tally.bucketsOfFactor), [0, 1, 2, 2, 5])
    assert.deepStrictEqual([0, 0.05, 0.051].map(Tally.bucketsOfScore), [0, 1, 2])
  })
})
