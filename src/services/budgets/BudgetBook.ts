/**
 * Budgets: what may be spent in a period, in money and tokens. Pure policy: time is an argument.
 *
 * **Details**
 *
 * A request reserves the most that it can cost in every budget that applies, or in none. Each attempt charges what it has
 * cost, and the end of the request refunds what it did not use. So what is spent and what is reserved never exceed a budget
 * together, however many requests run at once.
 *
 * Days, weeks and months begin at midnight UTC, weeks on Monday. What a request costs counts in the period in which it was
 * reserved.
 */
import type { Nano } from "../../domain/Money.ts"
import type { Dimension, Subject } from "../admission/Subject.ts"
import { counterOf, describe } from "../admission/Subject.ts"
import type { AlertRules, BudgetAlert } from "./BudgetAlert.ts"
import { alertRules, hasLittleLeft, percentOf, percentReached } from "./BudgetAlert.ts"

export type Period = "day" | "week" | "month" | "total"

/** An amount of both; a request counts in money only where its price is known. */
export interface Amount {
  readonly nano: Nano
  readonly tokens: number
}

export interface BudgetRule {
  /** Its name in messages, metrics and the store. */
  readonly name: string
  readonly by: ReadonlyArray<Dimension>
  readonly period: Period
  /** The most money in the period; left out, without a limit. */
  readonly nano?: Nano | undefined
  readonly tokens?: number | undefined
  /** A shadow budget counts and reports, and rejects nothing. */
  readonly mode: "enforced" | "shadow"
  /** Whether requests of a subject count; left out, all do. */
  readonly applies?: ((subject: Subject) => boolean) | undefined
}

const day = 86_400_000

/** The first Monday of 1970. */
const monday = 4 * day

/** When the period began, ms since 1970. */
export const beginOf = (period: Period, now: number): number => {
  switch (period) {
    case "day":
      return Math.floor(now / day) * day
    case "week":
      return Math.floor((now - monday) / (7 * day)) * 7 * day + monday
    case "month": {
      const at = new Date(now)
      return Date.UTC(at.getUTCFullYear(), at.getUTCMonth())
    }
    case "total":
      return 0
  }
}

/** When the next period begins, ms since 1970; undefined if none does. */
export const endOf = (period: Period, now: number): number | undefined => {
  switch (period) {
    case "day":
      return beginOf("day", now) + day
    case "week":
      return beginOf("week", now) + 7 * day
    case "month": {
      const at = new Date(now)
      return Date.UTC(at.getUTCFullYear(), at.getUTCMonth() + 1)
    }
    case "total":
      return undefined
  }
}

/** A budget that a request does not fit in. */
export interface Overspent {
  readonly rule: string
  /** What shares the budget, as `user ada`. */
  readonly counter: string
  readonly measure: "usd" | "tokens"
  /** Nano-dollars or tokens. */
  readonly most: number
  readonly spent: number
  /** By requests that run. */
  readonly reserved: number
  readonly needed: number
  readonly period: Period
  /** ms until the period ends; undefined if it does not. */
  readonly resetMs: number | undefined
}

const noCauses: ReadonlyArray<BudgetAlert["cause"]> = []
const noAlerts: ReadonlyArray<BudgetAlert> = []
const measures = ["usd", "tokens"] as const

/** Spent and reserved in one period, in one measure. */
class Account {
  #most: number | undefined
  spent: number
  reserved = 0
  /** No alert is raised up to this percentage: it was spent before, or there was one. */
  #alerted: number
  #isLow = false

  constructor(most: number | undefined, spent: number) {
    this.#most = most
    this.spent = spent
    this.#alerted = most === undefined ? 0 : percentOf(most, spent)
  }

  get most(): number | undefined {
    return this.#most
  }

  /** A budget that grows has alerts at the levels above what is spent again. */
  set most(most: number | undefined) {
    if (most === this.#most) return
    this.#most = most
    this.#alerted = most === undefined ? 0 : Math.min(this.#alerted, percentOf(most, this.spent))
  }

  fits(needed: number): boolean {
    return this.most === undefined || this.spent + this.reserved + needed <= this.most
  }

  /** Spends, and returns the causes of new alerts. */
  spend(amount: number, alerts: AlertRules): ReadonlyArray<BudgetAlert["cause"]> {
    this.spent += amount
    if (this.most === undefined || amount === 0) return noCauses
    const { timesLastCost } = alerts
    const share = this.#newShare(this.most, alerts)
    const isLow = hasLittleLeft(alerts, this.most, this.spent, amount)
    const isNewlyLow = isLow && !this.#isLow
    this.#isLow = isLow
    if (share === undefined && !isNewlyLow) return noCauses
    return [...(share === undefined ? [] : [{ percent: share }]), ...(isNewlyLow ? [{ timesLastCost }] : [])]
  }

  /** The share that has been reached, at which no alert was raised. */
  #newShare(most: number, alerts: AlertRules): number | undefined {
    const reached = percentReached(alerts, most, this.spent)
    if (reached <= this.#alerted) return undefined
    this.#alerted = reached
    return reached
  }
}

/** The accounts of a budget for one counter in one period. */
class Counter {
  /** When its period began, ms since 1970. */
  readonly begin: number
  readonly described: string
  readonly usd: Account
  readonly tokens: Account
  #rule: BudgetRule

  constructor(rule: BudgetRule, begin: number, described: string, spent: Amount) {
    this.#rule = rule
    this.begin = begin
    this.described = described
    this.usd = new Account(rule.nano, spent.nano)
    this.tokens = new Account(rule.tokens, spent.tokens)
  }

  get rule(): BudgetRule {
    return this.#rule
  }

  /** The budget was changed: what is spent and reserved stays. */
  set rule(rule: BudgetRule) {
    this.#rule = rule
    this.usd.most = rule.nano
    this.tokens.most = rule.tokens
  }

  overspent(amount: Amount, now: number): Overspent | undefined {
    const { nano, tokens } = amount
    const measure = this.usd.fits(nano) ? this.tokens.fits(tokens) ? undefined : "tokens" : "usd"
    return measure && this.standing(measure, amount, now)
  }

  standing(measure: Overspent["measure"], { nano, tokens }: Amount, now: number): Overspent {
    const { most, reserved, spent } = this[measure]
    const { name, period } = this.rule
    const end = endOf(period, now)
    return {
      rule: name,
      counter: this.described,
      measure,
      most: most ?? 0,
      spent,
      reserved,
      needed: measure === "usd" ? nano : tokens,
      period,
      resetMs: end === undefined ? undefined : end - now
    }
  }

  reserve({ nano, tokens }: Amount): void {
    this.usd.reserved += nano
    this.tokens.reserved += tokens
  }

  alertsOf(measure: BudgetAlert["measure"], amount: number, alerts: AlertRules): ReadonlyArray<BudgetAlert> {
    const account = this[measure]
    const causes = account.spend(amount, alerts)
    if (causes.length === 0) return noAlerts
    return causes.map((cause) => ({
      rule: this.rule.name,
      counter: this.described,
      measure,
      most: account.most!,
      spent: account.spent,
      endsAt: endOf(this.rule.period, this.begin),
      cause
    }))
  }
}

/** What was spent by requests of one subject. */
export interface Spent {
  readonly subject: Subject
  readonly spent: Amount
}

const nothing: Amount = { nano: 0, tokens: 0 }

/** What all requests that run have reserved, each once, however many budgets count it. */
export class Held {
  requests = 0
  nano: Nano = 0
  tokens = 0

  add({ nano, tokens }: Amount): void {
    this.nano += nano
    this.tokens += tokens
  }
}

/** What a request holds of the budgets. `charge` as often as an attempt has cost something, then `end` once. */
export class Reservation {
  readonly #counters: ReadonlyArray<Counter>
  readonly #all: Held
  #held: Amount
  #isEnded = false
  /** The shadow budgets that the request exceeds. */
  readonly shadowed: ReadonlyArray<Overspent>

  /** @param all of all requests */
  constructor(counters: ReadonlyArray<Counter>, held: Amount, shadowed: ReadonlyArray<Overspent>, all: Held) {
    this.#counters = counters
    this.#all = all
    all.requests++
    all.add(held)
    this.#held = held
    this.shadowed = shadowed
    for (const counter of counters) counter.reserve(held)
  }

  /** What attempts may still use of the reservation. */
  get held(): Amount {
    return this.#held
  }

  /**
   * Spends from the reservation, also after its end: an attempt may report what it used late.
   *
   * @param spent what an attempt has used
   */
  charge(spent: Amount, rules = alertRules): ReadonlyArray<BudgetAlert> {
    const used = { nano: Math.min(spent.nano, this.#held.nano), tokens: Math.min(spent.tokens, this.#held.tokens) }
    this.#release(used)
    let alerts = noAlerts
    for (const counter of this.#counters) {
      for (const measure of measures) {
        const raised = counter.alertsOf(measure, measure === "usd" ? spent.nano : spent.tokens, rules)
        if (raised.length > 0) alerts = [...alerts, ...raised]
      }
    }
    return alerts
  }

  /** Reserves more, for another attempt. Returns the enforced budget that has no room, and then nothing changes. */
  extend(more: Amount, now: number): Overspent | undefined {
    if (this.#isEnded) throw new Error("The reservation has ended.")
    for (const counter of this.#counters) {
      const overspent = counter.rule.mode === "enforced" ? counter.overspent(more, now) : undefined
      if (overspent !== undefined) return this.#withoutHeld(overspent)
    }
    for (const counter of this.#counters) counter.reserve(more)
    this.#all.add(more)
    this.#held = { nano: this.#held.nano + more.nano, tokens: this.#held.tokens + more.tokens }
    return undefined
  }

  /** What others have reserved, and all that another attempt needs. */
  #withoutHeld(overspent: Overspent): Overspent {
    const held = overspent.measure === "usd" ? this.#held.nano : this.#held.tokens
    return { ...overspent, reserved: overspent.reserved - held, needed: overspent.needed + held }
  }

  /** Refunds what was not used; further calls do nothing. */
  end(): void {
    if (!this.#isEnded) this.#all.requests--
    this.#isEnded = true
    this.#release(this.#held)
  }

  #release({ nano, tokens }: Amount): void {
    this.#all.add({ nano: -nano, tokens: -tokens })
    for (const counter of this.#counters) counter.reserve({ nano: -nano, tokens: -tokens })
    this.#held = { nano: this.#held.nano - nano, tokens: this.#held.tokens - tokens }
  }
}

/** Counters that are kept without a sweep. */
const fewCounters = 10_000

/** What earlier processes have spent in one running period, by the dimensions of rules. */
export class History {
  readonly begin: number
  readonly #spent: ReadonlyArray<Spent>
  /** Sums by the values of a rule's dimensions, for rules of all requests. */
  readonly #sums = new Map<string, ReadonlyMap<string, Amount>>()

  /** @param begin of the period, ms since 1970 */
  constructor(begin: number, spent: ReadonlyArray<Spent>) {
    this.begin = begin
    this.#spent = spent
  }

  of({ applies, by }: BudgetRule, counter: string): Amount {
    const name = by.join()
    const known = applies === undefined ? this.#sums.get(name) : undefined
    if (known !== undefined) return known.get(counter) ?? nothing
    const sums = new Map<string, Amount>()
    for (const { spent, subject } of this.#spent) {
      if (applies?.(subject) === false) continue
      const value = counterOf(by, subject)
      const { nano, tokens } = sums.get(value) ?? nothing
      sums.set(value, { nano: nano + spent.nano, tokens: tokens + spent.tokens })
    }
    if (applies === undefined) this.#sums.set(name, sums)
    return sums.get(counter) ?? nothing
  }
}

/** The begins of the periods at a time; most requests follow one of the same day. */
class Calendar {
  #today = Number.NaN
  readonly #begins = new Map<Period, number>()

  /** @param now ms since 1970 */
  beginOf(period: Period, now: number): number {
    const today = beginOf("day", now)
    if (today !== this.#today) {
      this.#today = today
      this.#begins.clear()
    }
    let begin = this.#begins.get(period)
    if (begin === undefined) {
      begin = beginOf(period, now)
      this.#begins.set(period, begin)
    }
    return begin
  }
}

/** The budgets of one process, in memory. */
export class BudgetBook {
  /** By rule, then by the values that it counts by. A counter of an earlier period is replaced by that of the next. */
  readonly #counters = new Map<string, Map<string, Counter>>()
  readonly #history: ReadonlyMap<Period, History>
  readonly #calendar = new Calendar()
  readonly #held: Held
  #size = 0
  #sweptAbove = fewCounters

  /**
   * @param history of earlier processes, in the periods that run
   * @param held is told what requests reserve
   */
  constructor(history: ReadonlyMap<Period, History> = new Map(), held = new Held()) {
    this.#history = history
    this.#held = held
  }

  #ofRule(name: string): Map<string, Counter> {
    let counters = this.#counters.get(name)
    if (counters === undefined) {
      counters = new Map()
      this.#counters.set(name, counters)
    }
    return counters
  }

  #counterOf(rule: BudgetRule, subject: Subject, now: number): Counter {
    const begin = this.#calendar.beginOf(rule.period, now)
    const counters = this.#ofRule(rule.name)
    const name = counterOf(rule.by, subject)
    const known = counters.get(name)
    if (known !== undefined && known.begin === begin) {
      if (known.rule !== rule) known.rule = rule
      return known
    }
    const history = this.#history.get(rule.period)
    const spent = history?.begin === begin ? history.of(rule, name) : nothing
    const created = new Counter(rule, begin, describe(rule.by, subject), spent)
    counters.set(name, created)
    if (known === undefined && ++this.#size > this.#sweptAbove) this.#sweep(now)
    return created
  }

  /** Removes the counters of periods that have ended. */
  #sweep(now: number): void {
    this.#size = 0
    for (const counters of this.#counters.values()) {
      for (const [name, { begin, rule }] of counters) {
        if (begin !== this.#calendar.beginOf(rule.period, now)) counters.delete(name)
      }
      this.#size += counters.size
    }
    this.#sweptAbove = Math.max(fewCounters, 2 * this.#size)
  }

  /**
   * Reserves the amount in every budget, or in none if an enforced one has no room for it.
   *
   * @param amount the most that the request can cost
   * @param now ms since 1970
   */
  reserve(rules: ReadonlyArray<BudgetRule>, subject: Subject, amount: Amount, now: number): Reservation | Overspent {
    const counters = rules.map((rule) => this.#counterOf(rule, subject, now))
    const shadowed: Array<Overspent> = []
    for (const counter of counters) {
      const overspent = counter.overspent(amount, now)
      if (overspent === undefined) continue
      if (counter.rule.mode === "enforced") return overspent
      shadowed.push(overspent)
    }
    return new Reservation(counters, amount, shadowed, this.#held)
  }

  /** What is left for the request in its budgets; infinite where none limits it. */
  left(rules: ReadonlyArray<BudgetRule>, subject: Subject, now: number): Amount {
    let nano = Number.POSITIVE_INFINITY
    let tokens = Number.POSITIVE_INFINITY
    for (const rule of rules) {
      if (rule.mode === "shadow") continue
      const counter = this.#counterOf(rule, subject, now)
      const rest = ({ most, reserved, spent }: Account) =>
        most === undefined ? Number.POSITIVE_INFINITY : Math.max(0, most - spent - reserved)
      nano = Math.min(nano, rest(counter.usd))
      tokens = Math.min(tokens, rest(counter.tokens))
    }
    return { nano, tokens }
  }
}
