import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as ExactNumber from "../../src/domain/ExactNumber.ts"
import * as Numbers from "../support/Numbers.ts"

const rewritten = (text: string): string => JSON.stringify(ExactNumber.parse(text))

// V8 of Node.js 24 reads the name `"` as `\` after an object with that name, so only one of them is among the names.
/** JSON values with numbers that doubles do not hold, in every place and beside strings that look like numbers. */
const { tree } = fc.letrec<{ readonly tree: unknown }>((tie) => ({
  tree: fc.oneof(
    { maxDepth: 4 },
    Numbers.number,
    fc.oneof(
      fc.string({ unit: "binary" }),
      Numbers.text,
      fc.constantFrom("\\", "\"", "\\\"1e400,", "[9007199254740993")
    ),
    fc.constantFrom(null, true, false),
    fc.array(tie("tree"), { maxLength: 4 }),
    fc.dictionary(fc.oneof(Numbers.text, fc.constantFrom("__proto__", "1", "\"")), tie("tree"), { maxKeys: 4 })
  )
}))

describe("ExactNumber", () => {
  it("keeps the text of every number in any JSON", () => {
    fc.assert(
      fc.property(tree, fc.constantFrom(0, 2), (value, indent) => {
        const text = JSON.stringify(value, null, indent)
        assert.strictEqual(rewritten(text), JSON.stringify(value))
      }),
      { numRuns: 1000 }
    )
  })

  it("is only for numbers that a double does not hold", () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => {
      const text = JSON.stringify(value)
      assert.isFalse(ExactNumber.isIn(text))
      assert.deepStrictEqual(ExactNumber.parse(text), JSON.parse(text))
    }))
  })

  it.each([
    ["1.0", "1"],
    ["1e3", "1000"],
    ["1E-2", "0.01"],
    ["0.0", "0"],
    ["0e400", "0"],
    ["100000000000000000000000", "1e+23"],
    ["0.50000000000000000000", "0.5"],
    // 17 digits identify a double, whose shortest decimal has fewer.
    ["0.10000000000000001", "0.1"],
    ["-2.5000000000000001e-5", "-0.000025"]
  ])("writes %s as the same number: %s", (text, written) => {
    assert.isFalse(ExactNumber.isIn(text))
    assert.strictEqual(rewritten(text), written)
  })

  it.each([
    "9007199254740993",
    "-9223372036854775807",
    "0.100000000000000001",
    "-0",
    "-0.00",
    "-0e5",
    "1e309",
    "1e-400"
  ])(
    "keeps %s",
    (text) => {
      assert.strictEqual(rewritten(`[${text}]`), `[${text}]`)
      assert.strictEqual(rewritten(text), text)
    }
  )

  it("is read as a double, an integer and a text", () => {
    const [one, two] = ExactNumber.parse("[9007199254740993, 9007199254740993e0]") as [unknown, unknown]
    assert.strictEqual(ExactNumber.numberOf(one), 2 ** 53)
    assert.strictEqual(ExactNumber.integerOf(one), 2n ** 53n + 1n)
    assert.strictEqual(String(one), "9007199254740993")
    assert.strictEqual(ExactNumber.integerOf(two), 9007199254740993n)
    assert.deepStrictEqual(["5", true, null, {}].map(ExactNumber.numberOf), [
      undefined,
      undefined,
      undefined,
      undefined
    ])
  })

  it.each<[text: string, integer: bigint | undefined]>([
    ["18446744073709551615", 2n ** 64n - 1n],
    ["-0", 0n],
    // The double is -191417726648307264.
    ["-191417726648307260", -191417726648307260n],
    ["7.00000000000000000001", undefined],
    ["1e400", undefined]
  ])("%s is the integer %s", (text, integer) => {
    assert.strictEqual(ExactNumber.integerOf(ExactNumber.parse(text)), integer)
  })

  it("is written by every integer of 64 bits as its digits", () => {
    fc.assert(fc.property(Numbers.int64, (text) => {
      const written = ExactNumber.fromInteger(BigInt(text))
      assert.strictEqual(JSON.stringify(written), text)
      assert.strictEqual(ExactNumber.integerOf(written), BigInt(text))
    }))
  })

  it("is in no text that is not JSON", () => {
    for (const text of ["", "[9007199254740993", "{\"a\": 1-2}", "\"9007199254740993", "-", "01"]) {
      assert.throws(() => ExactNumber.parse(text), SyntaxError)
    }
  })

  it("is a double in a text with more levels than a stack has frames", () => {
    const levels = 200_000
    const text = `${"[".repeat(levels)}9007199254740993${"]".repeat(levels)}`
    assert.isTrue(ExactNumber.isIn(text))
    assert.isArray(ExactNumber.parse(text))
  })

  it("has a place in a value", () => {
    const body = ExactNumber.parse("{\"a\": [1, -0], \"b\": {\"c\": 9007199254740993}, \"d\": \"9007199254740993\"}")
    assert.deepStrictEqual(ExactNumber.textsIn(body), { "/a/1": "-0", "/b/c": "9007199254740993" })
  })
})
