/** Questions that are nearly the same text: those that must not share an answer, and those that may. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { factsOf, wordsAgree } from "../../../src/services/cache/QuestionFacts.ts"
import { nearMisses, paraphrases } from "../../support/QuestionPairs.ts"

/** Whether the rules let both have the same answer. */
const agree = (one: string, other: string): boolean => {
  const [first, second] = [factsOf(one), factsOf(other)]
  return first !== undefined && second !== undefined && first.text === second.text &&
    wordsAgree(first.words, second.words)
}

describe("the rules of questions", () => {
  it.each(nearMisses)("tell apart: %s / %s", (one, other) => {
    assert.isFalse(agree(one, other))
    assert.isFalse(agree(other, one))
  })

  it.each(paraphrases)("let share: %s / %s", (one, other) => {
    assert.isTrue(agree(one, other), JSON.stringify([factsOf(one)?.text, factsOf(other)?.text]))
    assert.isTrue(agree(other, one))
  })

  it("do not compare letters that they do not know", () => {
    assert.isUndefined(factsOf("Как дела?"))
    assert.isUndefined(factsOf("日本の首都は?"))
    assert.isDefined(factsOf("Où est la gare?"))
  })

  it("tell every two numbers apart, and let a question agree with itself", () => {
    fc.assert(
      fc.property(fc.integer(), fc.integer(), fc.string({ unit: "binary-ascii", maxLength: 60 }), (one, two, text) => {
        assert.isTrue(agree(text, text))
        assert.strictEqual(agree(`What is ${one} squared?`, `What is ${two} squared?`), one === two)
      })
    )
  })

  it("read a long question of any characters at once", () => {
    const hostile = ["'", "\"", "`", "«", "-'", "a-", "1,", ".,", "((", "n't "]
    for (const text of hostile) assert.isDefined(factsOf(text.repeat(2_000)))
  })
})
