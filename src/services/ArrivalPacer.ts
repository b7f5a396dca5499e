/**
 * Spreads arrivals over turns of the event loop, so that many at once do not stop everything else. Pure policy.
 *
 * **Details**
 *
 * Arrivals start at once until those of one turn have taken `sliceMs`. The rest wait in order, and each following turn
 * starts as many as fit its slice. At most `limit` wait; more are refused.
 *
 * **Gotchas**
 *
 * Time and turns are arguments: the pacer has no clock.
 */

export interface Options {
  /** The most that may wait. */
  readonly limit: number
  /** ms of one turn that may go to arrivals. */
  readonly sliceMs: number
  /** ms, monotonic. */
  readonly now: () => number
  /** Calls back in the next turn. */
  readonly nextTurn: (run: () => void) => void
}

/** A pacer; see the module's head. */
export class ArrivalPacer {
  readonly #options: Options
  #waiting: Array<() => void> = []
  /** Of `waiting`, the first that has not started. */
  #head = 0
  /** When this turn's first arrival came; undefined before it. */
  #turnSince: number | undefined

  constructor(options: Options) {
    this.#options = options
  }

  get waiting(): number {
    return this.#waiting.length - this.#head
  }

  /** Starts it now or in a later turn; false where too many wait. */
  offer(start: () => void): boolean {
    const { limit, nextTurn, now } = this.#options
    if (this.#turnSince === undefined) {
      this.#turnSince = now()
      nextTurn(this.#turn)
    }
    if (this.waiting === 0 && this.#hasTime()) start()
    else if (this.waiting < limit) this.#waiting.push(start)
    else return false
    return true
  }

  #hasTime(): boolean {
    return this.#options.now() - this.#turnSince! < this.#options.sliceMs
  }

  readonly #turn = (): void => {
    this.#turnSince = undefined
    if (this.waiting === 0) return
    this.#turnSince = this.#options.now()
    this.#options.nextTurn(this.#turn)
    do {
      this.#waiting[this.#head++]!()
    } while (this.waiting > 0 && this.#hasTime())
    if (this.waiting > 0) return
    this.#waiting = []
    this.#head = 0
  }
}
