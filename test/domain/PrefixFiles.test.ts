import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import type { PrefixFile, StoredFile } from "../../src/domain/PrefixFiles.ts"
import {
  choose,
  costsOf,
  isWorthSaving,
  largestFile,
  replacedBy,
  sharedLength,
  temporary,
  toDelete
} from "../../src/domain/PrefixFiles.ts"

const token = fc.integer({ min: 0, max: 2 })
const tokens = (maxLength: number) => fc.array(token, { maxLength, size: "max" })
const owner = fc.constantFrom("", "a")
const files = fc.array(
  fc.record({ owner, tokens: tokens(40), bytes: fc.integer({ min: 0, max: 2e6 }) }),
  { maxLength: 8 }
).map((all) => all.map((file, index): PrefixFile => ({ ...file, name: `${index}` })))
const costs = fc.record({
  tokenMs: fc.constantFrom(0.01, 0.5, 3),
  granularity: fc.constantFrom(1, 4)
})

/** Tokens of the prompt that a slot with the file's content would reuse. */
const reusedOf = (file: PrefixFile, prompt: ReadonlyArray<number>, granularity: number) => {
  const most = Math.min(sharedLength(file.tokens, prompt), prompt.length - 1)
  return most - most % granularity
}

describe("the file for a prompt", () => {
  it("is the owner's, and saves more time than any other, or none saves time", () => {
    fc.assert(fc.property(files, owner, tokens(40), fc.nat({ max: 10 }), costs, (files, owner, prompt, has, costs) => {
      const savedMs = (file: PrefixFile) =>
        (reusedOf(file, prompt, costs.granularity) - has) * costs.tokenMs - 2 - file.bytes / 0.5e6
      const chosen = choose(files, owner, prompt, has, costs)
      const best = Math.max(0, ...files.filter((file) => file.owner === owner).map(savedMs))
      assert.strictEqual(chosen?.owner ?? owner, owner)
      assert.strictEqual(chosen === undefined ? 0 : savedMs(chosen), best)
    }))
  })

  it("is none for a short prefix of a large file", () => {
    const prompt = Array.from({ length: 4_000 }, (_, index) => index)
    const file = (shared: number): PrefixFile => ({
      name: "f",
      owner: "",
      tokens: prompt.map((token, index) => index < shared ? token : 0),
      bytes: 400e6
    })
    const costs = costsOf(144e6, { threads: 1 }, 64)
    assert.isUndefined(choose([file(128)], "", prompt, 0, costs))
    assert.isDefined(choose([file(1_000)], "", prompt, 0, costs))
    assert.isUndefined(choose([file(1_000)], "", prompt, 960, costs))
    // A GPU computes the tokens sooner than the disk reads them.
    assert.isUndefined(choose([file(1_000)], "", prompt, 0, costsOf(144e6, { threads: 1, gpu: "cuda" }, 64)))
  })
})

describe("a prefix", () => {
  it("is saved unless a file of its owner has it, and replaces the owner's files that it continues", () => {
    fc.assert(fc.property(files, owner, tokens(100), costs, (files, owner, saved, costs) => {
      const own = files.filter((file) => file.owner === owner)
      const isSaved = own.some(({ tokens }) => saved.every((token, index) => tokens[index] === token))
      if (isSaved) assert.isFalse(isWorthSaving(files, owner, saved, costs))
      const replaced = replacedBy(files, { name: "new", owner, tokens: saved, bytes: 1 })
      for (const file of files) {
        const continues = Array.from(file.tokens).every((token, index) => saved[index] === token)
        assert.strictEqual(replaced.includes(file), continues && file.owner === owner)
      }
    }))
    const long = Array.from({ length: 200 }, () => 1)
    assert.isTrue(isWorthSaving([], "", long, costsOf(3e6, { threads: 1 }, 64)))
    assert.isFalse(isWorthSaving([], "", long.slice(0, 63), costsOf(1e9, { threads: 1 }, 64)))
  })
})

const now = 1e12
const gibibyte = 2 ** 30

describe("the files above the budget", () => {
  const stored = fc.array(
    fc.record({
      bytes: fc.integer({ min: 1, max: 1_000 }),
      age: fc.integer({ min: 0, max: 2_000_000 }),
      isTemporary: fc.boolean()
    }),
    { maxLength: 20 }
  ).map((all) =>
    all.map(({ age, bytes, isTemporary }, index): StoredFile => ({
      path: `${index}${isTemporary ? temporary : ".prefix"}`,
      bytes,
      usedAt: now - age
    }))
  )

  it("are the least recently used ones, no more than needed, and never those being written", () => {
    fc.assert(
      fc.property(stored, fc.integer({ min: 1, max: 8_000 }), fc.nat({ max: 3_000 }), (stored, maxBytes, free) => {
        const ttlMs = 1_000_000
        const deleted = new Set(toDelete(stored, { maxBytes, ttlMs }, gibibyte + free, now))
        const isTemporary = ({ path }: StoredFile) => path.endsWith(temporary)
        const isOld = (file: StoredFile) => now - file.usedAt > (isTemporary(file) ? 600_000 : ttlMs)
        const left = stored.filter((file) => !deleted.has(file))
        const complete = left.filter((file) => !isTemporary(file))
        const bytes = left.reduce((sum, file) => sum + file.bytes, 0)
        assert.isFalse(left.some(isOld))
        assert.isTrue(bytes <= maxBytes || complete.length === 0)
        const forSpace = stored.filter((file) => deleted.has(file) && !isOld(file))
        assert.isFalse(forSpace.some(isTemporary))
        // The last one to be deleted was needed, and no kept one was used before any of them.
        const last = Math.max(...forSpace.map(({ usedAt }) => usedAt))
        assert.isTrue(complete.every(({ usedAt }) => usedAt >= last) || forSpace.length === 0)
        const sizeOfLast = forSpace.findLast(({ usedAt }) => usedAt === last)?.bytes ?? 0
        assert.isTrue(forSpace.length === 0 || bytes + sizeOfLast > maxBytes)
      })
    )
  })

  it("are all of them where the disk is nearly full", () => {
    const files = [1, 2, 3].map((age) => ({ path: `${age}.prefix`, bytes: 100, usedAt: now - age }))
    const pathsAt = (freeBytes: number) => toDelete(files, { maxBytes: 1_000 }, freeBytes, now).map(({ path }) => path)
    assert.deepStrictEqual(pathsAt(0), ["3.prefix", "2.prefix", "1.prefix"])
    assert.deepStrictEqual(pathsAt(gibibyte - 150), ["3.prefix", "2.prefix"])
    assert.deepStrictEqual(pathsAt(gibibyte), [])
  })

  it("are also those above 1,000 in number", () => {
    const files = Array.from({ length: 1_003 }, (_, age) => ({ path: `${age}`, bytes: 1, usedAt: now - age }))
    const deleted = toDelete(files, { maxBytes: 1e9 }, gibibyte, now).map(({ path }) => path)
    assert.deepStrictEqual(deleted, ["1002", "1001", "1000"])
  })

  it("may have a quarter of the budget each", () => {
    assert.strictEqual(largestFile({ maxBytes: 400 }), 100)
  })
})
