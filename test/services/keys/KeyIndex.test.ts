import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { KeyIndex } from "../../../src/services/keys/KeyIndex.ts"
import type { StoredKey, VirtualKey } from "../../../src/services/keys/VirtualKey.ts"

const stored = (name: string, { hash = `hash-${name}`, previousHash, ...more }: Partial<VirtualKey> & {
  readonly hash?: string
  readonly previousHash?: string
} = {}): StoredKey => ({
  hash,
  ...(previousHash === undefined ? {} : { previousHash }),
  key: { id: `key_${name}`, name, tenant: name, origin: "store", createdAt: 0, ...more }
})

const indexOf = (...keys: ReadonlyArray<StoredKey>): KeyIndex => {
  const index = new KeyIndex()
  index.replaceAll(keys)
  return index
}

const keyIdOf = (index: KeyIndex, hash: string, now = 100): string => {
  const found = index.identify(hash, now)
  return typeof found === "string" ? found : found.keyId
}

describe("identify", () => {
  it("finds the identity of a hash, which all requests with the key share", () => {
    const index = indexOf(stored("a", { tenant: "shop", user: "u", models: ["m"], admin: true }), stored("b"))
    const found = index.identify("hash-a", 0)
    assert.deepStrictEqual(found, {
      keyId: "key_a",
      name: "a",
      tenant: "shop",
      user: "u",
      models: ["m"],
      isAdmin: true,
      setsTenant: false
    })
    assert.strictEqual(index.identify("hash-a", 1), found)
    assert.strictEqual(keyIdOf(index, "hash-b"), "key_b")
    assert.strictEqual(keyIdOf(index, "hash-c"), "unknown")
  })

  it("keeps the identity while a change of keys does not change it, because limits count by it", () => {
    const limits = { requestsPerHour: 3 }
    const index = indexOf(stored("a", { limits }), stored("b"))
    const before = index.identify("hash-a", 0)
    index.replaceAll([stored("a", { limits: { ...limits } }), stored("c")])
    assert.strictEqual(index.identify("hash-a", 0), before)
    index.set(stored("a", { limits, hash: "new", previousHash: "hash-a", previousUntil: 100 }))
    assert.strictEqual(index.identify("new", 0), before)
    index.set(stored("a", { limits: { requestsPerHour: 4 } }))
    assert.deepInclude(index.identify("hash-a", 0), { limits: { requestsPerHour: 4 } })
  })

  it("ends at the expiry", () => {
    const index = indexOf(stored("a", { expiresAt: 100 }))
    assert.strictEqual(keyIdOf(index, "hash-a", 99), "key_a")
    assert.strictEqual(keyIdOf(index, "hash-a", 100), "expired")
  })

  it("accepts the secret before a rotation until the overlap ends, and no longer than the key", () => {
    const rotated = { hash: "new", previousHash: "old", previousUntil: 100 }
    const index = indexOf(stored("a", rotated))
    assert.strictEqual(keyIdOf(index, "new", 200), "key_a")
    assert.strictEqual(keyIdOf(index, "old", 99), "key_a")
    assert.strictEqual(keyIdOf(index, "old", 100), "expired")
    index.set(stored("a", { ...rotated, revokedAt: 50 }))
    for (const hash of ["new", "old"]) assert.strictEqual(keyIdOf(index, hash, 60), "revoked")
  })

  it("forgets the hashes that a change replaces", () => {
    const index = indexOf(stored("a", { hash: "1" }))
    index.set(stored("a", { hash: "2", previousHash: "1", previousUntil: 100 }))
    index.set(stored("a", { hash: "3", previousHash: "2", previousUntil: 100 }))
    assert.strictEqual(keyIdOf(index, "1", 0), "unknown")
    assert.strictEqual(keyIdOf(index, "2", 0), "key_a")
    index.replaceAll([])
    assert.strictEqual(keyIdOf(index, "3", 0), "unknown")
    assert.strictEqual(index.size, 0)
  })

  it("finds each key among many, and no other", () => {
    fc.assert(
      fc.property(fc.uniqueArray(fc.string({ minLength: 1 }), { maxLength: 50 }), fc.string(), (names, other) => {
        const index = indexOf(...names.map((name) => stored(name)))
        for (const name of names) assert.strictEqual(keyIdOf(index, `hash-${name}`), `key_${name}`)
        if (!names.includes(other)) assert.strictEqual(keyIdOf(index, `hash-${other}`), "unknown")
      })
    )
  })
})

describe("find", () => {
  it("finds by id and by name: the key that is not revoked, else the newest", () => {
    const index = indexOf(
      stored("1", { name: "app", revokedAt: 5 }),
      stored("2", { name: "app", createdAt: 7, revokedAt: 9 }),
      stored("3", { name: "other" })
    )
    assert.strictEqual(index.find("key_1")?.key.id, "key_1")
    assert.strictEqual(index.find("app")?.key.id, "key_2")
    index.set(stored("4", { name: "app", createdAt: 1 }))
    assert.strictEqual(index.find("app")?.key.id, "key_4")
    assert.isUndefined(index.find("none"))
  })
})

describe("the times of use", () => {
  it("are those of accepted requests, and stay when the keys are read again", () => {
    const keys = [stored("a"), stored("b", { expiresAt: 1 }), stored("c", { origin: "settings" })]
    const index = indexOf(...keys)
    for (const name of ["a", "b", "c"]) index.identify(`hash-${name}`, 50)
    assert.deepStrictEqual(index.used(), [{ id: "key_a", at: 50 }])
    index.replaceAll(keys)
    assert.deepStrictEqual(index.used(), [{ id: "key_a", at: 50 }])
    assert.strictEqual(index.list().find(({ id }) => id === "key_a")?.lastUsedAt, 50)
    index.replaceAll([stored("a", { lastUsedAt: 50 })])
    assert.deepStrictEqual(index.used(), [])
  })
})
