/** Runs the attempt machine with scripted deployments, and records every step. */
import { Effect, Random } from "effect"
import { draw } from "../../src/domain/Hashing.ts"
import type { Reason } from "../../src/domain/InferenceError.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"
import { begin, next } from "../../src/services/resilience/AttemptMachine.ts"
import type { Action, Event, Plan, Start, State, Step } from "../../src/services/resilience/AttemptPlan.ts"
import * as Backoff from "../../src/services/resilience/Backoff.ts"

/** The outcome of a call: content at `contentMs`, if any, and the end at `endMs`. */
export interface Outcome {
  readonly contentMs?: number | undefined
  readonly endMs: number
  /** Left out, the call succeeds. */
  readonly reason?: ((deployment: string) => Reason) | undefined
}

/** One deployment: the outcomes of its calls in order (the last one repeats), and the times when its circuit is open. */
export interface ScriptedDeployment {
  readonly outcomes: ReadonlyArray<Outcome>
  readonly closed?: ReadonlyArray<{ readonly from: number; readonly to: number }> | undefined
}

export interface Scenario {
  readonly deployments: Readonly<Record<string, ScriptedDeployment>>
  readonly cancelAt?: number | undefined
  readonly hedgeAllowed?: boolean
  readonly seed?: number
}

/** One step of the machine, with the state before and after. */
export interface Entry {
  readonly at: number
  readonly event: Event | undefined
  readonly before: State | undefined
  readonly after: State
  readonly actions: ReadonlyArray<Action>
}

export interface Log {
  readonly entries: ReadonlyArray<Entry>
  /** Calls that reached a deployment. */
  readonly calls: ReadonlyArray<{ readonly at: number; readonly deployment: string }>
  /** The attempts whose answers are complete. */
  readonly done: ReadonlyArray<number>
  /** The caller cancelled the request. */
  readonly cancelled: boolean
  readonly closedFor: (deployment: string, at: number) => number
}

interface Timer {
  readonly at: number
  readonly attempt: number | undefined
  readonly fire: () => void
}

/** Runs one request to its end in simulated time. */
export const run = (plan: Plan, scenario: Scenario): Log => {
  let now = 0
  let timers: Array<Timer> = []
  const entries: Array<Entry> = []
  const calls: Array<Log["calls"][number]> = []
  const done: Array<number> = []
  let cancelled = false
  let state: State | undefined
  const closedFor = (deployment: string, at: number) => {
    const open = scenario.deployments[deployment]!.closed?.find(({ from, to }) => from <= at && at < to)
    return open === undefined ? 0 : open.to - at
  }
  let draws = 0
  const random = {
    nextDoubleUnsafe: () => draw(scenario.seed ?? 0, draws++),
    nextIntUnsafe: () => Math.floor(draw(scenario.seed ?? 0, draws++) * Number.MAX_SAFE_INTEGER)
  }
  const delays = Backoff.make(Backoff.fromPolicy, plan.policy)
  const backoffOf = (deployment: string, reason: Reason) =>
    Effect.runSync(Effect.provideService(delays.next(deployment, reason, now), Random.Random, random))
  /** The deployment of each attempt. */
  const starts = new Map<number, string>()
  const view = () => ({
    now,
    closedFor: (deployment: string) => closedFor(deployment, now)
  })
  const after = (ms: number, attempt: number | undefined, fire: () => void) => {
    timers.push({ at: now + ms, attempt, fire })
  }
  const step = (event: Event | undefined, { actions, state: after }: Step) => {
    entries.push({ at: now, event, before: state, after, actions })
    state = after
    for (const action of actions) perform(action)
  }
  const send = (event: Event) => {
    const after = next(state!, event, view())
    const isHedge = after.actions.some((action) => action.type === "start" && action.hedge)
    step(event, isHedge && scenario.hedgeAllowed === false ? { state: state!, actions: [] } : after)
  }
  const finish = (attempt: number, hasContent: boolean) => {
    if (!hasContent) send({ type: "content", attempt })
    done.push(attempt)
    timers = []
  }
  const launch = ({ attempt, deployment }: Start) => {
    const retryAfterMs = closedFor(deployment, now)
    if (retryAfterMs > 0) {
      const reason = new InferenceError.CircuitOpen({ deployment, retryAfterMs })
      return send({ type: "failed", attempt, reason, tookMs: 0, backoffMs: backoffOf(deployment, reason) })
    }
    const { outcomes } = scenario.deployments[deployment]!
    const turn = calls.filter((call) => call.deployment === deployment).length
    const { contentMs, endMs, reason } = outcomes[Math.min(turn, outcomes.length - 1)]!
    calls.push({ at: now, deployment })
    if (contentMs !== undefined) after(contentMs, attempt, () => send({ type: "content", attempt }))
    const type = contentMs === undefined ? "failed" : "cut"
    after(endMs, attempt, () =>
      reason === undefined
        ? finish(attempt, contentMs !== undefined)
        : send({
          type,
          attempt,
          reason: reason(deployment),
          tookMs: endMs,
          backoffMs: backoffOf(deployment, reason(deployment))
        }))
  }
  const perform = (action: Action) => {
    switch (action.type) {
      case "start":
        starts.set(action.attempt, action.deployment)
        return after(action.afterMs, action.attempt, () => launch(action))
      case "await-hedge":
        return after(
          action.afterMs,
          undefined,
          () => send({ type: "hedge-due", attempt: action.attempt })
        )
      case "cancel":
        delays.reset(starts.get(action.attempt)!)
        timers = timers.filter(({ attempt }) => attempt !== action.attempt)
    }
  }
  const cancel = () => {
    cancelled = state!.phase !== "ended"
    timers = []
  }
  if (scenario.cancelAt !== undefined) after(scenario.cancelAt, undefined, cancel)
  step(undefined, begin(plan, view()))
  while (timers.length > 0) {
    const due = timers.reduce((first, timer) => timer.at < first.at ? timer : first)
    timers = timers.filter((timer) => timer !== due)
    now = due.at
    due.fire()
  }
  return { entries, calls, done, cancelled, closedFor }
}
