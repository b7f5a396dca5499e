/**
 * A circuit for each deployment: one that fails too often is left alone for a while, then tried by one call at a time, and
 * trusted again when several have gone well.
 *
 * **Details**
 *
 * What counts as a failure is `Retry.classify`'s word: a caller's mistake, a rate limit or a full queue does not, nor does
 * a call that is interrupted. One outcome is counted for each call, so time-outs belong inside it; each attempt is a call.
 *
 * **Gotchas**
 *
 * A call is let through or refused when it begins. A refusal is `CircuitOpen`, which names the deployment and the wait.
 */
import type { Effect, Scope, Stream } from "effect"
import { Cause, Context, Exit, Result } from "effect"
import type { InferenceError } from "./InferenceError.ts"
import { classify } from "./Retry.ts"

/** `half-open`: one call at a time is let through, and what becomes of it decides. */
export type Phase = "closed" | "open" | "half-open"

/** A deployment's circuit as it is now. */
export interface State {
  readonly deployment: string
  readonly phase: Phase
  /** ms until a call is let through; 0 where one is now. */
  readonly retryAfterMs: number
  /** Calls that have gone well since it was half open; so many more are needed as `Policies.breaker.closesAfter` says. */
  readonly successes: number
}

/** A change, told when it has happened. */
export interface Transition {
  readonly deployment: string
  readonly from: Phase
  readonly to: Phase
  /** ms since 1970 */
  readonly at: number
}

/** What the end of a call says of its deployment; `left`, nothing: its caller has left or was wrong. */
export type Verdict = "success" | "failure" | "left"

/** What a call's end says of whoever answered it. */
export const verdictOf = (exit: Exit.Exit<unknown, InferenceError>): Verdict => {
  if (Exit.isSuccess(exit)) return "success"
  if (Cause.hasInterruptsOnly(exit.cause)) return "left"
  const error = Cause.findError(exit.cause)
  // A defect is the deployment's, as far as anyone can tell.
  return Result.isFailure(error) || classify(error.success.reason).counts ? "failure" : "left"
}

export class Breaker extends Context.Service<Breaker, {
  /**
   * Begins a call that lasts as long as a scope, as a stream does, unless the circuit is open.
   *
   * @param verdict of the scope's end
   */
  readonly enter: (
    deployment: string,
    verdict: (exit: Exit.Exit<unknown, unknown>) => Verdict
  ) => Effect.Effect<void, InferenceError, Scope.Scope>
  /** ms until a call is let through; 0 where one is now. Cheap: for policy that looks at many. */
  readonly closedFor: (deployment: string, now: number) => number
  /** How often its circuit has opened: a call that has waited since it was let through enters again where it has. */
  readonly openings: (deployment: string) => number
  /** Of every deployment that has been called. */
  readonly states: Effect.Effect<ReadonlyArray<State>>
  /** What changes from now on. */
  readonly transitions: Stream.Stream<Transition>
}>()("troupe/services/Breaker") {}
