import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import {
  appendFileSync,
  copyFileSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  statSync,
  truncateSync,
  utimesSync,
  writeFileSync
} from "node:fs"
import { join } from "node:path"
import { describe, it } from "vitest"
import { PrefixFolder } from "../../../src/workers/model/PrefixFolder.ts"
import { decodeEnd, encodeEnd } from "../../../src/workers/model/PrefixFormat.ts"
import { temporaryFolder } from "../../support/Service.ts"

const setup = (options: { readonly maxBytes?: number; readonly ttlMs?: number } = {}) => {
  const parent = temporaryFolder()
  const folder = join(parent.path, "prefixes")
  const warnings: Array<string> = []
  const open = (fingerprint = "f1", now = Date.now) =>
    new PrefixFolder({ folder, maxBytes: 1e6, idleMs: 0, ...options }, fingerprint, (line) => warnings.push(line), now)
  const save = (prefixes: PrefixFolder, state: string, tokens: ReadonlyArray<number>, owner = "") => {
    const path = prefixes.create()
    writeFileSync(path, state)
    return prefixes.commit(path, owner, Uint32Array.from(tokens))
  }
  const namesOf = (fingerprint = "f1") => readdirSync(join(folder, fingerprint))
  return { folder, warnings, open, save, namesOf, [Symbol.dispose]: () => parent[Symbol.dispose]() }
}

describe("a prefix file", () => {
  it("is the same after it is read, and not readable after any change of its end", () => {
    const end = { fingerprint: "f", owner: "o", tokens: Uint32Array.of(1, 2, 4_000_000_000), stateBytes: 5, sum: 7 }
    const file = Buffer.concat([Buffer.from("state"), encodeEnd(end)])
    const read = (bytes: Buffer) =>
      decodeEnd(bytes.length, (position, length) => bytes.subarray(position, position + length))
    assert.deepStrictEqual(read(file), end)
    // The state and the tokens have a checksum of their own.
    const from = 5 + 3 * 4
    fc.assert(
      fc.property(fc.integer({ min: from, max: file.length - 1 }), fc.integer({ min: 1, max: 255 }), (at, by) => {
        const changed = Buffer.from(file)
        changed[at] = changed[at]! ^ by
        assert.isUndefined(read(changed))
      })
    )
    for (let length = 0; length < file.length; length++) assert.isUndefined(read(file.subarray(0, length)))
    for (let more = 1; more < 4; more++) assert.isUndefined(read(Buffer.concat([file, Buffer.alloc(more)])))
  })
})

describe("a folder of prefix files", () => {
  it("has files that only this user may read, and that other threads find", async () => {
    using test = setup()
    const [first, second] = [test.open(), test.open()]
    await test.save(first, "state", [1, 2, 3], "a")
    const [file] = second.files()
    assert.deepInclude(file, { owner: "a", tokens: Uint32Array.of(1, 2, 3), stateBytes: 5 })
    assert.isTrue(await second.isIntact(file!))
    if (process.platform !== "win32") {
      assert.strictEqual(statSync(file!.path).mode & 0o777, 0o600)
      assert.strictEqual(statSync(test.folder).mode & 0o777, 0o700)
    }
  })

  it("replaces a file by one that continues it, and keeps those of other owners", async () => {
    using test = setup()
    const prefixes = test.open()
    await test.save(prefixes, "x", [1, 2], "a")
    await test.save(prefixes, "x", [1, 2], "b")
    await test.save(prefixes, "x", [1, 2, 3], "a")
    const left = prefixes.files().map(({ owner, tokens }) => [owner, tokens.length])
    assert.sameDeepMembers(left, [["b", 2], ["a", 3]])
  })

  it("deletes damaged files and those of other configurations, with one line each", async () => {
    using test = setup()
    const prefixes = test.open()
    for (const state of ["one", "two", "three"]) await test.save(prefixes, state, [state.length, ...Buffer.from(state)])
    const [changed, cut, longer] = prefixes.files()
    const bytes = readFileSync(changed!.path)
    bytes[1] = bytes[1]! ^ 1
    writeFileSync(changed!.path, bytes)
    truncateSync(cut!.path, 20)
    appendFileSync(longer!.path, "more")
    // Its end was read before the change.
    assert.isFalse(await prefixes.isIntact(changed!))
    assert.isTrue(prefixes.files().every(({ name }) => name !== changed!.name))
    const again = test.open()
    assert.deepStrictEqual(again.files(), [])
    await test.save(test.open("f2"), "state", [1])
    const foreign = test.namesOf("f2")[0]!
    copyFileSync(join(test.folder, "f2", foreign), join(test.folder, "f1", foreign))
    assert.deepStrictEqual(again.files(), [])
    assert.deepStrictEqual(test.namesOf(), [])
    assert.lengthOf(test.namesOf("f2"), 1)
    assert.sameMembers(test.warnings.map((line) => line.slice(line.indexOf(" ") + 1)), [
      "is damaged and was deleted.",
      "is damaged and was deleted.",
      "is damaged and was deleted.",
      "was written by another configuration and was deleted."
    ])
  })

  it("ignores what a killed process was writing, and deletes it later", () => {
    using test = setup()
    test.open().create()
    assert.deepStrictEqual(test.open().files(), [])
    assert.lengthOf(test.namesOf(), 1)
    test.open("f1", () => Date.now() + 700_000)
    assert.deepStrictEqual(test.namesOf(), [])
    assert.deepStrictEqual(test.warnings, [])
  })

  it("deletes the least recently used files of all configurations above its budget, and expired ones", async () => {
    using test = setup({ maxBytes: 1_000, ttlMs: 1e6 })
    const [first, second] = [test.open("f1"), test.open("f2")]
    const ageAt = (path: string, seconds: number) => utimesSync(path, Date.now() / 1e3, Date.now() / 1e3 - seconds)
    await test.save(first, "x".repeat(100), [1])
    await test.save(first, "x".repeat(100), [2])
    const [used, unused] = first.files()
    ageAt(used!.path, 300)
    ageAt(unused!.path, 200)
    first.used(used!)
    await test.save(second, "x".repeat(90), [3])
    for (const token of [4, 5]) await test.save(second, "x".repeat(90), [token])
    assert.deepStrictEqual(first.files().map(({ name }) => name), [used!.name])
    assert.lengthOf(second.files(), 3)
    ageAt(used!.path, 2_000)
    test.open("f2")
    // The folder of a configuration without files is removed.
    assert.deepStrictEqual(readdirSync(test.folder), ["f2"])
    assert.deepStrictEqual(first.files(), [])
    assert.isFalse(await first.isIntact(used!))
    mkdirSync(join(test.folder, "f1"))
    assert.deepStrictEqual(test.warnings, [])
  })

  it("discards a file above a quarter of the budget", async () => {
    using test = setup({ maxBytes: 1_000 })
    const prefixes = test.open()
    assert.isAbove(await test.save(prefixes, "x".repeat(300), [1]), 250)
    assert.deepStrictEqual(test.namesOf(), [])
  })
})
