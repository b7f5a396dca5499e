/**
 * The attempts of one request as a pure state machine: an event goes in, actions come out. `AttemptDriver` performs them.
 *
 * **Details**
 *
 * A plan has three lists of deployments: the ordinary one, one for prompts that are too long, and one for content that a
 * provider refuses. `begin` starts the first attempt; `next` answers each event with actions. `FailureClass.classify`
 * decides what a failure means, and the policy what is allowed:
 *
 * - A transient failure is retried at the same deployment after a backoff, `retries` times; a status of `retryOnce` once.
 * - A request whose signed reasoning another host has made is sent again at once without it, once.
 * - Otherwise the next free deployment is tried at once, regardless of `Retry-After`.
 * - If none is free, the request waits for one that is free within `maxWaitMs`: see `NextDeployment`.
 *
 * The first content commits: other attempts are cancelled, and a later failure is the request's failure. If the policy's
 * `continue` is on and the driver reports that the answer may be continued (`cut`), another attempt follows: first at
 * deployments that have not failed, then, after a pause, at those that have, including the one that was cut. If all fail,
 * the request fails with the reason of the cut. A request fails exactly once, with `fail`; after that there are no actions.
 *
 * **Gotchas**
 *
 * The driver performs the delay of a `start` with `afterMs`. The deployment's circuit may be open when the delay ends: the
 * driver then reports `CircuitOpen` as the attempt's failure and does not call.
 *
 * The driver enforces the deadline and the timeouts of an attempt; the machine starts no attempt that would begin after the
 * deadline.
 */
import type { FailureClass } from "../../domain/FailureClass.ts"
import { classify, isRefusal } from "../../domain/FailureClass.ts"
import type { Attempt, ContextLengthExceeded, Reason } from "../../domain/InferenceError.ts"
import { NoDeployment } from "../../domain/InferenceError.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import type { Action, Event, Input, Plan, Start, State, Step, Tried, View } from "./AttemptPlan.ts"
import * as NextDeployment from "./NextDeployment.ts"

/** The plan of one request. */
export const makePlan = (input: Input): Plan => {
  const { candidate, lists, lowPriority, maxTokens, model, now, policy, slowestFirstTokenMs } = input
  const { hedge, timeouts: { totalMs } } = policy
  return {
    model,
    // An attempt at a new version is one more than the policy has.
    policy: candidate === undefined ? policy : { ...policy, maxAttempts: policy.maxAttempts + 1 },
    lists,
    candidate,
    hedgeAfterMs: hedge === undefined ? undefined : hedge.afterMs ?? slowestFirstTokenMs,
    deadline: totalMs === undefined ? undefined : now + totalMs,
    maxTokens,
    lowPriority
  }
}

const cancelAll = ({ running }: State, except?: number): ReadonlyArray<Action> =>
  running.filter(({ attempt }) => attempt !== except).map(({ attempt }) => ({ type: "cancel", attempt }))

const end = (state: State, actions: ReadonlyArray<Action>): Step => ({
  state: { ...state, phase: "ended", running: [] },
  actions
})

/** The reason reported to the caller: of the last call, or, if every attempt was rejected, of the shortest wait. */
const reported = (failures: ReadonlyArray<Attempt>, last: Reason): Reason => {
  if (!isRefusal(last)) return last
  const tried = failures.findLast(({ reason }) => !isRefusal(reason))
  if (tried !== undefined) return tried.reason
  const after = (reason: Reason) => classify(reason).retryAfterMs ?? Number.POSITIVE_INFINITY
  return failures.reduce((first, { reason }) => after(reason) < after(first) ? reason : first, last)
}

const fail = (state: State, reason: Reason): Step =>
  end(state, [
    ...cancelAll(state),
    { type: "fail", reason: state.cutBy ?? reason, attempts: state.failures, started: state.started }
  ])

const notTried: Tried = { tries: 0, retry: "no", backoffMs: undefined, notBefore: 0 }

/** Starts an attempt at the deployment, unless `maxAttempts` is reached. */
const start = (
  state: State,
  deployment: string,
  { afterMs = 0, hedge = false, ...more }: Partial<Pick<Start, "afterMs" | "alone" | "hedge">> = {}
): Step | undefined => {
  if (state.started >= state.plan.policy.maxAttempts) return undefined
  const attempt = state.started + 1
  const action: Start = {
    type: "start",
    attempt,
    deployment,
    afterMs,
    hedge,
    lowPriority: state.lowPriority,
    ...more,
    ...(state.maxTokens === undefined ? {} : { maxTokens: state.maxTokens }),
    ...(state.unsigned === true ? { unsigned: true } : {})
  }
  const known = state.tried[deployment] ?? notTried
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

const noneFree = ({ lists, model }: Plan, { closedFor }: View): Reason => {
  const closed = lists.ordinary.map(({ deployment }) => ({ deployment, ms: closedFor(deployment) }))
  return new NoDeployment({
    model,
    excluded: closed.map(({ deployment, ms }) => ({
      deployment,
      reason: `its circuit is open; retry in ${Math.ceil(ms / 1000)} s`,
      retryAfterMs: ms
    })),
    ...(closed.length === 0 ? {} : { retryAfterMs: Math.min(...closed.map(({ ms }) => ms)) })
  })
}

/** Where all circuits are open, waits for one that is about to let a call through. */
const waitShortly = (state: State, view: View): Step | undefined => {
  const found = NextDeployment.firstToWaitFor(state, view)
  if (found === undefined || found.ms > NextDeployment.soonMs || !isInTime(state, view, found.ms)) return undefined
  return start(state, found.deployment, { afterMs: found.ms, alone: true })
}

/** Starts the first attempt. */
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
  const first = NextDeployment.untried(state, view)
  const step = first === undefined ? waitShortly(state, view) : start(state, first)
  if (step === undefined) return fail(state, noneFree(plan, view))
  return plan.hedgeAfterMs === undefined
    ? step
    : { ...step, actions: [...step.actions, { type: "await-hedge", attempt: 1, afterMs: plan.hedgeAfterMs }] }
}

/** Whether a shorter answer may fit: the prompt alone does. */
const mayFit = (reason: Reason, maxTokens: number): boolean =>
  reason._tag !== "ContextLengthExceeded" || reason.withAnswer !== true ||
  (reason.promptTokens ?? 0) - maxTokens < (reason.contextWindow ?? 0)

/** Retries with a shorter answer at the same deployment, if the caller asked for more than one token. */
const shorten = (
  state: State,
  deployment: string,
  { adjust }: FailureClass,
  { reason }: Failure
): Step | undefined => {
  const { maxTokens, plan: { policy } } = state
  if (
    adjust !== "shorter" || maxTokens === undefined || maxTokens < 2 || !mayFit(reason, maxTokens) ||
    state.tried[deployment]!.tries > policy.retries
  ) return undefined
  return start({ ...state, maxTokens: Math.max(1, Math.floor(maxTokens * policy.shorterBy)) }, deployment)
}

/** Sends the request again to the same deployment, without signed reasoning. */
const unsign = (state: State, deployment: string, { adjust }: FailureClass): Step | undefined =>
  adjust === "unsigned" ? start({ ...state, unsigned: true }, deployment) : undefined

/** Retries at the same deployment before the next one. */
const retriesOf = ({ retries, retryOnce }: Policy, reason: Reason): number =>
  reason._tag === "UpstreamFailed" && reason.kind === "status" && retryOnce.includes(reason.status ?? 0)
    ? Math.min(1, retries)
    : retries

const retry = (
  state: State,
  deployment: string,
  failure: FailureClass,
  { reason }: Failure,
  view: View
): Step | undefined => {
  const { backoffMs, tries } = state.tried[deployment]!
  const retries = retriesOf(state.plan.policy, reason)
  if (failure.retry !== "backoff" || backoffMs === undefined || tries > retries) return undefined
  if ((failure.retryAfterMs ?? 0) > backoffMs || !isInTime(state, view, backoffMs)) return undefined
  return start(state, deployment, { afterMs: backoffMs })
}

const tryNext = (state: State, view: View): Step | undefined => {
  const free = NextDeployment.untried(state, view)
  if (free !== undefined) return start(state, free)
  const halfOpen = NextDeployment.untried(state, view, true)
  return halfOpen === undefined ? undefined : start(state, halfOpen, { alone: true })
}

const wait = (state: State, view: View): Step | undefined => {
  const found = NextDeployment.firstToWaitFor(state, view)
  if (found === undefined || !isInTime(state, view, found.ms)) return undefined
  return start(state, found.deployment, { afterMs: found.ms, alone: true })
}

/**
 * The context window that was too small for the prompt, tokens: as the failure reports it, else as it is known. A prompt
 * that was too long for an unknown window is at least as long as any window that is too small.
 */
const windowOf = (
  { plan: { lists: { content, context, ordinary } } }: State,
  failed: string,
  { contextWindow, promptTokens = 0 }: ContextLengthExceeded
): number =>
  contextWindow ??
    [...ordinary, ...context, ...content].find(({ deployment }) => deployment === failed)?.contextWindow ??
    promptTokens

/** The state for later attempts after a failure. */
const applyFailure = (
  state: State,
  deployment: string,
  { backoffMs, reason }: Failure,
  failure: FailureClass,
  now: number
): State => {
  const known = state.tried[deployment]!
  return {
    ...state,
    list: failure.next === "context" || failure.next === "content" ? failure.next : state.list,
    tooSmall: reason._tag === "ContextLengthExceeded"
      ? Math.max(state.tooSmall, windowOf(state, deployment, reason))
      : state.tooSmall,
    lowPriority: state.lowPriority || failure.adjust === "low-priority",
    tried: {
      ...state.tried,
      [deployment]: {
        ...known,
        retry: failure.retry,
        backoffMs,
        notBefore: now + (failure.retryAfterMs ?? 0)
      }
    }
  }
}

/** The next attempt, in the order of the file's header. */
const recover = (
  state: State,
  deployment: string,
  failure: FailureClass,
  event: Failure,
  view: View
): Step | undefined => {
  if (!isInTime(state, view, 0)) return undefined
  const again = view.closedFor(deployment) > 0
    ? undefined
    : unsign(state, deployment, failure) ?? shorten(state, deployment, failure, event) ??
      retry(state, deployment, failure, event, view)
  return again ?? tryNext(state, view) ?? wait(state, view)
}

type Failure = Extract<Event, { type: "failed" | "cut" }>

/** Moves the attempt from the running to the failed ones. */
const recordFailure = (state: State, { attempt, reason, tookMs }: Failure, deployment: string): State => ({
  ...state,
  running: state.running.filter((one) => one.attempt !== attempt),
  failures: [...state.failures, { deployment, reason, tookMs }]
})

const deploymentOf = ({ running }: State, attempt: number): string =>
  running.find((one) => one.attempt === attempt)!.deployment

/** Another deployment is tried at once, whatever the failure is. */
const moveOn = ({ adjust: _, ...failure }: FailureClass): FailureClass => ({
  ...failure,
  retry: "no",
  next: "ordinary"
})

/** A deployment that rejects the continuation of an answer as invalid does not end the request: others may accept it. */
const classifyIn = (
  { cutBy, plan: { candidate }, unsigned }: State,
  deployment: string,
  reason: Reason
): FailureClass => {
  const given = classify(reason)
  const failure: FailureClass = given.adjust === "unsigned" && unsigned === true ? { ...given, next: "none" } : given
  if (deployment === candidate) return moveOn(failure)
  return cutBy !== undefined && reason._tag === "InvalidRequest" ? { ...failure, next: "ordinary" } : failure
}

/** Whether the request's own budgets refused an attempt, which did not run. */
const isUnpaid = (reason: Reason): boolean =>
  reason._tag === "BudgetExceeded" || (reason._tag === "Overloaded" && reason.budgets !== undefined)

/** An attempt that did not run. Those before it say why the request failed; one beside it may still answer. */
const unpaid = (state: State, attempt: number): Step => {
  const running = state.running.filter((one) => one.attempt !== attempt)
  if (running.length > 0) return { state: { ...state, running }, actions: [] }
  return fail(
    { ...state, running, started: state.started - 1 },
    reported(state.failures, state.failures.at(-1)!.reason)
  )
}

const failed = (state: State, event: Extract<Event, { type: "failed" }>, view: View): Step => {
  const { attempt, reason } = event
  if (isUnpaid(reason) && state.failures.length > 0) return unpaid(state, attempt)
  const deployment = deploymentOf(state, attempt)
  const noted = recordFailure(state, event, deployment)
  const failure = classifyIn(state, deployment, reason)
  if (state.phase === "committed" || failure.next === "none") return fail(noted, reason)
  const known = applyFailure(noted, deployment, event, failure, view.now)
  // The other attempt may still answer.
  if (known.running.length > 0) return { state: known, actions: [] }
  return recover(known, deployment, failure, event, view) ?? fail(known, reported(known.failures, reason))
}

const cut = (state: State, event: Extract<Event, { type: "cut" }>, view: View): Step => {
  const { attempt, reason } = event
  const deployment = deploymentOf(state, attempt)
  const noted: State = { ...recordFailure(state, event, deployment), cutBy: reason }
  const failure = classify(reason)
  if (!state.plan.policy.continue || failure.next === "none") return fail(noted, reason)
  const known = applyFailure({ ...noted, phase: "trying" }, deployment, event, failure, view.now)
  const next = isInTime(known, view, 0) ? tryNext(known, view) ?? wait(known, view) : undefined
  return next ?? fail(known, reason)
}

/** Deployments whose attempts were only slower count as untried. */
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
  const other = isDue && isInTime(state, view, 0) ? NextDeployment.untried(state, view) : undefined
  return (other === undefined ? undefined : start(state, other, { hedge: true })) ?? { state, actions: [] }
}

/** The actions for an event. An event of an attempt that does not run, or after the end, has none. */
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
