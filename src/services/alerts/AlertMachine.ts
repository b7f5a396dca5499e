/**
 * The states of alerts: pending, firing, resolved. Pure: rules, readings and the time are arguments.
 *
 * **Details**
 *
 * An alert is pending from the first value at or above the threshold of its rule, and fires once the value has stayed there for
 * `for`. From then on it fires until a value is below `clear`: values between `clear` and the threshold change nothing. The time from
 * firing to resolved is an episode, which has an id.
 *
 * A missing value (no requests, for example) neither fires nor resolves: no traffic is not health. An alert whose target does not
 * exist any more, or whose rule is removed or measures something else, is resolved with that reason.
 */
import { Duration } from "effect"
import type { AlertRule, MetricName } from "./AlertRule.ts"
import { metrics, watches } from "./AlertRule.ts"

/** Values by the names of targets; undefined where there is no value now. */
export type Reading = ReadonlyMap<string, number | undefined>

/** Readings by the names of rules. */
export type Readings = ReadonlyMap<string, Reading>

/** An alert that is pending or fires. */
export interface AlertState {
  readonly rule: string
  readonly metric: MetricName
  /** The name of a model, deployment, budget or store; empty for the service. */
  readonly target: string
  readonly phase: "pending" | "firing"
  /** Since when it is in this phase, monotonic ms. */
  readonly since: number
  /** The same as a date, ms since 1970. */
  readonly at: number
  /** The last value. */
  readonly value: number
  /** Of one that fires. */
  readonly episode: string | undefined
}

/** The alerts that are pending or fire, by `keyOf`. */
export type AlertStates = ReadonlyMap<string, AlertState>

/** Why an alert is resolved. */
export type ResolvedBecause = "recovered" | "target_removed" | "rule_removed" | "rule_changed"

/** A change of an alert. */
export type Transition =
  | { readonly type: "pending" | "firing"; readonly state: AlertState; readonly rule: AlertRule }
  /** A budget whose alert fires has reached another level. */
  | { readonly type: "level"; readonly state: AlertState; readonly rule: AlertRule }
  /** `state` is that before, with the last value; the rule is undefined if it is removed. */
  | {
    readonly type: "resolved"
    readonly state: AlertState
    readonly rule: AlertRule | undefined
    readonly because: ResolvedBecause
  }

/** The time of a step. */
export interface Now {
  /** monotonic ms */
  readonly monotonic: number
  /** ms since 1970 */
  readonly date: number
}

export interface Step {
  readonly states: AlertStates
  readonly transitions: ReadonlyArray<Transition>
}

/** The key of an alert: the name of its rule and its target, such as `error_rate/chat`. */
export const keyOf = (rule: string, target: string): string => target === "" ? rule : `${rule}/${target}`

/** The next state of an alert that does not fire; undefined if it is not pending. */
const rise = (
  rule: AlertRule,
  target: string,
  value: number,
  before: AlertState | undefined,
  now: Now,
  newEpisode: () => string
): Transition | undefined => {
  if (value < rule.threshold) return undefined
  const pending: AlertState = {
    rule: rule.name,
    metric: rule.metric,
    target,
    phase: "pending",
    since: before?.since ?? now.monotonic,
    at: before?.at ?? now.date,
    value,
    episode: undefined
  }
  if (now.monotonic - pending.since < Duration.toMillis(rule.for)) return { type: "pending", state: pending, rule }
  const state = { ...pending, phase: "firing", since: now.monotonic, at: now.date, episode: newEpisode() } as const
  return { type: "firing", state, rule }
}

/** Why the episode of an alert ends whatever its value is; undefined if it does not. */
const goneBecause = (
  rule: AlertRule | undefined,
  { metric, target }: AlertState,
  readings: Readings
): ResolvedBecause | undefined => {
  if (rule === undefined) return "rule_removed"
  if (rule.metric !== metric || !watches(rule, target)) return "rule_changed"
  return readings.get(rule.name)?.has(target) === true ? undefined : "target_removed"
}

/** The alerts that fire, with their last values, and those that are resolved. */
const settle = (
  state: AlertState,
  rule: AlertRule | undefined,
  readings: Readings
): { readonly state: AlertState; readonly because: ResolvedBecause | undefined } => {
  const gone = goneBecause(rule, state, readings)
  if (gone !== undefined || rule === undefined) return { state, because: gone }
  const value = readings.get(rule.name)?.get(state.target)
  if (value === undefined) return { state, because: undefined }
  return { state: { ...state, value }, because: value < rule.clear ? "recovered" : undefined }
}

/** The next step of the alerts that fire. */
const settleAll = (rules: ReadonlyArray<AlertRule>, before: AlertStates, readings: Readings) => {
  const states = new Map<string, AlertState>()
  const transitions: Array<Transition> = []
  const byName = new Map(rules.map((rule) => [rule.name, rule]))
  for (const [key, known] of before) {
    if (known.phase !== "firing") continue
    const rule = byName.get(known.rule)
    const { because, state } = settle(known, rule, readings)
    if (because !== undefined) {
      transitions.push({ type: "resolved", state, rule, because })
      continue
    }
    states.set(key, state)
    if (rule !== undefined && metrics[rule.metric].of === "budget" && state.value > known.value) {
      transitions.push({ type: "level", state, rule })
    }
  }
  return { states, transitions }
}

/** Whether it is that of a rule that measures the same. */
const isPendingOf = ({ metric }: AlertRule, state: AlertState | undefined): boolean =>
  state?.phase === "pending" && state.metric === metric

/** The targets that a rule watches and that have a value now. */
const valuesOf = (rule: AlertRule, readings: Readings): ReadonlyArray<readonly [target: string, value: number]> =>
  Array.from(readings.get(rule.name) ?? []).flatMap(([target, value]) =>
    value === undefined || !watches(rule, target) ? [] : [[target, value] as const]
  )

/**
 * Evaluates the rules.
 *
 * @param newEpisode an id that no other episode has
 */
export const step = (
  rules: ReadonlyArray<AlertRule>,
  before: AlertStates,
  readings: Readings,
  now: Now,
  newEpisode: () => string
): Step => {
  const { states, transitions } = settleAll(rules, before, readings)
  for (const rule of rules) {
    for (const [target, value] of valuesOf(rule, readings)) {
      const key = keyOf(rule.name, target)
      if (states.has(key)) continue
      const pending = isPendingOf(rule, before.get(key)) ? before.get(key) : undefined
      const risen = rise(rule, target, value, pending, now, newEpisode)
      if (risen === undefined) continue
      states.set(key, risen.state)
      if (risen.type === "firing" || pending === undefined) transitions.push(risen)
    }
  }
  return { states, transitions }
}
