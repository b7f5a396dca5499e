import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import { chooseSlot } from "../../../src/workers/llama/LlamaSlotChoice.ts"

const empty = (number: number) => ({ number, length: 0 })
const used = (number: number) => ({ number, length: 9 })

const chosen = (free: ReadonlyArray<{ readonly number: number; readonly length: number }>, slots: number) =>
  free[chooseSlot(free, slots)]!.number

describe("chooseSlot", () => {
  it("prefers a slot without a computation, the lowest first", () => {
    assert.strictEqual(chosen([used(0), empty(3), empty(2)], 8), 2)
    assert.strictEqual(chosen([empty(3), empty(0), empty(1), empty(2)], 4), 0)
  })

  it("takes the slot that was free for longest while no other is in use", () => {
    assert.strictEqual(chosen([used(2), used(1), used(0), used(3)], 4), 2)
  })

  it("fills gaps between the slots in use, and keeps the half of the computations used last", () => {
    // In use: 0, 2, 5.
    assert.strictEqual(chosen([used(7), used(1), used(3), used(4), used(6)], 8), 1)
    assert.strictEqual(chosen([used(7), used(6), used(4), used(3), used(1)], 8), 4)
    assert.strictEqual(chosen([used(4), used(7), used(1), used(3), used(6)], 8), 1)
  })

  it("takes a slot while one is free, and uses the lowest ones if all are empty", () => {
    fc.assert(fc.property(fc.array(fc.nat({ max: 40 }), { maxLength: 40 }), (ends) => {
      const slots = 8
      let free = Array.from({ length: slots }, (_, number) => ({ number, length: 0 }))
      const running: Array<{ readonly number: number; readonly length: number }> = []
      for (const end of ends) {
        if (running.length > end % 6) free = [...free, running.splice(end % running.length, 1)[0]!]
        const [slot] = free.splice(chooseSlot(free, slots), 1)
        running.push(slot!)
        if (free.length === 0) free = [...free, running.shift()!]
        assert.strictEqual(free.length + running.length, slots)
      }
      const numbers = running.map(({ number }) => number).toSorted((one, other) => one - other)
      assert.isAtMost(numbers.at(-1) ?? 0, 6)
    }))
  })
})
