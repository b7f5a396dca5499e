/**
 * One request's attempts as a pure state machine: what happened goes in, what to do comes out, and whoever drives it only
 * does as told.
 *
 * **Details**
 *
 * A plan names three lists of deployments: the ordinary one, one for prompts that are too long, one for content that a
 * provider refuses. `begin` starts the first attempt, `next` answers each event with actions. What a failure means is
 * `Retry.classify`'s word, what is allowed is the policy's:
 *
 * - What passes by itself is tried at the same deployment after a pause, `retries` times.
 * - Otherwise the next deployment that is free goes at once, whatever `Retry-After` says.
 * - Only where none is free does the request wait for one that said when to come back, up to `maxWaitMs`.
 *
 * The first content commits: other attempts are cancelled, and from then on a failure is the request's failure. Only where
 * the policy says `continue` and the driver that the answer can be gone on with, which it tells by `cut`, another attempt
 * follows: at those who have not failed yet, and then at those who have, the one that was cut included, after a pause. If
 * none brings anything, the request fails with what had cut the answer. A request that fails does so exactly once, with
 * `fail`; after that the machine does nothing.
 *
 * **Gotchas**
 *
 * `start` with `afterMs` is the driver's to delay. When the time has come, the deployment's circuit may have opened: the
 * driver reports `CircuitOpen` as the attempt's failure and does not call.
 *
 * The deadline and the time-outs of an attempt are the driver's clock; the machine only does not start what the deadline
 * would cut off before it begins.
 */
import type { FailureClass } from "../../domain/FailureClass.ts"
import { classify, isRefusal } from "../../domain/FailureClass.ts"
import type { Attempt, Reason } from "../../domain/InferenceError.ts"
import { NoDeployment } from "../../domain/InferenceError.ts"
import { backoffMs } from "../../domain/RoutingPolicy.ts"
import type { Action, Event, Plan, State, Step, Tried, View } from "./AttemptPlan.ts"
import { remaining, waiting } from "./AttemptTargets.ts"

const cancelAll = ({ running }: State, except?: number): ReadonlyArray<Action> =>
  running.filter(({ attempt }) => attempt !== except).map(({ attempt }) => ({ type: "cancel", attempt }))

const end = (state: State, actions: ReadonlyArray<Action>): Step => ({
  state: { ...state, phase: "ended", running: [] },
  actions
})

/** Of what went wrong, what says most: the last that was tried, or of refusals the one that is over first. */
const telling = (failures: ReadonlyArray<Attempt>, last: Reason): Reason => {
  if (!isRefusal(last)) return last
  const tried = failures.findLast(({ reason }) => !isRefusal(reason))
  if (tried !== undefined) return tried.reason
  const after = (reason: Reason) => classify(reason).retryAfterMs ?? Number.POSITIVE_INFINITY
  return failures.reduce((first, { reason }) => after(reason) < after(first) ? reason : first, last)
}

const fail = (state: State, reason: Reason): Step =>
  end(state, [...cancelAll(state), { type: "fail", reason: state.broken ?? reason, attempts: state.failures }])

const untried: Tried = { tries: 0, retry: "no", notBefore: 0 }

/** Starts an attempt there, if there may be another. */
const start = (
  state: State,
  deployment: string,
  { afterMs = 0, hedge = false } = {}
): Step | undefined => {
  if (state.started >= state.plan.policy.maxAttempts) return undefined
  const attempt = state.started + 1
  const action: Action = {
    type: "start",
    attempt,
    deployment,
    afterMs,
    hedge,
    lowPriority: state.lowPriority,
    ...(state.maxTokens === undefined ? {} : { maxTokens: state.maxTokens })
  }
  const known = state.tried[deployment] ?? untried
  return {
    state: {
      ...state,
      started: attempt,
      hedged: state.hedged || hedge,
      running: [...state.running, { attempt, deployment }],
      tried: { ...state.tried, [deployment]: { ...known, tries: known.tries + 1 } }
    },
    actions: [action]
  }
}

const isInTime = ({ plan: { deadline = Number.POSITIVE_INFINITY } }: State, { now }: View, afterMs: number): boolean =>
  now + afterMs < deadline

const nobodyFree = ({ lists, model }: Plan, { closedFor }: View): Reason => {
  const closed = lists.ordinary.map(({ deployment }) => ({ deployment, ms: closedFor(deployment) }))
  return new NoDeployment({
    model,
    excluded: closed.map(({ deployment, ms }) => ({
      deployment,
      reason: `it takes no requests for ${Math.ceil(ms / 1000)} s`
    })),
    ...(closed.length === 0 ? {} : { retryAfterMs: Math.min(...closed.map(({ ms }) => ms)) })
  })
}

/** The first attempt. */
export const begin = (plan: Plan, view: View): Step => {
  const state: State = {
    plan,
    phase: "trying",
    list: "ordinary",
    tooSmall: 0,
    running: [],
    started: 0,
    tried: {},
    failures: [],
    hedged: false,
    maxTokens: plan.maxTokens,
    lowPriority: plan.lowPriority ?? false
  }
  const first = remaining(state, view)
  const step = first === undefined ? undefined : start(state, first)
  if (step === undefined) return fail(state, nobodyFree(plan, view))
  return plan.hedgeAfterMs === undefined
    ? step
    : { ...step, actions: [...step.actions, { type: "await-hedge", attempt: 1, afterMs: plan.hedgeAfterMs }] }
}

/** A shorter answer at the same deployment, where the caller asked for more than one token. */
const shorten = (state: State, deployment: string, { adjust }: FailureClass): Step | undefined => {
  const { maxTokens, plan: { policy } } = state
  if (
    adjust !== "shorter" || maxTokens === undefined || maxTokens < 2 || state.tried[deployment]!.tries > policy.retries
  ) return undefined
  return start({ ...state, maxTokens: Math.max(1, Math.floor(maxTokens * policy.shorterBy)) }, deployment)
}

const retry = (state: State, deployment: string, failure: FailureClass, view: View): Step | undefined => {
  const { tries } = state.tried[deployment]!
  if (failure.retry !== "backoff" || tries > state.plan.policy.retries) return undefined
  const pause = backoffMs(state.plan.policy, tries, view.random)
  if ((failure.retryAfterMs ?? 0) > pause || !isInTime(state, view, pause)) return undefined
  return start(state, deployment, { afterMs: pause })
}

const goOn = (state: State, view: View): Step | undefined => {
  const free = remaining(state, view)
  return free === undefined ? undefined : start(state, free)
}

const wait = (state: State, view: View): Step | undefined => {
  const found = waiting(state, view)
  if (found === undefined || !isInTime(state, view, found.ms)) return undefined
  return start(state, found.deployment, { afterMs: found.ms })
}

/** What the failure changes for every attempt to come. */
const learn = (state: State, deployment: string, reason: Reason, failure: FailureClass, now: number): State => {
  const known = state.tried[deployment]!
  return {
    ...state,
    list: failure.next === "context" || failure.next === "content" ? failure.next : state.list,
    tooSmall: reason._tag === "ContextLengthExceeded"
      ? Math.max(state.tooSmall, reason.contextWindow ?? 0)
      : state.tooSmall,
    lowPriority: state.lowPriority || failure.adjust === "low-priority",
    tried: {
      ...state.tried,
      [deployment]: {
        ...known,
        retry: failure.retry,
        notBefore: now + (failure.retryAfterMs ?? 0)
      }
    }
  }
}

/** The next attempt, by the order that the module's head tells. */
const recover = (state: State, deployment: string, failure: FailureClass, view: View): Step | undefined => {
  if (!isInTime(state, view, 0)) return undefined
  const again = view.closedFor(deployment) > 0
    ? undefined
    : shorten(state, deployment, failure) ?? retry(state, deployment, failure, view)
  return again ?? goOn(state, view) ?? wait(state, view)
}

type Failure = Extract<Event, { type: "failed" | "cut" }>

/** The same without the attempt that has failed. */
const note = (state: State, { attempt, reason, tookMs }: Failure, deployment: string): State => ({
  ...state,
  running: state.running.filter((one) => one.attempt !== attempt),
  failures: [...state.failures, { deployment, reason, tookMs }]
})

const deploymentOf = ({ running }: State, attempt: number): string =>
  running.find((one) => one.attempt === attempt)!.deployment

/** What is wrong with a request that somebody has answered already is the way in which it goes on, and not the request. */
const judge = ({ broken }: State, reason: Reason): FailureClass =>
  broken !== undefined && reason._tag === "InvalidRequest"
    ? { ...classify(reason), next: "ordinary" }
    : classify(reason)

const failed = (state: State, event: Extract<Event, { type: "failed" }>, view: View): Step => {
  const { attempt, reason } = event
  const deployment = deploymentOf(state, attempt)
  const noted = note(state, event, deployment)
  const failure = judge(state, reason)
  if (state.phase === "committed" || failure.next === "none") return fail(noted, reason)
  const known = learn(noted, deployment, reason, failure, view.now)
  // The other attempt may still answer.
  if (known.running.length > 0) return { state: known, actions: [] }
  return recover(known, deployment, failure, view) ?? fail(known, telling(known.failures, reason))
}

const cut = (state: State, event: Extract<Event, { type: "cut" }>, view: View): Step => {
  const { attempt, reason } = event
  const deployment = deploymentOf(state, attempt)
  const noted: State = { ...note(state, event, deployment), broken: reason }
  const failure = classify(reason)
  if (!state.plan.policy.continue || failure.next === "none") return fail(noted, reason)
  const known = learn({ ...noted, phase: "trying" }, deployment, reason, failure, view.now)
  const next = isInTime(known, view, 0) ? goOn(known, view) ?? wait(known, view) : undefined
  return next ?? fail(known, reason)
}

/** Without those that were only slower than this one: they may be asked again. */
const withoutLosers = ({ running, tried }: State, attempt: number): State["tried"] => {
  const losers = running.filter((one) => one.attempt !== attempt).map(({ deployment }) => deployment)
  return losers.length === 0
    ? tried
    : Object.fromEntries(Object.entries(tried).filter(([deployment]) => !losers.includes(deployment)))
}

const content = (state: State, attempt: number): Step => {
  if (state.phase === "committed") return { state, actions: [] }
  return {
    state: {
      ...state,
      phase: "committed",
      running: state.running.filter((one) => one.attempt === attempt),
      tried: withoutLosers(state, attempt)
    },
    actions: [{ type: "commit", attempt }, ...cancelAll(state, attempt)]
  }
}

const hedge = (state: State, view: View): Step => {
  const isDue = state.phase === "trying" && !state.hedged && state.running.length === 1
  const other = isDue && isInTime(state, view, 0) ? remaining(state, view) : undefined
  return (other === undefined ? undefined : start(state, other, { hedge: true })) ?? { state, actions: [] }
}

/** What to do about an event. Of an attempt that does not run, or after the end, there is nothing to do. */
export const next = (state: State, event: Event, view: View): Step => {
  if (state.phase === "ended") return { state, actions: [] }
  if (!state.running.some(({ attempt }) => attempt === event.attempt)) return { state, actions: [] }
  switch (event.type) {
    case "failed":
      return failed(state, event, view)
    case "cut":
      return cut(state, event, view)
    case "content":
      return content(state, event.attempt)
    case "hedge-due":
      return hedge(state, view)
  }
}
