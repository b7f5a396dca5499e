import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Subject } from "../../../src/services/admission/Subject.ts"
import type { BudgetRule, Overspent, Period } from "../../../src/services/budgets/BudgetBook.ts"
import { beginOf, BudgetBook, endOf, Held, History, Reservation } from "../../../src/services/budgets/BudgetBook.ts"

const subject: Subject = { key: "k1", user: "ada", tenant: "team", model: "m", endpoint: "chat" }
const now = Date.UTC(2026, 10, 30, 12)
const rule = (given: Partial<BudgetRule> = {}): BudgetRule => ({
  name: "team budget",
  by: ["tenant"],
  period: "month",
  mode: "enforced",
  ...given
})
const usd = (nano: number) => ({ nano, tokens: 0 })

type Act = "begin" | "charge" | "extend" | "end"

/** Requests at the same time, each of which does one thing after another. A token costs half a nano-dollar. */
class Requests implements Record<Act, (request: number, part: number) => void> {
  readonly all = new Held()
  readonly #book = new BudgetBook(new Map(), this.all)
  readonly #rules: ReadonlyArray<BudgetRule>
  readonly #running = new Map<number, Reservation>()
  spent = 0

  constructor(rules: ReadonlyArray<BudgetRule>) {
    this.#rules = rules
  }

  get held(): number {
    return [...this.#running.values()].reduce((sum, { held: { nano } }) => sum + nano, 0)
  }

  get running(): number {
    return this.#running.size
  }

  get left() {
    return this.#book.left(this.#rules, subject, now)
  }

  begin(request: number, part: number): void {
    if (this.#running.has(request)) return
    const outcome = this.#book.reserve(this.#rules, subject, { nano: part, tokens: part * 2 }, now)
    if (outcome instanceof Reservation) this.#running.set(request, outcome)
  }

  charge(request: number, part: number): void {
    const one = this.#running.get(request)
    if (one === undefined) return
    const used = Math.min(part, one.held.nano)
    one.charge({ nano: used, tokens: used * 2 })
    this.spent += used
  }

  extend(request: number, part: number): void {
    this.#running.get(request)?.extend({ nano: part, tokens: part * 2 }, now)
  }

  end(request: number): void {
    this.#running.get(request)?.end()
    this.#running.delete(request)
  }

  endAll(): void {
    for (const request of this.#running.keys()) this.end(request)
  }
}

const reserved = (outcome: Reservation | Overspent): Reservation => {
  assert.instanceOf(outcome, Reservation)
  return outcome
}

describe("BudgetBook", () => {
  it("reserves in all budgets or in none", () => {
    const book = new BudgetBook()
    const wide = rule({ name: "wide", nano: 100 })
    const narrow = rule({ name: "narrow", by: ["user"], nano: 10 })
    const refused = book.reserve([wide, narrow], subject, usd(11), now)
    assert.deepInclude(refused, {
      rule: "narrow",
      counter: "user of key k1",
      most: 10,
      needed: 11,
      spent: 0,
      reserved: 0
    })
    assert.deepStrictEqual(book.left([wide], subject, now).nano, 100)
  })

  it("charges what was used and refunds the rest", () => {
    const book = new BudgetBook()
    const rules = [rule({ nano: 100, tokens: 1_000 })]
    const one = reserved(book.reserve(rules, subject, { nano: 80, tokens: 500 }, now))
    one.charge({ nano: 30, tokens: 200 })
    assert.deepStrictEqual(book.left(rules, subject, now), { nano: 20, tokens: 500 })
    one.end()
    one.end()
    assert.deepStrictEqual(book.left(rules, subject, now), { nano: 70, tokens: 800 })
  })

  it("refunds everything when nothing ran", () => {
    const book = new BudgetBook()
    const rules = [rule({ nano: 100 })]
    reserved(book.reserve(rules, subject, usd(100), now)).end()
    assert.strictEqual(book.left(rules, subject, now).nano, 100)
  })

  it("extends a reservation for another attempt only where there is room", () => {
    const book = new BudgetBook()
    const rules = [rule({ nano: 100 })]
    const one = reserved(book.reserve(rules, subject, usd(60), now))
    assert.deepInclude(one.extend(usd(41), now), { reserved: 0, needed: 101 })
    assert.isUndefined(one.extend(usd(40), now))
    assert.strictEqual(one.held.nano, 100)
  })

  it("begins again with the next period, and says when", () => {
    const book = new BudgetBook()
    const rules = [rule({ period: "day", nano: 10 })]
    reserved(book.reserve(rules, subject, usd(10), now)).charge(usd(10))
    const refused = book.reserve(rules, subject, usd(1), now)
    assert.deepInclude(refused, { resetMs: 12 * 3_600_000, spent: 10 })
    reserved(book.reserve(rules, subject, usd(10), now + 12 * 3_600_000))
  })

  it("counts what earlier processes have spent in the same period, by the dimensions and the scope of the budget", () => {
    const begin = beginOf("month", now)
    const spent = [
      { subject, spent: usd(30) },
      { subject: { ...subject, user: "grace" }, spent: usd(40) },
      { subject: { ...subject, tenant: "other" }, spent: usd(99) }
    ]
    const left = (given: Partial<BudgetRule>, from = begin) => {
      const book = new BudgetBook(new Map([["month", new History(from, spent)]]))
      return book.left([rule({ nano: 100, ...given })], subject, now).nano
    }
    assert.strictEqual(left({}), 30)
    assert.strictEqual(left({ by: ["user"] }), 0)
    assert.strictEqual(left({ by: ["tenant", "user"] }), 70)
    assert.strictEqual(left({ applies: ({ user }) => user === "grace" }), 60)
    assert.strictEqual(left({ period: "day" }), 100)
    assert.strictEqual(left({}, begin - 1), 100)
  })

  it("keeps what is spent when a budget is changed", () => {
    const book = new BudgetBook()
    const one = reserved(book.reserve([rule({ nano: 100 })], subject, usd(50), now))
    one.charge(usd(20))
    assert.strictEqual(book.left([rule({ nano: 60 })], subject, now).nano, 10)
    one.end()
    assert.strictEqual(book.left([rule({ nano: 60 })], subject, now).nano, 40)
  })

  it("raises each alert once: shares of the budget, and little left for requests like the last", () => {
    const book = new BudgetBook()
    const rules = [rule({ nano: 1_000 })]
    const causes = Array.from({ length: 10 }, () => {
      const one = reserved(book.reserve(rules, subject, usd(100), now))
      const alerts = one.charge(usd(100))
      one.end()
      return alerts.map(({ cause }) => cause)
    })
    assert.deepStrictEqual(causes, [
      [{ timesLastCost: 10 }],
      [],
      [],
      [],
      [{ percent: 50 }],
      [],
      [],
      [{ percent: 80 }],
      [],
      [{ percent: 95 }]
    ])
  })

  it("raises the alerts of a budget that has grown again", () => {
    const book = new BudgetBook()
    const causes = [100, 100, 200].map((nano, at) => {
      const one = reserved(book.reserve([rule({ nano: nano })], subject, usd([90, 10, 60][at]!), now))
      const alerts = one.charge(usd([90, 10, 60][at]!), { percents: [50, 80], timesLastCost: 0 })
      one.end()
      return alerts.map(({ cause }) => cause)
    })
    assert.deepStrictEqual(causes, [[{ percent: 80 }], [], [{ percent: 80 }]])
  })

  it("raises alerts as configured, also by another configuration", () => {
    const book = new BudgetBook()
    const rules = [rule({ nano: 1_000 })]
    const alerts = [
      { percents: [20, 10], timesLastCost: 0 },
      { percents: [90], timesLastCost: 0 },
      { percents: [10, 40], timesLastCost: 7 }
    ]
    const causes = [100, 100, 100, 100, 500].map((nano, at) => {
      const one = reserved(book.reserve(rules, subject, usd(nano), now))
      const raised = one.charge(usd(nano), alerts[Math.min(Math.max(at - 1, 0), 2)])
      one.end()
      return raised.map(({ cause }) => cause)
    })
    assert.deepStrictEqual(causes, [
      [{ percent: 10 }],
      [{ percent: 20 }],
      [],
      [{ percent: 40 }, { timesLastCost: 7 }],
      []
    ])
  })

  it("counts in a shadow budget, and rejects nothing", () => {
    const book = new BudgetBook()
    const rules = [rule({ nano: 10, mode: "shadow" })]
    const one = reserved(book.reserve(rules, subject, usd(11), now))
    assert.deepStrictEqual(one.shadowed.map(({ needed, most }) => [needed, most]), [[11, 10]])
  })

  it("spent and reserved never exceed an enforced budget, in any interleaving", () => {
    const step = fc.record({
      request: fc.nat(199),
      act: fc.constantFrom<Act>("begin", "charge", "extend", "end"),
      part: fc.nat(100)
    })
    fc.assert(fc.property(fc.array(step, { maxLength: 200 }), fc.integer({ min: 1, max: 2_000 }), (steps, most) => {
      const rules = [rule({ nano: most }), rule({ name: "tokens", by: [], period: "total", tokens: most * 2 })]
      const requests = new Requests(rules)
      for (const { act, part, request } of steps) {
        requests[act](request, part)
        assert.isAtMost(requests.spent + requests.held, most)
        assert.strictEqual(requests.left.nano, most - requests.spent - requests.held)
        assert.deepInclude(requests.all, { requests: requests.running, nano: requests.held, tokens: 2 * requests.held })
      }
      requests.endAll()
      assert.deepInclude(requests.all, { requests: 0, nano: 0, tokens: 0 })
      assert.deepStrictEqual(requests.left, { nano: most - requests.spent, tokens: 2 * (most - requests.spent) })
    }))
  })
})

describe("periods", () => {
  it("cover time without gaps, in UTC, weeks from Monday", () => {
    const periods: ReadonlyArray<Exclude<Period, "total">> = ["day", "week", "month"]
    fc.assert(fc.property(fc.constantFrom(...periods), fc.nat(4e12), (period, at) => {
      const begin = beginOf(period, at)
      const end = endOf(period, at)!
      assert.isTrue(begin <= at && at < end)
      assert.strictEqual(beginOf(period, end), end)
      assert.strictEqual(beginOf(period, end - 1), begin)
      if (period === "week") assert.strictEqual(new Date(begin).getUTCDay(), 1)
    }))
    assert.strictEqual(endOf("total", now), undefined)
  })
})
