import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Identity } from "../../src/domain/Identity.ts"
import { allowsModel, matches } from "../../src/domain/Identity.ts"

const some = fc.string({ unit: fc.constantFrom("a", "b", "*", ".", "/"), maxLength: 8 })

describe("a pattern of models", () => {
  it.each([
    ["chat", "chat", true],
    ["chat", "chats", false],
    ["chat", "Chat", false],
    ["*", "", true],
    ["*", "org/name", true],
    ["org/*", "org/name", true],
    ["org/*", "other/org/name", false],
    ["*-mini", "gpt-mini", true],
    ["*-mini", "gpt-mini-2", false],
    ["a*b*c", "a-b-c", true],
    ["a*b*c", "a-c-b", false],
    ["ab*ba", "aba", false],
    ["a.c", "abc", false],
    ["", "", true],
    ["", "a", false]
  ])("%s for %s is %s", (pattern, name, expected) => {
    assert.strictEqual(matches(pattern, name), expected)
  })

  it("means what a regular expression with .* means", () => {
    fc.assert(fc.property(some, some, (pattern, name) => {
      const source = pattern.split("*").map((part) => part.replaceAll(/[.*/]/g, "\\$&")).join("[^]*")
      assert.strictEqual(matches(pattern, name), new RegExp(`^${source}$`).test(name))
    }))
  })

  it("with many stars takes no time that grows with their number", () => {
    assert.isFalse(matches("*a".repeat(1_000), "a".repeat(999)))
    assert.isFalse(matches(`${"*a".repeat(100)}*b`, "a".repeat(100_000)))
  })
})

describe("allowsModel", () => {
  const identity: Identity = { keyId: "k", tenant: "t", isAdmin: false, setsTenant: false }

  it("allows all models without an identity and to a key without models", () => {
    assert.isTrue(allowsModel(undefined, "any"))
    assert.isTrue(allowsModel(identity, "any"))
  })

  it("allows what fits one of the patterns", () => {
    const limited = { ...identity, models: ["chat", "small-*"] }
    assert.isTrue(allowsModel(limited, "chat"))
    assert.isTrue(allowsModel(limited, "small-1"))
    assert.isFalse(allowsModel(limited, "large"))
  })
})
