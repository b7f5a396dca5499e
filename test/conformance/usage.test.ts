/** The ledger, on each database. */
import { assert } from "@effect/vitest"
import { Effect } from "effect"
import type { LedgerRow } from "../../src/services/ledger/Usage.ts"
import * as UsageStore from "../../src/services/ledger/UsageStore.ts"
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
