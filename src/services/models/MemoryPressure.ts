/**
 * Memory pressure: its levels, and what each sheds. All of the policy is this file.
 *
 * **Details**
 *
 * What counts is the machine's memory or the control group's, whichever is scarcer, not V8's heap. A level is entered
 * at its threshold and left a little below it, so that a reading which wavers does not.
 *
 * **Gotchas**
 *
 * Memory fit keeps loads within a budget. Pressure is for what no budget foresees: other processes, leaks, estimates
 * that were too low.
 */
import type { SubscriptionRef } from "effect"
import { Context, Duration } from "effect"

/** From none to worst. */
export const levels = ["normal", "warning", "critical", "emergency"] as const
export type Level = typeof levels[number]

/** The share of memory in use at which each level begins. */
export const thresholds: Readonly<Record<Level, number>> = { normal: 0, warning: 0.7, critical: 0.85, emergency: 0.95 }

/** So far below its threshold a level is left. */
export const hysteresis = 0.03

/** How often memory is read. */
export const interval = Duration.seconds(30)

/** What a level sheds. */
export interface Shedding {
  /** Models that nobody uses, not pinned, and idle for at least so long; undefined, none. */
  readonly unloadIdleFor: Duration.Duration | undefined
  /** Newcomers of low priority are refused with 429. */
  readonly refuseLowPriority: boolean
  readonly collectGarbage: boolean
  /** The name of the alert that is raised. */
  readonly alert: string | undefined
}

const nothing: Shedding = {
  unloadIdleFor: undefined,
  refuseLowPriority: false,
  collectGarbage: false,
  alert: undefined
}

/** What each level sheds, while it lasts. */
export const sheds: Readonly<Record<Level, Shedding>> = {
  normal: nothing,
  warning: { ...nothing, unloadIdleFor: Duration.minutes(1) },
  critical: { ...nothing, unloadIdleFor: Duration.seconds(10), refuseLowPriority: true, collectGarbage: true },
  emergency: {
    unloadIdleFor: Duration.zero,
    refuseLowPriority: true,
    collectGarbage: true,
    alert: "emergency_memory"
  }
}

/** The level that a share of memory in use means, coming from another. */
export const levelOf = (used: number, before: Level): Level => {
  const rank = levels.indexOf(before)
  // From above, a level ends below its threshold.
  const reached = levels.findLast((level, index) => used >= thresholds[level] - (index <= rank ? hysteresis : 0))
  return reached ?? "normal"
}

/** The level now, and as it changes. */
export class Pressure extends Context.Service<Pressure, SubscriptionRef.SubscriptionRef<Level>>()(
  "troupe/services/models/MemoryPressure"
) {}
