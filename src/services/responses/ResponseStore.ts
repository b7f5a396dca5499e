/** The tables of stored responses, in any database of `SqlClient`. */
import { Array as Arr, Effect } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Item } from "../../dialects/responses/Items.ts"
import { listOf } from "../../dialects/shared/Json.ts"
import * as Migrations from "../persistence/Migrations.ts"
import type { ResponseTable } from "./Tables.ts"

/** JSON objects, which the dialect understands. */
export type Json = Readonly<Record<string, unknown>>

/** A stored response. */
export interface StoredResponse {
  readonly id: string
  /** The items of its own request, without those of the conversation before. */
  readonly input: ReadonlyArray<Json>
  /** As it was sent. */
  readonly body: Json
  readonly status: string
  /** The response that it continues. */
  readonly previous: string | undefined
  readonly conversation: string | undefined
  /** When the process that generates it was last seen, ms since 1970. */
  readonly seenAt: number
}

/** The items of its request and of its answer. */
export const itemsOf = ({ body, input }: StoredResponse): ReadonlyArray<Item> =>
  [...input, ...listOf(body["output"])] as ReadonlyArray<Item>

/** Whether its generation goes on. */
export const isRunning = ({ status }: StoredResponse): boolean => status === "queued" || status === "in_progress"

/** Its body, as callers get it. */
export const bodyOf = ({ body, status }: StoredResponse): Json => ({ ...body, status })

/** A response to store, in the name of its owner. */
export interface NewResponse extends Omit<StoredResponse, "seenAt"> {
  readonly owner: string
  /** ms since 1970 */
  readonly at: number
  /** ms since 1970 */
  readonly expiresAt: number
}

/** The steps of all tables of this concern. */
export const migrations = Migrations.make("responses", [
  {
    name: "create",
    run: (sql) =>
      Effect.all([
        sql`CREATE TABLE troupe_responses (
          id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
          seen_at BIGINT NOT NULL, status TEXT NOT NULL, previous TEXT, conversation TEXT, bytes BIGINT NOT NULL,
          input TEXT NOT NULL, body TEXT NOT NULL
        )`,
        sql`CREATE INDEX troupe_responses_end ON troupe_responses (expires_at, bytes)`,
        sql`CREATE TABLE troupe_responses_conversations (
          id TEXT PRIMARY KEY, owner TEXT NOT NULL, created_at BIGINT NOT NULL, expires_at BIGINT NOT NULL,
          bytes BIGINT NOT NULL, metadata TEXT NOT NULL
        )`,
        sql`CREATE INDEX troupe_responses_conversations_end ON troupe_responses_conversations (expires_at, bytes)`,
        sql`CREATE TABLE troupe_responses_items (
          conversation TEXT NOT NULL, position BIGINT NOT NULL, id TEXT NOT NULL, item TEXT NOT NULL,
          PRIMARY KEY (conversation, position)
        )`
      ], { discard: true })
  },
  {
    name: "events",
    run: (sql) =>
      sql`CREATE TABLE troupe_responses_events (
        response TEXT NOT NULL, last BIGINT NOT NULL, frames TEXT NOT NULL, PRIMARY KEY (response, last)
      )`
  }
])

interface Row {
  readonly id: string
  readonly input: string
  readonly body: string
  readonly status: string
  readonly previous: string | null
  readonly conversation: string | null
  readonly seen_at: number | string
}

const responseOf = (row: Row): StoredResponse => ({
  id: row.id,
  input: JSON.parse(row.input) as ReadonlyArray<Json>,
  body: JSON.parse(row.body) as Json,
  status: row.status,
  previous: row.previous ?? undefined,
  conversation: row.conversation ?? undefined,
  seenAt: Number(row.seen_at)
})

/** Of one response with its continuations: as many as messages that a request may have. */
export const longestChain = 10_000

/** One response of a chain, without its content. */
interface Link {
  readonly id: string
  readonly previous: string | null
  readonly bytes: number | string
}

/** The chain of responses that end with one, oldest first. */
export type Chain =
  | { readonly type: "found"; readonly responses: ReadonlyArray<StoredResponse> }
  /** There is no such response, or no longer. */
  | { readonly type: "missing"; readonly id: string }
  | { readonly type: "too-large"; readonly bytes: number }

/** Responses of one statement: SQLite has at most 32,766 parameters. */
const atOnce = 500

/** Stored responses, in a database. */
export class ResponseStore implements ResponseTable {
  readonly #sql: SqlClient

  constructor(sql: SqlClient) {
    this.#sql = sql
  }

  /** @returns the bytes of the response */
  insert(
    { at, body, conversation, expiresAt, id, input, owner, previous, status }: NewResponse
  ): Effect.Effect<number, SqlError> {
    const texts = { input: JSON.stringify(input), body: JSON.stringify(body) }
    const row = {
      id,
      owner,
      created_at: at,
      expires_at: expiresAt,
      seen_at: at,
      status,
      previous: previous ?? null,
      conversation: conversation ?? null,
      bytes: Buffer.byteLength(texts.input) + Buffer.byteLength(texts.body),
      ...texts
    }
    return Effect.as(this.#sql`INSERT INTO troupe_responses ${this.#sql.insert(row)}`, row.bytes)
  }

  /** @param now ms since 1970; a response that has ended by then is not found */
  find(owner: string, id: string, now: number): Effect.Effect<StoredResponse | undefined, SqlError> {
    return Effect.map(
      this.#sql<Row>`SELECT id, input, body, status, previous, conversation, seen_at FROM troupe_responses
        WHERE id = ${id} AND owner = ${owner} AND expires_at > ${now}`,
      ([row]) => row === undefined ? undefined : responseOf(row)
    )
  }

  /** @param most bytes of the chain */
  readonly chain = Effect.fnUntraced(
    function*(this: ResponseStore, owner: string, id: string, now: number, most: number) {
      const links = yield* this.#links(owner, id, now)
      const last = links.at(-1)
      if (last === undefined || last.previous !== null) {
        return { type: "missing", id: last?.previous ?? id } satisfies Chain
      }
      const bytes = links.reduce((sum, link) => sum + Number(link.bytes), 0)
      if (bytes > most) return { type: "too-large", bytes } satisfies Chain
      const found = new Map<string, StoredResponse>()
      for (const some of Arr.chunksOf(links, atOnce)) {
        const rows = yield* this.#sql<Row>`
          SELECT id, input, body, status, previous, conversation, seen_at FROM troupe_responses
          WHERE ${this.#sql.in("id", some.map((link) => link.id))}`
        for (const row of rows) found.set(row.id, responseOf(row))
      }
      return {
        type: "found",
        responses: links.toReversed().flatMap((link) => found.get(link.id) ?? [])
      } satisfies Chain
    }
  )

  /** The chain of a response, it first. */
  #links(owner: string, id: string, now: number) {
    return this.#sql<Link>`
      WITH RECURSIVE chain (id, previous, bytes, depth) AS (
        SELECT id, previous, bytes, 0 FROM troupe_responses
        WHERE id = ${id} AND owner = ${owner} AND expires_at > ${now}
        UNION ALL
        SELECT one.id, one.previous, one.bytes, chain.depth + 1
        FROM chain JOIN troupe_responses AS one ON one.id = chain.previous
        WHERE one.owner = ${owner} AND one.expires_at > ${now} AND chain.depth < ${longestChain}
      )
      SELECT id, previous, bytes FROM chain ORDER BY depth`
  }

  /** Keeps responses at least until a time: those that end before `whenBefore`, ms since 1970. */
  keep(ids: ReadonlyArray<string>, expiresAt: number, whenBefore: number): Effect.Effect<void, SqlError> {
    return Effect.forEach(
      Arr.chunksOf(ids, atOnce),
      (some) =>
        this.#sql`UPDATE troupe_responses SET expires_at = ${expiresAt}
          WHERE expires_at < ${whenBefore} AND ${this.#sql.in("id", some)}`,
      { discard: true }
    )
  }

  /** Replaces the body of a response that is still being generated. False if it no longer is. */
  finish(id: string, status: string, body: Json): Effect.Effect<boolean, SqlError> {
    const text = JSON.stringify(body)
    return Effect.map(
      this.#sql<{ readonly id: string }>`UPDATE troupe_responses
        SET status = ${status}, body = ${text}, bytes = bytes + ${Buffer.byteLength(text)}
        WHERE id = ${id} AND status IN ('queued', 'in_progress') RETURNING id`,
      (rows) => rows.length > 0
    )
  }

  /** Records that the process which generates a response runs. False if the response is no longer to be generated. */
  see(id: string, now: number): Effect.Effect<boolean, SqlError> {
    return Effect.map(
      this.#sql<{ readonly id: string }>`UPDATE troupe_responses SET seen_at = ${now}, status = 'in_progress'
        WHERE id = ${id} AND status IN ('queued', 'in_progress') RETURNING id`,
      (rows) => rows.length > 0
    )
  }

  /** False if there was none. */
  remove(owner: string, id: string, now: number): Effect.Effect<boolean, SqlError> {
    return Effect.map(
      this.#sql<{ readonly id: string }>`DELETE FROM troupe_responses
        WHERE id = ${id} AND owner = ${owner} AND expires_at > ${now} RETURNING id`,
      (rows) => rows.length > 0
    )
  }
}
