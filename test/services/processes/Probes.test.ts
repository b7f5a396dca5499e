import { assert } from "@effect/vitest"
import fc from "fast-check"
import { describe, it } from "vitest"
import { Probes } from "../../../src/services/processes/Probes.ts"

describe("Probes", () => {
  it("never grants more than `most`, and counts what each process holds until its end", () => {
    const step = fc.record({
      kind: fc.constantFrom("take", "take", "release", "leave"),
      process: fc.integer({ min: 1, max: 3 }),
      most: fc.integer({ min: 1, max: 4 })
    })
    fc.assert(fc.property(fc.array(step, { maxLength: 100 }), (steps) => {
      const probes = new Probes()
      const held = new Map<number, number>()
      const sum = () => Array.from(held.values()).reduce((all, one) => all + one, 0)
      for (const { kind, most, process } of steps) {
        const own = held.get(process) ?? 0
        if (kind === "take") {
          const isGranted = probes.take(process, most)
          assert.strictEqual(isGranted, sum() < most)
          if (isGranted) held.set(process, own + 1)
        } else if (kind === "release") {
          probes.release(process)
          held.set(process, Math.max(0, own - 1))
        } else {
          probes.leave(process)
          held.delete(process)
        }
        assert.strictEqual(probes.held, sum())
      }
    }))
  })
})
