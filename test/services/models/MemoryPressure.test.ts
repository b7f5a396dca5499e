import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Logger, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { memoryPressure } from "../../../src/domain/Defaults.ts"
import { Memory } from "../../../src/services/models/Memory.ts"
import type { Level } from "../../../src/services/models/MemoryPressure.ts"
import { levelOf, levels, Pressure, shedsAt, thresholdsOf } from "../../../src/services/models/MemoryPressure.ts"
import * as MemoryPressure from "../../../src/services/models/MemoryPressure.ts"
import { Models } from "../../../src/services/models/Models.ts"

const { every: interval, hysteresis } = memoryPressure
const thresholds = thresholdsOf(memoryPressure)
const shedsOf = (level: Level) => shedsAt(level, memoryPressure)

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

  it("does not change at a repeated reading, nor at a slightly lower one", () => {
    fc.assert(
      fc.property(share, level, fc.double({ min: 0, max: hysteresis * 0.99, noNaN: true }), (used, before, less) => {
        const now = levelOf(used, before)
        assert.strictEqual(levelOf(used, now), now)
        const entered = Math.max(used, thresholds[now])
        assert.isAtLeast(levels.indexOf(levelOf(entered - less, now)), levels.indexOf(now))
      })
    )
  })

  it("unloads more at each level", () => {
    const idleOf = (one: Level) => {
      const { unloadIdleFor } = shedsOf(one)
      return unloadIdleFor === undefined ? Number.POSITIVE_INFINITY : Duration.toMillis(unloadIdleFor)
    }
    for (const [index, worse] of levels.entries()) {
      const better = levels[Math.max(0, index - 1)]!
      assert.isAtMost(idleOf(worse), idleOf(better))
      assert.isAtLeast(Number(shedsOf(worse).refuseLowPriority), Number(shedsOf(better).refuseLowPriority))
      assert.isAtLeast(Number(shedsOf(worse).collectGarbage), Number(shedsOf(better).collectGarbage))
    }
    assert.deepStrictEqual(levels.filter((one) => shedsOf(one).alert !== undefined), ["emergency"])
    assert.strictEqual(shedsOf("emergency").alert, "emergency_memory")
  })
})

/** A machine with 100 bytes of memory; the test sets how many are used. */
const stage = () => {
  const state = { used: 0 }
  const unloads: Array<number> = []
  const logs: Array<string> = []
  const layer = MemoryPressure.layer.pipe(Layer.provideMerge(Layer.mergeAll(
    Layer.mock(Models)({
      drained: new Map(),
      tryLease: () => undefined,
      renew: () => {},
      snapshot: () => ({ queued: 0, state: "ready" }),
      unloadIdle: (idleFor) => Effect.sync(() => unloads.push(Duration.toMillis(idleFor)))
    }),
    Layer.succeed(Memory, {
      read: Effect.sync(() => ({ totalBytes: 100, availableBytes: 100 - state.used }))
    }),
    Logger.layer([Logger.make(({ message }) => {
      logs.push(String(message))
    })])
  )))
  const at = (used: number, after = interval): Effect.Effect<Level, never, Pressure> =>
    Effect.gen(function*() {
      state.used = used
      yield* TestClock.adjust(after)
      return yield* SubscriptionRef.get(yield* Pressure)
    })
  return { at, layer, logs, unloads }
}

describe("The pressure layer", () => {
  it.effect("follows the memory in use, with hysteresis", () => {
    const { at, layer } = stage()
    return Effect.gen(function*() {
      const levels: Array<Level> = []
      for (const used of [10, 69, 70, 69, 85, 83, 96, 93, 91, 50]) levels.push(yield* at(used))
      assert.deepStrictEqual(levels, [
        "normal",
        "normal",
        "warning",
        "warning",
        "critical",
        "critical",
        "emergency",
        "emergency",
        "critical",
        "normal"
      ])
    }).pipe(Effect.provide(layer))
  })

  it.effect("has the levels, the interval and the idle times of its options", () => {
    const { at, layer, unloads } = stage()
    const options = {
      ...memoryPressure,
      every: Duration.seconds(10),
      warning: 0.1,
      critical: 0.2,
      hysteresis: 0.05,
      warningIdle: Duration.hours(1)
    }
    return Effect.gen(function*() {
      assert.strictEqual(yield* at(12, options.every), "warning")
      assert.strictEqual(yield* at(6, options.every), "warning")
      assert.strictEqual(yield* at(4, options.every), "normal")
      assert.strictEqual(yield* at(21, options.every), "critical")
      assert.deepStrictEqual([...new Set(unloads)], [3_600_000, 10_000])
    }).pipe(Effect.provide(layer), Effect.provideService(MemoryPressure.PressureOptions, options))
  })

  it.effect("unloads models as long as the level lasts, and nothing at normal", () => {
    const { at, layer, unloads } = stage()
    const ms = (level: Level) => Duration.toMillis(shedsOf(level).unloadIdleFor!)
    return Effect.gen(function*() {
      yield* at(10)
      assert.deepStrictEqual(unloads, [])
      yield* at(75)
      yield* at(90)
      yield* at(99)
      yield* at(99)
      assert.deepStrictEqual(unloads, [ms("warning"), ms("critical"), ms("emergency"), ms("emergency")])
    }).pipe(Effect.provide(layer))
  })

  it.effect("logs a level once", () => {
    const { at, layer, logs } = stage()
    return Effect.gen(function*() {
      for (const used of [10, 99, 99, 99, 10]) yield* at(used)
      const logged = logs.filter((line) => line.startsWith("Memory pressure is"))
      assert.deepStrictEqual(logged.map((line) => line.split(" ")[3]), ["emergency:", "normal:"])
    }).pipe(Effect.provide(layer))
  })
})
