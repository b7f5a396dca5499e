import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { ByteBudget } from "../../../src/services/limits/ByteBudget.ts"

describe("ByteBudget", () => {
  it("is never passed, and is whole again once every hold has been released, once or more", () => {
    const step = fc.record({ hold: fc.nat(5), bytes: fc.option(fc.nat(60)) })
    fc.assert(fc.property(fc.array(step), fc.integer({ min: 1, max: 200 }), (steps, limit) => {
      const budget = new ByteBudget(limit)
      const holds = Array.from({ length: 6 }, () => budget.hold())
      const held = holds.map(() => 0)
      const gone = new Set<number>()
      for (const { bytes, hold } of steps) {
        if (bytes === null) {
          holds[hold]!.release()
          held[hold] = 0
          gone.add(hold)
        } else {
          const fits = !gone.has(hold) && bytes <= budget.left
          assert.strictEqual(holds[hold]!.take(bytes), fits)
          if (fits) held[hold]! += bytes
        }
        assert.strictEqual(budget.used, held.reduce((sum, one) => sum + one, 0))
        assert.isAtMost(budget.used, limit)
      }
      for (const hold of holds) hold.release()
      assert.strictEqual(budget.used, 0)
    }))
  })
})
