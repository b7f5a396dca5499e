/**
 * What may be tried for one request, and what is known while it is tried: plain data. `services/resilience/AttemptMachine` is the machine
 * that goes through it.
 */
import type { FailureClass, List } from "../../domain/FailureClass.ts"
import type { Attempt, Reason } from "../../domain/InferenceError.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"

/** A deployment that may be tried. */
export interface Target {
  readonly deployment: string
  /** Tokens; left out, not known. */
  readonly contextWindow?: number | undefined
}

/** What may be tried for one request, in order. */
export interface Plan {
  readonly model: string
  readonly policy: Policy
  readonly lists: Readonly<Record<List, ReadonlyArray<Target>>>
  /** When a second attempt may start beside a first that has brought nothing; left out, never. */
  readonly hedgeAfterMs?: number | undefined
  /** ms of `Monotonic`; left out, none. */
  readonly deadline?: number | undefined
  readonly maxTokens?: number | undefined
  readonly lowPriority?: boolean | undefined
}

/** What is known of a deployment that was tried. */
export interface Tried {
  readonly tries: number
  /** Whether and when it may be tried again. */
  readonly retry: FailureClass["retry"]
  /** ms of `Monotonic` */
  readonly notBefore: number
}

/** An attempt that has not ended, its pause included. */
export interface Running {
  readonly attempt: number
  readonly deployment: string
}

export interface State {
  readonly plan: Plan
  readonly phase: "trying" | "committed" | "ended"
  readonly list: List
  /** A window that was too small, tokens. */
  readonly tooSmall: number
  readonly running: ReadonlyArray<Running>
  readonly started: number
  readonly tried: Readonly<Record<string, Tried>>
  readonly failures: ReadonlyArray<Attempt>
  /** What broke the answer off that is gone on with. */
  readonly broken?: Reason | undefined
  readonly hedged: boolean
  readonly maxTokens: number | undefined
  readonly lowPriority: boolean
}

export type Event =
  /** Also where the circuit refused it. */
  | { readonly type: "failed"; readonly attempt: number; readonly reason: Reason; readonly tookMs: number }
  /** Its answer broke off in the middle, where another may go on. */
  | { readonly type: "cut"; readonly attempt: number; readonly reason: Reason; readonly tookMs: number }
  /** The first of its answer has come. */
  | { readonly type: "content"; readonly attempt: number }
  /** The time of an `await-hedge` is over. */
  | { readonly type: "hedge-due"; readonly attempt: number }

export type Action =
  | {
    readonly type: "start"
    /** Counts from 1. */
    readonly attempt: number
    readonly deployment: string
    readonly afterMs: number
    readonly hedge: boolean
    readonly maxTokens?: number
    readonly lowPriority: boolean
  }
  | { readonly type: "await-hedge"; readonly attempt: number; readonly afterMs: number }
  /** Everything else of this answer goes to the caller. */
  | { readonly type: "commit"; readonly attempt: number }
  | { readonly type: "cancel"; readonly attempt: number }
  | { readonly type: "fail"; readonly reason: Reason; readonly attempts: ReadonlyArray<Attempt> }

/** The world at the moment of an event. */
export interface View {
  /** ms of `Monotonic` */
  readonly now: number
  /** From 0 to 1, a new one each time. */
  readonly random: number
  /** ms for which a deployment must not be called; 0, it is free. */
  readonly closedFor: (deployment: string) => number
}

export interface Step {
  readonly state: State
  readonly actions: ReadonlyArray<Action>
}

/** What a plan is made of. */
export interface Ingredients {
  readonly model: string
  readonly policy: Policy
  /** Deployments in order: those that the decision names, and then those that stand in for the model. */
  readonly lists: Plan["lists"]
  /** ms in which 95 of 100 first tokens of the primary come, where that is known. */
  readonly slowestFirstTokenMs?: number | undefined
  /** When the request came, ms of `Monotonic`. */
  readonly now: number
  readonly maxTokens?: number | undefined
  readonly lowPriority?: boolean | undefined
}

/** The plan of one request. */
export const make = (
  { lists, lowPriority, maxTokens, model, now, policy, slowestFirstTokenMs }: Ingredients
): Plan => {
  const { hedge, timeouts: { totalMs } } = policy
  return {
    model,
    policy,
    lists,
    hedgeAfterMs: hedge === undefined ? undefined : hedge.afterMs ?? slowestFirstTokenMs,
    deadline: totalMs === undefined ? undefined : now + totalMs,
    maxTokens,
    lowPriority
  }
}
