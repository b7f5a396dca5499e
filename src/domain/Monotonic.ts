/**
 * Time for intervals: deadlines, circuits, idle timers, cooldowns, latencies.
 *
 * **Details**
 *
 * Milliseconds from an arbitrary origin, which a change of the system's date does not move. Compare and subtract them; a
 * date that is shown or stored comes from `Clock.currentTimeMillis`. Timers (`Effect.sleep`) are monotonic already.
 */
import { Clock, Effect } from "effect"

/** Whole ms now, by this clock. */
export const nowOf = (clock: Clock.Clock): number => Math.floor(Number(clock.monotonicTimeNanosUnsafe()) / 1e6)

/** Whole ms now. */
export const now: Effect.Effect<number> = Clock.clockWith((clock) => Effect.sync(() => nowOf(clock)))

/** The clock whose dates are monotonic too: for code that measures intervals by dates. */
export const clockOf = (clock: Clock.Clock): Clock.Clock => {
  const currentTimeMillisUnsafe = () => nowOf(clock)
  const currentTimeNanosUnsafe = () => clock.monotonicTimeNanosUnsafe()
  return {
    currentTimeMillisUnsafe,
    currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
    currentTimeNanosUnsafe,
    currentTimeNanos: Effect.sync(currentTimeNanosUnsafe),
    monotonicTimeNanosUnsafe: currentTimeNanosUnsafe,
    monotonicTimeNanos: Effect.sync(currentTimeNanosUnsafe),
    sleep: (duration) => clock.sleep(duration)
  }
}
