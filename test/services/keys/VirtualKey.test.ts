import { assert, describe, it } from "@effect/vitest"
import { randomBytes } from "node:crypto"
import {
  beginningOf,
  isMistyped,
  isName,
  makeId,
  makeSecret,
  secretBytes
} from "../../../src/services/keys/VirtualKey.ts"
import { looksLikeSecret } from "../../../src/services/settings/Interpolation.ts"

describe("a secret", () => {
  it("has a fixed form, and is recognized as a secret", () => {
    for (let run = 0; run < 100; run++) {
      const made = makeSecret(randomBytes(secretBytes))
      assert.match(made, /^tk-[0-9A-Za-z]{46}$/)
      assert.isFalse(isMistyped(made))
      assert.isTrue(looksLikeSecret(undefined, made))
    }
  })

  it("with one other character is mistyped", () => {
    const made = makeSecret(randomBytes(secretBytes))
    for (let at = 3; at < made.length; at++) {
      for (const other of ["a", "B", "7"].filter((one) => one !== made[at])) {
        assert.isTrue(isMistyped(`${made.slice(0, at)}${other}${made.slice(at + 1)}`))
      }
    }
  })

  it("of another form is not mistyped: the configuration may have it", () => {
    for (const text of ["tk-short", "a-secret-of-the-file", ""]) assert.isFalse(isMistyped(text))
  })

  it("is shown by its beginning only", () => {
    const made = makeSecret(randomBytes(secretBytes))
    assert.strictEqual(beginningOf(made), `${made.slice(0, 9)}…`)
  })
})

describe("an id", () => {
  it("has a fixed form", () => {
    assert.match(makeId(randomBytes(24)), /^key_[0-9A-Za-z]{12}$/)
  })
})

describe("a name", () => {
  it.each([
    ["app", true],
    ["team a/b", true],
    ["", false],
    [" app", false],
    ["app ", false],
    ["a\nb", false],
    ["ä", false],
    ["a".repeat(101), false]
  ])("%j is one: %s", (name, expected) => {
    assert.strictEqual(isName(name), expected)
  })
})
