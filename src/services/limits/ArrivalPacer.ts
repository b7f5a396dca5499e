/**
 * Spreads arrivals over turns of the event loop, so that many at once do not stop everything else. Pure policy.
 *
 * **Details**
 *
 * Arrivals start at once until `perTurn` of one turn have started, or have taken `sliceMs`. The rest wait in order, and each
 * following turn starts as many. At most `limit` wait; more are refused. The number counts because most of a request's work
 * comes after its start, when the turn's callbacks have returned.
 *
 * **Gotchas**
 *
 * Time and turns are arguments: the pacer has no clock.
 */

export interface Options {
  /** The most that may wait. */
  readonly limit: number
  /** The most that start in one turn. */
  readonly perTurn: number
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
  /** In this turn. */
  #started = 0

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
    if (this.waiting === 0 && this.#hasRoom()) {
      this.#started++
      start()
    } else if (this.waiting < limit) this.#waiting.push(start)
    else return false
    return true
  }

  #hasRoom(): boolean {
    const { now, perTurn, sliceMs } = this.#options
    return this.#started < perTurn && now() - this.#turnSince! < sliceMs
  }

  readonly #turn = (): void => {
    this.#turnSince = undefined
    this.#started = 0
    if (this.waiting === 0) return
    this.#turnSince = this.#options.now()
    this.#options.nextTurn(this.#turn)
    do {
      this.#started++
      this.#waiting[this.#head++]!()
    } while (this.waiting > 0 && this.#hasRoom())
    if (this.waiting > 0) return
    this.#waiting = []
    this.#head = 0
  }
}
