/**
 * Writes rows in groups, beside the requests: one insertion of all rows that arrive within a few milliseconds.
 *
 * **Details**
 *
 * - `add` is synchronous and never fails a request. `write` waits until the row is committed: after that, neither the end
 *   of the process nor that of the machine's other processes loses it.
 * - A write that fails (full disk, lost connection) is tried again, after 0.1 s to 5 s, with the same rows. The queue is
 *   bounded: rows beyond it are lost and counted. The begin and the end of such a time are a log line each.
 * - A row that the database rejects by its values is lost alone, and logged.
 * - At the end of the scope the remaining rows are written, for at most 5 s.
 *
 * **Gotchas**
 *
 * A commit whose answer is lost is repeated. Insert rows by an id of their own with `ON CONFLICT DO NOTHING`. Postgres
 * rejects texts with U+0000.
 *
 * **Example**
 *
 * ```ts
 * const ledger = yield* WriteBehind.make({
 *   name: "ledger",
 *   insert: (rows: Arr.NonEmptyReadonlyArray<LedgerRow>) =>
 *     sql`INSERT INTO troupe_ledger ${sql.insert(rows)} ON CONFLICT (id) DO NOTHING`
 * })
 * ledger.add(row)
 * ```
 */
import { Array as Arr, Cause, Context, Deferred, Effect, Exit, Fiber, Latch, Metric, Option } from "effect"
import type { RedisError } from "effect/persistence/Redis"
import type { SqlError } from "effect/sql/SqlError"
import * as Defaults from "../../domain/Defaults.ts"
import { storedRows } from "../observability/Metrics.ts"
import { isRejected, StorageError, summaryOf } from "./StorageError.ts"

/** What is written, and the bounds. */
export interface Options<Row> {
  /** The concern, in logs, errors and metrics. */
  readonly name: string
  /** Inserts all rows or none. */
  readonly insert: (rows: Arr.NonEmptyReadonlyArray<Row>) => Effect.Effect<unknown, RedisError | SqlError>
  /** Rows that wait at most, above 0; default 10,000. */
  readonly capacity?: number
  /** Rows of one group at most, above 0; default 500. */
  readonly groupSize?: number
  /** How long a row waits for others, ms; default 5. */
  readonly delayMs?: number
}

/** A row, and what waits for its commit. */
interface Pending<Row> {
  readonly row: Row
  readonly committed: Deferred.Deferred<void, StorageError> | undefined
}

const rowsText = (count: number): string => count === 1 ? "1 row" : `${count} rows`

/** Rows on their way to the database. */
export class WriteBehind<Row> {
  readonly #options: Required<Options<Row>>
  readonly #context: Context.Context<never>
  readonly #filled = Latch.makeUnsafe()
  /** The pause before the next attempt. */
  #pausing = Deferred.makeUnsafe<void>()
  /** Done when the next attempt fails. */
  #failing = Deferred.makeUnsafe<void>()
  #waiting: Array<Pending<Row>> = []
  #isClosing = false
  #lost = 0
  /** Failed attempts in a row. */
  #failures = 0
  /** Lost rows of which the log has a line. */
  #logged = 0

  constructor(options: Options<Row>, context: Context.Context<never>) {
    const { capacity, delayMs, groupSize } = Defaults.writeBehind
    this.#options = { capacity, delayMs, groupSize, ...options }
    this.#context = Context.add(context, Metric.CurrentMetricAttributes, { store: options.name })
  }

  /** Rows that are not committed yet. */
  get waiting(): number {
    return this.#waiting.length
  }

  /** Rows that were not and will not be written. */
  get lost(): number {
    return this.#lost
  }

  /** Queues a row. False if the queue is full: the row is lost. */
  add(row: Row): boolean {
    return this.#push({ row, committed: undefined })
  }

  /** Queues a row and waits until it is committed. Fails if the queue is full or the row is rejected. */
  write(row: Row): Effect.Effect<void, StorageError> {
    return Effect.suspend(() => {
      const committed = Deferred.makeUnsafe<void, StorageError>()
      return this.#push({ row, committed }) ? Deferred.await(committed) : this.#lossOf("too many rows wait")
    })
  }

  /** Waits until the rows that have been added are written, or the next attempt has failed. It is made at once after a failure. */
  readonly flush: Effect.Effect<void> = Effect.suspend(() => {
    const last = this.#waiting.at(-1)
    if (last === undefined) return Effect.void
    const committed = last.committed ?? Deferred.makeUnsafe<void, StorageError>()
    this.#waiting[this.#waiting.length - 1] = { row: last.row, committed }
    Deferred.doneUnsafe(this.#pausing, Exit.void)
    return Effect.raceFirst(Effect.ignore(Deferred.await(committed)), Deferred.await(this.#failing))
  })

  /** Writes until `close`, and then what remains. */
  readonly run: Effect.Effect<void> = Effect.gen({ self: this }, function*() {
    while (!this.#isClosing || this.#waiting.length > 0) {
      if (this.#waiting.length === 0) {
        this.#filled.closeUnsafe()
        yield* this.#filled.await
      }
      if (!this.#isClosing) yield* Effect.sleep(this.#options.delayMs)
      if (!(yield* this.#writeGroup())) return
    }
  })

  /** Ends `run` when the remaining rows are written or the database fails. */
  close(): void {
    this.#isClosing = true
    Deferred.doneUnsafe(this.#pausing, Exit.void)
    this.#filled.openUnsafe()
  }

  /** Gives the remaining rows up. */
  readonly abandon: Effect.Effect<void> = Effect.suspend(() => {
    const count = this.#waiting.length
    if (count === 0) return Effect.void
    this.#lose(this.#waiting.splice(0), "Troupe stops")
    return Effect.logError(`${rowsText(count)} of ${this.#options.name} could not be written and are lost.`)
  })

  #push(pending: Pending<Row>): boolean {
    if (this.#waiting.length >= this.#options.capacity) {
      this.#countLost(1)
      return false
    }
    this.#waiting.push(pending)
    this.#filled.openUnsafe()
    return true
  }

  #countLost(count: number): void {
    this.#lost += count
    storedRows.lost.updateUnsafe(count, this.#context)
  }

  #lossOf(reason: string): StorageError {
    const { name } = this.#options
    return new StorageError({ place: name, message: `A row of ${name} is not stored: ${reason}.` })
  }

  #lose(pending: ReadonlyArray<Pending<Row>>, reason: string): void {
    this.#countLost(pending.length)
    for (const { committed } of pending) {
      if (committed !== undefined) Deferred.doneUnsafe(committed, Exit.fail(this.#lossOf(reason)))
    }
  }

  /** A defect of the insertion is a rejection, because it would come again. */
  #insert(
    group: Arr.NonEmptyReadonlyArray<Pending<Row>>
  ): Effect.Effect<RedisError | SqlError | "rejected" | undefined> {
    return Effect.suspend(() => this.#options.insert(Arr.map(group, ({ row }) => row))).pipe(
      Effect.as(undefined),
      Effect.catch((error) => Effect.succeed(isRejected(error) ? "rejected" as const : error)),
      Effect.catchDefect((defect) =>
        Effect.as(
          Effect.logError(`An insertion into ${this.#options.name} failed`, Cause.die(defect)),
          "rejected" as const
        )
      )
    )
  }

  /** Writes the oldest rows. False if it is time to give up. */
  #writeGroup(): Effect.Effect<boolean> {
    return Effect.gen({ self: this }, function*() {
      const group = this.#waiting.slice(0, this.#options.groupSize)
      if (!Arr.isArrayNonEmpty(group)) return true
      const result = yield* this.#insert(group)
      if (result === "rejected") {
        yield* this.#writeEach(group)
        return true
      }
      if (result !== undefined) return yield* this.#pause(result)
      this.#committed(group)
      yield* this.#logReturn()
      return true
    })
  }

  #committed(group: ReadonlyArray<Pending<Row>>): void {
    // `flush` may have replaced an element meanwhile.
    for (const { committed } of this.#waiting.splice(0, group.length)) {
      if (committed !== undefined) Deferred.doneUnsafe(committed, Exit.void)
    }
    storedRows.written.updateUnsafe(group.length, this.#context)
  }

  /** Writes the rows of a rejected group, each alone, up to the first failure of another kind. */
  #writeEach(group: ReadonlyArray<Pending<Row>>): Effect.Effect<void> {
    return Effect.gen({ self: this }, function*() {
      let rejected = 0
      for (const pending of group) {
        const result = yield* this.#insert([pending])
        if (result === undefined) this.#committed([pending])
        else if (result === "rejected") {
          rejected++
          this.#lose(this.#waiting.splice(0, 1), "the database rejects its values")
        } else break
      }
      const { name } = this.#options
      this.#logged += rejected
      if (rejected > 0) yield* Effect.logError(`The database rejects ${rowsText(rejected)} of ${name}; lost.`)
    })
  }

  /** Logs the first failure and waits for the next attempt. */
  #pause(error: RedisError | SqlError): Effect.Effect<boolean> {
    const { name } = this.#options
    if (this.#isClosing) return Effect.as(Effect.logError(`${name} cannot be written: ${summaryOf(error)}.`), false)
    const { longestPauseMs, pauseMs } = Defaults.writeBehind
    const pause = Math.min(pauseMs * 2 ** this.#failures, longestPauseMs)
    const isFirst = this.#failures++ === 0
    const pausing = this.#pausing = Deferred.makeUnsafe()
    Deferred.doneUnsafe(this.#failing, Exit.void)
    this.#failing = Deferred.makeUnsafe()
    const logged = isFirst
      ? Effect.logError(
        `${name} cannot be written: ${summaryOf(error)}. Requests go on. Up to ${rowsText(this.#options.capacity)} ` +
          "wait for the next attempt; more are lost."
      )
      : Effect.void
    return logged.pipe(
      Effect.andThen(Effect.timeoutOption(Deferred.await(pausing), pause)),
      Effect.as(true)
    )
  }

  /** Logs the end of the failures, and rows for which the queue had no place. */
  #logReturn(): Effect.Effect<void> {
    const lost = this.#lost - this.#logged
    const { capacity, name } = this.#options
    const isReturn = this.#failures > 0
    this.#failures = 0
    this.#logged = this.#lost
    if (isReturn) return Effect.logInfo(`${name} is written again${lost === 0 ? "" : `; ${rowsText(lost)} lost`}.`)
    return lost === 0 ? Effect.void : Effect.logError(`${rowsText(lost)} of ${name} lost: ${capacity} waited.`)
  }
}

/** Starts the writes. They end with the scope. */
export const make = Effect.fnUntraced(function*<Row>(options: Options<Row>) {
  const rows = new WriteBehind(options, yield* Effect.context())
  yield* Effect.acquireRelease(
    Effect.forkDetach(Effect.interruptible(rows.run)),
    Effect.fnUntraced(function*(fiber) {
      rows.close()
      const ended = yield* Effect.timeoutOption(Effect.interruptible(Fiber.await(fiber)), Defaults.writeBehind.closeMs)
      if (Option.isNone(ended)) yield* Fiber.interrupt(fiber)
      yield* rows.abandon
    })
  )
  return rows
})
