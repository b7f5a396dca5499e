/**
 * How long one exchange with a provider may take, and who ends it when it takes longer.
 *
 * **Details**
 *
 * One fiber an exchange, however many pieces come. It does not interrupt who waits: it ends the exchange, and what waits
 * for a byte then fails and asks here why.
 */
import type { Scope } from "effect"
import { Clock, Duration, Effect } from "effect"
import * as InferenceError from "../../services/InferenceError.ts"
import type { RemoteDeployment } from "../../services/Model.ts"
import * as Policies from "../../services/Policies.ts"

type Phase = InferenceError.UpstreamTimeout["phase"]

/** ms each. */
export type Limits = Readonly<Record<Phase, number>>

export const limitsOf = ({ timeouts = {} }: RemoteDeployment): Limits => {
  const { upstream } = Policies
  return {
    connect: Duration.toMillis(timeouts.connect ?? upstream.connect),
    first_byte: Duration.toMillis(timeouts.firstByte ?? upstream.firstByte),
    first_token: Duration.toMillis(timeouts.firstToken ?? upstream.firstToken),
    stall: Duration.toMillis(timeouts.stall ?? upstream.stall),
    total: Duration.toMillis(timeouts.total ?? upstream.total)
  }
}

/** One exchange's time. */
export interface Watch {
  /** The headers are there. */
  readonly headers: () => void
  /** The first content is there. */
  readonly content: () => void
  /** Somebody waits for the next piece of the body. */
  readonly wait: () => void
  /** It is there. */
  readonly took: () => void
  /** Ends the exchange for this reason. */
  readonly end: (reason: InferenceError.Reason) => Effect.Effect<void>
  /** Why the exchange was ended from here, if it was. */
  readonly reason: () => InferenceError.Reason | undefined
}

/**
 * Watches an exchange until the scope ends.
 *
 * @param streamed whether the answer comes in pieces, of which the first must come in time
 * @param abort ends the exchange
 */
export const make = Effect.fnUntraced(function*(
  deployment: string,
  limits: Limits,
  streamed: boolean,
  abort: Effect.Effect<void>
): Effect.fn.Return<Watch, never, Scope.Scope> {
  const clock = yield* Clock.Clock
  const now = () => clock.currentTimeMillisUnsafe()
  const start = now()
  let phase: Phase = streamed ? "first_byte" : "total"
  let since: number | undefined
  let ended: InferenceError.Reason | undefined

  const end = (reason: InferenceError.Reason) =>
    Effect.suspend(() => {
      if (ended !== undefined) return Effect.void
      ended = reason
      return abort
    })
  /** When the phase has taken too long; where nobody waits, nothing stalls. */
  const due = (): number =>
    phase === "stall" ? (since ?? Number.POSITIVE_INFINITY) + limits.stall : start + limits[phase]
  // A later phase may be due before this one.
  const step = Math.min(limits.first_byte, limits.first_token, limits.stall)
  const total = start + limits.total

  const watch = Effect.suspend(function loop(): Effect.Effect<void> {
    const time = now()
    const late: Phase | undefined = time >= due() ? phase : time >= total ? "total" : undefined
    if (late !== undefined) {
      return end(new InferenceError.UpstreamTimeout({ deployment, phase: late, afterMs: limits[late] }))
    }
    return Effect.flatMap(Effect.sleep(Math.max(1, Math.min(due() - time, total - time, step))), loop)
  })
  yield* Effect.forkScoped(watch)

  return {
    headers: () => {
      if (phase === "first_byte") phase = "first_token"
    },
    content: () => {
      phase = "stall"
    },
    wait: () => {
      since = now()
    },
    took: () => {
      since = undefined
      // An answer that is not streamed has begun.
      if (phase === "total") phase = "stall"
    },
    end,
    reason: () => ended
  }
})
