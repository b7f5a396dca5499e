/**
 * What a request claims of shared counters, for its limits and budgets. Pure.
 *
 * **Details**
 *
 * A rate limit has a counter for each window, and a budget has one for each measure. A limit of parallel requests has one
 * counter, in which nothing is ever spent. Windows of shared limits begin at whole minutes, hours and days of UTC, because the name of a
 * counter contains the begin.
 */
import type { Standing } from "../../domain/Inference.ts"
import type { Amount, BudgetRule, Overspent } from "../budgets/BudgetBook.ts"
import { beginOf, endOf } from "../budgets/BudgetBook.ts"
import type { Exceeded, LimitRule, Measure, WindowName } from "../limits/RateWindows.ts"
import { windowsOf } from "../limits/RateWindows.ts"
import type { Applied } from "./AdmissionRules.ts"
import type { CounterState, Hold } from "./Counters.ts"
import { fits, never } from "./Counters.ts"
import type { Subject } from "./Subject.ts"
import { counterOf, describe } from "./Subject.ts"

interface Common {
  readonly hold: Hold
  /** The limit, also of a shadow rule, whose hold has none. */
  readonly most: number
  readonly described: string
}

export interface LimitClaim extends Common {
  readonly type: "limit"
  readonly rule: LimitRule
  readonly limit: WindowName | "parallel"
  /** Undefined for requests at the same time. */
  readonly measure: Measure | undefined
}

export interface BudgetClaim extends Common {
  readonly type: "budget"
  readonly rule: BudgetRule
  readonly measure: "usd" | "tokens"
}

export type Claim = LimitClaim | BudgetClaim

/** What budgets have spent before, by the ledger. */
export type FloorOf = (rule: BudgetRule, counter: string, measure: BudgetClaim["measure"], now: number) => number

const separator = "\u001f"

const nameOf = (...parts: ReadonlyArray<string | number>): string => parts.join(separator)

const limitClaims = (rule: LimitRule, subject: Subject, tokens: number, now: number): ReadonlyArray<LimitClaim> => {
  const { by, limits, mode, name } = rule
  const counter = counterOf(by, subject)
  const claim = (
    limit: LimitClaim["limit"],
    measure: LimitClaim["measure"],
    most: number,
    begin: number,
    endsAt: number
  ): LimitClaim => ({
    type: "limit",
    rule,
    limit,
    measure,
    most,
    described: describe(by, subject),
    hold: {
      counter: nameOf("limit", name, counter, limit, begin),
      most: mode === "shadow" ? undefined : most,
      amount: measure === "tokens" ? tokens : 1,
      floor: 0,
      endsAt
    }
  })
  const parallel = limits.parallel === undefined ? [] : [claim("parallel", undefined, limits.parallel, 0, never)]
  return [
    ...parallel,
    // The window that ends last is first: a rejected request waits for its end.
    ...windowsOf(limits).toSorted((one, other) => other.ms - one.ms).map(({ limit, measure, ms, name }) => {
      const begin = Math.floor(now / ms) * ms
      return claim(name, measure, limit, begin, begin + ms)
    })
  ]
}

const budgetClaims = (
  rule: BudgetRule,
  subject: Subject,
  { nano, tokens }: Amount,
  now: number,
  floorOf: FloorOf
): ReadonlyArray<BudgetClaim> => {
  const { by, mode, name, period } = rule
  const counter = counterOf(by, subject)
  const claim = (measure: BudgetClaim["measure"], most: number | undefined, amount: number) =>
    most === undefined ? [] : [
      {
        type: "budget",
        rule,
        measure,
        most,
        described: describe(by, subject),
        hold: {
          counter: nameOf("budget", name, counter, measure, beginOf(period, now)),
          most: mode === "shadow" ? undefined : most,
          amount,
          floor: floorOf(rule, counter, measure, now),
          endsAt: endOf(period, now) ?? never
        }
      } satisfies BudgetClaim
    ]
  return [...claim("usd", rule.nano, nano), ...claim("tokens", rule.tokens, tokens)]
}

/** A rule of a key and one of the settings may have the same name: each counts in a counter of its own. */
const distinct = (claims: ReadonlyArray<Claim>): ReadonlyArray<Claim> => {
  const names = new Set<string>()
  return claims.map((claim) => {
    let { counter } = claim.hold
    while (names.has(counter)) counter += `${separator}+`
    names.add(counter)
    return counter === claim.hold.counter ? claim : { ...claim, hold: { ...claim.hold, counter } }
  })
}

/**
 * The claims of a request.
 *
 * @param tokens that count in its limits
 * @param amount that it reserves of its budgets
 * @param now ms since 1970
 */
export const claimsOf = (
  { budgets, limits }: Applied,
  subject: Subject,
  tokens: number,
  amount: Amount,
  now: number,
  floorOf: FloorOf
): ReadonlyArray<Claim> =>
  distinct([
    ...limits.flatMap((rule) => limitClaims(rule, subject, tokens, now)),
    ...budgets.flatMap((rule) => budgetClaims(rule, subject, amount, now, floorOf))
  ])

const exceededOf = (claim: LimitClaim, { reserved, spent }: CounterState, now: number): Exceeded => ({
  rule: claim.rule.name,
  limit: claim.limit,
  counter: claim.described,
  most: claim.most,
  remaining: Math.max(0, claim.most - spent - reserved),
  needed: claim.hold.amount,
  resetMs: claim.measure === undefined
    ? undefined
    : claim.hold.amount > claim.most
    ? Number.POSITIVE_INFINITY
    : claim.hold.endsAt - now
})

const overspentOf = (claim: BudgetClaim, { reserved, spent }: CounterState, now: number): Overspent => {
  const end = endOf(claim.rule.period, now)
  return {
    rule: claim.rule.name,
    counter: claim.described,
    measure: claim.measure,
    most: claim.most,
    spent,
    reserved,
    needed: claim.hold.amount,
    period: claim.rule.period,
    resetMs: end === undefined ? undefined : end - now
  }
}

/** A rule with no room for the request. */
export const refusalOf = (claim: Claim, state: CounterState, now: number): Exceeded | Overspent =>
  claim.type === "limit" ? exceededOf(claim, state, now) : overspentOf(claim, state, now)

/** The claims of one mode that do not fit. */
export const unfit = (
  claims: ReadonlyArray<Claim>,
  states: ReadonlyArray<CounterState>,
  mode: "enforced" | "shadow"
): ReadonlyArray<readonly [Claim, CounterState]> =>
  claims.flatMap((claim, index) =>
    claim.rule.mode === mode && !fits({ ...claim.hold, most: claim.most }, states[index]!)
      ? [[claim, states[index]!] as const]
      : []
  )

/** What is left for the request in its enforced budgets. */
export const leftOf = (claims: ReadonlyArray<Claim>, states: ReadonlyArray<CounterState>): Amount => {
  const left = { usd: Number.POSITIVE_INFINITY, tokens: Number.POSITIVE_INFINITY }
  claims.forEach((claim, index) => {
    if (claim.type === "limit" || claim.rule.mode === "shadow") return
    const { reserved, spent } = states[index]!
    left[claim.measure] = Math.min(left[claim.measure], Math.max(0, claim.most - spent - reserved))
  })
  return { nano: left.usd, tokens: left.tokens }
}

/** The enforced limit with the smallest share left after the request. */
export const standingOf = (
  claims: ReadonlyArray<Claim>,
  usedOf: (counter: string) => number,
  measure: Measure,
  now: number
): Standing | undefined => {
  let least: Standing | undefined
  for (const claim of claims) {
    if (claim.type === "budget" || claim.measure !== measure || claim.rule.mode === "shadow") continue
    const { hold: { counter, endsAt }, most } = claim
    const remaining = Math.max(0, most - usedOf(counter))
    if (least !== undefined && remaining / most >= least.remaining / least.limit) continue
    least = { limit: most, remaining, resetMs: Math.max(0, endsAt - now) }
  }
  return least
}
