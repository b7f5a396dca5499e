/**
 * Memory pressure: its levels, what each level sheds, and the layer that reads memory and sheds.
 *
 * **Details**
 *
 * The share in use is that of the machine or of the control group, whichever has less available; V8's heap does not
 * count. A level begins at its threshold and ends `hysteresis` below it, so that a reading near the threshold does not
 * switch the level at every sample.
 *
 * **Gotchas**
 *
 * `EvictionPlan` keeps loads within a budget. Pressure handles memory that no budget includes: of other processes,
 * leaks, estimates that were too low.
 */
import { Context, Duration, Effect, Layer, Option, Schedule, SubscriptionRef } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { Settings } from "../settings/Settings.ts"
import { Memory } from "./Memory.ts"
import { Models } from "./Models.ts"

/** From lowest to highest. */
export const levels = ["normal", "warning", "critical", "emergency"] as const

/** A level of memory pressure, by the share of memory in use. */
export type Level = typeof levels[number]

/** When each level begins, and what it unloads. */
export type Options = typeof Defaults.memoryPressure

/** The options of the application. */
export const PressureOptions = Context.Reference<Options>("troupe/services/models/MemoryPressure/PressureOptions", {
  defaultValue: () => Defaults.memoryPressure
})

/** The options of the settings. */
export const layerOptions = Layer.effect(PressureOptions, Effect.map(Settings, ({ memory }) => memory.pressure))

/** The share of memory in use at which each level begins. */
export const thresholdsOf = ({ critical, emergency, warning }: Options): Readonly<Record<Level, number>> => ({
  normal: 0,
  warning,
  critical,
  emergency
})

/** What a level sheds. */
export interface Shedding {
  /** Unload models that are unused, not pinned, and idle for at least this long; undefined unloads none. */
  readonly unloadIdleFor: Duration.Duration | undefined
  /** Refuse new requests of low priority with 429. */
  readonly refuseLowPriority: boolean
  /** Clear the cached answers in memory, and keep none there. */
  readonly clearCaches: boolean
  readonly collectGarbage: boolean
  /** The name of the alert to raise; undefined raises none. */
  readonly alert: string | undefined
}

const nothing = {
  refuseLowPriority: false,
  clearCaches: false,
  collectGarbage: false,
  alert: undefined
}

/** What each level sheds while it lasts, besides idle models. */
export const sheds: Readonly<Record<Level, Omit<Shedding, "unloadIdleFor">>> = {
  normal: nothing,
  warning: nothing,
  critical: { ...nothing, refuseLowPriority: true, collectGarbage: true },
  emergency: {
    refuseLowPriority: true,
    clearCaches: true,
    collectGarbage: true,
    alert: "emergency_memory"
  }
}

/** What a level sheds while it lasts. */
export const shedsAt = (level: Level, { criticalIdle, warningIdle }: Options): Shedding => ({
  ...sheds[level],
  unloadIdleFor: { normal: undefined, warning: warningIdle, critical: criticalIdle, emergency: Duration.zero }[level]
})

/** The level for a share of memory in use, given the level before. */
export const levelOf = (used: number, before: Level, options = Defaults.memoryPressure): Level => {
  const rank = levels.indexOf(before)
  const thresholds = thresholdsOf(options)
  const { hysteresis } = options
  const reached = levels.findLast((level, index) => used >= thresholds[level] - (index <= rank ? hysteresis : 0))
  return reached ?? "normal"
}

/** Collects the garbage of this process; default: where Node.js exposes it. */
export const GarbageCollector = Context.Reference<() => void>(
  "troupe/services/models/MemoryPressure/GarbageCollector",
  {
    defaultValue: () => () => globalThis.gc?.()
  }
)

/** The current level, and its changes. */
export class Pressure extends Context.Service<Pressure, SubscriptionRef.SubscriptionRef<Level>>()(
  "troupe/services/models/MemoryPressure"
) {}

const percent = (share: number): string => `${Math.round(share * 100)} %`

/** Logs a change of level: at level error if it raises an alert, as a warning if it sheds, else as information. */
const logChange = (level: Level, before: Level, used: number) => {
  if (level === before) return Effect.void
  const message = `Memory pressure is ${level}: ${percent(used)} of the memory is in use.`
  const { alert } = sheds[level]
  if (alert !== undefined) return Effect.logError(message).pipe(Effect.annotateLogs({ alert }))
  return level === "normal" ? Effect.logInfo(message) : Effect.logWarning(message)
}

const shed = Effect.fnUntraced(function*(level: Level, options: Options) {
  const models = yield* Models
  const { collectGarbage, unloadIdleFor } = shedsAt(level, options)
  if (unloadIdleFor !== undefined) {
    const unloaded = yield* models.unloadIdle(unloadIdleFor)
    if (unloaded > 0) yield* Effect.logWarning(`Unloaded ${unloaded} idle models because of memory pressure.`)
  }
  if (collectGarbage) yield* Effect.flatMap(GarbageCollector, (collect) => Effect.sync(collect))
})

/** Reads memory every `Options.every` until the scope ends. */
export const layer = Layer.effect(
  Pressure,
  Effect.gen(function*() {
    const memory = yield* Memory
    const options = yield* PressureOptions
    const current = yield* SubscriptionRef.make<Level>("normal")
    const sample = Effect.gen(function*() {
      const { availableBytes, totalBytes } = yield* memory.read
      const used = 1 - availableBytes / totalBytes
      const before = yield* SubscriptionRef.get(current)
      const level = levelOf(used, before, options)
      yield* SubscriptionRef.updateSome(current, () => level === before ? Option.none() : Option.some(level))
      yield* logChange(level, before, used)
      yield* shed(level, options)
    })
    yield* Effect.forkScoped(Effect.repeat(sample, Schedule.spaced(options.every)))
    return current
  })
)
