/**
 * Checks long requests in slices, between which other work runs.
 *
 * **Details**
 *
 * A slice takes about 50 µs, and one is checked in a turn of the event loop; JSON with escapes is parsed in one turn. While `mostQueued` requests or `mostWaiting`
 * characters wait, further requests are not checked; they are counted together as the event `unchecked`, after a check.
 */
import { Effect } from "effect"
import type { RuleSearches } from "./FlagChecks.ts"
import type { Origin } from "./SecurityEvents.ts"
import { hiddenTexts } from "./TextWalk.ts"

/** Characters that wait for a check. */
const mostWaiting = 1_048_576

/** Requests that wait for a check. What waits may outlive its request, and collections of garbage copy it. */
const mostQueued = 64

/** Characters that are checked at a time. */
const slice = 16_384

/** What two slices have in common, so that a match at their border is found. */
const overlap = 512

/** A text of a request. */
export interface LongText {
  readonly text: string
  /** Whether a user or a tool wrote it. */
  readonly isCallers: boolean
}

/** A request that waits for its check. */
export interface Waiting {
  readonly texts: ReadonlyArray<LongText>
  /** Of all texts, characters. */
  readonly length: number
  readonly origin: Origin
}

export interface Options {
  readonly searches: RuleSearches
  /** Is told the bits of the rules that found something. */
  readonly found: (rules: number, origin: Origin) => void
  /** Is told how many requests were not checked, and where the last one came from. */
  readonly unchecked: (count: number, origin: Origin) => void
  /** Runs the checks beside the requests. */
  readonly start: (checks: Effect.Effect<void>) => void
}

/** A queue of checks. */
export class LongChecks {
  readonly #options: Options
  #queue: Array<Waiting> = []
  #waiting = 0
  #runs = false
  #leftOut = 0
  #lastLeftOut: Origin | undefined

  constructor(options: Options) {
    this.#options = options
  }

  /** Whether a request may wait. One that is longer than the queue may if nothing else waits. */
  get isFree(): boolean {
    return this.#waiting < mostWaiting && this.#queue.length < mostQueued
  }

  leaveOut(origin: Origin): void {
    this.#leftOut++
    this.#lastLeftOut = origin
  }

  add(waiting: Waiting): void {
    this.#queue.push(waiting)
    this.#waiting += waiting.length
    if (this.#runs) return
    this.#runs = true
    this.#options.start(this.#checks())
  }

  #checks(): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      for (let waiting = this.#queue.shift(); waiting !== undefined; waiting = this.#queue.shift()) {
        yield* this.#check(waiting)
        this.#waiting -= waiting.length
        if (this.#leftOut > 0) this.#options.unchecked(this.#leftOut, this.#lastLeftOut!)
        this.#leftOut = 0
      }
      this.#runs = false
    })
  }

  #check({ origin, texts }: Waiting): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      const { found, searches } = this.#options
      let rules = 0
      // Texts that are shorter than a slice share a turn.
      let left = 0
      for (const { isCallers, text } of texts) {
        for (const one of [text, ...hiddenTexts(text)]) {
          for (let from = 0; from < one.length; from += slice - overlap) {
            if (left <= 0) {
              yield* Effect.yieldNow
              left = slice
            }
            const part = one.slice(from, from + slice)
            rules |= searches.rulesIn(part, isCallers)
            left -= part.length
          }
        }
      }
      if (rules !== 0) found(rules, origin)
    })
  }
}
