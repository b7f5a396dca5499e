import { assert, describe, it } from "@effect/vitest"
import type { Spent } from "../../../src/services/budgets/BudgetBook.ts"
import { report } from "../../../src/services/budgets/BudgetReport.ts"

const spent = (user: string, nano: number, tokens: number): Spent => ({
  subject: { key: `key-${user}`, user, tenant: "t", model: "m", endpoint: "chat" },
  spent: { nano, tokens }
})

describe("report", () => {
  it("sums what those have spent who share a budget, in its period, in each measure", () => {
    const day = [spent("ada", 2e8, 10), spent("ada", 1e8, 10), spent("bob", 9e8, 5)]
    const spentIn = { day, week: [], month: [...day, spent("ada", 1e9, 100)], total: [] }
    const shared = { period: "day", mode: "enforced" } as const
    const states = report(
      [
        { ...shared, name: "users", by: ["user"], nano: 8e8, applies: ({ user }) => user === "ada" },
        { ...shared, name: "all", by: [], period: "month", nano: 4e9, tokens: 100 },
        { ...shared, name: "unused", by: [], period: "week", tokens: 1 }
      ],
      spentIn,
      0
    )
    assert.deepStrictEqual(states, [
      {
        ...shared,
        budget: "users",
        counter: "user ada",
        measure: "usd",
        most: 0.8,
        spent: 0.3,
        left: 0.5,
        resetsAt: 86_400_000
      },
      {
        ...shared,
        budget: "all",
        counter: "all requests",
        period: "month",
        measure: "usd",
        most: 4,
        spent: 2.2,
        left: 1.8,
        resetsAt: Date.UTC(1970, 1)
      },
      {
        ...shared,
        budget: "all",
        counter: "all requests",
        period: "month",
        measure: "tokens",
        most: 100,
        spent: 125,
        left: 0,
        resetsAt: Date.UTC(1970, 1)
      }
    ])
  })
})
