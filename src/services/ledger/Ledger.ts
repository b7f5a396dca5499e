/** The ledger: a row for each attempt that used tokens, and the sums of them. */
import { Context, Effect, Layer } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import * as Defaults from "../../domain/Defaults.ts"
import type { Spent } from "../budgets/BudgetBook.ts"
import * as WriteBehind from "../persistence/WriteBehind.ts"
import type { LedgerRow, UsageQuery, UsageSum } from "./Usage.ts"
import * as UsageStore from "./UsageStore.ts"

export class Ledger extends Context.Service<Ledger, {
  /** Returns at once: rows are written in groups. */
  readonly add: (row: LedgerRow) => void
  /** Waits until the rows that were added are written. */
  readonly flush: Effect.Effect<void>
  /** Of the rows that are written. */
  readonly usage: (query: UsageQuery) => Effect.Effect<ReadonlyArray<UsageSum>, SqlError>
  /** @param from ms since 1970 */
  readonly spentSince: (from: number) => Effect.Effect<ReadonlyArray<Spent>, SqlError>
}>()("troupe/services/ledger/Ledger") {}

/** Keeps nothing: for programs that do not ask what was used. */
export const none = Ledger.of({
  add: () => {},
  flush: Effect.void,
  usage: () => Effect.succeed([]),
  spentSince: () => Effect.succeed([])
})

/** In the database. Requires `SqlClient`. */
export const layer = Layer.effect(
  Ledger,
  Effect.gen(function*() {
    const store = yield* UsageStore.make
    const rows = yield* WriteBehind.make({
      name: "the ledger",
      insert: store.insert,
      delayMs: Defaults.writeBehind.ledgerDelayMs
    })
    return Ledger.of({
      add: (row) => {
        rows.add(row)
      },
      flush: rows.flush,
      usage: store.usage,
      spentSince: store.spentSince
    })
  })
)
