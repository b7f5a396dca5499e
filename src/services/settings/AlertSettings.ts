/** The section `alerts`: the rules of alerts, and where changes of alerts are sent. */
import type { Redacted } from "effect"
import { Duration, Schema } from "effect"
import { described, durationText, optional, Span, SpanOrOff } from "../../domain/Fields.ts"
import { nearestName } from "../../domain/NearestName.ts"
import type * as Problem from "../../domain/Problem.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import type { AlertRule } from "../alerts/AlertRule.ts"
import { actions, defaultRules, metricNames, metrics, ruleDefaults, severities } from "../alerts/AlertRule.ts"

const Value = Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0))

const spanText = (span: Duration.Duration) => durationText(Duration.toMillis(span))

/** What the webhook has unless the settings say otherwise. */
export const webhookDefaults = { timeout: Duration.seconds(5), attempts: 6, queue: 100 } as const

/** How often rules are evaluated, and the limit of their windows. */
const evaluateEvery = Duration.seconds(15)
const longestWindow = Duration.days(1)

const ofDefault = "of the default rule of this name"

const Rule = Schema.Struct({
  metric: optional(
    `What it measures: ${
      metricNames.join(", ")
    }. Required in a rule of another name than the default ones. Default that ${ofDefault}.`,
    Schema.Literals(metricNames)
  ),
  threshold: optional(
    "The alert fires from this value on: a share from 0 to 1, seconds, or a count, as the metric is. Required in a rule of " +
      `another name than the default ones. Default that ${ofDefault}.`,
    Value
  ),
  clear: optional(
    "It is resolved below this value, which is at most the threshold: values between the two change nothing. Default that " +
      `${ofDefault}, at most the threshold; else the threshold.`,
    Value
  ),
  for: optional(
    `How long a value stays at the threshold before the alert fires, false for at once. Default that ${ofDefault}, or false.`,
    SpanOrOff
  ),
  window: optional(
    "How far back increases, shares and latencies are measured, at most 1 day. Default that " +
      `${ofDefault}, or ${spanText(ruleDefaults.window)}.`,
    Span
  ),
  minRequests: optional(
    "Requests in the window below which shares and latencies have no value: the alert stays as it is. Default " +
      `${ruleDefaults.minRequests}.`,
    wholeNumber(1)
  ),
  severity: optional(
    `How severe it is. Default that ${ofDefault}, or ${ruleDefaults.severity}.`,
    Schema.Literals(severities)
  ),
  actions: optional(
    "What it does: an entry in the log, a call of the webhook, or free memory while it fires (emergency_memory). Default those " +
      `${ofDefault}, or [${ruleDefaults.actions.join(", ")}].`,
    Schema.Array(Schema.Literals(actions))
  ),
  targets: optional(
    "Models, deployments or budgets that it watches, as the metric is measured for; * stands for any characters. Default all.",
    Schema.NonEmptyArray(Schema.NonEmptyString)
  )
})
type Rule = typeof Rule.Type

const secret = (schema: Schema.String["Rebuild"]) => Schema.RedactedFromValue(schema, { disallowEncode: true })

const Webhook = Schema.Struct({
  url: described(
    "URL that gets a POST of JSON when an alert fires and when it is resolved: observability.md has its shape.",
    secret(Schema.String.check(
      Schema.isPattern(/^(?:https?:\/\/[^\s/?#]+|\$\{)/, {
        message: "Expected a URL such as https://hooks.example.com/troupe"
      })
    ))
  ),
  secret: optional(
    "${NAME}: secret of the signature in x-troupe-signature. Default none: requests are not signed.",
    secret(Schema.NonEmptyString)
  ),
  timeout: optional(
    `How long one attempt may take. Default ${spanText(webhookDefaults.timeout)}.`,
    Span
  ),
  attempts: optional(
    "Attempts for one change, after 1, 2, 4 seconds and so on, before it is given up. Default " +
      `${webhookDefaults.attempts}.`,
    wholeNumber(1, 20)
  ),
  queue: optional(
    `Changes that may wait; of more, the oldest are given up. Default ${webhookDefaults.queue}.`,
    wholeNumber(1, 10_000)
  )
})

/** The section `alerts`. */
export const Alerts = Schema.Struct({
  every: optional(`How often the rules are evaluated. Default ${spanText(evaluateEvery)}.`, Span),
  webhook: optional("A program that gets the changes of alerts over HTTP.", Webhook),
  rules: optional(
    "Rules by name, false to turn one off. They add to the default ones and change those of the same name. Default " +
      `${defaultRules.map(({ name }) => name).join(", ")}.`,
    Schema.Record(Schema.String, Schema.Union([Rule, Schema.Literal(false)]))
  )
})
type Section = typeof Alerts.Type

/** Where changes of alerts are sent. */
export interface AlertWebhookSettings {
  readonly url: Redacted.Redacted
  readonly secret: Redacted.Redacted | undefined
  readonly timeout: Duration.Duration
  readonly attempts: number
  readonly queue: number
}

/** The alerts of a service. */
export interface AlertSettings {
  readonly every: Duration.Duration
  readonly webhook?: AlertWebhookSettings
  readonly rules: ReadonlyArray<AlertRule>
}

const defaultOf = (name: string): AlertRule | undefined => defaultRules.find((rule) => rule.name === name)

const holdOf = ({ for: hold }: Rule): Partial<AlertRule> => {
  if (hold === undefined) return {}
  return { for: hold === false ? Duration.zero : hold }
}

/** Undefined where a rule that is not a default one lacks its metric or threshold. */
const ruleOf = (name: string, given: Rule): AlertRule | undefined => {
  const usual = defaultOf(name)
  const { clear, metric, threshold } = { ...usual, ...given }
  if (metric === undefined || threshold === undefined) return undefined
  const own = Object.fromEntries(Object.entries(given).filter(([field]) => field !== "for"))
  return {
    ...ruleDefaults,
    ...usual,
    ...own,
    name,
    metric,
    threshold,
    clear: given.clear ?? Math.min(clear ?? threshold, threshold),
    ...holdOf(given)
  }
}

/** The section with its defaults. */
export const alertsOf = ({ every = evaluateEvery, rules = {}, webhook }: Section = {}): AlertSettings => {
  const kept = defaultRules.filter(({ name }) => !Object.hasOwn(rules, name))
  const own = Object.entries(rules).flatMap(([name, given]) => given === false ? [] : ruleOf(name, given) ?? [])
  const all = [...kept, ...own]
  const order = (name: string) => {
    const index = defaultRules.findIndex((rule) => rule.name === name)
    return index === -1 ? defaultRules.length : index
  }
  return {
    every,
    ...(webhook === undefined ? {} : { webhook: { ...webhookDefaults, secret: undefined, ...webhook } }),
    rules: all.toSorted((one, other) => order(one.name) - order(other.name))
  }
}

const namePattern = /^[a-z][a-z0-9_]{0,62}$/

const missingIn = (name: string, given: Rule): string | undefined => {
  const missing = (["metric", "threshold"] as const).filter((field) => given[field] === undefined)
  if (defaultOf(name) !== undefined || missing.length === 0) return undefined
  const nearest = nearestName(name, defaultRules.map((rule) => rule.name))
  return `Expected ${missing.join(" and ")}, since no default rule has this name${
    nearest === undefined ? "" : `. Did you mean ${nearest}?`
  }`
}

/** What must hold of a rule, by field. */
const checks: ReadonlyArray<readonly [field: string, isWrong: (rule: AlertRule) => boolean, expected: string]> = [
  ["clear", ({ clear, threshold }) => clear > threshold, "Expected at most the threshold"],
  [
    "threshold",
    ({ metric, threshold }) => metrics[metric].unit === "share" && threshold > 1,
    "Expected a share from 0 to 1"
  ],
  ["threshold", ({ threshold }) => threshold === 0, "Expected a number above 0"],
  ["window", ({ window }) => Duration.isGreaterThan(window, longestWindow), "Expected at most 1 day"],
  [
    "targets",
    ({ metric, targets }) => metrics[metric].of === "service" && targets !== undefined,
    "Expected no targets: the metric is measured for the whole service"
  ]
]

const problemsIn = (name: string, given: Rule): ReadonlyArray<readonly [field: string, expected: string]> => {
  const missing = missingIn(name, given)
  const rule = ruleOf(name, given)
  if (missing !== undefined || rule === undefined) return [["", missing ?? ""]]
  return checks.flatMap(([field, isWrong, expected]) => isWrong(rule) ? [[field, expected] as const] : [])
}

/** Rules that lack something, or whose values do not fit together. */
export const alertProblems = ({ alerts: { rules = {} } = {} }: { readonly alerts?: Section }): ReadonlyArray<
  Problem.KeyedProblem
> =>
  Object.entries(rules).flatMap(([name, given]) => {
    const path = ["alerts", "rules", name]
    if (!namePattern.test(name)) {
      return [{ path, expected: "Expected a name of lower-case letters, digits and _, at most 63" }]
    }
    if (given !== false) {
      return problemsIn(name, given).map(([field, expected]) => ({
        path: field === "" ? path : [...path, field],
        expected
      }))
    }
    return defaultOf(name) === undefined ? [{ path, expected: "Only a default rule can be false" }] : []
  })
