import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as fc from "fast-check"
import type { Level } from "../../../src/services/models/MemoryPressure.ts"
import { hysteresis, levelOf, levels, sheds, thresholds } from "../../../src/services/models/MemoryPressure.ts"

describe("Pressure", () => {
  const boundaries: ReadonlyArray<readonly [used: number, level: Level]> = [
    [0, "normal"],
    [0.6999, "normal"],
    [0.7, "warning"],
    [0.8499, "warning"],
    [0.85, "critical"],
    [0.9499, "critical"],
    [0.95, "emergency"],
    [1, "emergency"]
  ]
  for (const [used, level] of boundaries) {
    it(`is ${level} when ${used} of the memory is in use`, () => {
      assert.strictEqual(levelOf(used, "normal"), level)
    })
  }

  const leaving: ReadonlyArray<readonly [before: Level, used: number, level: Level]> = [
    ["warning", 0.671, "warning"],
    ["warning", 0.669, "normal"],
    ["critical", 0.821, "critical"],
    ["critical", 0.819, "warning"],
    ["emergency", 0.921, "emergency"],
    ["emergency", 0.919, "critical"],
    ["emergency", 0.5, "normal"]
  ]
  for (const [before, used, level] of leaving) {
    it(`goes from ${before} to ${level} at ${used}`, () => {
      assert.strictEqual(levelOf(used, before), level)
    })
  }

  const share = fc.double({ min: 0, max: 1.2, noNaN: true })
  const level = fc.constantFrom(...levels)

  it("is the highest that applies, whatever was before", () => {
    fc.assert(fc.property(share, level, (used, before) => {
      const now = levelOf(used, before)
      for (const other of levels) {
        if (used >= thresholds[other]) assert.isAtLeast(levels.indexOf(now), levels.indexOf(other))
      }
      assert.isAtLeast(used, thresholds[now] - hysteresis - 1e-9)
    }))
  })

  it("does not waver: a reading told again changes nothing, nor does one a little lower", () => {
    fc.assert(
      fc.property(share, level, fc.double({ min: 0, max: hysteresis * 0.99, noNaN: true }), (used, before, less) => {
        const now = levelOf(used, before)
        assert.strictEqual(levelOf(used, now), now)
        const entered = Math.max(used, thresholds[now])
        assert.isAtLeast(levels.indexOf(levelOf(entered - less, now)), levels.indexOf(now))
      })
    )
  })

  it("sheds more at each level", () => {
    const idleOf = (one: Level) => {
      const { unloadIdleFor } = sheds[one]
      return unloadIdleFor === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(unloadIdleFor)
    }
    for (const [index, worse] of levels.entries()) {
      const better = levels[Math.max(0, index - 1)]!
      assert.isAtMost(idleOf(worse), idleOf(better))
      assert.isAtLeast(Number(sheds[worse].refuseLowPriority), Number(sheds[better].refuseLowPriority))
      assert.isAtLeast(Number(sheds[worse].collectGarbage), Number(sheds[better].collectGarbage))
    }
    assert.deepStrictEqual(levels.filter((one) => sheds[one].alert !== undefined), ["emergency"])
    assert.strictEqual(sheds.emergency.alert, "emergency_memory")
  })
})
