/**
 * The time limits of an attempt: until it has a slot, until its first content, between two pieces, and until the end of the
 * request.
 *
 * **Details**
 *
 * The time that a caller takes to read does not count.
 */
import { Effect } from "effect"
import { InferenceError, UpstreamTimeout } from "../../domain/InferenceError.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"

type Phase = "queue" | "first_token" | "stall" | "total"
/** Applies a time limit. */
export type Limit = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | InferenceError, R>

/** The limits of one attempt; undefined: none. */
export interface Deadlines {
  /** Waiting for a slot, including a load. */
  readonly queue?: Limit | undefined
  /** Waiting for the first content, after the slot is granted. */
  readonly first?: Limit | undefined
  /** Waiting for the next piece of an answer. */
  readonly next?: Limit | undefined
  /** Everything the request waits for. */
  readonly total?: Limit | undefined
}

interface Options {
  /** The end of the request, monotonic ms. */
  readonly deadline: number | undefined
  /** monotonic ms */
  readonly now: () => number
  /** Called when a limit is reached, before the limited effect is interrupted. */
  readonly onLimit: () => void
}

/** The limits of one attempt at the deployment. */
export const make = (
  deployment: string,
  timeouts: Policy["timeouts"],
  { deadline, now, onLimit }: Options
): Deadlines => {
  const { byCaller, firstTokenMs, queueMs, stallMs, totalMs } = timeouts
  const limited = (phase: Phase, limitMs: number | undefined, leftMs = () => limitMs!): Limit | undefined => {
    if (limitMs === undefined) return undefined
    const reached = Effect.suspend(() => {
      onLimit()
      const own = byCaller === "all" || byCaller === phase
      const reason = new UpstreamTimeout({ deployment, phase, afterMs: limitMs, ...(own ? { byCaller: true } : {}) })
      return Effect.fail(new InferenceError({ reason }))
    })
    // Not `Effect.timeoutOrElse`, which interrupts before `onLimit` could run.
    return (effect) =>
      Effect.suspend(() => Effect.raceFirst(effect, Effect.andThen(Effect.sleep(Math.max(0, leftMs())), reached)))
  }
  return {
    queue: limited("queue", queueMs),
    first: limited("first_token", firstTokenMs),
    next: limited("stall", stallMs),
    total: limited("total", totalMs, () => deadline! - now())
  }
}
