/**
 * One call whose answer every request for the same gets: the requests join while it runs, and each is given all of it.
 *
 * **Details**
 *
 * A flight keeps what has been sent, for those who join later and for the cache. It reads as fast as its fastest reader: it
 * pauses when every reader is slow, and when the slowest is `Defaults.cache.largestBytes` behind. An answer above that size
 * is no longer kept: no more requests can join.
 */
import type { Exit } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { AnsweredBy, AnswerSink, Event } from "../../domain/Inference.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { sizeOf } from "./CachePolicy.ts"

/** How the call ended. */
export type Ending = Exit.Exit<unknown, InferenceError>

/** A request that follows a flight. */
export interface Reader {
  /** The number of events that it has taken. */
  readonly position: number
  /** It takes no events until it resumes. */
  readonly isPaused: boolean
  /** There are further events, or the end. */
  readonly wake: () => void
}

/** The events of one call, for its readers. */
export class Flight implements AnswerSink {
  /** Which deployment answers; undefined before the first event. */
  by: AnsweredBy | undefined
  /** Undefined while the call runs. */
  ending: Ending | undefined
  /** The last event so far, which may be here no more. */
  last: Event | undefined
  /** All events so far are here, and their size is within the bound. */
  isWhole = true
  readonly #onOverflow: () => void
  #readers: ReadonlyArray<Reader> = []
  #events: Array<Event> = []
  #sizes: Array<number> = []
  /** The number of events before the first one here. */
  #dropped = 0
  /** Of the events here, bytes. */
  #bytes = 0
  #drained: (() => void) | undefined

  /** @param onOverflow called once when the answer is too large to be kept */
  constructor(onOverflow: () => void) {
    this.#onOverflow = onOverflow
  }

  /** The number of events so far. */
  get length(): number {
    return this.#dropped + this.#events.length
  }

  get readers(): number {
    return this.#readers.length
  }

  /** The events from a position on. */
  from(position: number): ReadonlyArray<Event> {
    return this.#events.slice(position - this.#dropped)
  }

  /** Gives the reader what there is so far. A call that waits for slow readers goes on for this one. */
  join(reader: Reader): void {
    this.#readers = [...this.#readers, reader]
    reader.wake()
    this.resume()
  }

  /** Whether the reader has joined and not left. */
  has(reader: Reader): boolean {
    return this.#readers.includes(reader)
  }

  leave(reader: Reader): void {
    this.#readers = this.#readers.filter((one) => one !== reader)
    this.resume()
  }

  begin(by: AnsweredBy): void {
    this.by = by
  }

  events(events: ReadonlyArray<Event>): boolean {
    for (const event of events) {
      const size = sizeOf(event)
      this.#events.push(event)
      this.#sizes.push(size)
      this.#bytes += size
      this.last = event
    }
    if (this.isWhole && this.#bytes > Defaults.cache.largestBytes) {
      this.isWhole = false
      this.#onOverflow()
    }
    this.#wake()
    return this.#hasRoom()
  }

  whenDrained(callback: () => void): void {
    this.#drained = callback
    this.resume()
  }

  /** Continues the call if a reader has made room. */
  resume(): void {
    this.#trim()
    const drained = this.#drained
    if (drained === undefined || !this.#hasRoom()) return
    this.#drained = undefined
    drained()
  }

  end(ending: Ending): void {
    this.ending = ending
    this.#wake()
  }

  #wake(): void {
    for (const reader of this.#readers) reader.wake()
    this.#trim()
  }

  #hasRoom(): boolean {
    return this.#readers.some(({ isPaused }) => !isPaused) &&
      (this.isWhole || this.#bytes <= Defaults.cache.largestBytes)
  }

  /** Drops what every reader has taken, where others cannot join. */
  #trim(): void {
    if (this.isWhole || this.#readers.length === 0) return
    const first = this.#readers.reduce((least, { position }) => Math.min(least, position), this.length)
    const count = first - this.#dropped
    if (count <= 0) return
    this.#events = this.#events.slice(count)
    for (const size of this.#sizes.splice(0, count)) this.#bytes -= size
    this.#dropped = first
  }
}
