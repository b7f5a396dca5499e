/**
 * The time limits of attempts that a receiver follows: until the first content, between two pieces, and until the end of the
 * request.
 *
 * **Details**
 *
 * One fiber watches all attempts. It sleeps until the first limit can be reached: a piece that arrives moves the limit of its
 * attempt and does not wake the fiber. The limits are those of `Deadlines`, to the millisecond. While the reader of an answer
 * is slow, only the end of the request applies.
 */
import type { Scope } from "effect"
import { Effect, Fiber } from "effect"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import * as Deadlines from "./Deadlines.ts"

type Timeouts = Policy["timeouts"]

/** The attempts that are watched, and the fiber that watches them. */
class Watcher {
  /** monotonic ms */
  readonly now: () => number
  /** Not a `Set`: its old tables keep ended attempts alive for the garbage collector. */
  readonly all: Array<WatchedAttempt> = []
  readonly #fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>
  #sleeping: Fiber.Fiber<void> | undefined
  /** monotonic ms */
  #wakesAt = Number.POSITIVE_INFINITY

  constructor(now: () => number, fork: (effect: Effect.Effect<void>) => Fiber.Fiber<void>) {
    this.now = now
    this.#fork = fork
  }

  /** Looks at all attempts at this time, or before. */
  wakeAt(due: number): void {
    if (due >= this.#wakesAt) return
    this.#wakesAt = due
    this.#sleeping?.interruptUnsafe()
    const pause = Math.max(0, due - this.now())
    this.#sleeping = this.#fork(Effect.andThen(Effect.sleep(pause), Effect.sync(() => this.#look())))
  }

  #look(): void {
    const time = this.now()
    this.#sleeping = undefined
    this.#wakesAt = Number.POSITIVE_INFINITY
    let next = Number.POSITIVE_INFINITY
    // From the last one: an attempt that ends is replaced by the last one.
    for (let index = this.all.length - 1; index >= 0; index--) {
      // The end of one may end others at once.
      const watched = this.all[index]
      if (watched !== undefined) next = Math.min(next, watched.look(time))
    }
    this.wakeAt(next)
  }
}

/** One attempt, watched until `remove`. */
export class WatchedAttempt {
  readonly #watcher: Watcher
  readonly #deployment: string
  readonly #timeouts: Timeouts
  readonly #reached: (error: InferenceError) => void
  /** The end of the request, monotonic ms. */
  readonly #deadline: number | undefined
  #phase: "first_token" | "stall" = "first_token"
  /** Since when the next piece is waited for, monotonic ms; undefined while the reader is slow. */
  #since: number | undefined
  #position: number

  constructor(
    watcher: Watcher,
    deployment: string,
    timeouts: Timeouts,
    startedAt: number,
    reached: (error: InferenceError) => void
  ) {
    const { totalMs } = timeouts
    this.#watcher = watcher
    this.#deployment = deployment
    this.#timeouts = timeouts
    this.#reached = reached
    this.#deadline = totalMs === undefined ? undefined : startedAt + totalMs
    this.#since = startedAt
    this.#position = watcher.all.length
    watcher.all.push(this)
    watcher.wakeAt(this.#due())
  }

  /** A piece has arrived. */
  received(): void {
    this.#phase = "stall"
    if (this.#since !== undefined) this.resume()
  }

  /** The reader is slow. */
  pause(): void {
    this.#since = undefined
  }

  /** The reader waits for the next piece. */
  resume(): void {
    this.#since = this.#watcher.now()
    this.#watcher.wakeAt(this.#due())
  }

  remove(): void {
    const { all } = this.#watcher
    if (all[this.#position] !== this) return
    const last = all.pop()!
    if (last === this) return
    all[this.#position] = last
    last.#position = this.#position
  }

  /** Its limits where it goes on as an effect: it is not watched any more. */
  deadlines(): Deadlines.Deadlines {
    this.remove()
    const { now } = this.#watcher
    return Deadlines.make(this.#deployment, this.#timeouts, {
      deadline: this.#deadline,
      now,
      waiting: { phase: this.#phase, since: this.#since ?? now() }
    })
  }

  /** The time at which the next piece is late. */
  #pieceDue(): number {
    if (this.#since === undefined) return Number.POSITIVE_INFINITY
    return this.#since + (Deadlines.limitOf(this.#timeouts, this.#phase) ?? Number.POSITIVE_INFINITY)
  }

  #due(): number {
    return Math.min(this.#pieceDue(), this.#deadline ?? Number.POSITIVE_INFINITY)
  }

  /** Ends the watch if a limit is reached at `time`; returns when the next one can be. */
  look(time: number): number {
    const due = this.#due()
    if (due > time) return due
    this.remove()

    const phase = this.#pieceDue() === due ? this.#phase : "total"
    this.#reached(Deadlines.exceeded(this.#deployment, this.#timeouts, phase))
    return Number.POSITIVE_INFINITY
  }
}

/**
 * Watches an attempt that has a slot.
 *
 * @param startedAt monotonic ms
 * @param reached called when a limit is reached: the attempt is not watched any more
 */
export type Watch = (
  deployment: string,
  timeouts: Timeouts,
  startedAt: number,
  reached: (error: InferenceError) => void
) => WatchedAttempt

/**
 * Watches until the end of the scope.
 *
 * @param now monotonic ms
 */
export const make = Effect.fnUntraced(function*(now: () => number): Effect.fn.Return<Watch, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const fork = Effect.runForkWith(yield* Effect.context())
  const watcher = new Watcher(now, (effect) => Fiber.runIn(fork(effect), scope))
  return (deployment, timeouts, startedAt, reached) =>
    new WatchedAttempt(watcher, deployment, timeouts, startedAt, reached)
})
