/**
 * The attempts that one request may make, and their state while it runs: plain data, which `AttemptMachine` makes and
 * decides by.
 */
import type { FailureClass, List } from "../../domain/FailureClass.ts"
import type { Attempt, Reason } from "../../domain/InferenceError.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"

/** A deployment that may be tried. */
export interface Target {
  readonly deployment: string
  /** Tokens; left out: unknown. */
  readonly contextWindow?: number | undefined
}

/** The deployments that may be tried for one request, in order. */
export interface Plan {
  readonly model: string
  readonly policy: Policy
  readonly lists: Readonly<Record<List, ReadonlyArray<Target>>>
  /** The new version of a rollout: after any failure of it, another deployment is tried. */
  readonly candidate?: string | undefined
  /** When a hedged attempt may start beside a first one without content; left out: never. */
  readonly hedgeAfterMs?: number | undefined
  /** monotonic ms; left out: none. */
  readonly deadline?: number | undefined
  readonly maxTokens?: number | undefined
  readonly lowPriority?: boolean | undefined
}

/** A deployment that has been tried. */
export interface Tried {
  readonly tries: number
  /** Whether and when it may be tried again. */
  readonly retry: FailureClass["retry"]
  /** The backoff before its next attempt, ms; undefined: the schedule has ended. */
  readonly backoffMs: number | undefined
  /** monotonic ms */
  readonly notBefore: number
}

/** An attempt that has not ended, including its delay. */
export interface Running {
  readonly attempt: number
  readonly deployment: string
}

export interface State {
  readonly plan: Plan
  readonly phase: "trying" | "committed" | "ended"
  readonly list: List
  /** The largest context window that was too small, tokens. */
  readonly tooSmall: number
  readonly running: ReadonlyArray<Running>
  readonly started: number
  readonly tried: Readonly<Record<string, Tried>>
  readonly failures: ReadonlyArray<Attempt>
  /** Why an answer broke off that another deployment is to continue. */
  readonly cutBy?: Reason | undefined
  readonly hedged: boolean
  readonly maxTokens: number | undefined
  readonly lowPriority: boolean
  /** Later attempts have no signed reasoning. */
  readonly unsigned?: boolean | undefined
}

interface Failed {
  readonly attempt: number
  readonly reason: Reason
  readonly tookMs: number
  /** The next delay of the deployment's backoff schedule; undefined: the schedule has ended. */
  readonly backoffMs: number | undefined
}

export type Event =
  /** Also if the circuit rejected it. */
  | { readonly type: "failed" } & Failed
  /** Its answer broke off, and another deployment may continue it. */
  | { readonly type: "cut" } & Failed
  /** The first content of its answer arrived. */
  | { readonly type: "content"; readonly attempt: number }
  /** The time of an `await-hedge` has passed. */
  | { readonly type: "hedge-due"; readonly attempt: number }

/** Starts an attempt. */
export interface Start {
  readonly type: "start"
  /** Counts from 1. */
  readonly attempt: number
  readonly deployment: string
  readonly afterMs: number
  readonly hedge: boolean
  readonly maxTokens?: number
  readonly lowPriority: boolean
  /** No other deployment is left to try: a half-open circuit lets several such attempts through at a time. */
  readonly alone?: boolean
  /** Without signed reasoning of earlier answers. */
  readonly unsigned?: boolean
}

/** Ends the request. */
export interface Fail {
  readonly type: "fail"
  readonly reason: Reason
  /** Those that failed. */
  readonly attempts: ReadonlyArray<Attempt>
  /** Those that were started, cancelled ones included. */
  readonly started: number
}

export type Action =
  | Start
  | { readonly type: "await-hedge"; readonly attempt: number; readonly afterMs: number }
  /** The caller gets the rest of this attempt's answer. */
  | { readonly type: "commit"; readonly attempt: number }
  | { readonly type: "cancel"; readonly attempt: number }
  | Fail

/** The time and the circuits at the moment of an event. */
export interface View {
  /** monotonic ms */
  readonly now: number
  /**
   * ms until a deployment may be called; 0: now.
   *
   * @param alone no other deployment is left to try
   */
  readonly closedFor: (deployment: string, alone?: boolean) => number
}

export interface Step {
  readonly state: State
  readonly actions: ReadonlyArray<Action>
}

/** The data that a plan is made from. */
export interface Input {
  readonly model: string
  readonly policy: Policy
  /** Deployments in order: those of the decision, then those of the fallback models, then those with open circuits. */
  readonly lists: Plan["lists"]
  readonly candidate?: string | undefined
  /** The 95th percentile of the primary's time to first token, ms; undefined: unknown. */
  readonly slowestFirstTokenMs?: number | undefined
  /** When the request arrived, monotonic ms. */
  readonly now: number
  readonly maxTokens?: number | undefined
  readonly lowPriority?: boolean | undefined
}
