import { assert, describe, it } from "@effect/vitest"
import type { Grant } from "../../../src/services/admission/AdmissionRules.ts"
import { AdmissionRules } from "../../../src/services/admission/AdmissionRules.ts"
import type { Amount, Overspent, Reservation } from "../../../src/services/budgets/BudgetBook.ts"
import { BudgetBook } from "../../../src/services/budgets/BudgetBook.ts"
import { admissionOf, covers } from "../../../src/services/settings/AdmissionSettings.ts"

const subjectOf = (keyId: string) => ({ key: keyId, user: keyId, tenant: "t", model: "m", endpoint: "chat" })

const rulesOf = (grant: Grant) => new AdmissionRules(admissionOf({}), covers).of(grant, subjectOf(grant.keyId))

describe("the budgets of a key", () => {
  it("each count alone, also several of one period", () => {
    const { budgets } = rulesOf({
      keyId: "k1",
      budgets: [{ period: "day", usd: 1 }, { period: "day", tokens: 100 }, { period: "month", tokens: 150 }]
    })
    const book = new BudgetBook()
    const overspent = (amount: Amount) => book.reserve(budgets, subjectOf("k1"), amount, 0) as Overspent
    assert.deepInclude(overspent({ nano: 2e9, tokens: 1 }), { measure: "usd", most: 1e9 })
    assert.deepInclude(overspent({ nano: 0, tokens: 101 }), { measure: "tokens", most: 100 })
    const held = book.reserve(budgets, subjectOf("k1"), { nano: 6e8, tokens: 60 }, 0) as Reservation
    held.charge({ nano: 6e8, tokens: 60 })
    assert.deepStrictEqual(book.left(budgets, subjectOf("k1"), 0), { nano: 4e8, tokens: 40 })
  })

  it("have the same names for all keys, because metrics have them", () => {
    const [one, other] = ["k1", "k2"].map((keyId) =>
      rulesOf({ keyId, budgets: [{ period: "day", usd: 1 }] }).budgets[0]!
    )
    assert.strictEqual(one!.name, other!.name)
    const book = new BudgetBook()
    book.reserve([one!], subjectOf("k1"), { nano: 1e9, tokens: 0 }, 0)
    assert.deepStrictEqual(book.left([other!], subjectOf("k2"), 0).nano, 1e9)
  })
})

describe("the keys of a rule", () => {
  const { budgets, limits } = admissionOf({
    limits: { one: { keys: ["ann"], requestsPerDay: 1 } },
    budgets: { one: { keys: ["team-*"], period: "day", tokens: 1 } }
  })

  it("are ids or names, with patterns", () => {
    const of = (key: string, keyName?: string) => {
      const subject = { ...subjectOf(key), keyName }
      return [covers(limits[0]!.scope, subject), budgets[0]!.rule.applies!(subject)]
    }
    assert.deepStrictEqual(of("settings/ann", "ann"), [true, false])
    assert.deepStrictEqual(of("ann"), [true, false])
    assert.deepStrictEqual(of("key_1", "team-red"), [false, true])
    assert.deepStrictEqual(of("settings/annie", "annie"), [false, false])
    assert.deepStrictEqual(of("key_1"), [false, false])
    assert.deepStrictEqual(of(""), [false, false])
  })
})
