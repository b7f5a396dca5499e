import { assert, describe, it } from "@effect/vitest"
import { RejectionLog } from "../../../src/services/admission/RejectionLog.ts"
import type { Overspent } from "../../../src/services/budgets/BudgetBook.ts"
import type { Exceeded } from "../../../src/services/limits/RateWindows.ts"

const limit: Exceeded = {
  rule: "few",
  limit: "requestsPerHour",
  counter: "user ann",
  most: 5,
  remaining: 0,
  needed: 1,
  resetMs: 1_000
}

const budget: Overspent = {
  rule: "shop",
  counter: "tenant shop",
  measure: "usd",
  most: 50_000_000_000,
  spent: 0,
  reserved: 0,
  needed: 1,
  period: "month",
  resetMs: undefined
}

describe("RejectionLog", () => {
  it("names the kind, the setting and its value", () => {
    const log = new RejectionLog()
    assert.deepStrictEqual([
      log.entry(limit, "shadow", 0),
      log.entry({ ...limit, rule: "key", counter: "key a" }, "enforced", 0),
      log.entry(budget, "enforced", 0),
      log.entry({ ...budget, rule: "key month", counter: "key a", measure: "tokens", most: 40 }, "enforced", 0)
    ], [
      "Limit limits.few.requestsPerHour: 5 (user ann) would have rejected a request.",
      "Limit requestsPerHour: 5 of a key (key a) rejected a request.",
      "Budget budgets.shop.usd: 50 (tenant shop) rejected a request.",
      "Budget of a key month, tokens: 40 (key a) rejected a request."
    ])
  })

  it("has one entry for each rule and mode in 10 s, and counts the others", () => {
    const log = new RejectionLog()
    assert.isDefined(log.entry(limit, "enforced", 0))
    assert.isUndefined(log.entry({ ...limit, counter: "user bob" }, "enforced", 9_999))
    assert.isDefined(log.entry(limit, "shadow", 9_999))
    assert.match(log.entry(limit, "enforced", 10_000)!, /1 before it were not logged\.$/)
    assert.notMatch(log.entry(limit, "enforced", 20_000)!, /not logged/)
  })
})
