/** Personal data and secrets that the rules find, and what they leave alone. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { dataRules } from "../../../src/domain/GuardRule.ts"
import { finders, passesLuhn, passesMod97 } from "../../../src/services/guard/PersonalData.ts"

type Rule = typeof dataRules[number]

/** Two patterns of a rule may find the same. */
const found = (rule: Rule, text: string) => [
  ...new Set(finders[rule](text).map(({ from, to }) => text.slice(from, to)))
]

/** Made at run time, so that no scanner of repositories takes them for keys. */
const secret = (prefix: string, length: number) => prefix + "aB3dE5gH7jK9mN1p".repeat(8).slice(0, length)

const keys = [
  secret("sk-", 48),
  secret("sk-ant-api03-", 80),
  secret("ghp_", 36),
  secret("glpat-", 20),
  secret("tk-", 46),
  ["AKIA", "ABCDEFGH23456789"].join(""),
  secret("AIza", 35),
  secret("xoxb-", 24),
  `eyJhbGciOiJIUzI1.eyJzdWIiOiIxMjM0.${secret("", 30)}`
]

/** A text, and everything that the rule finds in it. */
const cases: Readonly<Record<Rule, ReadonlyArray<readonly [text: string, ...found: ReadonlyArray<string>]>>> = {
  email: [
    ["Write to alice.b+c@mail.example.co.uk.", "alice.b+c@mail.example.co.uk"],
    ["a@b.de,c@d.org", "a@b.de", "c@d.org"],
    ["\"bob@example.com\"", "bob@example.com"],
    ["/bob@example.com", "bob@example.com"],
    ["jörg@müller.example", "jörg@müller.example"],
    ["@someone at 5 @ home, a@b, user@localhost"],
    ["git@ github.com"]
  ],
  phone: [
    ["call +49 171 1234567 now", "+49 171 1234567"],
    ["+1 (415) 555-0132", "+1 (415) 555-0132"],
    ["(415) 555-0132 or 415-555-0133", "(415) 555-0132", "415-555-0133"],
    ["Tel. 030 / 1234 5678", "030 / 1234 5678"],
    ["06 12 34 56 78", "06 12 34 56 78"],
    ["2024-01-31 12:00:00, 01/2024, 1.2.3.4, 1234567890123, v0.12.345"],
    ["a+1234567890 = b"]
  ],
  card: [
    ["4111 1111 1111 1111 12/26", "4111 1111 1111 1111"],
    ["5500-0000-0000-0004", "5500-0000-0000-0004"],
    ["id 378282246310005.", "378282246310005"],
    ["4111 1111 1111 1112, 1234567890123456, 1700000000000"],
    ["x4111111111111111, 4111111111111111y"]
  ],
  iban: [
    ["IBAN DE89 3704 0044 0532 0130 00 please", "DE89 3704 0044 0532 0130 00"],
    ["GB82WEST12345698765432", "GB82WEST12345698765432"],
    ["de89370400440532013000", "de89370400440532013000"],
    ["DE88 3704 0044 0532 0130 00, AB12 3456 7890 1234, DE8937040044053201300012"]
  ],
  apiKey: [
    ...keys.map((key) => [`key=${key}, more`, key] as const),
    ["Authorization: Bearer abcdefghijklmnopqrstuvwxyz.", "Bearer abcdefghijklmnopqrstuvwxyz"],
    [
      "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY----- x",
      "-----BEGIN RSA PRIVATE KEY-----\nMII\n-----END RSA PRIVATE KEY-----"
    ],
    ["sk-short, task-management-is-a-long-word-with-hyphens, AKIAlowercase"]
  ]
}

describe.each(Object.keys(cases) as ReadonlyArray<Rule>)("the rule %s", (rule) => {
  it.each(cases[rule].map(([text, ...parts]) => [text, parts] as const))("finds in %j: %j", (text, parts) => {
    assert.deepStrictEqual(found(rule, text), [...parts])
  })

  it("finds parts that lie within the text", () => {
    const pieces = fc.constantFrom(
      ...cases[rule].map(([text]) => text),
      "@",
      "+",
      "00",
      "4",
      " ",
      "-",
      ".",
      "[",
      "é",
      "😀"
    )
    fc.assert(fc.property(fc.array(pieces, { maxLength: 12 }), (some) => {
      const text = some.join("")
      for (const { from, to } of finders[rule](text)) {
        assert.isTrue(0 <= from && from < to && to <= text.length)
      }
    }))
  })
})

describe("a check digit", () => {
  it("of a card changes with each digit", () => {
    assert.isTrue(passesLuhn("4111111111111111"))
    for (let place = 0; place < 16; place++) {
      const digits = "4111111111111111".split("")
      digits[place] = String((Number(digits[place]) + 1) % 10)
      assert.isFalse(passesLuhn(digits.join("")))
    }
  })

  it("of an IBAN detects two characters in the wrong order", () => {
    assert.isTrue(passesMod97("DE89370400440532013000"))
    assert.isFalse(passesMod97("DE98370400440532013000"))
  })
})

describe("digits of a longer number", () => {
  const iban = "DE75 5121 0800 1245 1261 99"

  it.each(["DE89 3704 0044 0532 0130 00", iban, "GB33BUKB20201555555555", "FR14 2004 1010 0505 0001 3M02 606"])(
    "are only those of the IBAN %s",
    (text) => {
      assert.lengthOf(found("iban", text), 1)
      for (const written of [text, `Pay to ${text}, please.`]) {
        assert.deepStrictEqual(found("phone", written), [])
        assert.deepStrictEqual(found("card", written), [])
      }
    }
  )

  it("do not hide a number beside it", () => {
    assert.deepStrictEqual(found("phone", `${iban}, or call 0800 124 5126`), ["0800 124 5126"])
    assert.deepStrictEqual(found("card", `${iban} and 4111 1111 1111 1111`), ["4111 1111 1111 1111"])
  })
})
