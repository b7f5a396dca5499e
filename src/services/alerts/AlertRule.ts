/**
 * The rules of alerts as data: what is measured, from which value on an alert fires, and what it does. Pure.
 *
 * **Details**
 *
 * A rule has one alert for each of its targets: each model, deployment, budget or store that its metric is measured for, or the whole service.
 */
import { Duration } from "effect"
import * as Identity from "../../domain/Identity.ts"

/** What an alert does when it fires, and when it is resolved. `emergency_memory` frees memory while it fires. */
export const actions = ["log", "webhook", "emergency_memory"] as const
export type Action = typeof actions[number]

/** As those of `OperatorEvents`. */
export const severities = ["info", "warning", "critical"] as const
export type Severity = typeof severities[number]

/** What a metric is measured for: each of these, or the service as a whole. */
export type TargetKind = "model" | "deployment" | "budget" | "service" | "store"

/** A metric that rules can watch. */
interface MetricKind {
  readonly of: TargetKind
  readonly unit: "share" | "seconds" | "count"
  /** Whether it is measured over the rule's `window`. */
  readonly overWindow: boolean
  /** For documents and messages, after "Alert NAME: ". */
  readonly meaning: string
}

/** The metrics by their names in `troupe.yaml`. */
export const metrics = {
  error_rate: {
    of: "model",
    unit: "share",
    overWindow: true,
    meaning: "share of the requests that failed, without those whose callers are the cause"
  },
  latency_p95: { of: "model", unit: "seconds", overWindow: true, meaning: "95 % of the requests end within" },
  first_token_p95: {
    of: "model",
    unit: "seconds",
    overWindow: true,
    meaning: "95 % of the streams have their first content within"
  },
  budget_alerts: {
    of: "budget",
    unit: "count",
    overWindow: false,
    meaning: "levels of `budgetAlerts` that are reached in the present period"
  },
  memory_used: {
    of: "service",
    unit: "share",
    overWindow: false,
    meaning: "share of the memory of the machine or the control group in use"
  },
  circuit_open: { of: "deployment", unit: "count", overWindow: false, meaning: "1 while the circuit is not closed" },
  engine_restarts: {
    of: "deployment",
    unit: "count",
    overWindow: true,
    meaning: "engines, or processes of the service, that were started again"
  },
  deployment_failed: {
    of: "deployment",
    unit: "count",
    overWindow: false,
    meaning: "1 while it does not load, or its restarts are used up"
  },
  store_lost: {
    of: "store",
    unit: "count",
    overWindow: false,
    meaning: "1 while the database or Redis does not answer"
  },
  rejected_keys: {
    of: "service",
    unit: "count",
    overWindow: true,
    meaning: "requests without a valid key, or with one that does not allow them"
  },
  guard_refusals: {
    of: "service",
    unit: "count",
    overWindow: true,
    meaning: "requests that the policy for prompts has rejected"
  }
} as const satisfies Readonly<Record<string, MetricKind>>

export type MetricName = keyof typeof metrics

export const metricNames = Object.keys(metrics) as ReadonlyArray<MetricName>

/** One rule. */
export interface AlertRule {
  readonly name: string
  readonly metric: MetricName
  /** An alert is pending from this value on. */
  readonly threshold: number
  /** An alert that fires is resolved below this value; at most `threshold`. */
  readonly clear: number
  /** How long an alert is pending before it fires; zero: it fires at once. */
  readonly for: Duration.Duration
  /** How far back increases and shares are measured. */
  readonly window: Duration.Duration
  /** Requests in the window below which shares and latencies have no value. */
  readonly minRequests: number
  readonly severity: Severity
  readonly actions: ReadonlyArray<Action>
  /** Names of targets, where * stands for any characters; left out, all. */
  readonly targets?: ReadonlyArray<string> | undefined
}

/** What a rule has unless it says otherwise. */
export const ruleDefaults = {
  for: Duration.zero,
  window: Duration.minutes(5),
  minRequests: 20,
  severity: "warning",
  actions: ["log", "webhook"]
} as const satisfies Partial<AlertRule>

const rule = (name: string, given: Omit<AlertRule, "name" | keyof typeof ruleDefaults> & Partial<AlertRule>) => ({
  ...ruleDefaults,
  name,
  ...given
})

/** The rules without a configuration. */
export const defaultRules: ReadonlyArray<AlertRule> = [
  rule("error_rate", {
    metric: "error_rate",
    threshold: 0.05,
    clear: 0.02,
    for: Duration.minutes(1),
    severity: "critical"
  }),
  rule("latency", { metric: "latency_p95", threshold: 60, clear: 45, for: Duration.minutes(5) }),
  rule("budget", { metric: "budget_alerts", threshold: 1, clear: 1 }),
  rule("emergency_memory", {
    metric: "memory_used",
    threshold: 0.95,
    clear: 0.92,
    severity: "critical",
    actions: ["log", "webhook", "emergency_memory"]
  }),
  rule("circuit_open", { metric: "circuit_open", threshold: 1, clear: 1, for: Duration.minutes(1) }),
  rule("engine_restarts", {
    metric: "engine_restarts",
    threshold: 3,
    clear: 1,
    window: Duration.minutes(10)
  }),
  rule("deployment_failed", { metric: "deployment_failed", threshold: 1, clear: 1, severity: "critical" }),
  rule("store_lost", {
    metric: "store_lost",
    threshold: 1,
    clear: 1,
    for: Duration.seconds(10),
    severity: "critical"
  }),
  rule("rejected_keys", { metric: "rejected_keys", threshold: 20, clear: 5 }),
  rule("guard_refusals", { metric: "guard_refusals", threshold: 20, clear: 5 })
]

/** Whether a rule watches a target. */
export const watches = ({ metric, targets }: Pick<AlertRule, "metric" | "targets">, target: string): boolean => {
  // Those of a budget have what it counts together as well.
  const watched = metrics[metric].of === "budget" ? target.split(": ", 1)[0]! : target
  return targets?.some((pattern) => Identity.matches(pattern, watched)) ?? true
}

const rounded = (value: number, digits: number): string => String(Number(value.toFixed(digits)))

/** A value with the unit of its metric, such as `12.5 %`, `61.2 s` or `3`. */
export const valueText = (metric: MetricName, value: number): string => {
  switch (metrics[metric].unit) {
    case "share":
      return `${rounded(100 * value, 1)} %`
    case "seconds":
      return `${rounded(value, 2)} s`
    case "count":
      return rounded(value, 0)
  }
}
