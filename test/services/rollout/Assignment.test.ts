import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { hashText } from "../../../src/domain/Hashing.ts"
import { toCandidate, variantOf } from "../../../src/services/rollout/Assignment.ts"

const hash = fc.nat({ max: 0xffffffff })
const share = fc.double({ min: 0, max: 1, noNaN: true })

const shareOf = (of: number, holds: (index: number) => boolean): number =>
  Array.from({ length: of }, (_, index) => holds(index)).filter(Boolean).length / of

describe("the version of a session", () => {
  it("stays the candidate while the weight grows", () => {
    fc.assert(fc.property(hash, hash, share, share, (seed, key, a, b) => {
      const [less, more] = [Math.min(a, b), Math.max(a, b)]
      assert.isTrue(!toCandidate(seed, less, key, 0) || toCandidate(seed, more, key, 0))
    }))
  })

  it("is the candidate for the share of sessions", () => {
    for (const weight of [0, 0.1, 0.3, 0.7, 1]) {
      const share = shareOf(20_000, (index) => toCandidate(hashText("rollout"), weight, hashText(`s-${index}`), 0.5))
      assert.closeTo(share, weight, 0.01)
    }
  })

  it("differs between rollouts", () => {
    const both = shareOf(20_000, (index) => {
      const key = hashText(`s-${index}`)
      return toCandidate(hashText("one"), 0.1, key, 0) && toCandidate(hashText("two"), 0.1, key, 0)
    })
    assert.closeTo(both, 0.01, 0.003)
  })

  it("is drawn for a request without a session", () => {
    assert.isTrue(toCandidate(1, 0.3, undefined, 0.29))
    assert.isFalse(toCandidate(1, 0.3, undefined, 0.3))
    assert.isFalse(toCandidate(1, 0, undefined, 0))
    assert.isTrue(toCandidate(1, 1, undefined, 0.999))
  })
})

describe("the variant of a session", () => {
  it("has a weight above 0, always the same", () => {
    const weights = fc.array(fc.double({ min: 0, max: 10, noNaN: true }), { minLength: 1, maxLength: 5 })
      .filter((weights) => weights.some((weight) => weight > 1e-6))
    fc.assert(fc.property(weights, hash, hash, (weights, seed, key) => {
      const index = variantOf(weights, seed, key, 0)
      assert.isAbove(weights[index]!, 0)
      assert.strictEqual(variantOf(weights, seed, key, 0.9), index)
    }))
  })

  it("follows the weights", () => {
    const share = shareOf(20_000, (index) => variantOf([1, 2, 1], 7, hashText(`s-${index}`), 0) === 1)
    assert.closeTo(share, 0.5, 0.01)
  })
})
