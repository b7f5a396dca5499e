import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { combine, draw, drawTwo, hashText } from "../../src/domain/Hashing.ts"

const seed = fc.integer({ min: 0, max: 2 ** 32 - 1 })
const isUint32 = (value: number) => Number.isInteger(value) && value >= 0 && value < 2 ** 32

describe("Hashing", () => {
  it("hashes any text, and any two hashes, to a 32-bit unsigned integer", () => {
    fc.assert(fc.property(fc.string({ unit: "binary" }), seed, (text, other) => {
      assert.isTrue(isUint32(hashText(text)))
      assert.isTrue(isUint32(combine(hashText(text), other)))
    }))
  })

  it("hashes a part of a text as the part alone", () => {
    fc.assert(fc.property(fc.string(), fc.string(), fc.string(), (before, part, after) => {
      const from = before.length
      assert.strictEqual(hashText(before + part + after, from, from + part.length), hashText(part))
    }))
  })

  it("depends on the order of the hashes that it combines", () => {
    assert.notStrictEqual(combine(1, 2), combine(2, 1))
  })

  it("draws numbers above 0 and below 1", () => {
    fc.assert(fc.property(seed, fc.integer(), (value, index) => {
      const drawn = draw(value, index)
      assert.isTrue(drawn > 0 && drawn < 1)
    }))
  })

  it("draws evenly over consecutive seeds and indices", () => {
    const tenths = Array<number>(10).fill(0)
    for (let index = 0; index < 10_000; index++) {
      tenths[Math.floor(draw(index % 100, Math.floor(index / 100)) * 10)]! += 1
    }
    for (const count of tenths) assert.approximately(count, 1_000, 150)
  })

  it("draws two different numbers in range, and every pair", () => {
    fc.assert(fc.property(fc.integer({ min: 2, max: 50 }), seed, (count, value) => {
      const [first, second] = drawTwo(count, value)
      assert.notStrictEqual(first, second)
      for (const one of [first, second]) assert.isTrue(Number.isInteger(one) && one >= 0 && one < count)
    }))
    const pairs = new Set(Array.from({ length: 1_000 }, (_, value) => drawTwo(3, value).join()))
    assert.strictEqual(pairs.size, 6)
  })
})
