/**
 * The requests of a rollout, or of an A/B test, that have no token yet: how long they have waited is known before they end,
 * so that a version that never answers is found long before its time limits.
 *
 * **Details**
 *
 * A request waits from its slot to its first token, or to its answer where that is not streamed. At every evaluation
 * `report` adds to the tallies how long each has waited. The time before its slot counts for `Silence` only. A request that ends otherwise (it fails, its caller leaves) has
 * waited until then, and nothing is known of longer times (`Tally.waited`).
 *
 * **Gotchas**
 *
 * The requests are a linked list: a `Set` of objects that live as long as a request costs more to collect.
 */
import type { Tally } from "./Tally.ts"
import * as Tallies from "./Tally.ts"

/** The tally of a version since the last evaluation; undefined where none is kept any more. */
export type TallyOf = (version: string | undefined) => Tally | undefined

/** One request. Times are monotonic ms. */
export class Wait {
  readonly #all: Waiting
  readonly #version: string | undefined
  /** When it got its slot; undefined while it waits for one. */
  #since: number | undefined
  /** Until then, its time without an answer is in tallies. */
  #countedAt: number
  /** Levels that were reported. */
  #passed = 0
  #isOver = false
  previous: Wait | undefined
  next: Wait | undefined

  constructor(all: Waiting, version: string | undefined, now: number) {
    this.#all = all
    this.#version = version
    this.#countedAt = now
  }

  /** It has its slot. */
  granted(now: number): void {
    this.#since ??= now
  }

  /** Adds how long it has waited. */
  report(now: number): void {
    const tally = this.#all.tallyOf(this.#version)
    if (tally === undefined) return
    Tallies.unanswered(tally, now - this.#countedAt, this.#since !== undefined)
    this.#countedAt = now
    const passed = this.#since === undefined ? 0 : Tallies.scales.hanging.bucketOf(now - this.#since)
    Tallies.waited(tally, this.#passed, passed)
    this.#passed = Math.max(this.#passed, passed)
  }

  /** It has its first token or its answer, or it has ended without one. Only the first call counts. */
  end(now: number, isAnswered: boolean): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#all.remove(this)
    if (this.#since === undefined) return
    if (!isAnswered) return this.report(now)
    const tally = this.#all.tallyOf(this.#version)
    if (tally !== undefined) Tallies.answered(tally, this.#passed, now - this.#since)
  }
}

export class Waiting {
  readonly tallyOf: TallyOf
  #first: Wait | undefined

  constructor(tallyOf: TallyOf) {
    this.tallyOf = tallyOf
  }

  /** A request has its slot. */
  begin(version: string | undefined, now: number): Wait {
    const wait = this.enqueue(version, now)
    wait.granted(now)
    return wait
  }

  /** A request waits for its slot. */
  enqueue(version: string | undefined, now: number): Wait {
    const wait = new Wait(this, version, now)
    wait.next = this.#first
    if (this.#first !== undefined) this.#first.previous = wait
    this.#first = wait
    return wait
  }

  remove(wait: Wait): void {
    const { next, previous } = wait
    if (previous === undefined) this.#first = next
    else previous.next = next
    if (next !== undefined) next.previous = previous
  }

  /** Adds how long each has waited. */
  report(now: number): void {
    for (let wait = this.#first; wait !== undefined; wait = wait.next) wait.report(now)
  }
}
