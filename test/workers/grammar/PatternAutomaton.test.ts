import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { ofPattern } from "../../../src/workers/grammar/PatternAutomaton.ts"
import { accepts, except, intersect, ofLength } from "../../../src/workers/grammar/TextAutomaton.ts"
import { patterns } from "../../support/JsonSchemas.ts"

const refuse = (message: string): never => {
  throw new Error(message)
}

const letters = fc.string({ unit: fc.constantFrom("a", "b", "x", "y", "1", "-", " ", "\n", "é", "😀"), maxLength: 8 })

/** Regular expressions of every kind that is supported. */
const sources = fc.letrec<{ any: string }>((tie) => ({
  any: fc.oneof(
    { maxDepth: 4 },
    fc.constantFrom("a", "b", ".", "\\d", "\\W", "\\s", "[^ab]", "[a-y]", "[\\d-]", "😀", "x", "\\n", "[]", "[^]"),
    fc.array(tie("any"), { maxLength: 3 }).map((all) => all.join("")),
    fc.array(tie("any"), { minLength: 2, maxLength: 3 }).map((all) => `(?:${all.join("|")})`),
    fc.tuple(tie("any"), fc.constantFrom("*", "+?", "?", "{2}", "{1,}", "{0,2}")).map(([one, often]) =>
      `(${one})${often}`
    ),
    tie("any").map((one) => `^${one}`),
    tie("any").map((one) => `${one}$`)
  )
})).any

describe("ofPattern", () => {
  it("accepts the texts in which ECMAScript finds the pattern", () => {
    fc.assert(
      fc.property(sources, fc.array(letters, { minLength: 5, maxLength: 20 }), (source, texts) => {
        const expression = new RegExp(source, "u")
        const automaton = ofPattern(source, refuse)
        for (const text of ["", ...texts]) {
          assert.strictEqual(accepts(automaton, text), expression.test(text), `${JSON.stringify(text)} in ${source}`)
        }
      }),
      { numRuns: 500 }
    )
  })

  it("matches realistic patterns like ECMAScript", () => {
    fc.assert(fc.property(fc.constantFrom(...patterns), letters, (source, text) => {
      assert.strictEqual(accepts(ofPattern(source, refuse), text), new RegExp(source, "u").test(text))
    }))
  })
})

describe("intersect", () => {
  it("accepts the texts that both accept", () => {
    const short = ofLength(1, 3)
    const open = ofLength(2, undefined)
    const others = except(["a", "ab", "", "aa1"])
    fc.assert(fc.property(letters, (text) => {
      const length = Array.from(text).length
      assert.strictEqual(accepts(short, text), length >= 1 && length <= 3)
      assert.strictEqual(accepts(others, text), !["a", "ab", "", "aa1"].includes(text))
      const all = intersect(intersect(short, open)!, others)!
      assert.strictEqual(accepts(all, text), length >= 2 && length <= 3 && !["ab", "aa1"].includes(text))
    }))
  })
})
