/** Whom a plan may ask next, as it stands. */
import { backoffMs } from "../../domain/RoutingPolicy.ts"
import type { State, Target, View } from "./AttemptPlan.ts"

/** The list in use. A prompt that was too long may also go to an ordinary deployment whose window is known to be larger. */
export const targetsOf = ({ list, plan: { lists }, tooSmall }: State): ReadonlyArray<Target> => {
  if (list !== "context") return lists[list]
  const isLarger = ({ contextWindow = 0 }: Target) => contextWindow > tooSmall
  return [
    ...lists.context.filter((target) => target.contextWindow === undefined || isLarger(target)),
    ...lists.ordinary.filter(isLarger)
  ]
}

/** The first that has not been tried and is free. */
export const remaining = (state: State, { closedFor }: View): string | undefined =>
  targetsOf(state).find(({ deployment }) => state.tried[deployment] === undefined && closedFor(deployment) === 0)
    ?.deployment

/** Somebody to wait for. */
export interface Waiting {
  readonly deployment: string
  readonly ms: number
}

/** Who of the tried may be asked again first, and in how long. */
export const waiting = (state: State, { closedFor, now, random }: View): Waiting | undefined => {
  const { policy } = state.plan
  let first: Waiting | undefined
  for (const { deployment } of targetsOf(state)) {
    const tried = state.tried[deployment]
    if (tried === undefined || tried.retry === "no" || tried.tries > policy.retries) continue
    const ms = Math.max(backoffMs(policy, tried.tries, random), tried.notBefore - now, closedFor(deployment))
    if (ms <= policy.maxWaitMs && (first === undefined || ms < first.ms)) first = { deployment, ms }
  }
  return first
}
