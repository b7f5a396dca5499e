/** Responses and conversations in any database of `SqlClient`. */
import { Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import { ConversationStore } from "./ConversationStore.ts"
import { FrameLog } from "./FrameLog.ts"
import { ResponseStore } from "./ResponseStore.ts"
import type { Kept, Tables } from "./Tables.ts"

/** Rows that are deleted at a time. */
const batch = 100

interface Row {
  readonly id: string
  readonly bytes: number | string
}

/** The rows of a table with `id`, `bytes` and `expires_at`. */
const keptIn = (
  sql: SqlClient,
  table: string,
  remove: (ids: ReadonlyArray<string>) => Effect.Effect<void, SqlError>
): Kept => ({
  bytes: Effect.suspend(() =>
    Effect.map(
      sql<{ readonly bytes: number | string | null }>`SELECT SUM(bytes) AS bytes FROM ${sql(table)}`,
      ([sums]) => Number(sums?.bytes ?? 0)
    )
  ),
  ending: (until) =>
    Effect.map(
      sql<Row>`SELECT id, bytes FROM ${sql(table)} WHERE expires_at <= ${until} ORDER BY expires_at LIMIT ${batch}`,
      (rows) => rows.map(({ bytes, id }) => ({ id, bytes: Number(bytes) }))
    ),
  remove
})

/** In a database whose tables `ResponseStore.migrations` has created. */
export const make = (sql: SqlClient): Tables => {
  const conversations = new ConversationStore(sql)
  const frames = new FrameLog(sql)
  const removeResponses = (ids: ReadonlyArray<string>) =>
    Effect.andThen(
      frames.remove(ids),
      Effect.asVoid(sql`DELETE FROM troupe_responses WHERE ${sql.in("id", ids)}`)
    )
  return {
    responses: new ResponseStore(sql),
    conversations,
    frames,
    kept: [
      keptIn(sql, "troupe_responses", removeResponses),
      keptIn(sql, "troupe_responses_conversations", (ids) => conversations.remove(ids))
    ]
  }
}
