import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Grammar, Sequence } from "../../../src/workers/grammar/Grammar.ts"
import { chars, gbnfOf, makeBuilder, text } from "../../../src/workers/grammar/Grammar.ts"
import { makeMatcher } from "../../../src/workers/grammar/GrammarMatcher.ts"
import { grammarOf } from "../../../src/workers/grammar/JsonGrammar.ts"

const grammarOfRules = (...rules: ReadonlyArray<ReadonlyArray<Sequence>>): Grammar => ({
  rules: rules.map((alternatives, index) => ({ name: `r${index}`, alternatives }))
})

const accepts = (grammar: Grammar, text: string | Uint8Array): boolean => {
  const matcher = makeMatcher(grammar)
  matcher.push(text)
  return matcher.isComplete()
}

const rule = (rule: number) => ({ rule })

describe("makeMatcher", () => {
  it("follows all parses of an ambiguous text without multiplying them", () => {
    const rows = grammarOfRules([[rule(1)], [rule(1), rule(0)]], [[chars([0x61, 0x7a])], [
      chars([0x61, 0x7a]),
      rule(1)
    ]])
    assert.isTrue(accepts(rows, "a".repeat(2000)))
    assert.isFalse(accepts(rows, `${"a".repeat(2000)}!`))
  })

  it("passes through empty rules, including recursive ones", () => {
    const grammar = grammarOfRules(
      [[rule(1), text("x")]],
      [[rule(2)], [rule(1)], []],
      [[], [text("a"), rule(3)], [rule(3)]],
      [[rule(1)], []]
    )
    for (const taken of ["x", "ax", "aax"]) assert.isTrue(accepts(grammar, taken), taken)
    assert.isFalse(accepts(grammar, "a"))
  })

  it("reports whether the text is complete and whether more may follow", () => {
    const matcher = makeMatcher(grammarOf({ type: "json_schema", schema: { enum: [1, 12] } }))
    assert.deepStrictEqual([matcher.isComplete(), matcher.canContinue()], [false, true])
    matcher.push("1")
    assert.deepStrictEqual([matcher.isComplete(), matcher.canContinue()], [true, true])
    matcher.push("2")
    assert.deepStrictEqual([matcher.isComplete(), matcher.canContinue()], [true, false])
    assert.isTrue(matcher.allows(""))
    assert.isFalse(matcher.allows("3"))
    matcher.push("3")
    assert.deepStrictEqual([matcher.isComplete(), matcher.canContinue(), matcher.allows("")], [false, false, false])
  })

  it("does not change its state with a query", () => {
    const matcher = makeMatcher(grammarOf({ type: "json_object" }))
    matcher.push("{\"a\"")
    for (const piece of [":1}", "x", "", ": [", new Uint8Array([0xff])]) matcher.allows(piece)
    assert.isTrue(matcher.allows(": [1, 2]}"))
    assert.isFalse(matcher.isComplete())
  })

  it("reads bytes split anywhere like the text", () => {
    const grammar = grammarOf({ type: "json_schema", schema: { type: "string", pattern: "^[^\u{1f300}-\u{1f9ff}]*$" } })
    fc.assert(fc.property(fc.string({ unit: "binary" }), fc.nat(), (value, at) => {
      const text = JSON.stringify(value)
      const bytes = Buffer.from(text)
      const cut = at % (bytes.length + 1)
      const matcher = makeMatcher(grammar)
      const isAllowed = accepts(grammar, text)
      if (isAllowed) assert.isTrue(matcher.allows(bytes.subarray(0, cut)))
      matcher.push(bytes.subarray(0, cut))
      matcher.push(bytes.subarray(cut))
      assert.strictEqual(matcher.isComplete(), isAllowed)
    }))
  })

  it("decides on a character by its first bytes as far as possible", () => {
    const matcher = makeMatcher(grammarOfRules([[chars([0x1f600, 0x1f64f]), text("!")]]))
    assert.isTrue(matcher.allows(Buffer.from("😀").subarray(0, 1)))
    assert.isTrue(matcher.allows(Buffer.from("😀").subarray(0, 2)))
    assert.isFalse(matcher.allows(Buffer.from("é").subarray(0, 1)))
    assert.isFalse(matcher.allows(Buffer.from("🚀").subarray(0, 3)))
    matcher.push(Buffer.from("😀").subarray(0, 3))
    assert.deepStrictEqual([matcher.isComplete(), matcher.canContinue(), matcher.allows("!")], [false, true, false])
    matcher.push(Buffer.from("😀").subarray(3))
    assert.isTrue(matcher.allows("!"))
  })

  it("rejects bytes that are not UTF-8", () => {
    const grammar = grammarOf({ type: "json_schema", schema: { type: "string" } })
    for (
      const bytes of [[0xc0, 0xa2], [0xe0, 0x80, 0xa2], [0xed, 0xa0, 0x80], [0xf4, 0x90, 0x80, 0x80], [0x80], [0xff], [
        0xc3,
        0x28
      ]]
    ) {
      const matcher = makeMatcher(grammar)
      matcher.push("\"")
      assert.isFalse(matcher.allows(new Uint8Array(bytes)), bytes.join(" "))
    }
  })
})

describe("makeBuilder", () => {
  it("removes rules that cannot terminate or cannot be reached", () => {
    const builder = makeBuilder("p")
    builder.rule("unused", [[text("u")]])
    const { define, symbol } = builder.declare("endless")
    define([[text("x"), symbol]])
    const grammar = builder.build([
      builder.rule("choice", [[text("a")], [text("b"), symbol], [builder.rule("never", [])]])
    ])
    assert.strictEqual(gbnfOf(grammar!), "root ::= choice-4\nchoice-4 ::= \"a\"\n")
  })

  it("returns no grammar if no text matches", () => {
    const builder = makeBuilder("p")
    assert.isUndefined(builder.build([text("a"), builder.rule("never", [])]))
  })
})

describe("gbnfOf", () => {
  it("escapes special characters", () => {
    const builder = makeBuilder("p")
    const grammar = builder.build([
      text("a\"\\\n[é😀"),
      chars([0x2d, 0x2d], [0x5b, 0x5e], [0x61, 0x7a], [0x1f600, 0x1f64f])
    ])!
    assert.strictEqual(
      gbnfOf(grammar),
      "root ::= \"a\\\"\\\\\\x0A\\[\\xE9\\U0001F600\" [\\x2D\\[-\\x5Ea-z\\U0001F600-\\U0001F64F]\n"
    )
  })
})
