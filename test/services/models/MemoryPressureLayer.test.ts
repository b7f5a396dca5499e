import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Logger, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import { Memory } from "../../../src/services/models/Memory.ts"
import type { Level } from "../../../src/services/models/MemoryPressure.ts"
import { interval, Pressure, sheds } from "../../../src/services/models/MemoryPressure.ts"
import * as PressureLayer from "../../../src/services/models/MemoryPressureLayer.ts"
import { Models } from "../../../src/services/models/Models.ts"

/** A machine with 100 bytes, of which the test says how many are used. */
const stage = () => {
  const state = { used: 0 }
  const unloads: Array<number> = []
  const logs: Array<string> = []
  const layer = PressureLayer.layer.pipe(Layer.provideMerge(Layer.mergeAll(
    Layer.mock(Models)({
      unloadIdle: (idleFor) => Effect.sync(() => unloads.push(Duration.toMillis(idleFor)))
    }),
    Layer.succeed(Memory, {
      read: Effect.sync(() => ({ totalBytes: 100, availableBytes: 100 - state.used }))
    }),
    Logger.layer([Logger.make(({ message }) => {
      logs.push(String(message))
    })])
  )))
  const at = (used: number): Effect.Effect<Level, never, Pressure> =>
    Effect.gen(function*() {
      state.used = used
      yield* TestClock.adjust(interval)
      return yield* SubscriptionRef.get(yield* Pressure)
    })
  return { at, layer, logs, unloads }
}

describe("Pressure", () => {
  it.effect("follows the memory in use, with some inertia", () => {
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

  it.effect("sheds as long as the level lasts, and nothing at normal", () => {
    const { at, layer, unloads } = stage()
    const ms = (level: Level) => Duration.toMillis(sheds[level].unloadIdleFor!)
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

  it.effect("tells of a level once", () => {
    const { at, layer, logs } = stage()
    return Effect.gen(function*() {
      for (const used of [10, 99, 99, 99, 10]) yield* at(used)
      const told = logs.filter((line) => line.startsWith("Memory pressure is"))
      assert.deepStrictEqual(told.map((line) => line.split(" ")[3]), ["emergency:", "normal:"])
    }).pipe(Effect.provide(layer))
  })
})
