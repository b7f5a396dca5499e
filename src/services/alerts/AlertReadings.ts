/**
 * The values that the rules of alerts watch, from what the service measures anyway: no request pays for them.
 *
 * **Details**
 *
 * Increases come from Effect's metric registry (`tableOf`), states from the services. Targets are those of the configuration, so that
 * a model that was removed has no reading; a wildcard has that of all names that it serves; budgets are those that have raised an
 * alert.
 */
import type { Metric } from "effect"
import { Duration } from "effect"
import { refusalReasons } from "../guard/SecurityEvents.ts"
import type { Registry } from "../models/Registry.ts"
import { configuredDeployment, configuredModel } from "../models/Registry.ts"
import { callerErrors } from "../observability/RequestMetrics.ts"
import { durationBounds } from "../observability/Series.ts"
import type { Reading, Readings } from "./AlertMachine.ts"
import type { AlertRule, MetricName } from "./AlertRule.ts"
import { metrics, watches } from "./AlertRule.ts"
import type { BudgetLevel } from "./BudgetLevels.ts"
import type { Table, Windows } from "./Increases.ts"
import { quantile } from "./Increases.ts"

/** What is known besides increases. */
export interface Facts {
  /** The names of the configured models. */
  readonly models: ReadonlyArray<string>
  /** The ids of their deployments. */
  readonly deployments: ReadonlyArray<string>
  /** Deployments whose circuit is open or half open; of a wildcard, that of any name. */
  readonly openCircuits: ReadonlySet<string>
  /** Deployments that are down. */
  readonly failed: ReadonlySet<string>
  /** Share of the memory in use; undefined where it cannot be read. */
  readonly memoryUsed: number | undefined
  /** What the loss of a store does to requests, by its name; undefined while it answers. */
  readonly stores: ReadonlyMap<string, string | undefined>
  /** The levels of the budgets that have raised alerts, by the names of targets. */
  readonly budgets: ReadonlyMap<string, BudgetLevel>
}

/** Begins of names of series; the label follows. */
const series = {
  requests: "requests ",
  latency: "latency ",
  firstToken: "first_token ",
  restarts: "restarts ",
  security: "security "
} as const

/** The begin of the target of a service process, before its number. No deployment has it: its id has a `#`. */
const processTarget = "process "

/** The increase of a service process that has crashed, which its supervisor reports. */
export const processRestarted = (index: number): Table => new Map([[`${series.restarts}${processTarget}${index}`, [1]]])

/** Which series a metric of the registry belongs to, by the label that names its target. */
const sources: Readonly<Record<string, readonly [prefix: string, label: string]>> = {
  llm_requests_total: [series.requests, "model"],
  [callerErrors.id]: [series.requests, "model"],
  llm_request_duration_seconds: [series.latency, "model"],
  troupe_time_to_first_token_seconds: [series.firstToken, "model"],
  troupe_engine_restarts_total: [series.restarts, "deployment"],
  llm_security_events_total: [series.security, "rule"]
}

/** Counts of buckets, from cumulated ones; the last bucket has no upper bound. */
const bucketsOf = ({ buckets, count }: Metric.HistogramState): ReadonlyArray<number> => {
  const cumulated = [...buckets.map(([, below]) => below), count]
  return cumulated.map((below, index) => below - (cumulated[index - 1] ?? 0))
}

/** Of requests: those that were answered, and those that failed without those whose callers are the cause. */
const valuesOf = (snapshot: Metric.Metric.Snapshot): ReadonlyArray<number> | undefined => {
  if (snapshot.type === "Histogram") return bucketsOf(snapshot.state)
  if (snapshot.type !== "Counter") return undefined
  const count = Number(snapshot.state.count)
  if (snapshot.id === callerErrors.id) return [0, -count]
  const { action, success } = snapshot.attributes ?? {}
  if (success !== undefined) return success === "true" ? [count, 0] : [0, count]
  return action === undefined || action === "reject" ? [count] : undefined
}

/** The target that a label stands for. */
const targetOf = (registry: Registry["Service"], label: string, value: string): string => {
  if (label === "model") return configuredModel(registry, value)
  return label === "deployment" ? configuredDeployment(registry, value) : value
}

/** The series of this process. */
export const tableOf = (
  snapshots: ReadonlyArray<Metric.Metric.Snapshot>,
  registry: Registry["Service"]
): Table => {
  const table = new Map<string, ReadonlyArray<number>>()
  for (const snapshot of snapshots) {
    const source = sources[snapshot.id]
    const values = source && valuesOf(snapshot)
    if (source === undefined || values === undefined) continue
    const [prefix, label] = source
    const name = prefix + targetOf(registry, label, snapshot.attributes?.[label] ?? "")
    const known = table.get(name)
    table.set(name, known === undefined ? values : values.map((value, index) => value + known[index]!))
  }
  return table
}

const sumOf = (values: ReadonlyArray<number>): number => values.reduce((sum, value) => sum + value, 0)

const single = (value: number | undefined): Reading => new Map([["", value]])

const reading = (targets: ReadonlyArray<string>, valueOf: (target: string) => number | undefined): Reading =>
  new Map(targets.map((target) => [target, valueOf(target)]))

const onOff = (targets: ReadonlyArray<string>, on: ReadonlySet<string>): Reading =>
  reading(targets, (target) => Number(on.has(target)))

type Read = (
  increase: (name: string) => ReadonlyArray<number>,
  facts: Facts,
  rule: AlertRule,
  windows: Windows
) => Reading

const errorRate: Read = (increase, { models }, { minRequests }) =>
  reading(models, (model) => {
    const [answered = 0, failed = 0] = increase(series.requests + model)
    const all = answered + failed
    return all < minRequests || all === 0 ? undefined : failed / all
  })

const p95 = (prefix: string): Read => (increase, { models }, { minRequests }) =>
  reading(models, (model) => {
    const counts = increase(prefix + model)
    const all = sumOf(counts)
    return all < minRequests || all === 0 ? undefined : quantile(0.95, durationBounds, counts)
  })

const isOfKeys = new Set<string>(["key", "access", "admin"] satisfies ReadonlyArray<keyof typeof refusalReasons>)

/** The sum of the security events with these names. */
const securityEvents = (isCounted: (event: string) => boolean): Read => (increase, _facts, _rule, windows) =>
  single(
    windows.names(series.security).filter(isCounted).reduce(
      (sum, event) => sum + sumOf(increase(series.security + event)),
      0
    )
  )

const reads: Readonly<Record<MetricName, Read>> = {
  error_rate: errorRate,
  latency_p95: p95(series.latency),
  first_token_p95: p95(series.firstToken),
  budget_alerts: (_increase, { budgets }) => reading([...budgets.keys()], (budget) => budgets.get(budget)?.count),
  memory_used: (_increase, { memoryUsed }) => single(memoryUsed),
  circuit_open: (_increase, { deployments, openCircuits }) => onOff(deployments, openCircuits),
  engine_restarts: (increase, { deployments }, _rule, windows) => {
    const processes = windows.names(series.restarts).filter((name) => name.startsWith(processTarget))
    return reading([...deployments, ...processes], (target) => sumOf(increase(series.restarts + target)))
  },
  deployment_failed: (_increase, { deployments, failed }) => onOff(deployments, failed),
  store_lost: (_increase, { stores }) =>
    reading([...stores.keys()], (store) => Number(stores.get(store) !== undefined)),
  rejected_keys: securityEvents((event) => isOfKeys.has(event)),
  guard_refusals: securityEvents((event) => !Object.hasOwn(refusalReasons, event))
}

/** What is known of a target beside the value of its metric, as a sentence; undefined where the value says it all. */
export const wordsOf = (metric: MetricName, target: string, { budgets, stores }: Facts): string | undefined => {
  if (metric === "store_lost") return stores.get(target)
  const words = metric === "budget_alerts" ? budgets.get(target)?.words : undefined
  return words && `${words}.`
}

/** The readings of the rules. */
export const readingsOf = (
  rules: ReadonlyArray<AlertRule>,
  windows: Windows,
  facts: Facts,
  now: number
): Readings =>
  new Map(rules.map((rule) => {
    const windowMs = Duration.toMillis(rule.window)
    const all = reads[rule.metric]((name) => windows.increase(name, windowMs, now), facts, rule, windows)
    return [rule.name, new Map([...all].filter(([target]) => watches(rule, target)))]
  }))

/** The longest window of the rules, ms. */
export const longestWindowMs = (rules: ReadonlyArray<AlertRule>): number =>
  Math.max(0, ...rules.map(({ metric, window }) => metrics[metric].overWindow ? Duration.toMillis(window) : 0))
