/** Placeholders: what a redaction replaces is restored, in one piece and in pieces. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Match } from "../../../src/services/guard/Redaction.ts"
import { asJson, Redaction, Restoring } from "../../../src/services/guard/Redaction.ts"

const matchesOf = (text: string, values: ReadonlyArray<string>): ReadonlyArray<Match> =>
  values.flatMap((value) => {
    const from = text.indexOf(value)
    return from < 0 ? [] : [{ rule: "email" as const, from, to: from + value.length }]
  })

/** A redaction of `[EMAIL_1]` to `[EMAIL_12]`. */
const twelve = () => {
  const redaction = new Redaction()
  const values = Array.from({ length: 12 }, (_, index) => `user${index}@example.com`)
  for (const value of values) redaction.replace(value, matchesOf(value, [value]))
  return redaction
}

/** Texts of placeholders, parts of them, and what resembles them. */
const texts = fc.array(
  fc.constantFrom("[EMAIL_1]", "[EMAIL_12]", "[EMAIL_99]", "[", "]", "[EMA", "IL_1", "2]", "[[", "a", " ", "\"", "é"),
  { maxLength: 12 }
).map((pieces) => pieces.join(""))

const cut = (text: string, places: ReadonlyArray<number>): ReadonlyArray<string> => {
  const at = [...new Set(places.map((place) => place % (text.length + 1)))].toSorted((a, b) => a - b)
  return [0, ...at].map((from, index) => text.slice(from, at[index] ?? text.length))
}

describe("a redaction", () => {
  it("has one placeholder for each value, in the order of the values", () => {
    const redaction = new Redaction()
    const text = "a@x.de and b@x.de and a@x.de"
    const matches = [[0, 6], [11, 17], [22, 28]].map(([from, to]) => ({ rule: "email" as const, from: from!, to: to! }))
    assert.strictEqual(redaction.replace(text, matches), "[EMAIL_1] and [EMAIL_2] and [EMAIL_1]")
    assert.strictEqual(redaction.restore("To [EMAIL_2], [EMAIL_3]"), "To b@x.de, [EMAIL_3]")
  })

  it("replaces the longest of overlapping matches, and leaves nothing of the others", () => {
    const redaction = new Redaction()
    const matches: ReadonlyArray<Match> = [{ rule: "phone", from: 2, to: 5 }, { rule: "card", from: 0, to: 6 }]
    assert.strictEqual(redaction.replace("123456 x", matches), "[CARD_1] x")
  })

  it("does not restore what a rule about attacks removed", () => {
    const redaction = new Redaction()
    assert.strictEqual(redaction.replace("a<!---->b", [{ rule: "htmlComment", from: 1, to: 8 }]), "a[REMOVED_COMMENT]b")
    assert.isFalse(redaction.isReversible)
  })

  it("leaves out placeholders that the caller wrote", () => {
    const redaction = new Redaction(new Set(["[EMAIL_1]"]))
    assert.strictEqual(redaction.replace("a@x.de", matchesOf("a@x.de", ["a@x.de"])), "[EMAIL_2]")
    assert.strictEqual(redaction.restore("[EMAIL_1] [EMAIL_2]"), "[EMAIL_1] a@x.de")
  })

  it("writes values within JSON as JSON", () => {
    const redaction = new Redaction()
    redaction.placeholderOf("VALUE", "say \"hi\"\n")
    assert.deepStrictEqual(JSON.parse(redaction.restore("{\"a\":\"[VALUE_1]\"}", asJson)), { a: "say \"hi\"\n" })
  })

  it("gives a text in pieces that is the text in one piece, wherever it is cut", () => {
    const redaction = twelve()
    fc.assert(fc.property(texts, fc.array(fc.nat(200), { maxLength: 8 }), (text, places) => {
      const restoring = new Restoring(redaction)
      const given = cut(text, places).map((piece) => restoring.push(piece)).join("") + restoring.end()
      assert.strictEqual(given, redaction.restore(text))
    }))
  })

  it("holds back no more than the begin of a placeholder", () => {
    const redaction = twelve()
    fc.assert(fc.property(texts, (text) => {
      assert.isAtMost(text.length - redaction.heldFrom(text), "[EMAIL_12]".length - 1)
    }))
  })
})
