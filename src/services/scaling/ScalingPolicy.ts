/**
 * How many replicas a local deployment has: one step of the decision. Pure.
 *
 * **Details**
 *
 * A replica is one engine with its slots. The demand decides whether there should be another one: the jobs that run and
 * wait, as a share of the slots. Above `up` times its target for `upAfterMs` a replica is added; below `down` times its
 * target for `downAfterMs` one is removed. What other models and programs use as well decides whether there can be another
 * one: a resource of the machine at its target has no room for a replica. Memory above `up` times its target takes one
 * back, because a replica holds memory whether it works or not. A replica that has the processor or the GPU holds nothing
 * when it is idle, and a full one is well used: neither takes a replica back.
 *
 * It does not flap:
 *
 * - Readings are smoothed, and the demand is divided by the slots of now, so that a change of the replicas counts at once.
 * - With `down` at most half of `up`, the demand after a change is never beyond the other threshold.
 * - Two changes in opposite directions have `cooldownMs` between them.
 *
 * The thresholds are those of the Horizontal Pod Autoscaler's kind: a tolerance around a target and a longer window for
 * removals (https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/).
 */

/** What is measured. `slots` is the demand of the deployment, the others are shares of the machine's resources. */
export const measures = ["slots", "cpu", "memory", "gpu"] as const
export type Measure = typeof measures[number]

/** Resources of the machine, in the order in which they are named as reasons. */
export const resources = ["memory", "gpu", "cpu"] as const satisfies ReadonlyArray<Measure>
export type Resource = typeof resources[number]

/** Resources that a replica holds while it is idle. */
const held: ReadonlyArray<Resource> = ["memory"]

/** Times in ms. */
export interface Rules {
  /** Shares in use that are aimed at, above 0. */
  readonly targets: Readonly<Record<Measure, number>>
  /** Times the target: a demand above this needs another replica. */
  readonly up: number
  /** Times the target: a demand below this needs one less. At most half of `up`. */
  readonly down: number
  /** Time constant of the smoothing. */
  readonly smoothingMs: number
  /** How long the demand is above the upper threshold before a replica is added. */
  readonly upAfterMs: number
  /** How long it is below the lower threshold before one is removed. */
  readonly downAfterMs: number
  /** Between two changes in opposite directions, and between two removals. */
  readonly cooldownMs: number
  /** Between two additions. */
  readonly additionMs: number
}

/** How many replicas there may be. */
export interface Bounds {
  readonly least: number
  readonly most: number
}

/** The deployment and the machine at one moment. */
export interface Readings {
  /** That get jobs. */
  readonly replicas: number
  /** Of all replicas. */
  readonly slots: number
  /** Jobs that hold a slot, and callers that wait for one. */
  readonly demand: number
  /** Shares in use; left out, unknown. */
  readonly machine: Readonly<Partial<Record<Resource, number>>>
}

export type Direction = "up" | "down"

/** What is kept from one step to the next. */
export interface State {
  /** Of the last step, ms. */
  readonly at?: number
  /** Smoothed demand, in jobs. */
  readonly demand?: number
  /** Smoothed shares. */
  readonly machine?: Readings["machine"]
  /** Since when the demand is beyond a threshold, ms. */
  readonly beyond?: { readonly direction: Direction; readonly since: number }
  /** The last change. */
  readonly changed?: { readonly direction: Direction; readonly at: number }
}

export const initial: State = {}

/** Why a step decides as it does. */
export type Cause =
  /** The demand is between the thresholds. */
  | "within"
  /** The demand is above or below a threshold, long enough. */
  | "demand"
  /** It is beyond a threshold, but not for long enough. */
  | "sustain"
  /** The last change was too recently. */
  | "cooldown"
  /** There are as many replicas as there may be. */
  | "most"
  /** There are as few replicas as there may be. */
  | "least"
  /** A resource has no room for another replica. */
  | "room"
  /** A resource is so full that a replica is removed. */
  | "relief"

/** What to do with the replicas, and why. */
export interface Decision {
  readonly action: Direction | "stay"
  readonly cause: Cause
  readonly measure: Measure
  /** The smoothed share in use. */
  readonly value: number
  /** The threshold or target that decides. */
  readonly limit: number
  /** Until a step can decide otherwise, ms; of `sustain` and `cooldown`. */
  readonly remainingMs?: number
}

/** A queue of any length counts as this many times the slots. */
const mostDemand = 2

const smooth = (before: number | undefined, value: number, share: number): number =>
  before === undefined ? value : before + share * (value - before)

const smoothMachine = (before: State["machine"] = {}, now: Readings["machine"], share: number): Readings["machine"] =>
  Object.fromEntries(
    resources.flatMap((name) => {
      const value = now[name]
      return value === undefined ? [] : [[name, smooth(before[name], value, share)]]
    })
  )

/** The smoothed readings, and since when the demand is beyond a threshold. */
const observe = (rules: Rules, state: State, { demand, machine, slots }: Readings, now: number): State => {
  const share = state.at === undefined ? 1 : 1 - Math.exp(-(now - state.at) / rules.smoothingMs)
  return {
    ...state,
    at: now,
    demand: smooth(state.demand, Math.min(demand, mostDemand * slots), share),
    machine: smoothMachine(state.machine, machine, share)
  }
}

const stay = (cause: Cause, measure: Measure, value: number, limit: number, remainingMs?: number): Decision => ({
  action: "stay",
  cause,
  measure,
  value,
  limit,
  ...(remainingMs === undefined ? {} : { remainingMs })
})

/** How long the last change forbids one in this direction, ms; 0 if it does not. */
const coolingMs = (
  { additionMs, cooldownMs }: Rules,
  { changed }: State,
  direction: Direction,
  now: number
): number => {
  if (changed === undefined) return 0
  const pause = changed.direction === "up" && direction === "up" ? additionMs : cooldownMs
  return Math.max(0, changed.at + pause - now)
}

/** The resource that a replica holds and that is above `up` times its target. */
const fullest = ({ targets, up }: Rules, { machine = {} }: State): Resource | undefined =>
  held.find((name) => (machine[name] ?? 0) > up * targets[name])

/** The resource without room for another replica. */
const withoutRoom = ({ targets }: Rules, { machine = {} }: State): Resource | undefined =>
  resources.find((name) => (machine[name] ?? 0) >= targets[name])

const decideRelief = (rules: Rules, state: State, resource: Resource, now: number): Decision => {
  const value = state.machine![resource]!
  const limit = rules.up * rules.targets[resource]
  const remainingMs = coolingMs(rules, state, "down", now)
  return remainingMs > 0
    ? stay("cooldown", resource, value, limit, remainingMs)
    : { action: "down", cause: "relief", measure: resource, value, limit }
}

/** What is above or below which threshold, and for how long it has to be. */
const thresholdOf = ({ down, downAfterMs, targets, up, upAfterMs }: Rules, direction: Direction) =>
  direction === "up"
    ? { limit: up * targets.slots, afterMs: upAfterMs }
    : { limit: down * targets.slots, afterMs: downAfterMs }

/** Why there are as many or as few replicas as there may be. */
const boundOf = ({ least, most }: Bounds, replicas: number, direction: Direction): Cause | undefined => {
  if (direction === "up") return replicas >= most ? "most" : undefined
  return replicas <= least ? "least" : undefined
}

/** For a demand that is beyond a threshold. */
const decideDemand = (
  rules: Rules,
  bounds: Bounds,
  state: State,
  replicas: number,
  used: number,
  now: number
): Decision => {
  const { direction, since } = state.beyond!
  const { afterMs, limit } = thresholdOf(rules, direction)
  const bound = boundOf(bounds, replicas, direction)
  if (bound !== undefined) return stay(bound, "slots", used, limit)
  const sustainMs = since + afterMs - now
  if (sustainMs > 0) return stay("sustain", "slots", used, limit, sustainMs)
  const coolMs = coolingMs(rules, state, direction, now)
  if (coolMs > 0) return stay("cooldown", "slots", used, limit, coolMs)
  const full = direction === "up" ? withoutRoom(rules, state) : undefined
  if (full !== undefined) return stay("room", full, state.machine![full]!, rules.targets[full])
  return { action: direction, cause: "demand", measure: "slots", value: used, limit }
}

const directionOf = ({ down, targets, up }: Rules, used: number): Direction | undefined => {
  if (used > up * targets.slots) return "up"
  return used < down * targets.slots ? "down" : undefined
}

const withBeyond = ({ beyond, ...state }: State, direction: Direction | undefined, now: number): State => {
  if (direction === undefined) return state
  return { ...state, beyond: beyond?.direction === direction ? beyond : { direction, since: now } }
}

const decide = (rules: Rules, bounds: Bounds, state: State, replicas: number, used: number, now: number): Decision => {
  if (replicas > bounds.most) {
    return { action: "down", cause: "most", measure: "slots", value: used, limit: rules.targets.slots }
  }
  const full = replicas > bounds.least ? fullest(rules, state) : undefined
  if (full !== undefined) return decideRelief(rules, state, full, now)
  return state.beyond === undefined
    ? stay("within", "slots", used, rules.targets.slots)
    : decideDemand(rules, bounds, state, replicas, used, now)
}

/** The state after a change that was tried, whether or not it succeeds. */
const changedTo = ({ beyond: _, ...state }: State, direction: Direction, at: number): State => ({
  ...state,
  changed: { direction, at }
})

/**
 * One decision.
 *
 * @param readings of a deployment with at least one replica
 * @param now monotonic ms
 */
export const step = (
  rules: Rules,
  bounds: Bounds,
  state: State,
  readings: Readings,
  now: number
): { readonly decision: Decision; readonly state: State } => {
  const smoothed = observe(rules, state, readings, now)
  const used = smoothed.demand! / readings.slots
  const next = withBeyond(smoothed, directionOf(rules, used), now)
  const decision = decide(rules, bounds, next, readings.replicas, used, now)
  return { decision, state: decision.action === "stay" ? next : changedTo(next, decision.action, now) }
}
