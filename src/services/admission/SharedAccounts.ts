/**
 * The admission of a process whose limits and budgets are counted together with those of others: see `Counters`.
 *
 * **Details**
 *
 * A request with limits or budgets waits until the counters have reserved the most that it can cost. What its attempts cost
 * is sent once, at its end: until then the reservation covers it. A policy with hedged requests reserves for two attempts, if
 * there is room. Everything else is as in one process, and at once.
 *
 * An answer that is kept or shared costs nothing. It counts in the limits of requests when it is given, so that several
 * processes together can exceed such a limit by the answers that they give in the same moment.
 *
 * Without the counters, limits are those of this process, and requests with an enforced budget are rejected: what others
 * spend is unknown.
 */
import { Effect, Exit } from "effect"
import { LRUCache } from "lru-cache"
import type { Standings } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { BudgetExceeded, Overloaded } from "../../domain/InferenceError.ts"
import type { Nano } from "../../domain/Money.ts"
import * as Money from "../../domain/Money.ts"
import { hasLittleLeft, percentReached } from "../budgets/BudgetAlert.ts"
import type { Amount, BudgetRule, History, Period } from "../budgets/BudgetBook.ts"
import { beginOf, Held } from "../budgets/BudgetBook.ts"
import type { AccountParts } from "./AccountParts.ts"
import { charge, exceeded, overspent, subjectOf } from "./AccountParts.ts"
import type { Demand, Ticket, Used } from "./Admission.ts"
import { Later } from "./Admission.ts"
import type { Applied } from "./AdmissionRules.ts"
import type { BudgetClaim, Claim, LimitClaim } from "./Claims.ts"
import { claimsOf, leftOf, refusalOf, standingOf, unfit } from "./Claims.ts"
import type { Counters, CounterState, Outcome } from "./Counters.ts"
import { CountersLost, fits } from "./Counters.ts"
import type { Need } from "./Needs.ts"
import { needOf } from "./Needs.ts"
import type { Settlements } from "./Settlements.ts"
import type { Subject } from "./Subject.ts"

export interface SharedParts extends AccountParts {
  readonly counters: Counters
  readonly settlements: Settlements
  /** Begins the ids of reservations; another for each process. */
  readonly instance: string
  /** The accounts of this process. */
  readonly local: { readonly admit: (demand: Demand) => Ticket | Reason }
  /** What requests of this process have reserved; left out, nothing reads it. */
  readonly held?: Held
  /** What was spent before, by the ledger. */
  readonly history: Effect.Effect<ReadonlyMap<Period, History>>
}

/** How long a request waits for the counters, ms. */
const timeoutMs = 5_000

/** How often the ledger is read while the counters are lost, ms. */
const reloadMs = 1_000

/** Counters whose last state is known. */
const mostKnown = 10_000

/** How often a request whose answer may be shorter is tried again: others may have reserved meanwhile. */
const mostTries = 4

const nothing: Amount = { nano: 0, tokens: 0 }

const isLimit = (claim: Claim): claim is LimitClaim => claim.type === "limit"
const isBudget = (claim: Claim): claim is BudgetClaim => claim.type === "budget"

const amountOf = ({ measure }: BudgetClaim, { nano, tokens }: Amount): number => measure === "usd" ? nano : tokens

const times = ({ nano, tokens }: Amount, factor: number): Amount => ({ nano: nano * factor, tokens: tokens * factor })

const isMore = (one: Amount, other: Amount): boolean => one.nano > other.nano || one.tokens > other.tokens

/** What a request has reserved and spent, and what is left of its reservation. */
interface Own {
  readonly need: Need
  readonly reserved: Amount
  readonly spent: Amount
  readonly left: Amount
}

/** A refusal of another attempt: what others have reserved, and all that the attempt needs. */
const withoutOwn = (claim: BudgetClaim, { reserved, spent }: CounterState, own: Own) => {
  const of = (amount: Amount) => amountOf(claim, amount)
  return [
    { ...claim, hold: { ...claim.hold, amount: claim.hold.amount + of(own.left) } },
    { spent: spent + of(own.spent), reserved: reserved - of(own.reserved) }
  ] as const
}

/** An admitted request. */
class SharedAccount implements Ticket {
  readonly maxTokens: number | undefined
  readonly #accounts: SharedAccounts
  readonly #id: string
  readonly #subject: Subject
  readonly #claims: ReadonlyArray<Claim>
  readonly #need: Need
  /** Of the budgets. */
  #reserved: Amount
  #spent = nothing
  readonly #cost = new Money.Sum()
  #isEnded = false

  constructor(
    accounts: SharedAccounts,
    id: string,
    subject: Subject,
    claims: ReadonlyArray<Claim>,
    need: Need,
    reserved: Amount
  ) {
    this.maxTokens = need.maxTokens
    this.#accounts = accounts
    this.#id = id
    this.#subject = subject
    this.#claims = claims
    this.#need = need
    this.#reserved = reserved
    this.#hold(1, reserved)
  }

  #hold(requests: number, amount: Amount): void {
    if (!this.#claims.some(isBudget)) return
    this.#accounts.held.requests += requests
    this.#accounts.held.add(amount)
  }

  get payer(): string {
    return this.#subject.key
  }

  get cost(): Nano | undefined {
    return this.#cost.known
  }

  get unpriced(): number | undefined {
    return this.#cost.unpriced
  }

  standings(): Standings | undefined {
    if (!this.#claims.some(isLimit)) return undefined
    const of = (measure: "requests" | "tokens") => this.#accounts.standing(this.#claims, measure)
    return { requests: of("requests"), tokens: of("tokens") }
  }

  charge(used: Used): Nano | undefined {
    const { cost, tokens } = charge(this.#accounts.parts, this.#subject, this.#need, used)
    this.#cost.add(cost)
    const added = { nano: cost ?? 0, tokens }
    this.#spent = { nano: this.#spent.nano + added.nano, tokens: this.#spent.tokens + tokens }
    // An attempt may report what it used late.
    if (this.#isEnded) this.#accounts.settle(this.#id, this.#claims, added, 0)
    return cost
  }

  /** What attempts may still use of the reservation. */
  get #left(): Amount {
    const { nano, tokens } = this.#reserved
    return { nano: Math.max(0, nano - this.#spent.nano), tokens: Math.max(0, tokens - this.#spent.tokens) }
  }

  /** What the counters have of this request until it ends: nothing of what it has spent. */
  get #own(): Own {
    return { need: this.#need, reserved: this.#reserved, spent: this.#spent, left: this.#left }
  }

  again(): undefined | Later<Reason | undefined> {
    const budgets = this.#claims.filter(isBudget)
    const left = this.#left
    if (budgets.length === 0 || !isMore(this.#need.amount, left)) return undefined
    const more = {
      nano: Math.max(0, this.#need.amount.nano - left.nano),
      tokens: Math.max(0, this.#need.amount.tokens - left.tokens)
    }
    return new Later(Effect.map(this.#accounts.extend(this.#id, budgets, more, this.#own), (refused) => {
      if (refused === undefined) {
        this.#reserved = { nano: this.#reserved.nano + more.nano, tokens: this.#reserved.tokens + more.tokens }
        this.#hold(0, more)
      }
      return refused
    }))
  }

  another(): boolean {
    return !this.#claims.some(isBudget) || !isMore(times(this.#need.amount, 2), this.#left)
  }

  /** A reservation ends as a whole: the request counts until it has ended. */
  leave(): void {}

  end(): void {
    if (this.#isEnded) return
    this.#isEnded = true
    this.#hold(-1, times(this.#reserved, -1))
    this.#accounts.settle(this.#id, this.#claims, this.#spent, 1)
  }
}

/** A request that is being admitted. */
interface Asking {
  readonly id: string
  readonly demand: Demand
  readonly applied: Applied
  readonly subject: Subject
}

export class SharedAccounts {
  readonly parts: SharedParts
  readonly held: Held
  #count = 0
  #isLost = false
  #reloadedAt = Number.NEGATIVE_INFINITY
  #history: ReadonlyMap<Period, History>
  /** What counters have spent and reserved, as last seen. */
  readonly #known = new LRUCache<string, number>({ max: mostKnown })
  readonly #floors = new LRUCache<string, number>({ max: mostKnown })
  /** Budgets with little left. */
  readonly #low = new LRUCache<string, boolean>({ max: mostKnown })

  constructor(parts: SharedParts, history: ReadonlyMap<Period, History>) {
    this.parts = parts
    this.held = parts.held ?? new Held()
    this.#history = history
  }

  admit(demand: Demand): Ticket | Reason | Later<Ticket | Reason> {
    const { local, rules } = this.parts
    const subject = subjectOf(demand)
    const applied = rules.of(demand.grant, subject)
    if (applied.limits.length + applied.budgets.length === 0) return local.admit(demand)
    const asking = { id: `${this.parts.instance}-${++this.#count}`, demand, applied, subject }
    const need = needOf(this.parts, demand, applied, subject)
    if (need instanceof BudgetExceeded) return need
    if (demand.deployments.length === 0) return this.#answered(asking, need)
    const admitted = this.#admit(asking, need, demand.hedges ? 2 : 1)
    return new Later(this.#isLost ? Effect.andThen(this.#reload, admitted) : admitted)
  }

  /** A request that has its answer already. */
  #answered({ applied: { limits }, id, subject }: Asking, need: Need): Ticket | Reason {
    const { now, rejected } = this.parts
    const claims = claimsOf({ limits, budgets: [] }, subject, 0, nothing, now(), () => 0)
      .filter(({ measure }) => measure === "requests")
    const full = claims.find(({ hold: { counter }, most, rule }) =>
      rule.mode === "enforced" && this.#used(counter) >= most
    )
    if (full === undefined) {
      for (const { hold: { counter } } of claims) this.#known.set(counter, this.#used(counter) + 1)
      return new SharedAccount(this, id, subject, claims, need, nothing)
    }
    const refusal = refusalOf(full, { spent: full.most, reserved: 0 }, now())
    rejected(refusal, "enforced")
    return "limit" in refusal ? exceeded(refusal, need) : overspent(refusal, need)
  }

  #admit(asking: Asking, need: Need, factor: number): Effect.Effect<Ticket | Reason> {
    const { demand, id } = asking
    return this.#try(asking, need, factor, mostTries).pipe(
      Effect.onExit((exit) =>
        Exit.isFailure(exit)
          ? Effect.sync(() => this.parts.settlements.add({ id, spends: [], settled: () => {} }))
          : this.#found
      ),
      Effect.catch((error) => Effect.as(this.#lose(error), this.#without(asking, demand)))
    )
  }

  #try(asking: Asking, need: Need, factor: number, tries: number): Effect.Effect<Ticket | Reason, CountersLost> {
    const { applied, id, subject } = asking
    const { now, rejected } = this.parts
    const reserved = times(need.amount, factor)
    const claims = claimsOf(applied, subject, need.amount.tokens, reserved, now(), this.#floorOf)
    return Effect.flatMap(this.#reserve(id, claims), ({ isReserved, states }) => {
      if (isReserved) {
        for (const one of unfit(claims, states, "shadow")) rejected(refusalOf(...one, now()), "shadow")
        return Effect.succeed(new SharedAccount(this, id, subject, claims, need, reserved))
      }
      const [refused] = unfit(claims, states, "enforced")
      if (refused?.[0].type === "limit" || tries === 0) return Effect.succeed(this.#refuse(refused, need))
      if (factor > 1) return this.#try(asking, need, 1, tries - 1)
      const shorter = need.within?.(leftOf(claims, states))
      return shorter !== undefined && isMore(need.amount, shorter.amount)
        ? this.#try(asking, shorter, 1, tries - 1)
        : Effect.succeed(this.#refuse(refused, need))
    })
  }

  /** Undefined if the counters have refused what fits: this process has left them. */
  #refuse(refused: ReturnType<typeof unfit>[number] | undefined, need?: Need): Reason {
    if (refused === undefined) return new Overloaded({ retryAfterMs: reloadMs, budgets: "unknown" })
    const refusal = refusalOf(...refused, this.parts.now())
    this.parts.rejected(refusal, "enforced")
    return "limit" in refusal ? exceeded(refusal, need) : overspent(refusal, need)
  }

  /** The caller may leave while it waits. */
  #reserve(id: string, claims: ReadonlyArray<Claim>): Effect.Effect<Outcome, CountersLost> {
    return this.parts.counters.reserve(id, claims.map(({ hold }) => hold)).pipe(
      Effect.timeoutOrElse({
        duration: timeoutMs,
        orElse: () => Effect.fail(new CountersLost({ cause: `No answer within ${timeoutMs} ms` }))
      }),
      Effect.interruptible,
      Effect.tap(({ isReserved, states }) =>
        Effect.sync(() =>
          claims.forEach(({ hold: { amount, counter } }, index) => {
            const { reserved, spent } = states[index]!
            this.#known.set(counter, spent + reserved + (isReserved ? amount : 0))
          })
        )
      )
    )
  }

  /** Reserves more of the budgets, for another attempt. */
  extend(
    id: string,
    budgets: ReadonlyArray<BudgetClaim>,
    more: Amount,
    own: Own
  ): Effect.Effect<Reason | undefined> {
    const claims = budgets.map((claim) => ({ ...claim, hold: { ...claim.hold, amount: amountOf(claim, more) } }))
    return this.#reserve(id, claims).pipe(
      Effect.map(({ isReserved, states }) => {
        if (isReserved) return undefined
        const at = claims.findIndex(({ hold, rule }, index) => rule.mode === "enforced" && !fits(hold, states[index]!))
        return this.#refuse(at < 0 ? undefined : withoutOwn(claims[at]!, states[at]!, own), own.need)
      }),
      Effect.catch((error) => Effect.as(this.#lose(error), this.#refuse(undefined)))
    )
  }

  /**
   * Ends a reservation, or counts what was used after its end.
   *
   * @param requests 1 for the end
   */
  settle(id: string, claims: ReadonlyArray<Claim>, spent: Amount, requests: number): void {
    const used = claims.flatMap((claim) => {
      const { hold: { counter, endsAt }, measure } = claim
      if (measure === undefined) return []
      const amount = measure === "requests" ? requests : measure === "usd" ? spent.nano : spent.tokens
      return [{ claim, spend: { counter, amount, endsAt } }]
    })
    this.parts.settlements.add({
      id,
      spends: used.map(({ spend }) => spend),
      settled: (after) =>
        used.forEach(({ claim, spend: { amount, counter } }, index) => {
          this.#known.set(counter, after[index])
          if (isBudget(claim) && amount > 0) this.#alert(claim, after[index]!, amount)
        })
    })
  }

  standing(claims: ReadonlyArray<Claim>, measure: "requests" | "tokens") {
    return standingOf(claims, (counter) => this.#used(counter), measure, this.parts.now())
  }

  #used(counter: string): number {
    return this.#known.get(counter) ?? 0
  }

  /** Each share is reached by one settlement of all processes. Each process says that little is left. */
  #alert(
    { described, hold: { counter, endsAt }, measure, most, rule }: BudgetClaim,
    spent: number,
    amount: number
  ): void {
    const alert = { rule: rule.name, counter: described, measure, most, spent, endsAt }
    const { alerts } = this.parts.rules
    const { timesLastCost } = alerts
    const percent = percentReached(alerts, most, spent)
    if (percent > percentReached(alerts, most, spent - amount)) this.parts.alert({ ...alert, cause: { percent } })
    const isLow = hasLittleLeft(alerts, most, spent, amount)
    if (isLow && this.#low.get(counter) !== true) this.parts.alert({ ...alert, cause: { timesLastCost } })
    this.#low.set(counter, isLow)
  }

  readonly #floorOf = (rule: BudgetRule, counter: string, measure: BudgetClaim["measure"], now: number): number => {
    const begin = beginOf(rule.period, now)
    const name = `${rule.name}\u001f${counter}\u001f${measure}\u001f${begin}`
    const known = this.#floors.get(name)
    if (known !== undefined) return known
    const history = this.#history.get(rule.period)
    const spent = history?.begin === begin ? history.of(rule, counter) : nothing
    const floor = measure === "usd" ? spent.nano : spent.tokens
    this.#floors.set(name, floor)
    return floor
  }

  /** The counters may have lost what they knew: the ledger has not. */
  readonly #reload = Effect.suspend(() => {
    const now = this.parts.now()
    if (now - this.#reloadedAt < reloadMs) return Effect.void
    this.#reloadedAt = now
    return Effect.map(this.parts.history, (history) => {
      this.#history = history
      this.#floors.clear()
    })
  })

  readonly #found = Effect.suspend(() => {
    if (!this.#isLost) return Effect.void
    this.#isLost = false
    return Effect.logInfo(`Limits and budgets are counted in ${this.parts.counters.place} again.`)
  })

  #lose({ message }: CountersLost): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#isLost) return Effect.void
      this.#isLost = true
      return Effect.logWarning(
        `Limits and budgets cannot be counted in ${this.parts.counters.place}. Until they can, limits are those of this ` +
          `process, and requests with a budget are rejected. The reason: ${message}.`
      )
    })
  }

  #without({ applied: { budgets } }: Asking, demand: Demand): Ticket | Reason {
    return budgets.some(({ mode }) => mode === "enforced") ? this.#refuse(undefined) : this.parts.local.admit(demand)
  }
}
