import { assert } from "@effect/vitest"
import type { Token } from "node-llama-cpp"
import { rmSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import { describe, it } from "vitest"
import { makePrefixes } from "../../../src/workers/llama/LlamaPrefixes.ts"
import type { Slot } from "../../../src/workers/llama/LlamaSlots.ts"
import { PrefixFolder } from "../../../src/workers/model/PrefixFolder.ts"
import { temporaryFolder, until } from "../../support/Service.ts"

const tokensFrom = (first: number, length = 128): Array<Token> =>
  Array.from({ length }, (_, index) => first + index) as Array<Token>

/** A slot whose state is a text, and that runs jobs at once. */
const makeSlot = (bytes = 100) => {
  let tokens: ReadonlyArray<Token> = []
  let jobs = 0
  const log: Array<string> = []
  let written = Promise.resolve()
  const slot: Partial<Slot> = {
    owner: "",
    jobs: () => jobs,
    reusable: () => tokens,
    cachedOf: () => ({ length: tokens.length, shared: 0 }),
    async save(path) {
      await written
      log.push("saved")
      writeFileSync(path, "x".repeat(bytes))
    },
    async restore() {
      log.push("restored")
    }
  }
  return {
    slot: slot as Slot,
    log,
    run: (prompt: ReadonlyArray<Token>) => {
      jobs++
      tokens = prompt
    },
    writeAfter: (promise: Promise<void>) => {
      written = promise
    }
  }
}

const setup = (slots: ReadonlyArray<ReturnType<typeof makeSlot>>, { idleMs = 60_000, maxBytes = 1e6 } = {}) => {
  const parent = temporaryFolder()
  const warnings: Array<string> = []
  const warn = (message: string) => void warnings.push(message)
  const limits = { folder: join(parent.path, "prefixes"), maxBytes, idleMs }
  const folder = new PrefixFolder(limits, "f", warn)
  const prefixes = makePrefixes({
    folder,
    limits,
    costs: { tokenMs: 1, granularity: 64 },
    free: slots.map(({ slot }) => slot),
    warn
  })
  return { parent, warnings, folder, prefixes, limits, [Symbol.dispose]: () => parent[Symbol.dispose]() }
}

describe("prefixes", () => {
  it("are saved when the engine unloads, once for each change of a slot, and not for slots without jobs", async () => {
    const [used, unused] = [makeSlot(), makeSlot()]
    using test = setup([used, unused])
    used.run(tokensFrom(0))
    await test.prefixes.close()
    await test.prefixes.close()
    assert.deepStrictEqual([used.log, unused.log], [["saved"], []])
    // Its tokens are in the file.
    used.run(tokensFrom(0, 64))
    await test.prefixes.close()
    assert.deepStrictEqual(used.log, ["saved"])
    used.run(tokensFrom(1_000))
    await test.prefixes.close()
    assert.deepStrictEqual(used.log, ["saved", "saved"])
    assert.lengthOf(test.folder.files(), 2)
  })

  it("are saved when the engine is idle, and not while a job runs; a job waits for the slot that is being written", async () => {
    const [first, last] = [makeSlot(), makeSlot()]
    using test = setup([first, last], { idleMs: 0 })
    const writes = Promise.withResolvers<void>()
    const { promise: begins, resolve: begin } = Promise.withResolvers<void>()
    last.writeAfter(writes.promise)
    const { save } = last.slot
    Object.assign(last.slot, {
      save: (path: string) => {
        begin()
        return save(path)
      }
    })
    test.prefixes.begun()
    first.run(tokensFrom(0))
    last.run(tokensFrom(1_000))
    test.prefixes.ended()
    await begins
    test.prefixes.begun()
    let isReady = false
    const ready = test.prefixes.ready().then(() => {
      isReady = true
    })
    await Promise.resolve()
    assert.isFalse(isReady)
    writes.resolve()
    await ready
    await until(() => test.folder.files().length === 1 || undefined)
    assert.deepStrictEqual([first.log, last.log], [[], ["saved"]])
    test.prefixes.ended()
    await until(() => test.folder.files().length === 2 || undefined)
    assert.deepStrictEqual(first.log, ["saved"])
    await test.prefixes.close()
  })

  it("are not saved any more after a failure, which is one line", async () => {
    const slots = [makeSlot(), makeSlot()]
    using test = setup(slots)
    rmSync(test.limits.folder, { recursive: true })
    writeFileSync(test.limits.folder, "")
    for (const [index, slot] of slots.entries()) slot.run(tokensFrom(1_000 * index))
    await test.prefixes.close()
    await test.prefixes.restore(slots[0]!.slot, tokensFrom(0))
    assert.lengthOf(test.warnings.filter((line) => line.startsWith("Computed prompts are not kept: ")), 1)
  })

  it("are not written again where one was too large", async () => {
    const slot = makeSlot(10_000)
    using test = setup([slot], { maxBytes: 20_000 })
    for (const first of [0, 1_000]) {
      slot.run(tokensFrom(first))
      await test.prefixes.close()
    }
    assert.deepStrictEqual(slot.log, ["saved"])
    assert.deepStrictEqual(test.folder.files(), [])
  })

  it("are restored for a prompt that shares enough of them", async () => {
    const slot = makeSlot()
    using test = setup([slot])
    slot.run(tokensFrom(0))
    await test.prefixes.close()
    const other = makeSlot()
    await test.prefixes.restore(other.slot, [...tokensFrom(0), ...tokensFrom(500)])
    assert.deepStrictEqual(other.log, ["restored"])
    await test.prefixes.restore(other.slot, [...tokensFrom(0, 60), ...tokensFrom(500)])
    await test.prefixes.restore(other.slot, tokensFrom(0, 64))
    assert.deepStrictEqual(other.log, ["restored"])
  })
})
