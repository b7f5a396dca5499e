/** The admission of a service with limits, budgets and a ledger: their counters are in this process's memory. */
import { Clock, Context, Effect, Layer, Metric } from "effect"
import type { Deployment } from "../../domain/Deployment.ts"
import type { Price } from "../../domain/DeploymentFacts.ts"
import type { Standings } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { BudgetExceeded, LimitExceeded } from "../../domain/InferenceError.ts"
import type { Nano } from "../../domain/Money.ts"
import * as Money from "../../domain/Money.ts"
import type { Amount, BudgetAlert, BudgetRule, Overspent, Period } from "../budgets/BudgetBook.ts"
import { beginOf, BudgetBook, Reservation } from "../budgets/BudgetBook.ts"
import { Ledger } from "../ledger/Ledger.ts"
import type { LedgerRow } from "../ledger/Usage.ts"
import type { Exceeded } from "../limits/RateWindows.ts"
import { RateWindows, Taken } from "../limits/RateWindows.ts"
import { factsOf } from "../routing/DeploymentFacts.ts"
import { covers } from "../settings/AdmissionSettings.ts"
import { Settings } from "../settings/Settings.ts"
import type { Demand, Ticket, Used } from "./Admission.ts"
import { Admission } from "./Admission.ts"
import type { Applied } from "./AdmissionRules.ts"
import { AdmissionRules } from "./AdmissionRules.ts"
import type { Subject } from "./Subject.ts"

/** What accounts tell others. */
export interface Reports {
  readonly add: (row: LedgerRow) => void
  readonly alert: (alert: BudgetAlert) => void
  readonly rejected: (reason: Exceeded | Overspent, mode: "enforced" | "shadow") => void
}

export interface Parts extends Reports {
  readonly rules: AdmissionRules
  readonly windows: RateWindows
  readonly book: BudgetBook
  /** Undefined if it is unknown. */
  readonly priceOf: (deployment: Deployment) => Price | undefined
  /** ms since 1970 */
  readonly now: () => number
}

/** The most tokens of an answer whose request does not say, under a budget. */
const usualMost = 4_096

const exceeded = ({ counter, limit, most, remaining, resetMs }: Exceeded): LimitExceeded =>
  new LimitExceeded({
    limit,
    counter,
    most,
    remaining: Math.floor(remaining),
    ...(resetMs === undefined ? {} : { retryAfterMs: resetMs })
  })

const overspent = ({ counter, measure, most, needed, period, reserved, resetMs, spent }: Overspent): BudgetExceeded => {
  const value = (amount: number) => measure === "usd" ? Money.usdOf(amount) : amount
  return new BudgetExceeded({
    counter,
    period,
    measure,
    most: value(most),
    spent: value(spent),
    reserved: value(reserved),
    needed: value(needed),
    ...(resetMs === undefined ? {} : { retryAfterMs: resetMs })
  })
}

const highest = (prices: ReadonlyArray<Price>): Price => {
  const most = (field: keyof Price) =>
    prices.reduce<number>((highest, price) => Math.max(highest, price[field] ?? 0), 0)
  return {
    input: Math.max(most("input"), most("cachedInput"), most("cacheWrite")),
    output: Math.max(most("output"), most("reasoning"))
  }
}

const subjectOf = ({ grant, model, operation, tenant }: Demand): Subject => ({
  key: grant?.keyId ?? "",
  user: grant?.user ?? grant?.keyId ?? "",
  tenant,
  model,
  endpoint: operation
})

/** What a request reserves. */
interface Need {
  readonly amount: Amount
  /** Tokens of the prompt, for an attempt that does not report them. */
  readonly promptTokens: number
  readonly maxTokens: number | undefined
}

/** An admitted request. */
class Account implements Ticket {
  readonly maxTokens: number | undefined
  readonly #parts: Parts
  readonly #subject: Subject
  readonly #taken: Taken | undefined
  readonly #reservation: Reservation | undefined
  readonly #need: Need
  #tokens = 0
  #cost: Nano | undefined = 0

  constructor(
    parts: Parts,
    subject: Subject,
    need: Need,
    taken: Taken | undefined,
    reservation: Reservation | undefined
  ) {
    this.maxTokens = need.maxTokens
    this.#parts = parts
    this.#subject = subject
    this.#need = need
    this.#taken = taken
    this.#reservation = reservation
  }

  get cost(): Nano | undefined {
    return this.#cost
  }

  standings(): Standings | undefined {
    const now = this.#parts.now()
    const taken = this.#taken
    return taken && { requests: taken.standing("requests", now), tokens: taken.standing("tokens", now) }
  }

  charge({ attempt, decision, deployment, isEstimated, tookMs, usage: reported }: Used): void {
    const usage = isEstimated ? { ...reported, promptTokens: this.#need.promptTokens } : reported
    const { add, alert, now, priceOf } = this.#parts
    const price = priceOf(deployment)
    const cost = price && Money.costOf(price, usage)
    const tokens = usage.promptTokens + usage.completionTokens
    this.#tokens += tokens
    this.#cost = cost === undefined || this.#cost === undefined ? undefined : this.#cost + cost
    this.#reservation?.charge({ nano: cost ?? 0, tokens }).forEach(alert)
    const { cacheWriteTokens = 0, cachedTokens, completionTokens, promptTokens, reasoningTokens = 0 } = usage
    const { endpoint, key, model, tenant, user } = this.#subject
    add({
      id: `${decision}-${attempt}`,
      at: now(),
      decision,
      key,
      user,
      tenant,
      model,
      deployment: deployment.id,
      endpoint,
      promptTokens,
      cachedTokens,
      cacheWriteTokens,
      completionTokens,
      reasoningTokens,
      cost,
      tookMs,
      isEstimated
    })
  }

  again(): Reason | undefined {
    const held = this.#reservation?.held
    const { nano, tokens } = this.#need.amount
    if (held === undefined || (held.nano >= nano && held.tokens >= tokens)) return undefined
    const refused = this.#reservation!.extend(
      { nano: Math.max(0, nano - held.nano), tokens: Math.max(0, tokens - held.tokens) },
      this.#parts.now()
    )
    return refused && overspent(refused)
  }

  another(): boolean {
    return this.#reservation?.extend(this.#need.amount, this.#parts.now()) === undefined
  }

  end(): void {
    this.#reservation?.end()
    this.#taken?.release(this.#tokens)
  }
}

/** Tokens of an answer that fit into what is left. */
const affordable = ({ nano, tokens }: Amount, price: Price, promptTokens: number): number => {
  const byTokens = tokens - promptTokens
  const perToken = Money.mostOf(price, 0, 1)
  const byMoney = perToken === 0
    ? Number.POSITIVE_INFINITY
    : Math.floor((nano - Money.mostOf(price, promptTokens, 0)) / perToken)
  return Math.max(1, Math.min(byTokens, byMoney))
}

export class Accounts {
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.#parts = parts
  }

  admit(demand: Demand): Ticket | Reason {
    const { rules } = this.#parts
    const subject = subjectOf(demand)
    const applied = rules.of(demand.grant, subject)
    const need = this.#needOf(demand, applied, subject)
    if (need instanceof BudgetExceeded) return need
    const taken = this.#take(applied, subject, need.amount.tokens)
    if (taken instanceof LimitExceeded) return taken
    const reservation = this.#reserve(applied.budgets, subject, need.amount)
    if (reservation instanceof BudgetExceeded) {
      taken?.cancel()
      return reservation
    }
    return new Account(this.#parts, subject, need, taken, reservation)
  }

  /** What the request can cost at most. */
  #needOf(
    { deployments, generates, maxTokens, mostPromptTokens, promptTokens: estimate }: Demand,
    { budgets, limits }: Applied,
    subject: Subject
  ): Need | BudgetExceeded {
    const isCounted = deployments.length > 0 &&
      (budgets.length > 0 ||
        limits.some(({ limits }) => limits.tokensPerDay ?? limits.tokensPerHour ?? limits.tokensPerMinute))
    if (!isCounted) return { amount: { nano: 0, tokens: 0 }, promptTokens: estimate, maxTokens: undefined }
    const promptTokens = mostPromptTokens()
    const price = this.#priceFor(deployments, budgets, subject)
    if (price instanceof BudgetExceeded) return price
    const most = generates ? maxTokens ?? this.#mostTokens(budgets, subject, price, promptTokens) : 0
    return {
      promptTokens: estimate,
      amount: { nano: Money.mostOf(price, promptTokens, most), tokens: promptTokens + most },
      maxTokens: budgets.length > 0 && generates && maxTokens === undefined ? most : undefined
    }
  }

  #mostTokens(budgets: ReadonlyArray<BudgetRule>, subject: Subject, price: Price, promptTokens: number): number {
    const left = this.#parts.book.left(budgets, subject, this.#parts.now())
    return Math.min(usualMost, affordable(left, price, promptTokens))
  }

  /** The highest price of the deployments that may answer. */
  #priceFor(
    deployments: ReadonlyArray<Deployment>,
    budgets: ReadonlyArray<BudgetRule>,
    subject: Subject
  ): Price | BudgetExceeded {
    const { book, now, priceOf } = this.#parts
    const limiting = budgets.find(({ mode, nano }) => nano !== undefined && mode === "enforced")
    const prices: Array<Price> = []
    for (const deployment of deployments) {
      const price = priceOf(deployment)
      if (price !== undefined) prices.push(price)
      else if (limiting !== undefined) return this.#unpriced(deployment.id, book.standing(limiting, subject, now()))
    }
    return highest(prices)
  }

  #unpriced(deployment: string, standing: Overspent): BudgetExceeded {
    this.#parts.rejected(standing, "enforced")
    const { counter, measure, most, needed, period, reserved, spent } = overspent(standing)
    return new BudgetExceeded({ counter, measure, most, needed, period, reserved, spent, unpriced: deployment })
  }

  #take({ limits }: Applied, subject: Subject, tokens: number): Taken | LimitExceeded | undefined {
    if (limits.length === 0) return undefined
    const { now, rejected, windows } = this.#parts
    const taken = windows.take(limits, subject, tokens, now())
    if (taken instanceof Taken) {
      for (const one of taken.shadowed) rejected(one, "shadow")
      return taken
    }
    rejected(taken, "enforced")
    return exceeded(taken)
  }

  #reserve(
    rules: ReadonlyArray<BudgetRule>,
    subject: Subject,
    amount: Amount
  ): Reservation | BudgetExceeded | undefined {
    if (rules.length === 0) return undefined
    const { book, now, rejected } = this.#parts
    const reservation = book.reserve(rules, subject, amount, now())
    if (reservation instanceof Reservation) {
      for (const one of reservation.shadowed) rejected(one, "shadow")
      return reservation
    }
    rejected(reservation, "enforced")
    return overspent(reservation)
  }
}

const periods: ReadonlyArray<Period> = ["day", "week", "month", "total"]

const describeSpent = ({ measure, most, spent }: BudgetAlert): string =>
  measure === "usd" ? `${Money.format(spent)} of ${Money.format(most)} USD` : `${spent} of ${most} tokens`

const alertText = (alert: BudgetAlert): string => {
  const { cause, counter, rule } = alert
  const what = "percent" in cause
    ? `${cause.percent} % is spent`
    : `less than ${cause.timesLastCost} times the last cost is left`
  return `Budget ${rule} (${counter}): ${what}, ${describeSpent(alert)}.`
}

const alerts = Metric.counter("llm_budget_alerts_total", {
  description: "Alerts of budgets, by budget",
  incremental: true
})
const rejections = Metric.counter("llm_admission_rejections_total", {
  description: "Requests that a limit or a budget rejected, or would have rejected in shadow mode",
  incremental: true
})

/** Reports to the log and to the metrics. */
const makeReports = Effect.map(Effect.context(), (context): Omit<Reports, "add"> => {
  const run = Effect.runForkWith(context)
  const count = (metric: Metric.Counter<number>, attributes: Readonly<Record<string, string>>) =>
    metric.updateUnsafe(1, Context.add(context, Metric.CurrentMetricAttributes, attributes))
  return {
    alert: (alert) => {
      count(alerts, { budget: alert.rule })
      run(Effect.logWarning(alertText(alert)))
    },
    rejected: ({ counter, rule }, mode) => {
      count(rejections, { rule, mode })
      if (mode === "shadow") run(Effect.logInfo(`${rule} (${counter}) would have rejected a request.`))
    }
  }
})

/** What was spent before, in the periods that run. */
const load = Effect.fnUntraced(function*(book: BudgetBook, ledger: Ledger["Service"]) {
  const now = yield* Clock.currentTimeMillis
  for (const period of periods) {
    const begin = beginOf(period, now)
    book.load(period, begin, yield* ledger.spentSince(begin))
  }
})

/** By the settings. */
export const layer = Layer.effect(
  Admission,
  Effect.gen(function*() {
    const { admission } = yield* Settings
    const ledger = yield* Ledger
    const clock = yield* Clock.Clock
    const book = new BudgetBook()
    yield* load(book, ledger)
    const prices = new WeakMap<Deployment, { readonly price: Price | undefined }>()
    const accounts = new Accounts({
      ...(yield* makeReports),
      add: ledger.add,
      rules: new AdmissionRules(admission, covers),
      windows: new RateWindows(),
      book,
      now: () => clock.currentTimeMillisUnsafe(),
      priceOf: (deployment) => {
        let known = prices.get(deployment)
        if (known === undefined) {
          known = { price: factsOf(deployment).price }
          prices.set(deployment, known)
        }
        return known.price
      }
    })
    return {
      isForAll: admission.countsAll || admission.limits.length + admission.budgets.length > 0,
      admit: (demand: Demand) => accounts.admit(demand)
    }
  })
)
