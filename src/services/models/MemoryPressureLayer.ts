/** Watches memory, and sheds what `services/models/MemoryPressure` says that the level sheds. */
import { Effect, Layer, Option, Schedule, SubscriptionRef } from "effect"
import { Memory } from "./Memory.ts"
import type { Level } from "./MemoryPressure.ts"
import { interval, levelOf, Pressure, sheds } from "./MemoryPressure.ts"
import { Models } from "./Models.ts"

const percent = (share: number): string => `${Math.round(share * 100)} %`

/** Told once a level, in the log: a warning upwards, and an error where the level raises an alert. */
const tell = (level: Level, before: Level, used: number) => {
  if (level === before) return Effect.void
  const words = `Memory pressure is ${level}: ${percent(used)} of the memory is in use.`
  const { alert } = sheds[level]
  if (alert !== undefined) return Effect.logError(words).pipe(Effect.annotateLogs({ alert }))
  return level === "normal" ? Effect.logInfo(words) : Effect.logWarning(words)
}

const shed = Effect.fnUntraced(function*(level: Level) {
  const models = yield* Models
  const { collectGarbage, unloadIdleFor } = sheds[level]
  if (unloadIdleFor !== undefined) {
    const unloaded = yield* models.unloadIdle(unloadIdleFor)
    if (unloaded > 0) yield* Effect.logWarning(`${unloaded} idle models were unloaded, since memory is short.`)
  }
  if (collectGarbage) yield* Effect.sync(() => globalThis.gc?.())
})

/** Reads memory every `interval`, for as long as the layer lives. */
export const layer = Layer.effect(
  Pressure,
  Effect.gen(function*() {
    const memory = yield* Memory
    const current = yield* SubscriptionRef.make<Level>("normal")
    const look = Effect.gen(function*() {
      const { availableBytes, totalBytes } = yield* memory.read
      const used = 1 - availableBytes / totalBytes
      const before = yield* SubscriptionRef.get(current)
      const level = levelOf(used, before)
      yield* SubscriptionRef.updateSome(current, () => level === before ? Option.none() : Option.some(level))
      yield* tell(level, before, used)
      yield* shed(level)
    })
    yield* Effect.forkScoped(Effect.repeat(look, Schedule.spaced(interval)))
    return current
  })
)
