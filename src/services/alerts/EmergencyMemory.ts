/**
 * The action `emergency_memory` of alerts: frees what the service can free. Models that are not pinned and have no request are
 * unloaded, cached answers are cleared from memory, and garbage is collected.
 *
 * **Details**
 *
 * It runs while an alert with this action fires, at each evaluation, so that models that become unused later are unloaded too. What
 * was freed is logged and published, unless it was nothing.
 */
import { Duration, Effect, SubscriptionRef } from "effect"
import { bytesText } from "../../domain/Fields.ts"
import { ResponseCache } from "../cache/ResponseCache.ts"
import { Memory } from "../models/Memory.ts"
import { GarbageCollector, Pressure, sheds } from "../models/MemoryPressure.ts"
import { Models } from "../models/Models.ts"
import { OperatorEvents } from "../observability/OperatorEvents.ts"

/** What was freed. */
export interface Freed {
  readonly models: number
  /** Answers and questions in memory. */
  readonly cached: number
  /** By how much the available memory has grown; 0 if others took more meanwhile. */
  readonly bytes: number
}

const plural = (count: number, one: string): string => `${count} ${one}${count === 1 ? "" : "s"}`

const textOf = ({ bytes, cached, models }: Freed): string =>
  `Emergency: unloaded ${plural(models, "model")} and cleared ${plural(cached, "cached answer")}; ${
    bytes > 0 ? `${bytesText(bytes)} more` : "no more"
  } memory is available.`

/** Frees memory. */
export const make = Effect.gen(function*() {
  const models = yield* Models
  const cache = yield* ResponseCache
  const memory = yield* Memory
  const pressure = yield* Pressure
  const collect = yield* GarbageCollector
  const events = yield* OperatorEvents

  const clearCaches = Effect.gen(function*() {
    const { compact, memory, semantic } = cache.contents()
    const level = yield* SubscriptionRef.get(pressure)
    cache.turnMemoryOff(true)
    // The pressure of memory may keep it off for longer.
    cache.turnMemoryOff(sheds[level].clearCaches)
    return memory.entries + compact.entries + semantic.entries
  })

  const free = Effect.gen(function*() {
    const before = yield* memory.read
    const unloaded = yield* models.unloadIdle(Duration.zero)
    const cached = yield* clearCaches
    yield* Effect.sync(collect)
    const after = yield* memory.read
    return { models: unloaded, cached, bytes: Math.max(0, after.availableBytes - before.availableBytes) }
  })

  return Effect.tap(free, (freed) => {
    if (freed.models + freed.cached === 0) return Effect.void
    const message = textOf(freed)
    events.publish({ kind: "memory", severity: "critical", message, details: { ...freed } })
    return Effect.annotateLogs(Effect.logWarning(message), { event: "emergency_memory", ...freed })
  })
})
