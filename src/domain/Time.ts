/**
 * Monotonic time for intervals (deadlines, circuits, idle timers, cooldowns, latencies), and durations as text.
 *
 * **Details**
 *
 * Monotonic milliseconds count from an arbitrary origin, which a change of the system's date does not move. Compare and
 * subtract them; a date that is shown or stored comes from `Clock.currentTimeMillis`. Timers (`Effect.sleep`) are
 * monotonic already.
 */
import { Clock, Effect } from "effect"

/** Monotonic ms now with their fractions, by this clock: for what takes less than one. */
export const preciseOf = (clock: Clock.Clock): number => Number(clock.monotonicTimeNanosUnsafe()) / 1e6

/** Whole monotonic ms now, by this clock. */
export const nowOf = (clock: Clock.Clock): number => Math.floor(preciseOf(clock))

/** Whole monotonic ms now. */
export const now: Effect.Effect<number> = Clock.clockWith((clock) => Effect.sync(() => nowOf(clock)))

/** A clock whose dates are monotonic too, for code that measures intervals by dates. */
export const monotonicClock = (clock: Clock.Clock): Clock.Clock => {
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

/** A complete text that is a duration as Go, Ollama and llama-swap write it: `1h30m`, `500ms`, `-1s`, `0`. */
export const goDuration = /^[-+]?(?:0|(?:(?:\d+(?:\.\d*)?|\.\d+)(?:ns|us|µs|ms|s|m|h))+)$/

const unitMs: Readonly<Record<string, number>> = {
  ns: 1e-6,
  us: 1e-3,
  "µs": 1e-3,
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000
}

/** ms of a text that matches `goDuration`. */
export const goDurationMs = (text: string): number => {
  const ms = [...text.matchAll(/([\d.]+)(ns|us|µs|ms|s|m|h)/g)].reduce(
    (sum, [, number, unit]) => sum + Number(number) * unitMs[unit!]!,
    0
  )
  return text.startsWith("-") ? -ms : ms
}
