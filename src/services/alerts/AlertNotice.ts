/** What operators are told of alerts: the report of `GET /admin/alerts`, and the notice of a change that a webhook gets. Pure. */
import { Duration, Schema } from "effect"
import type { NewEvent } from "../observability/OperatorEvents.ts"
import type { AlertStates, Now, ResolvedBecause, Transition } from "./AlertMachine.ts"
import { keyOf } from "./AlertMachine.ts"
import type { AlertRule, MetricName, Severity } from "./AlertRule.ts"
import { actions, metricNames, metrics, severities, valueText } from "./AlertRule.ts"

const Reasons = Schema.Literals(["recovered", "target_removed", "rule_removed", "rule_changed"])

const common = {
  /** The name of its rule and its target, such as `error_rate/chat`: the same in every episode. */
  alert: Schema.String,
  rule: Schema.String,
  metric: Schema.Literals(metricNames),
  /** The name of a model, deployment, budget or store; left out for the whole service. */
  target: Schema.optionalKey(Schema.String),
  severity: Schema.Literals(severities),
  /** The last one: a share from 0 to 1, seconds, or a count. */
  value: Schema.Finite
}

/** An alert that has begun to fire, or is resolved: the body of a call of the webhook. */
export const AlertNotice = Schema.Struct({
  /** Of this notice; the same when it is sent again. */
  id: Schema.String,
  /** From firing to resolved. */
  episode: Schema.String,
  /** A budget has another notice `firing` in the same episode at each level. */
  status: Schema.Literals(["firing", "resolved"]),
  /** One sentence. */
  message: Schema.String,
  ...common,
  threshold: Schema.optionalKey(Schema.Finite),
  clear: Schema.optionalKey(Schema.Finite),
  /** When it began to fire, ms since 1970. */
  startedAt: Schema.Finite,
  /** When this happened, ms since 1970. */
  at: Schema.Finite,
  /** Why it is resolved. */
  reason: Schema.optionalKey(Reasons)
}).annotate({ identifier: "AlertNotice" })
export type AlertNotice = typeof AlertNotice.Type

/** A rule as it is shown. */
export const ShownRule = Schema.Struct({
  rule: Schema.String,
  metric: Schema.Literals(metricNames),
  threshold: Schema.Finite,
  clear: Schema.Finite,
  /** How long an alert is pending before it fires, ms. */
  forMs: Schema.Finite,
  /** Left out where the metric is a state. */
  windowMs: Schema.optionalKey(Schema.Finite),
  severity: Schema.Literals(severities),
  actions: Schema.Array(Schema.Literals(actions)),
  targets: Schema.optionalKey(Schema.Array(Schema.String))
})

/** An alert that is pending or fires. */
export const ShownAlert = Schema.Struct({
  ...common,
  state: Schema.Literals(["pending", "firing"]),
  /** ms since 1970 */
  since: Schema.Finite,
  /** Of one that fires. */
  episode: Schema.optionalKey(Schema.String)
})

/** The webhook, without its URL. */
export const WebhookStatus = Schema.Struct({
  /** Notices that are not delivered yet. */
  waiting: Schema.Int,
  delivered: Schema.Int,
  /** Notices that were given up since the start. */
  lost: Schema.Int,
  /** Why the last attempt failed; left out if it did not. */
  problem: Schema.optionalKey(Schema.String)
})
export type WebhookStatus = typeof WebhookStatus.Type

/** The rules and the alerts, those that fire first. */
export const AlertReport = Schema.Struct({
  rules: Schema.Array(ShownRule),
  alerts: Schema.Array(ShownAlert),
  /** Left out where none is configured. */
  webhook: Schema.optionalKey(WebhookStatus)
})
export type AlertReport = typeof AlertReport.Type

const targetOf = (target: string) => target === "" ? {} : { target }

const shownRule = (rule: AlertRule): typeof ShownRule.Type => ({
  rule: rule.name,
  metric: rule.metric,
  threshold: rule.threshold,
  clear: rule.clear,
  forMs: Duration.toMillis(rule.for),
  ...(metrics[rule.metric].overWindow ? { windowMs: Duration.toMillis(rule.window) } : {}),
  severity: rule.severity,
  actions: rule.actions,
  ...(rule.targets === undefined ? {} : { targets: rule.targets })
})

/** The report of these rules and states. */
export const reportOf = (rules: ReadonlyArray<AlertRule>, states: AlertStates): AlertReport => ({
  rules: rules.map(shownRule),
  alerts: [...states.values()].toSorted((one, other) => one.phase.localeCompare(other.phase) || one.at - other.at).map(
    ({ at, episode, metric, phase, rule, target, value }) => ({
      alert: keyOf(rule, target),
      rule,
      metric,
      ...targetOf(target),
      severity: severityOf(rules.find(({ name }) => name === rule)),
      value,
      state: phase,
      since: at,
      ...(episode === undefined ? {} : { episode })
    })
  )
})

const severityOf = (rule: AlertRule | undefined): Severity => rule?.severity ?? "warning"

const because: Readonly<Record<Exclude<ResolvedBecause, "recovered">, string>> = {
  target_removed: "it is no longer configured",
  rule_removed: "its rule was removed",
  rule_changed: "its rule was changed"
}

const subjectOf = (rule: string, target: string): string => `Alert ${rule}${target === "" ? "" : ` for ${target}`}`

const recoveredText = (metric: MetricName, value: number, { clear }: AlertRule): string =>
  metric === "budget_alerts"
    ? "its period has ended, or the budget has grown"
    : `${valueText(metric, value)}, below ${valueText(metric, clear)}`

const textOf = (transition: Transition, lastedMs: number, words: string | undefined): string => {
  const { metric, rule: name, target, value } = transition.state
  const subject = subjectOf(name, target)
  const { rule } = transition
  if (transition.type !== "resolved") {
    const figures = `${valueText(metric, value)}, threshold ${valueText(metric, transition.rule.threshold)}.`
    return `${subject} fires: ${words ?? figures}`
  }
  const after = Duration.format(Duration.millis(Math.round(lastedMs / 1000) * 1000))
  return transition.because === "recovered" && rule !== undefined
    ? `${subject} is resolved after ${after}: ${recoveredText(metric, value, rule)}.`
    : `${subject} is resolved after ${after}: ${because[transition.because as keyof typeof because]}.`
}

/**
 * The notice of a change; undefined for an alert that is pending.
 *
 * @param words what is known of the target beside the value, as a sentence
 */
export const noticeOf = (transition: Transition, now: Now, words?: string): AlertNotice | undefined => {
  const { rule, state, type } = transition
  const { at: startedAt, episode, metric, rule: name, since, target, value } = state
  if (type === "pending" || episode === undefined) return undefined
  return {
    id: type === "level" ? `${episode}.level.${value}` : `${episode}.${type}`,
    episode,
    status: type === "level" ? "firing" : type,
    message: textOf(transition, now.monotonic - since, words),
    alert: keyOf(name, target),
    rule: name,
    metric,
    ...targetOf(target),
    severity: severityOf(rule),
    value,
    ...(rule === undefined ? {} : { threshold: rule.threshold, clear: rule.clear }),
    startedAt,
    at: now.date,
    ...(type === "resolved" ? { reason: transition.because } : {})
  }
}

const placeOf = (metric: MetricName, target: string) => {
  const { of } = metrics[metric]
  return of === "model" || of === "deployment" ? { [of]: target } : {}
}

/** The event of a notice, for those that follow the service. */
export const eventOf = (
  { alert, episode, message, metric, severity, status, target = "", value }: AlertNotice
): NewEvent => ({
  kind: "alert",
  severity: status === "resolved" ? "info" : severity,
  message,
  ...placeOf(metric, target),
  details: { alert, episode, status, value }
})
