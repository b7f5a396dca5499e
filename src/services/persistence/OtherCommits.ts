/**
 * Whether another connection may have changed the database: for what polls a table that seldom changes, where the driver can
 * tell for less than a statement costs.
 *
 * **Details**
 *
 * SQLite counts the commits of other connections in the memory that the processes share; a statement through Effect's
 * `SqlClient`, with its span and semaphore, costs more than a hundred times as much. Postgres has nothing like it.
 *
 * **Gotchas**
 *
 * Commits of the own connection are not counted: who changes the table itself reads it afterwards.
 */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"

/** A number that is another one after a commit of another connection; undefined if the driver cannot tell now. */
export type Count = () => number | undefined

const count: unique symbol = Symbol.for("troupe/services/persistence/OtherCommits")

/** The client, with a driver's own count. */
export const provide = (client: SqlClient, own: Count): SqlClient => Object.assign(client, { [count]: own })

/** The last value that was read, and the count before that. */
export class LastRead<A, E> {
  readonly #count: Count
  readonly #read: Effect.Effect<A, E>
  #last: { readonly at: number | undefined; readonly value: A } | undefined

  /** @param read of a table */
  constructor(sql: SqlClient, read: Effect.Effect<A, E>) {
    this.#count = (sql as { readonly [count]?: Count })[count] ?? (() => undefined)
    this.#read = read
  }

  /** Reads. */
  readonly latest: Effect.Effect<A, E> = Effect.suspend(() => {
    // Before the value: a commit between the two is read the next time.
    const at = this.#count()
    return Effect.map(this.#read, (value) => {
      this.#last = { at, value }
      return value
    })
  })

  /** Reads if another connection has committed since. */
  readonly current: Effect.Effect<A, E> = Effect.suspend(() => {
    const last = this.#last
    return last?.at === undefined || last.at !== this.#count() ? this.latest : Effect.succeed(last.value)
  })

  /** The own connection changes the table. */
  forget(): void {
    this.#last = undefined
  }
}
