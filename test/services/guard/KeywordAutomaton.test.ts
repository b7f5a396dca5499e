/** What one pass finds, against a search for each keyword. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { build, combine, kindBits } from "../../../src/services/guard/KeywordAutomaton.ts"
import { repetitions } from "../../support/Repetitions.ts"

const lists = [["ab", "b c"], ["bc"], ["0-00", "a0"], ["<", "c<<"], ["a b a"]]
const { found, kinds, next } = build(lists)

const bitsOf = (text: string): number => {
  let bits = 0
  let state = 0
  for (let index = 0; index < text.length; index++) {
    state = next[state << kindBits | kinds[text.charCodeAt(index)]!]!
    bits |= found[state]!
  }
  return bits
}

const expected = (text: string): number => {
  const read = text.toLowerCase().replaceAll(/[\s\u0100-\uffff]+/g, " ").replaceAll(/\d/g, "0")
  return lists.reduce((bits, list, index) => list.some((one) => read.includes(one)) ? bits | 1 << index : bits, 0)
}

describe("a pass", () => {
  it("finds the lists that have a keyword in the text", () => {
    const pieces = fc.constantFrom(..."abcABC019-<<  \t\n\u00a0é€".split(""), "\u2003", "b  c", "a b")
    fc.assert(
      fc.property(fc.array(pieces, { maxLength: 30 }), (some) => {
        const text = some.join("")
        assert.strictEqual(bitsOf(text), expected(text), text)
      }),
      { numRuns: repetitions(400, 2_000) }
    )
  })
})

describe("tables", () => {
  it("are refused for more than 31 lists and for too many characters", () => {
    assert.throws(() => build(Array.from({ length: 32 }, () => ["a"])), RangeError)
    assert.throws(
      () => build([Array.from({ length: 90 }, (_, index) => String.fromCharCode(0x3a + index))]),
      RangeError
    )
  })

  it("combine parts in order", () => {
    assert.deepStrictEqual(combine(["a", "b"], ["", "c"], ["d"]), ["ad", "acd", "bd", "bcd"])
  })
})
