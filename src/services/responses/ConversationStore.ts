/** The tables of conversations and their items, in any database of `SqlClient`. `ResponseStore` creates them. */
import { Array as Arr, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Json } from "./ResponseStore.ts"
import type { ConversationTable } from "./Tables.ts"

/** A stored conversation. */
export interface StoredConversation {
  readonly id: string
  /** ms since 1970 */
  readonly createdAt: number
  /** Of its items. */
  readonly bytes: number
  readonly metadata: Json
}

/** An item with its id. */
export interface StoredItem extends Json {
  readonly id: string
}

interface Row {
  readonly id: string
  readonly created_at: number | string
  readonly bytes: number | string
  readonly metadata: string
}

interface ItemRow {
  readonly item: string
}

const conversationOf = (row: Row): StoredConversation => ({
  id: row.id,
  createdAt: Number(row.created_at),
  bytes: Number(row.bytes),
  metadata: JSON.parse(row.metadata) as Json
})

const itemOf = ({ item }: ItemRow): StoredItem => JSON.parse(item) as StoredItem

/** Rows of one statement. */
const atOnce = 500

/** Stored conversations, in a database. */
export class ConversationStore implements ConversationTable {
  readonly #sql: SqlClient

  constructor(sql: SqlClient) {
    this.#sql = sql
  }

  /** @param at ms since 1970 */
  create(
    id: string,
    owner: string,
    metadata: Json,
    at: number,
    expiresAt: number
  ): Effect.Effect<void, SqlError> {
    const row = {
      id,
      owner,
      created_at: at,
      expires_at: expiresAt,
      bytes: 0,
      metadata: JSON.stringify(metadata)
    }
    return Effect.asVoid(this.#sql`INSERT INTO troupe_responses_conversations ${this.#sql.insert(row)}`)
  }

  /** @param now ms since 1970; a conversation that has ended by then is not found */
  find(owner: string, id: string, now: number): Effect.Effect<StoredConversation | undefined, SqlError> {
    return Effect.map(
      this.#sql<Row>`SELECT id, created_at, bytes, metadata FROM troupe_responses_conversations
        WHERE id = ${id} AND owner = ${owner} AND expires_at > ${now}`,
      ([row]) => row === undefined ? undefined : conversationOf(row)
    )
  }

  /** For a conversation of the owner. */
  describe(id: string, metadata: Json): Effect.Effect<void, SqlError> {
    const text = JSON.stringify(metadata)
    return Effect.asVoid(this.#sql`UPDATE troupe_responses_conversations SET metadata = ${text} WHERE id = ${id}`)
  }

  /** Of a conversation of the owner, in their order. */
  items(id: string): Effect.Effect<ReadonlyArray<StoredItem>, SqlError> {
    return Effect.map(
      this.#sql<ItemRow>`SELECT item FROM troupe_responses_items WHERE conversation = ${id} ORDER BY position`,
      (rows) => rows.map(itemOf)
    )
  }

  /** Adds items at the end of a conversation of the owner, and keeps it until a time. */
  add(id: string, items: ReadonlyArray<StoredItem>, expiresAt: number): Effect.Effect<void, SqlError> {
    const sql = this.#sql
    const texts = items.map((item) => JSON.stringify(item))
    const bytes = texts.reduce((sum, text) => sum + Buffer.byteLength(text), 0)
    return sql.withTransaction(Effect.gen(function*() {
      // The first statement locks the conversation: no other request adds items meanwhile.
      yield* sql`UPDATE troupe_responses_conversations SET bytes = bytes + ${bytes}, expires_at = ${expiresAt}
        WHERE id = ${id}`
      const [found] = yield* sql<{ readonly next: number | string | null }>`
        SELECT MAX(position) + 1 AS next FROM troupe_responses_items WHERE conversation = ${id}`
      const first = Number(found?.next ?? 0)
      const rows = items.map((item, index) => ({
        conversation: id,
        position: first + index,
        id: item.id,
        item: texts[index]!
      }))
      for (const some of Arr.chunksOf(rows, atOnce)) {
        yield* sql`INSERT INTO troupe_responses_items ${sql.insert(some)}`
      }
    }))
  }

  /** False if the conversation of the owner has no such item. */
  removeItem(id: string, item: string): Effect.Effect<boolean, SqlError> {
    return Effect.map(
      this.#sql<ItemRow>`DELETE FROM troupe_responses_items WHERE conversation = ${id} AND id = ${item} RETURNING item`,
      (rows) => rows.length > 0
    )
  }

  /** Removes conversations with their items. */
  remove(ids: ReadonlyArray<string>): Effect.Effect<void, SqlError> {
    const sql = this.#sql
    if (ids.length === 0) return Effect.void
    return sql.withTransaction(Effect.gen(function*() {
      yield* sql`DELETE FROM troupe_responses_items WHERE ${sql.in("conversation", ids)}`
      yield* sql`DELETE FROM troupe_responses_conversations WHERE ${sql.in("id", ids)}`
    }))
  }
}
