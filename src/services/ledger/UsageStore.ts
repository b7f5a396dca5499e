/** The table of the ledger, in any database of `SqlClient`. */
import { Effect } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Fragment } from "effect/sql/Statement"
import { usdOf } from "../../domain/Money.ts"
import type { Spent } from "../budgets/BudgetBook.ts"
import type { BulkRow } from "../persistence/BulkInsert.ts"
import * as BulkInsert from "../persistence/BulkInsert.ts"
import * as Migrations from "../persistence/Migrations.ts"
import type { StorageError } from "../persistence/StorageError.ts"
import type { Group, LedgerRow, UsageQuery, UsageSum } from "./Usage.ts"

const orderByTime = (sql: SqlClient): Effect.Effect<unknown, SqlError> =>
  Effect.all([
    sql`CREATE TABLE troupe_usage_ordered (
      id TEXT NOT NULL, at BIGINT NOT NULL, decision TEXT NOT NULL, key_id TEXT NOT NULL,
      user_name TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, deployment TEXT NOT NULL,
      endpoint TEXT NOT NULL, prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL,
      cache_write_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL,
      cost BIGINT, took_ms BIGINT NOT NULL, is_estimated SMALLINT NOT NULL, PRIMARY KEY (at, id)
    ) WITHOUT ROWID`,
    sql`INSERT INTO troupe_usage_ordered SELECT * FROM troupe_usage ORDER BY at, id`,
    sql`DROP TABLE troupe_usage`,
    sql`ALTER TABLE troupe_usage_ordered RENAME TO troupe_usage`
  ])

const migrations = Migrations.make("usage", [
  {
    name: "create",
    run: (sql) =>
      Effect.andThen(
        sql`CREATE TABLE troupe_usage (
          id TEXT PRIMARY KEY, at BIGINT NOT NULL, decision TEXT NOT NULL, key_id TEXT NOT NULL,
          user_name TEXT NOT NULL, tenant TEXT NOT NULL, model TEXT NOT NULL, deployment TEXT NOT NULL,
          endpoint TEXT NOT NULL, prompt_tokens BIGINT NOT NULL, cached_tokens BIGINT NOT NULL,
          cache_write_tokens BIGINT NOT NULL, completion_tokens BIGINT NOT NULL, reasoning_tokens BIGINT NOT NULL,
          cost BIGINT, took_ms BIGINT NOT NULL, is_estimated SMALLINT NOT NULL
        )`,
        sql`CREATE INDEX troupe_usage_at ON troupe_usage (at)`
      )
  },
  {
    name: "order by time",
    // SQLite writes each row into the table and into both indices: here the table is the only one.
    run: (sql) => sql.onDialectOrElse({ sqlite: () => orderByTime(sql), orElse: () => Effect.void })
  }
])

const day = 86_400_000

const columns = {
  key: "key_id",
  user: "user_name",
  tenant: "tenant",
  model: "model",
  deployment: "deployment",
  endpoint: "endpoint"
} as const satisfies Record<Exclude<Group, "day">, string>

/** The columns of a row with its values, in the order of `valuesOf`. */
const rowColumns = [
  "id",
  "at",
  "decision",
  "key_id",
  "user_name",
  "tenant",
  "model",
  "deployment",
  "endpoint",
  "prompt_tokens",
  "cached_tokens",
  "cache_write_tokens",
  "completion_tokens",
  "reasoning_tokens",
  "cost",
  "took_ms",
  "is_estimated"
] as const

const valuesOf = (row: LedgerRow): BulkRow => [
  row.id,
  Math.round(row.at),
  row.decision,
  row.key,
  row.user,
  row.tenant,
  row.model,
  row.deployment,
  row.endpoint,
  row.promptTokens,
  row.cachedTokens,
  row.cacheWriteTokens,
  row.completionTokens,
  row.reasoningTokens,
  row.cost ?? null,
  Math.round(row.tookMs),
  row.isEstimated ? 1 : 0
]

type Sums = { readonly [Column in string]: number | string | null }

const sumOf = (by: ReadonlyArray<Group>, row: Sums): UsageSum => {
  const number = (name: string): number => Number(row[name] ?? 0)
  return {
    ...Object.fromEntries(by.map((group) => [
      group,
      group === "day" ? new Date(number("day") * day).toISOString().slice(0, 10) : String(row[columns[group]])
    ])),
    attempts: number("attempts"),
    promptTokens: number("prompt_tokens"),
    cachedTokens: number("cached_tokens"),
    cacheWriteTokens: number("cache_write_tokens"),
    completionTokens: number("completion_tokens"),
    reasoningTokens: number("reasoning_tokens"),
    costUsd: usdOf(number("cost")),
    unpriced: number("unpriced")
  }
}

const expressionOf = (group: Group): string => group === "day" ? `at / ${day}` : columns[group]

const conditionsOf = (sql: SqlClient, { from, to, where = {} }: UsageQuery): ReadonlyArray<Fragment> => [
  ...(from === undefined ? [] : [sql`at >= ${from}`]),
  ...(to === undefined ? [] : [sql`at < ${to}`]),
  ...Object.entries(where).flatMap(([field, value]) =>
    value === undefined ? [] : [sql`${sql(columns[field as keyof typeof columns])} = ${value}`]
  )
]

const usage = (sql: SqlClient) => (query: UsageQuery): Effect.Effect<ReadonlyArray<UsageSum>, SqlError> => {
  const { by } = query
  const named = by.map((group) => `${expressionOf(group)}${group === "day" ? " AS day" : ""}`)
  const select = sql.literal(named.map((column) => `${column}, `).join(""))
  const grouped = sql.literal(
    by.length === 0 ? "" : `GROUP BY ${by.map(expressionOf).join(", ")} ORDER BY ${by.map(expressionOf).join(", ")}`
  )
  return Effect.map(
    sql<Sums>`SELECT ${select}COUNT(*) AS attempts, SUM(prompt_tokens) AS prompt_tokens,
      SUM(cached_tokens) AS cached_tokens, SUM(cache_write_tokens) AS cache_write_tokens,
      SUM(completion_tokens) AS completion_tokens, SUM(reasoning_tokens) AS reasoning_tokens, SUM(cost) AS cost,
      SUM(CASE WHEN cost IS NULL THEN 1 ELSE 0 END) AS unpriced
      FROM troupe_usage WHERE ${sql.and(conditionsOf(sql, query))} ${grouped}`,
    (rows) => rows.filter(({ attempts }) => attempts !== 0).map((row) => sumOf(by, row))
  )
}

const insert = (sql: SqlClient) => {
  const insertRows = BulkInsert.into(sql, "troupe_usage", rowColumns)
  return (rows: ReadonlyArray<LedgerRow>) => insertRows(rows.map(valuesOf))
}

interface SpentRow {
  readonly key_id: string
  readonly user_name: string
  readonly tenant: string
  readonly model: string
  readonly endpoint: string
  readonly cost: number | string | null
  readonly tokens: number | string
}

const spentSince = (sql: SqlClient) => (from: number): Effect.Effect<ReadonlyArray<Spent>, SqlError> =>
  Effect.map(
    sql<SpentRow>`SELECT key_id, user_name, tenant, model, endpoint, SUM(cost) AS cost,
      SUM(prompt_tokens + completion_tokens) AS tokens
      FROM troupe_usage WHERE at >= ${from} GROUP BY key_id, user_name, tenant, model, endpoint`,
    (rows) =>
      rows.map(({ cost, endpoint, key_id, model, tenant, tokens, user_name }) => ({
        subject: { key: key_id, user: user_name, tenant, model, endpoint },
        spent: { nano: Number(cost ?? 0), tokens: Number(tokens) }
      }))
  )

/** The ledger in a database. */
export interface UsageStore {
  /** Rows that are there already stay as they are. */
  readonly insert: (rows: ReadonlyArray<LedgerRow>) => Effect.Effect<unknown, SqlError>
  readonly usage: (query: UsageQuery) => Effect.Effect<ReadonlyArray<UsageSum>, SqlError>
  /** @param from ms since 1970 */
  readonly spentSince: (from: number) => Effect.Effect<ReadonlyArray<Spent>, SqlError>
}

/** Creates the tables that do not exist. */
export const make: Effect.Effect<UsageStore, SqlError | StorageError, SqlClient> = Effect.gen(function*() {
  yield* Migrations.apply(migrations)
  const sql = yield* SqlClient
  return { insert: insert(sql), usage: usage(sql), spentSince: spentSince(sql) }
})
