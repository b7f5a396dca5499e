/** The ledger, on each database. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { LedgerRow } from "../../src/services/ledger/Usage.ts"
import * as UsageStore from "../../src/services/ledger/UsageStore.ts"
import * as Migrations from "../../src/services/persistence/Migrations.ts"
import { isRejected } from "../../src/services/persistence/StorageError.ts"
import { onEachDatabase } from "./databases.ts"

const day = 86_400_000
const today = 20_000 * day

let count = 0

const row = (given: Partial<LedgerRow> = {}): LedgerRow => ({
  id: `dec-1-${count++}`,
  at: today + 1,
  decision: "dec-1",
  key: "k1",
  user: "ada",
  tenant: "team",
  model: "m",
  deployment: "m#0",
  endpoint: "chat",
  promptTokens: 10,
  cachedTokens: 4,
  cacheWriteTokens: 1,
  completionTokens: 5,
  reasoningTokens: 2,
  cost: 0,
  tookMs: 12.5,
  isEstimated: false,
  ...given
})

const sums = {
  attempts: 1,
  promptTokens: 10,
  cachedTokens: 4,
  cacheWriteTokens: 1,
  completionTokens: 5,
  reasoningTokens: 2
}

onEachDatabase("the ledger", (test) => {
  test("sums by day, user and others; an unknown price is counted and not 0", (database) =>
    Effect.gen(function*() {
      const store = yield* UsageStore.make
      yield* store.insert([
        row({ cost: 2_500_000_000 }),
        row({ at: today - 1, user: "grace", cost: 1 }),
        row({ at: today - 1, user: "grace", cost: undefined })
      ])
      assert.deepStrictEqual(yield* store.usage({ by: ["day", "user"] }), [
        {
          day: "2024-10-03",
          user: "grace",
          ...sums,
          attempts: 2,
          promptTokens: 20,
          cachedTokens: 8,
          cacheWriteTokens: 2,
          completionTokens: 10,
          reasoningTokens: 4,
          costUsd: 1e-9,
          unpriced: 1
        },
        { day: "2024-10-04", user: "ada", ...sums, costUsd: 2.5, unpriced: 0 }
      ])
      const one = yield* store.usage({ by: [], from: today, to: today + day, where: { user: "ada", model: "m" } })
      assert.deepStrictEqual(one, [{ ...sums, costUsd: 2.5, unpriced: 0 }])
      assert.deepStrictEqual(yield* store.usage({ by: [], from: today + day }), [])
      const quoted = yield* store.usage({ by: ["tenant"], where: { tenant: "'; DROP TABLE troupe_usage; --" } })
      assert.deepStrictEqual(quoted, [])
    }).pipe(Effect.provide(database.layer())))

  test("counts a row that is written twice once", (database) =>
    Effect.gen(function*() {
      const store = yield* UsageStore.make
      const one = row({ cost: 7 })
      yield* store.insert([one, row({ cost: 1 })])
      yield* store.insert([one])
      assert.deepInclude((yield* store.usage({ by: [] }))[0], { attempts: 2, costUsd: 8e-9 })
    }).pipe(Effect.provide(database.layer())))

  test("adds all rows of a group or none", (database) =>
    Effect.gen(function*() {
      const store = yield* UsageStore.make
      const invalid = row({ user: null as unknown as string })
      assert.isTrue(isRejected(yield* Effect.flip(store.insert([row(), row(), invalid, row()]))))
      assert.deepStrictEqual(yield* store.usage({ by: [] }), [])
      yield* store.insert([row()])
      assert.deepInclude((yield* store.usage({ by: [] }))[0], { attempts: 1 })
    }).pipe(Effect.provide(database.layer())))

  test("keeps the rows of its first table", (database) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      yield* Migrations.apply(Migrations.make("usage", [{
        name: "create",
        run: () =>
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
      }]))
      yield* sql`INSERT INTO troupe_usage VALUES
        ('dec-0-0', ${today}, 'dec-0', 'k1', 'ada', 'team', 'm', 'm#0', 'chat', 10, 4, 1, 5, 2, 7, 12, 0)`
      const store = yield* UsageStore.make
      yield* store.insert([row({ id: "dec-0-0", at: today, cost: 7 }), row({ cost: 1 })])
      assert.deepInclude((yield* store.usage({ by: [] }))[0], {
        attempts: 2,
        promptTokens: 20,
        cachedTokens: 8,
        cacheWriteTokens: 2,
        completionTokens: 10,
        reasoningTokens: 4,
        costUsd: 8e-9
      })
    }).pipe(Effect.provide(database.layer())))

  test("sums what is spent since a time by who and what", (database) =>
    Effect.gen(function*() {
      const store = yield* UsageStore.make
      yield* store.insert([
        row({ cost: 4e15 }),
        row({ cost: 3 }),
        row({ at: today - 1, cost: 5 }),
        row({ user: "b", cost: undefined })
      ])
      const subject = { key: "k1", user: "ada", tenant: "team", model: "m", endpoint: "chat" }
      const spent = yield* store.spentSince(today)
      assert.deepStrictEqual([...spent].sort((one, other) => one.subject.user < other.subject.user ? -1 : 1), [
        { subject, spent: { nano: 4e15 + 3, tokens: 30 } },
        { subject: { ...subject, user: "b" }, spent: { nano: 0, tokens: 15 } }
      ])
    }).pipe(Effect.provide(database.layer())))
})
