import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Proportion } from "../../../src/services/rollout/Rollout.ts"
import type { Pair } from "../../../src/services/rollout/SequentialTest.ts"
import * as SequentialTest from "../../../src/services/rollout/SequentialTest.ts"

const proportion = fc.nat({ max: 40 }).chain((of) => fc.record({ count: fc.nat({ max: of }), of: fc.constant(of) }))
const before: fc.Arbitrary<Pair<Proportion>> = fc.record({ stable: proportion, candidate: proportion })
const probability = fc.double({ min: 0, max: 1, noNaN: true })
const tolerance = fc.constantFrom(0, 0.005, 0.1)
const size = fc.integer({ min: 0, max: 12 })

const binomial = (of: number, p: number): ReadonlyArray<number> => {
  let masses = [1]
  for (let trial = 0; trial < of; trial++) {
    masses = Array.from({ length: trial + 2 }, (_, k) => (masses[k] ?? 0) * (1 - p) + (masses[k - 1] ?? 0) * p)
  }
  return masses
}

/** The exact expectation of the factor of a batch. */
const expected = (sizes: Pair<number>, truth: Pair<number>, bet: Pair<number>, tolerance: number): number => {
  let sum = 0
  for (const [a, stable] of binomial(sizes.stable, truth.stable).entries()) {
    for (const [b, candidate] of binomial(sizes.candidate, truth.candidate).entries()) {
      const batch = { stable: { count: a, of: sizes.stable }, candidate: { count: b, of: sizes.candidate } }
      sum += stable * candidate * Math.exp(SequentialTest.factor(batch, bet, tolerance))
    }
  }
  return sum
}

describe("the evidence of a batch", () => {
  it.each([["learned", SequentialTest.learned], ["severe", SequentialTest.severe]] as const)(
    "is expected not to grow by the bet %s while the candidate is not worse than the tolerance",
    (_, betOf) => {
      fc.assert(fc.property(
        before,
        fc.record({ stable: size, candidate: size }),
        probability,
        probability,
        tolerance,
        (before, sizes, stable, portion, tolerance) => {
          const candidate = Math.min(1, stable + tolerance) * portion
          assert.isAtMost(expected(sizes, { stable, candidate }, betOf(before), tolerance), 1 + 1e-9)
        }
      ))
    }
  )

  it("is expected to grow by a bet that is right", () => {
    for (const tolerance of [0, 0.01]) {
      const truth = { stable: 0.05, candidate: 0.4 }
      assert.isAbove(expected({ stable: 10, candidate: 5 }, truth, truth, tolerance), 1.2)
      assert.isAbove(SequentialTest.growth({ stable: 10, candidate: 5 }, truth, tolerance), 0.2)
    }
  })

  it("does not change without both versions, nor by a bet within the tolerance", () => {
    const none = { count: 0, of: 0 }
    const some = { count: 3, of: 3 }
    const bet = { stable: 0.1, candidate: 0.5 }
    assert.strictEqual(SequentialTest.factor({ stable: none, candidate: some }, bet, 0), 0)
    assert.strictEqual(SequentialTest.factor({ stable: some, candidate: none }, bet, 0), 0)
    assert.strictEqual(SequentialTest.factor({ stable: some, candidate: some }, bet, 0.4), 0)
    assert.strictEqual(SequentialTest.factor({ stable: some, candidate: some }, { stable: 0.5, candidate: 0.1 }, 0), 0)
  })

  it("is finite, whatever was measured", () => {
    fc.assert(fc.property(before, before, tolerance, (before, batch, tolerance) => {
      for (const bet of [SequentialTest.learned(before), SequentialTest.severe(before)]) {
        assert.isTrue(Number.isFinite(SequentialTest.factor(batch, bet, tolerance)))
      }
    }))
  })
})

describe("a mean of logarithms", () => {
  it("is weighted and does not overflow", () => {
    assert.closeTo(SequentialTest.logMean([Math.log(2), Math.log(6)], [1, 3]), Math.log(5), 1e-12)
    assert.closeTo(SequentialTest.logMean([2_000, -2_000], [1, 1]), 2_000 - Math.log(2), 1e-9)
  })
})
