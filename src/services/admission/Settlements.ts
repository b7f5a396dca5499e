/**
 * The ends of requests on their way to shared counters: what they have spent is sent until it has arrived.
 *
 * **Details**
 *
 * A reservation stays until its end arrives, so that a lost connection makes budgets smaller for a while, not larger.
 *
 * **Gotchas**
 *
 * An end whose answer is lost is sent again and can count twice.
 */
import { Effect, Exit, Latch } from "effect"
import type { Counters, Spend } from "./Counters.ts"

/** The end of a request. */
export interface Settlement {
  readonly id: string
  readonly spends: ReadonlyArray<Spend>
  /** @param spent in the counters of `spends` then */
  readonly settled: (spent: ReadonlyArray<number>) => void
}

/** Ends without costs that wait; above it they are left to the end of this process. */
const mostWaiting = 10_000
const batch = 32
const timeoutMs = 5_000
const retryMs = 1_000

export class Settlements {
  readonly #counters: Counters
  readonly #run: (effect: Effect.Effect<void>) => void
  #waiting: Array<Settlement> = []
  readonly #idle = Latch.makeUnsafe(true)
  #isRunning = false

  /** @param run runs an effect in the background */
  constructor(counters: Counters, run: (effect: Effect.Effect<void>) => void) {
    this.#counters = counters
    this.#run = run
  }

  /** Waits until all have arrived. */
  get flushed(): Effect.Effect<void> {
    return this.#idle.await
  }

  add(settlement: Settlement): void {
    if (settlement.spends.length === 0 && this.#waiting.length >= mostWaiting) return
    this.#waiting.push(settlement)
    if (this.#isRunning) return
    this.#isRunning = true
    this.#idle.closeUnsafe()
    this.#run(this.#drain)
  }

  readonly #drain: Effect.Effect<void> = Effect.gen({ self: this }, function*() {
    while (this.#waiting.length > 0) {
      const sent = this.#waiting.splice(0, batch)
      const exits = yield* Effect.forEach(sent, (one) => Effect.exit(this.#settle(one)), { concurrency: batch })
      const failed = sent.filter((_, index) => Exit.isFailure(exits[index]!))
      this.#waiting.unshift(...failed)
      if (failed.length > 0) yield* Effect.sleep(retryMs)
    }
    this.#isRunning = false
    this.#idle.openUnsafe()
  })

  #settle({ id, settled, spends }: Settlement): Effect.Effect<void, unknown> {
    return Effect.map(Effect.timeout(this.#counters.settle(id, spends), timeoutMs), settled)
  }
}
