/**
 * A circuit for each deployment: one that fails too often is left alone for a while, then tried by one call at a time, and
 * trusted again when several have gone well.
 *
 * **Details**
 *
 * What counts as a failure is decided by `FailureClass.classify`: a caller's mistake, a rate limit or a full queue does not, nor does
 * a call that is interrupted. One outcome is counted for each call, so time-outs belong inside it; each attempt is a call.
 *
 * One event is one failure: calls that were in flight together count once when they fail in the same way (`FailureClass.eventKey`), as
 * by a crash, a lost connection, one instant of HTTP 503 or a key that the provider rejects. Failures of calls that began
 * one after another count each. Failures that take long (`isSlow`) are one event only within `Policies.slowEventFor`: the
 * calls that a hung provider lets time out do not end together.
 *
 * A circuit that opens because its host cannot be reached is probed again after a second, then after two, four and so on,
 * up to `Options.openFor`: a host that restarts is back as soon as it answers.
 *
 * While a circuit is half open, one call at a time is let through; where no other deployment can take the request, several
 * at a time (`Options.probes`). A call's first content is its success and gives its place to the next: an answer may stream
 * for minutes. What fails after that is a failure all the same.
 *
 * **Gotchas**
 *
 * A call is let through or refused when it begins. A refusal is `CircuitOpen`, which names the deployment and the wait.
 */
import type { Duration, Effect, Scope, Stream } from "effect"
import { Cause, Context, Exit, Result } from "effect"
import { isCancellation } from "../../domain/Cancellation.ts"
import { classify } from "../../domain/FailureClass.ts"
import type { InferenceError, Reason } from "../../domain/InferenceError.ts"

/** When circuits open and close. */
export interface Options {
  /** Failures in a row. */
  readonly opensAfter: number
  readonly openFor: Duration.Duration
  /** Successes in a row once it is half open. */
  readonly closesAfter: number
  /** Calls at once through a half-open circuit, where no other deployment can take the request. */
  readonly probes: number
}

/** `half-open`: one call at a time is let through, and what becomes of it decides. */
export type Phase = "closed" | "open" | "half-open"

/** A deployment's circuit as it is now. */
export interface State {
  readonly deployment: string
  readonly phase: Phase
  /** ms until a call is let through; 0 where one is now. */
  readonly retryAfterMs: number
  /** Calls that have gone well since it was half open; it closes after as many as `Options.closesAfter` says. */
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

/** How a call ended. */
export interface Ending {
  readonly verdict: Verdict
  /** Why it failed; left out, it did not, or by a defect. */
  readonly reason?: Reason | undefined
}

/** What a call's own end says of the deployment. */
export const endingOf = (exit: Exit.Exit<unknown, InferenceError>): Ending => {
  if (Exit.isSuccess(exit)) return { verdict: "success" }
  if (isCancellation(exit.cause)) return { verdict: "left" }
  const error = Cause.findError(exit.cause)
  // A defect counts against the deployment.
  if (Result.isFailure(error)) return { verdict: "failure" }
  const { reason } = error.success
  return { verdict: classify(reason).countsAgainstCircuit ? "failure" : "left", reason }
}

export class Breaker extends Context.Service<Breaker, {
  /**
   * Begins a call that lasts as long as a scope, as a stream does, unless the circuit is open.
   *
   * @param ending asked for when the scope is closed
   * @param alone no other deployment can take the request
   * @returns to be called when the first content of the answer has come
   */
  readonly enter: (
    deployment: string,
    ending: () => Ending,
    alone?: boolean
  ) => Effect.Effect<() => void, InferenceError, Scope.Scope>
  /**
   * ms until a call is let through; 0 where one is now. Cheap: for policy that looks at many.
   *
   * @param now ms of `Monotonic`
   * @param alone no other deployment can take the request
   */
  readonly closedFor: (deployment: string, now: number, alone?: boolean) => number
  /** How often its circuit has opened: a call that has waited since it was let through enters again where it has. */
  readonly openings: (deployment: string) => number
  /** Closes its circuit; calls that have begun before do not count any more. */
  readonly reset: (deployment: string) => Effect.Effect<void>
  /** Of every deployment that has been called. */
  readonly states: Effect.Effect<ReadonlyArray<State>>
  /** What changes from now on. */
  readonly transitions: Stream.Stream<Transition>
}>()("troupe/services/health/Breaker") {}
