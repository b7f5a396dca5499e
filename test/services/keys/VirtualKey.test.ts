import { assert, describe, it } from "@effect/vitest"
import { randomBytes } from "node:crypto"
import { beginningOf, isName, makeId, makeSecret, secretBytes } from "../../../src/services/keys/VirtualKey.ts"
import { hasSecretFormat } from "../../../src/services/settings/Interpolation.ts"

describe("a secret", () => {
  it("has a fixed form, and is recognized as a secret", () => {
    for (let run = 0; run < 100; run++) {
      const made = makeSecret(randomBytes(secretBytes))
      assert.match(made, /^tk-[0-9A-Za-z]{46}$/)
      assert.isTrue(hasSecretFormat(made))
    }
  })

  it("ends with a checksum, which one other character changes", () => {
    const random = new Uint8Array(secretBytes).fill(1)
    const other = new Uint8Array(random)
    other[0] = 2
    assert.strictEqual(makeSecret(random), makeSecret(random))
    assert.notStrictEqual(makeSecret(random).slice(43), makeSecret(other).slice(43))
  })

  it("has equally likely characters: bytes that would favor some are left out", () => {
    const random = Uint8Array.from({ length: secretBytes }, (_, index) => index % 2 === 0 ? 250 : 61)
    assert.isTrue(makeSecret(random).startsWith(`tk-${"z".repeat(40)}`))
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
