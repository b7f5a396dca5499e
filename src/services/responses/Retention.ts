/**
 * How long responses and conversations are stored, and how much of them: those that have ended are deleted, and above the
 * bound those that end first.
 *
 * **Details**
 *
 * Bytes are summed at the first write of a process and whenever a hundredth of the bound has been written since, so that the
 * tables may be above the bound by as much for each process. Rows are deleted in groups, because SQLite blocks the event loop.
 */
import { Clock, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { ConversationStore } from "./ConversationStore.ts"
import type { FrameLog } from "./FrameLog.ts"

/** Rows that are deleted at a time. */
const batch = 100

interface Ending {
  readonly id: string
  readonly bytes: number | string
}

interface Sums {
  readonly bytes: number | string | null
}

/** Deletes what has ended, and what is above the bound. */
export class Retention {
  readonly #sql: SqlClient
  readonly #conversations: ConversationStore
  readonly #frames: FrameLog
  readonly #most: number
  #untilTrim = 0

  /** @param most bytes of all responses and conversations */
  constructor(sql: SqlClient, conversations: ConversationStore, frames: FrameLog, most: number) {
    this.#sql = sql
    this.#frames = frames
    this.#conversations = conversations
    this.#most = most
  }

  /** To be called after a write of these bytes. */
  written(bytes: number): Effect.Effect<void, SqlError> {
    this.#untilTrim -= bytes
    if (this.#untilTrim > 0) return Effect.void
    this.#untilTrim = this.#most / 100
    return this.trim
  }

  /** Deletes what has ended, then what is above the bound. */
  get trim(): Effect.Effect<void, SqlError> {
    return Effect.flatMap(Clock.currentTimeMillis, (now) =>
      Effect.andThen(
        Effect.andThen(this.#deleteResponses(now, Infinity), this.#deleteConversations(now, Infinity)),
        this.#bound
      ))
  }

  readonly #bound = Effect.suspend(() =>
    Effect.gen({ self: this }, function*() {
      const sql = this.#sql
      const [responses] = yield* sql<Sums>`SELECT SUM(bytes) AS bytes FROM troupe_responses`
      const [conversations] = yield* sql<Sums>`SELECT SUM(bytes) AS bytes FROM troupe_responses_conversations`
      const excess = Number(responses?.bytes ?? 0) + Number(conversations?.bytes ?? 0) - this.#most
      if (excess <= 0) return
      const left = excess - (yield* this.#deleteResponses(Number.MAX_SAFE_INTEGER, excess))
      if (left > 0) yield* this.#deleteConversations(Number.MAX_SAFE_INTEGER, left)
    })
  )

  /** Deletes responses that end until a time, those that end first, until their bytes are as many. Returns the bytes. */
  #deleteResponses(until: number, bytes: number): Effect.Effect<number, SqlError> {
    const sql = this.#sql
    const some = sql<Ending>`SELECT id, bytes FROM troupe_responses WHERE expires_at <= ${until}
      ORDER BY expires_at LIMIT ${batch}`
    return this.#deleteUntil(
      bytes,
      some,
      (ids) => Effect.andThen(this.#frames.remove(ids), sql`DELETE FROM troupe_responses WHERE ${sql.in("id", ids)}`)
    )
  }

  #deleteConversations(until: number, bytes: number): Effect.Effect<number, SqlError> {
    const some = this.#sql<Ending>`SELECT id, bytes FROM troupe_responses_conversations WHERE expires_at <= ${until}
      ORDER BY expires_at LIMIT ${batch}`
    return this.#deleteUntil(bytes, some, (ids) => this.#conversations.remove(ids))
  }

  readonly #deleteUntil = Effect.fnUntraced(function*(
    bytes: number,
    next: Effect.Effect<ReadonlyArray<Ending>, SqlError>,
    remove: (ids: ReadonlyArray<string>) => Effect.Effect<unknown, SqlError>
  ) {
    let freed = 0
    while (freed < bytes) {
      const rows = yield* next
      const ids: Array<string> = []
      for (const row of rows) {
        if (freed >= bytes) break
        ids.push(row.id)
        freed += Number(row.bytes)
      }
      if (ids.length === 0) break
      yield* remove(ids)
      yield* Effect.yieldNow
    }
    return freed
  })
}
