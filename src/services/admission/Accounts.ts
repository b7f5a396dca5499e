/**
 * The admission of a service with limits, budgets and a ledger. Their counters are in this process's memory, unless it shares
 * them: see `SharedAccounts`.
 */
import type { Metric } from "effect"
import { Clock, Context, Effect, FiberSet, Layer, Option, Random } from "effect"
import type { Standings } from "../../domain/Inference.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { BudgetExceeded, LimitExceeded } from "../../domain/InferenceError.ts"
import type { Nano } from "../../domain/Money.ts"
import * as Money from "../../domain/Money.ts"
import { Levels } from "../alerts/BudgetLevels.ts"
import { alertText } from "../budgets/BudgetAlert.ts"
import type { BudgetRule, Period } from "../budgets/BudgetBook.ts"
import { beginOf, BudgetBook, Held, History, Reservation } from "../budgets/BudgetBook.ts"
import { VirtualKeys } from "../keys/VirtualKeys.ts"
import { Ledger } from "../ledger/Ledger.ts"
import { RateWindows, Taken } from "../limits/RateWindows.ts"
import { currentContext } from "../observability/RequestLog.ts"
import * as Series from "../observability/Series.ts"
import { priceOf } from "../routing/DeploymentFacts.ts"
import { covers } from "../settings/AdmissionSettings.ts"
import type { AdmissionSettings } from "../settings/AdmissionSettings.ts"
import { Settings } from "../settings/Settings.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { AccountParts, Reports } from "./AccountParts.ts"
import { charge, exceeded, overspent, subjectOf } from "./AccountParts.ts"
import type { Admitting, Demand, Ticket, Used } from "./Admission.ts"
import { Admission, CopyAdmission } from "./Admission.ts"
import type { Applied } from "./AdmissionRules.ts"
import { AdmissionRules } from "./AdmissionRules.ts"
import type { Counters } from "./Counters.ts"
import { SharedCounters } from "./Counters.ts"
import type { Need } from "./Needs.ts"
import { needOf } from "./Needs.ts"
import { RejectionLog } from "./RejectionLog.ts"
import { Settlements } from "./Settlements.ts"
import { SharedAccounts } from "./SharedAccounts.ts"
import type { Subject } from "./Subject.ts"
import { isCopy } from "./Subject.ts"

export interface Parts extends AccountParts {
  readonly windows: RateWindows
  readonly book: BudgetBook
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
  readonly #cost = new Money.Sum()

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
    const now = this.#parts.now()
    const taken = this.#taken
    return taken && { requests: taken.standing("requests", now), tokens: taken.standing("tokens", now) }
  }

  charge(used: Used): Nano | undefined {
    const { cost, tokens } = charge(this.#parts, this.#subject, this.#need, used)
    this.#tokens += tokens
    this.#cost.add(cost)
    this.#reservation?.charge({ nano: cost ?? 0, tokens }, this.#parts.rules.alerts).forEach(this.#parts.alert)
    return cost
  }

  again(): Reason | undefined {
    const held = this.#reservation?.held
    const { nano, tokens } = this.#need.amount
    if (held === undefined || (held.nano >= nano && held.tokens >= tokens)) return undefined
    const refused = this.#reservation!.extend(
      { nano: Math.max(0, nano - held.nano), tokens: Math.max(0, tokens - held.tokens) },
      this.#parts.now()
    )
    return refused && overspent(refused, this.#need)
  }

  another(): boolean {
    return this.#reservation?.extend(this.#need.amount, this.#parts.now()) === undefined
  }

  leave(): void {
    this.#taken?.leave()
  }

  end(): void {
    this.#reservation?.end()
    this.#taken?.release(this.#tokens)
  }
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
    const taken = this.#take(applied, subject, need)
    if (taken instanceof LimitExceeded) return taken
    const reservation = this.#reserve(applied.budgets, subject, need)
    if (reservation instanceof BudgetExceeded) {
      taken?.cancel()
      return reservation
    }
    return new Account(this.#parts, subject, need, taken, reservation)
  }

  /** What the request can cost at most, and not more than is left of its budgets where it does not say. */
  #needOf(demand: Demand, applied: Applied, subject: Subject): Need | BudgetExceeded {
    const need = needOf(this.#parts, demand, applied, subject)
    if (need instanceof BudgetExceeded || need.within === undefined) return need
    return need.within(this.#parts.book.left(applied.budgets, subject, this.#parts.now()))
  }

  #take({ limits }: Applied, subject: Subject, need: Need): Taken | LimitExceeded | undefined {
    if (limits.length === 0) return undefined
    const { now, rejected, windows } = this.#parts
    const taken = windows.take(limits, subject, need.amount.tokens, now())
    if (taken instanceof Taken) {
      for (const one of taken.shadowed) rejected(one, "shadow")
      return taken
    }
    rejected(taken, "enforced")
    return exceeded(taken, need)
  }

  #reserve(
    rules: ReadonlyArray<BudgetRule>,
    subject: Subject,
    need: Need
  ): Reservation | BudgetExceeded | undefined {
    if (rules.length === 0) return undefined
    const { book, now, rejected } = this.#parts
    const reservation = book.reserve(rules, subject, need.amount, now())
    if (reservation instanceof Reservation) {
      for (const one of reservation.shadowed) rejected(one, "shadow")
      return reservation
    }
    rejected(reservation, "enforced")
    return overspent(reservation, need)
  }
}

const periods: ReadonlyArray<Period> = ["day", "week", "month", "total"]

const alerts = Series.counter("llm_budget_alerts_total", "Alerts of budgets, by budget and what it counts together")

/** Counters of budgets with a series of their own; those after them are `other`. */
const mostCounters = 100

/** The label of a counter. */
const makeCounterOf = () => {
  const known = new Set<string>()
  return (counter: string): string => {
    if (known.has(counter)) return counter
    if (known.size >= mostCounters) return "other"
    known.add(counter)
    return counter
  }
}
const rejections = Series.counter(
  "llm_admission_rejections_total",
  "Requests that a limit or a budget rejected, or would have rejected in shadow mode"
)

const reservations = Series.gauge("troupe_reservations", "Requests that run and have reserved some of a budget")
const reservedUsd = Series.gauge("troupe_reserved_usd", "What they hold of budgets, USD")
const reservedTokens = Series.gauge("troupe_reserved_tokens", "What they hold of budgets, tokens")

/** Shows what is reserved, until the scope ends. */
const showHeld = Effect.fnUntraced(function*(held: Held) {
  yield* Series.read(reservations, () => held.requests)
  yield* Series.read(reservedUsd, () => Money.usdOf(held.nano))
  yield* Series.read(reservedTokens, () => held.tokens)
})

/** Reports to the log and to the metrics. */
const makeReports = Effect.map(Effect.context(), (context): Omit<Reports, "add"> => {
  const run = (entry: Effect.Effect<void>) => Effect.runForkWith(currentContext(context))(entry)
  const clock = Context.get(context, Clock.Clock)
  const log = new RejectionLog()
  const counterOf = makeCounterOf()
  const levels = Context.get(context, Levels)
  const count = (metric: Metric.Counter<number>, attributes: Readonly<Record<string, string>>) =>
    metric.updateUnsafe(1, Series.withAttributes(context, attributes))
  return {
    alert: (alert) => {
      count(alerts, { budget: alert.rule, counter: counterOf(alert.counter) })
      levels.raise(alert)
      run(Effect.logWarning(alertText(alert)))
    },
    rejected: (rejection, mode) => {
      count(rejections, { rule: rejection.rule, mode })
      const entry = log.entry(rejection, mode, clock.currentTimeMillisUnsafe())
      if (entry !== undefined) run(mode === "enforced" ? Effect.logWarning(entry) : Effect.logInfo(entry))
    }
  }
})

/** The names of keys by their ids: none without the keys of a service. */
const namesOf = Effect.fnUntraced(function*(keys: Option.Option<VirtualKeys["Service"]>) {
  const listed = Option.isSome(keys) ? yield* keys.value.list : []
  return new Map(listed.map(({ id, name }) => [id, name]))
})

/** What was spent before, in the periods that run. */
const readHistory = Effect.fnUntraced(function*(
  ledger: Ledger["Service"],
  keys: Option.Option<VirtualKeys["Service"]>,
  ofCopies: boolean
) {
  const now = yield* Clock.currentTimeMillis
  const names = yield* namesOf(keys)
  const history = new Map<Period, History>()
  for (const period of periods) {
    const begin = beginOf(period, now)
    const rows = (yield* ledger.spentSince(begin)).filter(({ subject }) => isCopy(subject) === ofCopies)
    const spent = rows.map(({ spent, subject }) => ({
      spent,
      subject: { ...subject, keyName: names.get(subject.key) }
    }))
    history.set(period, new History(begin, spent))
  }
  return history
})

/** Reads it from the ledger: that of callers, or that of copies of their requests. */
const historyReader = (ofCopies: boolean) =>
  Effect.map(
    Effect.all([Ledger, Effect.serviceOption(VirtualKeys)]),
    ([ledger, keys]) => readHistory(ledger, keys, ofCopies)
  )

/** How long a process that ends waits for the ends of its requests to arrive. */
const flushLimit = "5 seconds"

/** Accounts whose counters others share. */
const makeShared = Effect.fnUntraced(function*(
  counters: Counters,
  parts: AccountParts & { readonly held: Held },
  local: Accounts,
  history: ReadonlyMap<Period, History>,
  ofCopies: boolean
) {
  const ledger = yield* Ledger
  const fork = yield* FiberSet.makeRuntime()
  const settlements = new Settlements(counters, (effect) => void fork(effect))
  yield* Effect.addFinalizer(() => Effect.timeoutOption(settlements.flushed, flushLimit))
  const instance = (yield* Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER)).toString(36)
  const current = Effect.andThen(ledger.flush, yield* historyReader(ofCopies))
  return new SharedAccounts(
    { ...parts, counters, settlements, instance, local, history: Effect.orElseSucceed(current, () => history) },
    history
  )
})

/** Whether requests without a key are counted. */
const isForAll = ({ budgets, countsAll, limits }: AdmissionSettings): boolean =>
  countsAll || limits.length + budgets.length > 0

/** Accounts by these rules. */
const makeAccounts = Effect.fnUntraced(function*(rules: AdmissionRules, ofCopies: boolean, held = new Held()) {
  const ledger = yield* Ledger
  const clock = yield* Clock.Clock
  const counters = yield* SharedCounters
  const history = yield* yield* historyReader(ofCopies)
  const parts: AccountParts = {
    ...(yield* makeReports),
    add: ledger.add,
    rules,
    now: () => clock.currentTimeMillisUnsafe(),
    priceOf
  }
  const local = new Accounts({ ...parts, windows: new RateWindows(), book: new BudgetBook(history, held) })
  return counters === undefined ? local : yield* makeShared(counters, { ...parts, held }, local, history, ofCopies)
})

/**
 * The admission of copies of requests: they count in no limit and budget of the settings, only in the budgets of their own
 * identity, and are in the ledger. It is made where a model has copies.
 */
export const layerForCopies = Layer.effect(
  CopyAdmission,
  Effect.gen(function*() {
    const rules = new AdmissionRules({ limits: [], budgets: [], defaultLimit: undefined }, covers)
    const accounts = makeAccounts(rules, true)
    const services = yield* Effect.context<Effect.Services<typeof accounts>>()
    const own = Effect.orDie(Effect.provideContext(accounts, services))
    const made = Effect.map(own, (one): Admitting => ({ isForAll: true, admit: (demand) => one.admit(demand) }))
    return yield* Effect.cached(made)
  })
)

/** By the settings. */
export const layer = Layer.effect(
  Admission,
  Effect.gen(function*() {
    const { admission } = yield* Settings
    const rules = new AdmissionRules(admission, covers)
    const held = new Held()
    yield* showHeld(held)
    const accounts = yield* makeAccounts(rules, false, held)
    const admitting = { isForAll: isForAll(admission), admit: (demand: Demand) => accounts.admit(demand) }
    const changes = yield* SettingsChanges
    changes.follow((next) => {
      rules.configure(next.admission)
      admitting.isForAll = isForAll(next.admission)
    })
    return admitting
  })
)
