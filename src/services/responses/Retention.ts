/**
 * How long responses and conversations are stored, and how much of them: those that have ended are deleted, and above the
 * bound those that end first.
 *
 * **Details**
 *
 * Bytes are summed at the first write of a process and whenever a hundredth of the bound has been written since, so that what
 * is stored may be above the bound by as much for each process. Objects are deleted in groups, because SQLite blocks the event
 * loop and a script blocks Redis.
 */
import { Clock, Effect } from "effect"
import type { Kept, StoreError } from "./Tables.ts"

/** Deletes objects that end until a time, those that end first, until their bytes are as many. Returns the bytes. */
const deleteUntil = Effect.fnUntraced(function*(kept: Kept, until: number, bytes: number) {
  let freed = 0
  while (freed < bytes) {
    const ids: Array<string> = []
    for (const ending of yield* kept.ending(until)) {
      if (freed >= bytes) break
      ids.push(ending.id)
      freed += ending.bytes
    }
    if (ids.length === 0) break
    yield* kept.remove(ids)
    yield* Effect.yieldNow
  }
  return freed
})

/** Deletes what has ended, and what is above the bound. */
export class Retention {
  readonly #kept: ReadonlyArray<Kept>
  readonly #most: number
  #untilTrim = 0

  /** @param most bytes of all responses and conversations */
  constructor(kept: ReadonlyArray<Kept>, most: number) {
    this.#kept = kept
    this.#most = most
  }

  /** To be called after a write of these bytes. */
  written(bytes: number): Effect.Effect<void, StoreError> {
    this.#untilTrim -= bytes
    if (this.#untilTrim > 0) return Effect.void
    this.#untilTrim = this.#most / 100
    return this.trim
  }

  /** Deletes what has ended, then what is above the bound. */
  get trim(): Effect.Effect<void, StoreError> {
    return Effect.gen({ self: this }, function*() {
      const now = yield* Clock.currentTimeMillis
      for (const kept of this.#kept) yield* deleteUntil(kept, now, Infinity)
      let excess = -this.#most
      for (const { bytes } of this.#kept) excess += yield* bytes
      for (const kept of this.#kept) excess -= yield* deleteUntil(kept, Number.MAX_SAFE_INTEGER, excess)
    })
  }
}
