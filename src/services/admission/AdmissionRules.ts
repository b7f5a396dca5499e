/** The limits and budgets that apply to a request: those of the settings, and those of the caller's key. Pure. */
import { nanoOf } from "../../domain/Money.ts"
import type { AlertRules } from "../budgets/BudgetAlert.ts"
import { alertRules } from "../budgets/BudgetAlert.ts"
import type { BudgetRule, Period } from "../budgets/BudgetBook.ts"
import type { LimitRule, Limits } from "../limits/RateWindows.ts"
import type { Subject } from "./Subject.ts"

/** What a caller's key says about its limits and budgets. */
export interface Grant {
  readonly keyId: string
  /** Of the key, for rules that name keys. */
  readonly name?: string | undefined
  readonly user?: string | undefined
  readonly limits?: Limits | undefined
  readonly budgets?:
    | ReadonlyArray<
      { readonly period: Period; readonly usd?: number | undefined; readonly tokens?: number | undefined }
    >
    | undefined
}

/** The requests that a rule applies to: each list has patterns with `*`; left out, any. */
export interface Scope {
  readonly keys?: ReadonlyArray<string> | undefined
  readonly users?: ReadonlyArray<string> | undefined
  readonly tenants?: ReadonlyArray<string> | undefined
  readonly models?: ReadonlyArray<string> | undefined
  readonly endpoints?: ReadonlyArray<string> | undefined
}

/** A rule with the requests that it applies to. */
export interface Scoped<R> {
  readonly rule: R
  readonly scope: Scope
}

export interface Configured {
  readonly limits: ReadonlyArray<Scoped<LimitRule>>
  readonly budgets: ReadonlyArray<Scoped<BudgetRule>>
  /** For callers with a key that has no limit of requests of its own; undefined, none. */
  readonly defaultLimit: Scoped<LimitRule> | undefined
  /** Of all budgets, those of keys included; left out, by the defaults. */
  readonly budgetAlerts?: AlertRules
}

/** F3: 100 requests in an hour for each user and endpoint. */
export const defaultLimit: Scoped<LimitRule> = {
  rule: {
    id: "default",
    name: "default",
    by: ["tenant", "user", "endpoint"],
    limits: { requestsPerHour: 100 },
    mode: "enforced"
  },
  scope: {}
}

/** The rules that apply to a request. */
export interface Applied {
  readonly limits: ReadonlyArray<LimitRule>
  readonly budgets: ReadonlyArray<BudgetRule>
}

/** Whether a rule applies to requests of a subject. */
export type Covers = (scope: Scope, subject: Subject) => boolean

/** Whether the default limit does not apply. */
export const limitsRequests = ({ requestsPerDay, requestsPerHour, requestsPerMinute }: Limits): boolean =>
  (requestsPerMinute ?? requestsPerHour ?? requestsPerDay) !== undefined

/** The name of a key's budget, as `key day`: without the key, because names are in metrics. Budgets of one period are numbered. */
const nameOf = (period: Period, before: ReadonlyArray<{ readonly period: Period }>): string => {
  const count = before.filter((other) => other.period === period).length
  return count === 0 ? `key ${period}` : `key ${period} ${count + 1}`
}

/** The rules of a key itself. */
export const ofGrant = ({ budgets = [], keyId, limits }: Grant): Applied => ({
  limits: limits === undefined ? [] : [{ id: `key/${keyId}`, name: "key", by: ["key"], limits, mode: "enforced" }],
  budgets: budgets.map(({ period, tokens, usd }, at) => ({
    name: nameOf(period, budgets.slice(0, at)),
    by: ["key"],
    period,
    nano: usd === undefined ? undefined : nanoOf(usd),
    tokens,
    mode: "enforced"
  }))
})

/** The rules of a key, by the tenants, models and endpoints of its requests. */
interface KnownGrant {
  readonly own: Applied
  /** Made for the second combination: most keys have one. */
  kept: Map<string, Applied> | undefined
  latest: { readonly subject: Subject; readonly applied: Applied } | undefined
}

/** Whether the same rules apply to two subjects of one key. */
const isSame = (one: Subject, other: Subject): boolean =>
  one.model === other.model && one.tenant === other.tenant && one.endpoint === other.endpoint

const nameOfSubject = ({ endpoint, model, tenant }: Subject): string => `${tenant}\u001f${endpoint}\u001f${model}`

/** Combinations of a key with a model and an endpoint that are kept. */
const mostKept = 1_000

/** Finds the rules of requests. The same objects are returned for the same rules. */
export class AdmissionRules {
  #configured: Configured
  readonly #covers: Covers
  #grants = new WeakMap<Grant, KnownGrant>()

  constructor(configured: Configured, covers: Covers) {
    this.#configured = configured
    this.#covers = covers
  }

  get alerts(): AlertRules {
    return this.#configured.budgetAlerts ?? alertRules
  }

  /** Other rules of the settings apply to requests that begin from now on. */
  configure(configured: Configured): void {
    this.#configured = configured
    this.#grants = new WeakMap()
  }

  of(grant: Grant | undefined, subject: Subject): Applied {
    if (grant === undefined) return this.#configuredFor(subject)
    let known = this.#grants.get(grant)
    if (known === undefined) {
      known = { own: ofGrant(grant), kept: undefined, latest: undefined }
      this.#grants.set(grant, known)
    }
    const { latest } = known
    if (latest !== undefined && isSame(latest.subject, subject)) return latest.applied
    const applied = latest === undefined
      ? this.#of(grant, known.own, subject)
      : this.#kept(grant, known, latest, subject)
    known.latest = { subject, applied }
    return applied
  }

  #kept(grant: Grant, known: KnownGrant, latest: NonNullable<KnownGrant["latest"]>, subject: Subject): Applied {
    known.kept ??= new Map([[nameOfSubject(latest.subject), latest.applied]])
    const name = nameOfSubject(subject)
    const kept = known.kept.get(name)
    if (kept !== undefined) return kept
    const created = this.#of(grant, known.own, subject)
    if (known.kept.size < mostKept) known.kept.set(name, created)
    return created
  }

  #of({ limits = {} }: Grant, own: Applied, subject: Subject): Applied {
    const configured = this.#configuredFor(subject)
    const { defaultLimit } = this.#configured
    const hasDefault = defaultLimit !== undefined && !limitsRequests(limits) &&
      this.#covers(defaultLimit.scope, subject)
    const byDefault = hasDefault ? [defaultLimit.rule] : []
    return {
      limits: [...own.limits, ...byDefault, ...configured.limits],
      budgets: [...own.budgets, ...configured.budgets]
    }
  }

  #configuredFor(subject: Subject): Applied {
    const { budgets, limits } = this.#configured
    const applied = <R>(rules: ReadonlyArray<Scoped<R>>): ReadonlyArray<R> =>
      rules.filter(({ scope }) => this.#covers(scope, subject)).map(({ rule }) => rule)
    return { limits: applied(limits), budgets: applied(budgets) }
  }
}
