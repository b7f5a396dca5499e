/** Drives the machine of attempts through a world of scripted deployments, and keeps a record of all that was done. */
import { Effect, Random } from "effect"
import type { Reason } from "../../src/domain/InferenceError.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"
import { draw } from "../../src/domain/Strategies.ts"
import { begin, next } from "../../src/services/resilience/AttemptMachine.ts"
import type { Action, Event, Plan, Start, State, Step } from "../../src/services/resilience/AttemptPlan.ts"
import * as Backoff from "../../src/services/resilience/Backoff.ts"

/** What becomes of a call: content at `contentMs`, if any, and the end at `endMs`. */
export interface Outcome {
  readonly contentMs?: number | undefined
  readonly endMs: number
  /** Left out, it answers. */
  readonly reason?: ((deployment: string) => Reason) | undefined
}

/** One deployment: what becomes of its calls in turn (the last one stays), and when it must not be called. */
export interface Actor {
  readonly outcomes: ReadonlyArray<Outcome>
  readonly closed?: ReadonlyArray<{ readonly from: number; readonly to: number }> | undefined
}

export interface World {
  readonly actors: Readonly<Record<string, Actor>>
  readonly cancelAt?: number | undefined
  readonly hedgeAllowed?: boolean
  readonly seed?: number
}

/** What the machine did at one moment, and how things were before. */
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
  /** The attempts whose answers came to their end. */
  readonly done: ReadonlyArray<number>
  /** The caller left. */
  readonly cancelled: boolean
  readonly closedFor: (deployment: string, at: number) => number
}

interface Timer {
  readonly at: number
  readonly attempt: number | undefined
  readonly fire: () => void
}

/** Runs one request to its end. */
export const run = (plan: Plan, world: World): Log => {
  let now = 0
  let timers: Array<Timer> = []
  const entries: Array<Entry> = []
  const calls: Array<Log["calls"][number]> = []
  const done: Array<number> = []
  let cancelled = false
  let state: State | undefined
  const closedFor = (deployment: string, at: number) => {
    const open = world.actors[deployment]!.closed?.find(({ from, to }) => from <= at && at < to)
    return open === undefined ? 0 : open.to - at
  }
  let draws = 0
  const random = {
    nextDoubleUnsafe: () => draw(world.seed ?? 0, draws++),
    nextIntUnsafe: () => Math.floor(draw(world.seed ?? 0, draws++) * Number.MAX_SAFE_INTEGER)
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
  const tell = (event: Event) => {
    const after = next(state!, event, view())
    const isHedge = after.actions.some((action) => action.type === "start" && action.hedge)
    step(event, isHedge && world.hedgeAllowed === false ? { state: state!, actions: [] } : after)
  }
  const finish = (attempt: number, hasContent: boolean) => {
    if (!hasContent) tell({ type: "content", attempt })
    done.push(attempt)
    timers = []
  }
  const launch = ({ attempt, deployment }: Start) => {
    const retryAfterMs = closedFor(deployment, now)
    if (retryAfterMs > 0) {
      const reason = new InferenceError.CircuitOpen({ deployment, retryAfterMs })
      return tell({ type: "failed", attempt, reason, tookMs: 0, backoffMs: backoffOf(deployment, reason) })
    }
    const { outcomes } = world.actors[deployment]!
    const turn = calls.filter((call) => call.deployment === deployment).length
    const { contentMs, endMs, reason } = outcomes[Math.min(turn, outcomes.length - 1)]!
    calls.push({ at: now, deployment })
    if (contentMs !== undefined) after(contentMs, attempt, () => tell({ type: "content", attempt }))
    const type = contentMs === undefined ? "failed" : "cut"
    after(endMs, attempt, () =>
      reason === undefined
        ? finish(attempt, contentMs !== undefined)
        : tell({
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
          () => tell({ type: "hedge-due", attempt: action.attempt })
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
  if (world.cancelAt !== undefined) after(world.cancelAt, undefined, cancel)
  step(undefined, begin(plan, view()))
  while (timers.length > 0) {
    const due = timers.reduce((first, timer) => timer.at < first.at ? timer : first)
    timers = timers.filter((timer) => timer !== due)
    now = due.at
    due.fire()
  }
  return { entries, calls, done, cancelled, closedFor }
}
