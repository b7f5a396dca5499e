/**
 * The time limits of an attempt: until it has a slot, until its first content, between two pieces, and until the end of the
 * request.
 *
 * **Details**
 *
 * The time that a caller takes to read counts for the end of the request only.
 */
import { Effect } from "effect"
import { InferenceError, UpstreamTimeout } from "../../domain/InferenceError.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"

type Timeouts = Policy["timeouts"]
export type Phase = "queue" | "first_token" | "stall" | "total"
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
  readonly onLimit?: () => void
  /** What an attempt that has begun waits for, and since when, monotonic ms. */
  readonly waiting?: { readonly phase: "first_token" | "stall"; readonly since: number }
}

/** The limit of a phase, ms. */
export const limitOf = ({ firstTokenMs, queueMs, stallMs, totalMs }: Timeouts, phase: Phase): number | undefined => {
  switch (phase) {
    case "queue":
      return queueMs
    case "first_token":
      return firstTokenMs
    case "stall":
      return stallMs
    case "total":
      return totalMs
  }
}

/** The error of a limit that is reached. */
export const exceeded = (deployment: string, timeouts: Timeouts, phase: Phase): InferenceError => {
  const { byCaller } = timeouts
  const afterMs = limitOf(timeouts, phase)!
  const own = byCaller === "all" || byCaller === phase
  return new InferenceError({
    reason: new UpstreamTimeout({ deployment, phase, afterMs, ...(own ? { byCaller: true } : {}) })
  })
}

/** The limits of one attempt at the deployment. */
export const make = (
  deployment: string,
  timeouts: Timeouts,
  { deadline, now, onLimit = () => {}, waiting }: Options
): Deadlines => {
  const limited = (phase: Phase, leftMs = () => limitOf(timeouts, phase)!): Limit | undefined => {
    if (limitOf(timeouts, phase) === undefined) return undefined
    const reached = Effect.suspend(() => {
      onLimit()
      return Effect.fail(exceeded(deployment, timeouts, phase))
    })
    // Not `Effect.timeoutOrElse`, which interrupts before `onLimit` could run.
    return (effect) =>
      Effect.suspend(() => Effect.raceFirst(effect, Effect.andThen(Effect.sleep(Math.max(0, leftMs())), reached)))
  }
  return {
    queue: limited("queue"),
    first: waiting === undefined
      ? limited("first_token")
      : limited(waiting.phase, () => waiting.since + limitOf(timeouts, waiting.phase)! - now()),
    next: limited("stall"),
    total: limited("total", () => deadline! - now())
  }
}
