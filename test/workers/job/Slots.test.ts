import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import { takeOwnedSlot, takeSlot } from "../../../src/workers/job/Slots.ts"

const sharedOf = (tokens: ReadonlyArray<number>, prompt: ReadonlyArray<number>): number => {
  const different = prompt.findIndex((token, index) => token !== tokens[index])
  return different < 0 ? prompt.length : different
}

const slotOf = (name: string, tokens: ReadonlyArray<number>) => ({ name, tokens })

type Slot = ReturnType<typeof slotOf>

const take = (free: Array<Slot>, prompt: ReadonlyArray<number>): string | undefined =>
  takeSlot(free, prompt.length, ({ tokens }) => ({ length: tokens.length, shared: sharedOf(tokens, prompt) }))?.name

const prompt = [1, 2, 3, 4, 5, 6]

describe("takeSlot", () => {
  it("takes the slot that shares most with the prompt", () => {
    const free = [
      slotOf("empty", []),
      slotOf("some", [1, 2, 3, 9]),
      slotOf("most", [1, 2, 3, 4, 9]),
      slotOf("other", [7])
    ]
    assert.strictEqual(take(free, prompt), "most")
    assert.deepStrictEqual(free.map(({ name }) => name), ["empty", "some", "other"])
  })

  it("takes the slot that was free for longest if several share as much, or none does", () => {
    assert.strictEqual(take([slotOf("old", [1, 2, 3]), slotOf("new", [1, 2, 3])], prompt), "old")
    assert.strictEqual(take([slotOf("old", [7]), slotOf("new", [8])], prompt), "old")
  })

  it("keeps a conversation that only begins like the prompt", () => {
    assert.strictEqual(take([slotOf("empty", []), slotOf("other", [1, 2, 7, 7, 7])], prompt), "empty")
  })

  it("continues a conversation that is short compared with the prompt", () => {
    assert.strictEqual(take([slotOf("empty", []), slotOf("mine", [1, 2])], prompt), "mine")
  })

  it("takes a slot while one is free", () => {
    const slots = fc.array(fc.array(fc.integer({ min: 0, max: 3 })), { maxLength: 6 })
    fc.assert(fc.property(slots, fc.array(fc.integer({ min: 0, max: 3 })), (contents, tokens) => {
      const free = contents.map((content, index) => slotOf(String(index), content))
      const taken = contents.map(() => take(free, tokens))
      assert.sameMembers(taken, contents.map((_, index) => String(index)))
      assert.isUndefined(take(free, tokens))
    }))
  })

  it("keeps conversations that share only a short system prompt", () => {
    const system = [1, 2, 3]
    const talks = [4, 5, 6].map((talk) => [...system, ...Array.from({ length: 8 }, () => talk)])
    const free = ["empty", "empty", "empty"].map((name) => slotOf(name, []))
    const seen = talks.map((talk, index) => {
      const name = take(free, talk)
      free.push(slotOf(`talk ${index}`, talk))
      return name
    })
    assert.deepStrictEqual(seen, ["empty", "empty", "empty"])
    for (const [index, talk] of talks.entries()) assert.strictEqual(take(free, [...talk, 9]), `talk ${index}`)
  })
})

describe("takeOwnedSlot", () => {
  it("reuses a slot's computation for its owner only", () => {
    const owners = fc.constantFrom("", "a", "b", "c")
    const prompts = fc.array(fc.nat({ max: 2 }), { minLength: 1, maxLength: 6 })
    fc.assert(fc.property(fc.array(fc.tuple(owners, prompts)), (jobs) => {
      const free = ["first", "second"].map((name) => ({ owner: "", name, tokens: [] as ReadonlyArray<number> }))
      const computed = new Map<string, ReadonlyArray<ReadonlyArray<number>>>()
      for (const [owner, prompt] of jobs) {
        const slot = takeOwnedSlot(
          free,
          prompt.length,
          owner,
          ({ tokens }) => ({ length: tokens.length, shared: sharedOf(tokens, prompt) }),
          (one) => {
            one.tokens = []
          }
        )!
        const own = computed.get(owner) ?? []
        assert.isTrue(slot.tokens.length === 0 || own.some((one) => one === slot.tokens))
        assert.strictEqual(slot.owner, owner)
        slot.tokens = prompt
        computed.set(owner, [...own, prompt])
        free.push(slot)
      }
    }))
  })

  it("prefers an empty slot to another owner's slot", () => {
    const free = [{ owner: "", tokens: [] }, { owner: "a", tokens: [1, 2, 3] }]
    const slot = takeOwnedSlot(
      free,
      3,
      "b",
      ({ tokens }) => ({ length: tokens.length, shared: tokens.length }),
      () => {}
    )
    assert.deepStrictEqual(slot, { owner: "b", tokens: [] })
  })
})
