/** A test clock whose date a test can move forward or back, like an administrator or NTP. */
import { Clock, Effect } from "effect"

export interface Jumping {
  /** Changes the date by this many ms; the monotonic time stays. */
  readonly jump: (ms: number) => void
  readonly clock: Clock.Clock
}

/** `TestClock.adjust` moves its date and its monotonic time. */
export const make: Effect.Effect<Jumping> = Effect.map(Clock.Clock, (base) => {
  let offsetMs = 0
  const currentTimeMillisUnsafe = () => base.currentTimeMillisUnsafe() + offsetMs
  const currentTimeNanosUnsafe = () => base.currentTimeNanosUnsafe() + BigInt(offsetMs) * 1_000_000n
  // The other members of `TestClock` stay available.
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

/** Runs an effect with such a clock. */
export const withJumps = <A, E, R>(use: (jump: Jumping["jump"]) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(make, ({ clock, jump }) => Effect.provideService(use(jump), Clock.Clock, clock))
