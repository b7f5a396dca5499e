/** The test's clock, whose date a test sets forward or back as an administrator or NTP does. */
import { Clock, Effect } from "effect"

export interface Jumping {
  /** Changes the date by so many ms; the monotonic time stays. */
  readonly jump: (ms: number) => void
  readonly clock: Clock.Clock
}

/** `TestClock.adjust` moves the date and the monotonic time of it. */
export const make: Effect.Effect<Jumping> = Effect.map(Clock.Clock, (base) => {
  let offsetMs = 0
  const currentTimeMillisUnsafe = () => base.currentTimeMillisUnsafe() + offsetMs
  const currentTimeNanosUnsafe = () => base.currentTimeNanosUnsafe() + BigInt(offsetMs) * 1_000_000n
  // What `TestClock` has beside a clock stays reachable.
  const clock: Clock.Clock = Object.assign(Object.create(base), {
    currentTimeMillisUnsafe,
    currentTimeMillis: Effect.sync(currentTimeMillisUnsafe),
    currentTimeNanosUnsafe,
    currentTimeNanos: Effect.sync(currentTimeNanosUnsafe)
  })
  return {
    clock,
    jump: (ms) => {
      offsetMs += ms
    }
  }
})

/** Runs with such a clock. */
export const withJumps = <A, E, R>(use: (jump: Jumping["jump"]) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(make, ({ clock, jump }) => Effect.provideService(use(jump), Clock.Clock, clock))
