/** Counts the timers that a test leaves running. */
import { Effect } from "effect"

/** Test tools have their own timers, which are short. */
const leastMs = 1000

/** The number of timers of at least a second that were started since, and have neither fired nor been cleared. */
export const pendingTimers = Effect.acquireRelease(
  Effect.sync(() => {
    const { clearTimeout: clear, setTimeout: set } = globalThis
    const pending = new Set<unknown>()
    const counting = (run: (...given: Array<unknown>) => void, ms?: number, ...given: Array<unknown>) => {
      const timer = set(() => {
        pending.delete(timer)
        run(...given)
      }, ms)
      if ((ms ?? 0) >= leastMs) pending.add(timer)
      return timer
    }
    globalThis.setTimeout = counting as typeof setTimeout
    globalThis.clearTimeout = (timer) => {
      pending.delete(timer)
      clear(timer)
    }
    return { count: () => pending.size, clear, set }
  }),
  ({ clear, set }) =>
    Effect.sync(() => {
      globalThis.setTimeout = set
      globalThis.clearTimeout = clear
    })
).pipe(Effect.map(({ count }) => count))
