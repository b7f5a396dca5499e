import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import type { Token } from "node-llama-cpp"
import { describe, it } from "vitest"
import { makeInterlude, takeSlot } from "../../../src/workers/llama/LlamaSlots.ts"

const sharedOf = (tokens: ReadonlyArray<number>, prompt: ReadonlyArray<number>): number => {
  const different = prompt.findIndex((token, index) => token !== tokens[index])
  return different < 0 ? prompt.length : different
}

const slotOf = (name: string, tokens: ReadonlyArray<number>) => ({
  name,
  length: () => tokens.length,
  shared: (prompt: Array<Token>) => sharedOf(tokens, prompt)
})

const prompt = [1, 2, 3, 4, 5, 6] as Array<Token>

describe("takeSlot", () => {
  it("takes the slot that shares most with the prompt", () => {
    const free = [
      slotOf("empty", []),
      slotOf("some", [1, 2, 3, 9]),
      slotOf("most", [1, 2, 3, 4, 9]),
      slotOf("other", [7])
    ]
    assert.strictEqual(takeSlot(free, prompt)?.name, "most")
    assert.deepStrictEqual(free.map(({ name }) => name), ["empty", "some", "other"])
  })

  it("takes the one that was free for longest where several share as much, or none does", () => {
    assert.strictEqual(takeSlot([slotOf("old", [1, 2, 3]), slotOf("new", [1, 2, 3])], prompt)?.name, "old")
    assert.strictEqual(takeSlot([slotOf("old", [7]), slotOf("new", [8])], prompt)?.name, "old")
  })

  it("leaves a conversation alone that only begins like the prompt", () => {
    assert.strictEqual(takeSlot([slotOf("empty", []), slotOf("other", [1, 2, 7, 7, 7])], prompt)?.name, "empty")
  })

  it("goes on with a conversation that is short beside what was said now", () => {
    assert.strictEqual(takeSlot([slotOf("empty", []), slotOf("mine", [1, 2])], prompt)?.name, "mine")
  })

  it("takes a slot as long as there is one", () => {
    const slots = fc.array(fc.array(fc.integer({ min: 0, max: 3 })), { maxLength: 6 })
    fc.assert(fc.property(slots, fc.array(fc.integer({ min: 0, max: 3 })), (contents, tokens) => {
      const free = contents.map((content, index) => slotOf(String(index), content))
      const taken = contents.map(() => takeSlot(free, tokens as Array<Token>)?.name)
      assert.sameMembers(taken, contents.map((_, index) => String(index)))
      assert.isUndefined(takeSlot(free, tokens as Array<Token>))
    }))
  })
})

describe("makeInterlude", () => {
  it("holds others up as long as anyone works, and not longer when work fails", async () => {
    const interlude = makeInterlude()
    assert.isUndefined(interlude.pause())
    const first = Promise.withResolvers<void>()
    const second = Promise.withResolvers<void>()
    const works = [interlude.run(() => first.promise), interlude.run(() => second.promise)]
    let paused = true
    const pause = interlude.pause()?.then(() => {
      paused = false
    })
    first.resolve()
    await works[0]
    assert.isTrue(paused)
    second.reject(new Error("no luck"))
    await works[1]?.catch(() => {})
    await pause
    assert.isFalse(paused)
    assert.isUndefined(interlude.pause())
  })
})
