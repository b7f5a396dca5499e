/**
 * The time that a policy gives an attempt: for its slot, to its first content, between two pieces, and to the request's
 * end.
 *
 * **Details**
 *
 * A reader's own time does not count: only what is waited for does. Where a policy has no limits, this costs nothing.
 */
import { Effect } from "effect"
import { InferenceError, UpstreamTimeout } from "../../domain/InferenceError.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"

type Phase = "queue" | "first_token" | "stall" | "total"
type Limited = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | InferenceError, R>

export interface Limits {
  /** What waits for a slot, and a load before it. */
  readonly queue: Limited
  /** The first content, from the slot on. */
  readonly first: Limited
  /** The next piece of an answer. */
  readonly next: Limited
  /** Whatever the request waits for. */
  readonly total: Limited
}

/** No limit. */
export const unlimited: Limited = (effect) => effect

const none: Limits = { queue: unlimited, first: unlimited, next: unlimited, total: unlimited }

/** What one attempt is measured by. */
export interface Times {
  /** ms of `Monotonic` */
  readonly deadline: number | undefined
  readonly now: () => number
  /** Called when a limit is reached, before what it limits is interrupted. */
  readonly onLimit: () => void
}

export const make = (deployment: string, timeouts: Policy["timeouts"], { deadline, now, onLimit }: Times): Limits => {
  const { byCaller, firstTokenMs, queueMs, stallMs, totalMs } = timeouts
  if (queueMs === undefined && firstTokenMs === undefined && stallMs === undefined && totalMs === undefined) return none
  const limited = (phase: Phase, limitMs: number | undefined, leftMs = () => limitMs!): Limited => {
    if (limitMs === undefined) return unlimited
    const reached = Effect.suspend(() => {
      onLimit()
      const own = byCaller === "all" || byCaller === phase
      const reason = new UpstreamTimeout({ deployment, phase, afterMs: limitMs, ...(own ? { byCaller: true } : {}) })
      return Effect.fail(new InferenceError({ reason }))
    })
    // Not `Effect.timeoutOrElse`, which interrupts before it asks what to do.
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
