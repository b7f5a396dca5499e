/** What is spent of each budget, by the ledger: of all processes, and of earlier runs. Pure. */
import { Schema } from "effect"
import * as Money from "../../domain/Money.ts"
import { counterOf, describeUser, isCopy } from "../admission/Subject.ts"
import type { Amount, BudgetRule, Period, Spent } from "./BudgetBook.ts"
import { endOf } from "./BudgetBook.ts"

/** One measure of a budget, for the requests that share it. */
export const BudgetState = Schema.Struct({
  budget: Schema.String,
  /** What shares it, as `user ada`. */
  counter: Schema.String,
  period: Schema.Literals(["day", "week", "month", "total"]),
  mode: Schema.Literals(["enforced", "shadow"]),
  measure: Schema.Literals(["usd", "tokens"]),
  most: Schema.Finite,
  spent: Schema.Finite,
  /** Without what running requests have reserved. */
  left: Schema.Finite,
  /** When the next period begins, ms since 1970; left out, never. */
  resetsAt: Schema.optionalKey(Schema.Finite)
})
export type BudgetState = typeof BudgetState.Type

/** The sums of those who share a budget. */
const sumsOf = ({ applies, by }: BudgetRule, spent: ReadonlyArray<Spent>): ReadonlyMap<string, Spent> => {
  const sums = new Map<string, Spent>()
  for (const one of spent) {
    if (applies?.(one.subject) === false) continue
    const name = counterOf(by, one.subject)
    const { nano, tokens } = sums.get(name)?.spent ?? { nano: 0, tokens: 0 }
    sums.set(name, { subject: one.subject, spent: { nano: nano + one.spent.nano, tokens: tokens + one.spent.tokens } })
  }
  return sums
}

const statesOf = (
  rule: BudgetRule,
  counter: string,
  { nano, tokens }: Amount,
  now: number
): ReadonlyArray<BudgetState> => {
  const { mode, name: budget, period } = rule
  const end = endOf(period, now)
  const state = (
    measure: BudgetState["measure"],
    most: number | undefined,
    spent: number,
    unit: (amount: number) => number
  ) =>
    most === undefined ? [] : [{
      budget,
      counter,
      period,
      mode,
      measure,
      most: unit(most),
      spent: unit(spent),
      left: unit(Math.max(0, most - spent)),
      ...(end === undefined ? {} : { resetsAt: end })
    }]
  return [...state("usd", rule.nano, nano, Money.usdOf), ...state("tokens", rule.tokens, tokens, (count) => count)]
}

export type SpentIn = Readonly<Record<Period, ReadonlyArray<Spent>>>

/** What callers have spent, without copies of their requests. */
export const ofCallers = ({ day, month, total, week }: SpentIn): SpentIn => {
  const own = (spent: ReadonlyArray<Spent>) => spent.filter(({ subject }) => !isCopy(subject))
  return { day: own(day), week: own(week), month: own(month), total: own(total) }
}

/** What each key has spent. */
export const byKey = (spentIn: SpentIn): ReadonlyMap<string, SpentIn> => {
  const found = new Map<string, Record<Period, Array<Spent>>>()
  for (const period of ["day", "week", "month", "total"] as const) {
    for (const one of spentIn[period]) {
      const { key } = one.subject
      const known = found.get(key) ?? { day: [], week: [], month: [], total: [] }
      known[period].push(one)
      found.set(key, known)
    }
  }
  return found
}

/**
 * The states of the budgets that were charged in the current period.
 *
 * @param spentIn what was spent in each period
 * @param now ms since 1970
 */
export const report = (
  rules: ReadonlyArray<BudgetRule>,
  spentIn: SpentIn,
  now: number
): ReadonlyArray<BudgetState> =>
  rules.flatMap((rule) =>
    [...sumsOf(rule, spentIn[rule.period]).values()].flatMap(({ spent, subject }) =>
      statesOf(rule, describeUser(rule.by, subject), spent, now)
    )
  )
