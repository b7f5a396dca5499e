/**
 * The time that a policy gives an attempt: to its first content, between two pieces, and to the request's end.
 *
 * **Details**
 *
 * A reader's own time does not count: only what is waited for does. Where a policy has no limits, this costs nothing.
 */
import { Effect } from "effect"
import { InferenceError, UpstreamTimeout } from "../../services/InferenceError.ts"
import type { Policy } from "../../services/Policy.ts"

type Phase = "first_token" | "stall" | "total"
type Limited = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | InferenceError, R>

export interface Limits {
  /** What must be there before the first content can be. */
  readonly first: Limited
  /** The next piece of an answer. */
  readonly next: Limited
  /** Whatever the request waits for. */
  readonly total: Limited
}

const unlimited: Limited = (effect) => effect

const none: Limits = { first: unlimited, next: unlimited, total: unlimited }

/** What one attempt is measured by. */
export interface Times {
  /** ms of `Monotonic`, as the deadline. */
  readonly began: number
  readonly deadline: number | undefined
  readonly now: () => number
}

export const make = (deployment: string, timeouts: Policy["timeouts"], { began, deadline, now }: Times): Limits => {
  const { byCaller, firstTokenMs, stallMs, totalMs } = timeouts
  if (firstTokenMs === undefined && stallMs === undefined && totalMs === undefined) return none
  const limited = (phase: Phase, limitMs: number | undefined, leftMs: () => number): Limited =>
    limitMs === undefined ? unlimited : (effect) =>
      Effect.suspend(() =>
        Effect.timeoutOrElse(effect, {
          duration: Math.max(0, leftMs()),
          orElse: () =>
            Effect.fail(
              new InferenceError({
                reason: new UpstreamTimeout({
                  deployment,
                  phase,
                  afterMs: limitMs,
                  ...(byCaller === "all" || byCaller === phase ? { byCaller: true } : {})
                })
              })
            )
        })
      )
  return {
    first: limited("first_token", firstTokenMs, () => began + firstTokenMs! - now()),
    next: limited("stall", stallMs, () => stallMs!),
    total: limited("total", totalMs, () => deadline! - now())
  }
}
