/**
 * Bounds on the requests in progress: how many start in a turn of the event loop, and the bytes that they hold. Pure policy.
 *
 * **Gotchas**
 *
 * Time and turns are arguments: the pacer has no clock.
 */
import { Context } from "effect"

export interface PacerOptions {
  /** Maximum number of waiting arrivals. */
  readonly limit: number
  /** Maximum number of starts in one turn. */
  readonly perTurn: number
  /** ms of one turn that may go to arrivals. */
  readonly sliceMs: number
  /** ms, monotonic. */
  readonly now: () => number
  /** Calls back in the next turn. */
  readonly nextTurn: (run: () => void) => void
}

/**
 * Spreads arrivals over turns of the event loop, so that many at once do not stop everything else.
 *
 * **Details**
 *
 * Arrivals start at once until `perTurn` of one turn have started, or have taken `sliceMs`. The rest wait in order, and
 * each following turn starts as many. At most `limit` wait; further ones are rejected. The number is limited as well as
 * the time, because most of a request's work runs after the callback that starts it.
 */
export class ArrivalPacer {
  readonly #options: PacerOptions
  #waiting: Array<() => void> = []
  /** The index in `waiting` of the first that has not started. */
  #head = 0
  /** The time of this turn's first arrival; undefined before it. */
  #turnSince: number | undefined
  /** In this turn. */
  #started = 0

  constructor(options: PacerOptions) {
    this.#options = options
  }

  get waiting(): number {
    return this.#waiting.length - this.#head
  }

  /** Starts it now or in a later turn; false if too many wait. */
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

/**
 * A bound on the bytes that requests hold together.
 *
 * **Details**
 *
 * A hold takes as it grows and releases everything at once, when the request ends. A second release does nothing.
 */
export class ByteBudget {
  readonly limit: number
  #used = 0

  /** @param limit bytes */
  constructor(limit: number) {
    this.limit = limit
  }

  /** Bytes that are held now. */
  get used(): number {
    return this.#used
  }

  /** Bytes that may be taken now. */
  get left(): number {
    return this.limit - this.#used
  }

  /** Takes bytes. Returns false and takes none if that exceeds the limit. */
  take(bytes: number): boolean {
    if (bytes > this.left) return false
    this.#used += bytes
    return true
  }

  giveBack(bytes: number): void {
    this.#used -= bytes
  }

  hold(): Hold {
    return new Hold(this)
  }
}

/** What one request holds. */
export class Hold {
  readonly #budget: ByteBudget
  #held = 0
  #isReleased = false

  constructor(budget: ByteBudget) {
    this.#budget = budget
  }

  /** Takes more bytes. Returns false and takes none if that exceeds the limit or the hold has been released. */
  take(bytes: number): boolean {
    if (this.#isReleased || !this.#budget.take(bytes)) return false
    this.#held += bytes
    return true
  }

  /** Gives back all that was taken. */
  release(): void {
    this.#isReleased = true
    this.#budget.giveBack(this.#held)
    this.#held = 0
  }
}

/** Of the bodies of all requests, from their first byte until their answer has ended. */
export class RequestBytes extends Context.Service<RequestBytes, ByteBudget>()("troupe/services/RequestBytes") {}
