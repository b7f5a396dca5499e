/** The settings `limits`, `budgets` and `ledger`: rates, what may be spent, and what is counted. */
import { Schema } from "effect"
import { optional } from "../../domain/Fields.ts"
import * as Identity from "../../domain/Identity.ts"
import { nanoOf } from "../../domain/Money.ts"
import type * as Problem from "../../domain/Problem.ts"
import type { Configured, Scope, Scoped } from "../admission/AdmissionRules.ts"
import { defaultLimit } from "../admission/AdmissionRules.ts"
import type { Dimension, Subject } from "../admission/Subject.ts"
import { dimensions } from "../admission/Subject.ts"
import { alertRules } from "../budgets/BudgetAlert.ts"
import type { BudgetRule } from "../budgets/BudgetBook.ts"
import type { LimitRule } from "../limits/RateWindows.ts"
import type { Operation } from "../observability/Metrics.ts"

/** What callers ask for. */
export const operations = ["chat", "embeddings", "rerank", "classify", "tokenize"] as const satisfies ReadonlyArray<
  Operation
>

const Patterns = Schema.NonEmptyArray(Schema.NonEmptyString)

const common = {
  by: optional(
    "What counts together: requests with the same values share one counter. A caller without a user counts by its key. " +
      "Default none: all requests share it.",
    Schema.Array(Schema.Literals(dimensions))
  ),
  keys: optional(
    "Names or ids of the keys that it applies to, where * stands for any characters. Default all.",
    Patterns
  ),
  users: optional("Users that it applies to. Default all.", Patterns),
  tenants: optional("Tenants that it applies to. Default all.", Patterns),
  models: optional("Models that it applies to. Default all.", Patterns),
  endpoints: optional(
    `Endpoints that it applies to: ${
      operations.join(", ")
    }; chat is every endpoint that generates text, completions and ` +
      "responses among them. Default all.",
    Schema.NonEmptyArray(Schema.Literals(operations))
  ),
  mode: optional(
    "shadow: counted and logged, and rejects nothing. Default enforced.",
    Schema.Literals(["enforced", "shadow"])
  )
}

const LimitSettings = Schema.Struct({ ...common, ...Identity.Limits.fields })

const BudgetSettings = Schema.Struct({ ...common, ...Identity.Budget.fields })

/** The section `limits`. */
export const Limits = Schema.Record(Schema.String, Schema.Union([LimitSettings, Schema.Literal(false)]))

/** The section `budgets`. */
export const Budgets = Schema.Record(Schema.String, BudgetSettings)

/** The section `budgetAlerts`. */
export const BudgetAlerts = Schema.Struct({
  percents: optional(
    `Percentages of a budget that raise an alert when they are spent. Default [${alertRules.percents.join(", ")}].`,
    Schema.Array(Schema.Finite.check(Schema.isBetween({ minimum: 1, maximum: 100 })))
  ),
  timesLastCost: optional(
    "An alert is raised when less than this many times the cost of the last request is left, 0 for none. " +
      `Default ${alertRules.timesLastCost}.`,
    Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))
  )
})

/** The section `ledger`. */
export const Ledger = Schema.Struct({
  anonymous: optional(
    "Whether requests without a key are in the ledger, too. Default false.",
    Schema.Boolean
  )
})

interface Sections {
  readonly limits?: typeof Limits.Type
  readonly budgets?: typeof Budgets.Type
  readonly budgetAlerts?: typeof BudgetAlerts.Type
  readonly ledger?: typeof Ledger.Type
}

/** The resolved sections. */
export interface AdmissionSettings extends Configured {
  /** Whether requests without a key are in the ledger. */
  readonly countsAll: boolean
}

const scopeOf = ({ endpoints, keys, models, tenants, users }: Scope): Scope => ({
  endpoints,
  keys,
  models,
  tenants,
  users
})

const limitOf = (name: string, settings: typeof LimitSettings.Type): Scoped<LimitRule> => {
  const { by = [], endpoints: _, keys: __, mode = "enforced", models: ___, tenants: ____, users: _____, ...limits } =
    settings
  return { rule: { id: name, name, by, limits, mode }, scope: scopeOf(settings) }
}

const fields: ReadonlyArray<readonly [keyof Scope, Dimension]> = [
  ["keys", "key"],
  ["users", "user"],
  ["tenants", "tenant"],
  ["models", "model"],
  ["endpoints", "endpoint"]
]

const isNamed = (pattern: string, dimension: Dimension, subject: Subject): boolean =>
  Identity.matches(pattern, subject[dimension]) ||
  dimension === "key" && subject.keyName !== undefined && Identity.matches(pattern, subject.keyName)

/** Whether a rule applies to requests of a subject. */
export const covers = (scope: Scope, subject: Subject): boolean =>
  fields.every(([field, dimension]) => scope[field]?.some((pattern) => isNamed(pattern, dimension, subject)) ?? true)

const budgetOf = (name: string, settings: typeof BudgetSettings.Type): Scoped<BudgetRule> => {
  const { by = [], mode = "enforced", period, tokens, usd } = settings
  const scope = scopeOf(settings)
  const isScoped = fields.some(([field]) => scope[field] !== undefined)
  return {
    scope,
    rule: {
      name,
      by,
      period,
      mode,
      tokens,
      nano: usd === undefined ? undefined : nanoOf(usd),
      ...(isScoped ? { applies: (subject: Subject) => covers(scope, subject) } : {})
    }
  }
}

/** The limit `default` counts as the one that it replaces does, unless it says otherwise. */
const defaultOf = (settings: typeof Limits.Type[string] | undefined): Scoped<LimitRule> | undefined => {
  if (settings === undefined) return defaultLimit
  return settings === false ? undefined : limitOf("default", { by: defaultLimit.rule.by, ...settings })
}

/** The sections with their defaults. */
export const admissionOf = (
  { budgetAlerts = {}, budgets = {}, ledger = {}, limits = {} }: Sections
): AdmissionSettings => ({
  limits: Object.entries(limits).flatMap(([name, limit]) =>
    limit === false || name === "default" ? [] : [limitOf(name, limit)]
  ),
  budgets: Object.entries(budgets).map(([name, budget]) => budgetOf(name, budget)),
  defaultLimit: defaultOf(limits["default"]),
  budgetAlerts: { ...alertRules, ...budgetAlerts },
  countsAll: ledger.anonymous === true
})

const hasLimit = (limit: typeof LimitSettings.Type): boolean =>
  Object.keys(Identity.Limits.fields).some((field) => Object.hasOwn(limit, field))

/** Limits without a number, and budgets without an amount. */
export const admissionProblems = ({ budgets = {}, limits = {} }: Sections): ReadonlyArray<Problem.KeyedProblem> => [
  ...Object.entries(limits).flatMap(([name, limit]): ReadonlyArray<Problem.KeyedProblem> => {
    if (limit === false) {
      return name === "default" ? [] : [{
        path: ["limits", name],
        expected: "Only `default`, the limit of 100 requests per hour for callers with a key, can be false"
      }]
    }
    return hasLimit(limit) ? [] : [{
      path: ["limits", name],
      expected: "Expected a limit, such as requestsPerHour: 100 or parallel: 4"
    }]
  }),
  ...Object.entries(budgets).flatMap(([name, { tokens, usd }]) =>
    tokens === undefined && usd === undefined
      ? [{ path: ["budgets", name], expected: "Expected usd or tokens, such as usd: 50" }]
      : []
  )
]
