/**
 * The deployment that the next attempt of a request goes to, and when. Pure; `AttemptMachine` decides whether there is one.
 *
 * **Details**
 *
 * Deployments that have not been tried come first, in the order of the plan, where their circuits let a call through at
 * once. If there is none, the request has no other choice, and half-open circuits let it through beside their probe. Last,
 * the request waits for the first deployment that takes it: a tried one after its backoff and Retry-After, or one whose
 * circuit is open, also since before the request.
 */
import { whileProbing } from "../health/Circuit.ts"
import type { State, Target, View } from "./AttemptPlan.ts"

/**
 * How long a request waits that finds all circuits open, ms: as long as others probe a deployment. With a longer wait it fails at
 * once, so that its caller may go elsewhere.
 */
export const soonMs = whileProbing

/**
 * The targets of the list in use, without windows that are known to be too small. A prompt that was too long may also go to
 * an ordinary deployment.
 */
export const targetsOf = ({ list, plan: { lists }, tooSmall }: State): ReadonlyArray<Target> => {
  if (tooSmall === 0 && list !== "context") return lists[list]
  const targets = list === "context" ? [...lists.context, ...lists.ordinary] : lists[list]
  return targets.filter(({ contextWindow }) => contextWindow === undefined || contextWindow > tooSmall)
}

/**
 * The first deployment that has not been tried and may be called now.
 *
 * @param alone the request has no other choice
 */
export const untried = (state: State, { closedFor }: View, alone = false): string | undefined =>
  targetsOf(state).find(({ deployment }) => state.tried[deployment] === undefined && closedFor(deployment, alone) === 0)
    ?.deployment

/** ms until a deployment takes an attempt; undefined: it may not be tried again. */
const waitFor = ({ plan: { policy }, tried }: State, { closedFor, now }: View, deployment: string) => {
  const known = tried[deployment]
  const closed = closedFor(deployment, true)
  if (known === undefined) return closed
  const { backoffMs, notBefore, retry, tries } = known
  return backoffMs === undefined || retry === "no" || tries > policy.retries
    ? undefined
    : Math.max(backoffMs, notBefore - now, closed)
}

/** The deployment that takes an attempt first, and the wait until then, which is at most `maxWaitMs`. */
export const firstToWaitFor = (
  state: State,
  view: View
): { readonly deployment: string; readonly ms: number } | undefined => {
  let first: { readonly deployment: string; readonly ms: number } | undefined
  for (const { deployment } of targetsOf(state)) {
    const ms = waitFor(state, view, deployment)
    if (ms === undefined || ms > state.plan.policy.maxWaitMs) continue
    if (first === undefined || ms < first.ms) first = { deployment, ms }
  }
  return first
}
