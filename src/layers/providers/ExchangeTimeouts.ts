/**
 * Time limits of exchanges with a provider.
 *
 * **Details**
 *
 * One fiber per deployment watches all its exchanges. It does not interrupt the request's fiber: it closes the exchange, so
 * that the pending read fails, and `reason` then has the limit that was exceeded.
 */
import { Clock, Duration, Effect, Scope } from "effect"
import * as Policies from "../../domain/Defaults.ts"
import type { RemoteDeployment } from "../../domain/Deployment.ts"
import { orOff } from "../../domain/Fields.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as Time from "../../domain/Time.ts"

type Phase = Exclude<InferenceError.UpstreamTimeout["phase"], "queue" | "load">

/** ms each. */
export type Limits = Readonly<Record<Phase, number>>

export const limitsOf = ({ timeouts = {} }: RemoteDeployment): Limits => {
  const { upstream } = Policies
  return {
    connect: Duration.toMillis(orOff(timeouts.connect, upstream.connect, Duration.infinity)),
    first_byte: Duration.toMillis(orOff(timeouts.firstByte, upstream.firstByte, Duration.infinity)),
    first_token: Duration.toMillis(orOff(timeouts.firstToken, upstream.firstToken, Duration.infinity)),
    stall: Duration.toMillis(orOff(timeouts.stall, upstream.stall, Duration.infinity)),
    total: Duration.toMillis(orOff(timeouts.total, upstream.total, Duration.infinity))
  }
}

/** The time limits of one exchange. */
export interface ExchangeTimeout {
  /** The headers have come. */
  readonly headers: () => void
  /** The first content or reasoning has come. */
  readonly content: () => void
  /** A reader waits for the next piece of the body. */
  readonly wait: () => void
  /** The piece has come. */
  readonly took: () => void
  /** The limit that ended the exchange; undefined if none did. */
  readonly reason: () => InferenceError.Reason | undefined
}

/** The time limits of a deployment's exchanges. */
export interface ExchangeTimeouts {
  /**
   * Watches an exchange until the end of the scope.
   *
   * @param streamed whether the answer comes in pieces, of which the first must come in time
   * @param close ends the exchange; also called at the end of the scope
   */
  readonly watch: (streamed: boolean, close: () => void) => Effect.Effect<ExchangeTimeout, never, Scope.Scope>
  /** Ends every exchange for this reason. */
  readonly stop: (reason: InferenceError.Reason) => void
}

interface Watched extends ExchangeTimeout {
  readonly end: (reason: InferenceError.Reason) => void
  /** Ends the exchange if it exceeds a limit at `time`; returns the ms until the next check, at most. */
  readonly look: (time: number) => number
}

const makeWatched = (
  deployment: string,
  limits: Limits,
  streamed: boolean,
  now: () => number,
  close: () => void
): Watched => {
  const start = now()
  const total = start + limits.total
  let phase: Phase = streamed ? "first_byte" : "total"
  let since: number | undefined
  let ended: InferenceError.Reason | undefined

  const end = (reason: InferenceError.Reason) => {
    if (ended !== undefined) return
    ended = reason
    close()
  }
  /** When the phase exceeds its limit. Without a waiting reader there is no stall. */
  const due = (): number =>
    phase === "stall" ? (since ?? Number.POSITIVE_INFINITY) + limits.stall : start + limits[phase]

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
    reason: () => ended,
    end,
    look: (time) => {
      if (ended !== undefined) return Number.POSITIVE_INFINITY
      const late: Phase | undefined = time >= due() ? phase : time >= total ? "total" : undefined
      if (late !== undefined) {
        end(new InferenceError.UpstreamTimeout({ deployment, phase: late, afterMs: limits[late] }))
      }
      return Math.max(1, Math.min(due(), total) - time)
    }
  }
}

/** Watches until the end of the scope. */
export const make = Effect.fnUntraced(function*(
  deployment: string,
  limits: Limits
): Effect.fn.Return<ExchangeTimeouts, never, Scope.Scope> {
  const scope = yield* Effect.scope
  const clock = yield* Clock.Clock
  const now = () => Time.nowOf(clock)
  const all = new Set<Watched>()
  // No later phase and no new exchange can exceed its limit earlier.
  const step = Math.min(limits.first_byte, limits.first_token, limits.stall, limits.total)
  let isAwake = false

  const loop: Effect.Effect<void> = Effect.suspend(() => {
    if (all.size === 0) {
      isAwake = false
      return Effect.void
    }
    const time = now()
    let pause = step
    for (const watched of all) pause = Math.min(pause, watched.look(time))
    return Effect.flatMap(Effect.sleep(pause), () => loop)
  })

  /** Starts the loop if it is not running. */
  const wake = Effect.suspend(() => {
    if (isAwake) return Effect.void
    isAwake = true
    return Effect.forkIn(loop, scope)
  })

  return {
    watch: (streamed, close) =>
      Effect.uninterruptible(Effect.flatMap(Effect.scope, (own) => {
        const watched = makeWatched(deployment, limits, streamed, now, close)
        const over = Effect.sync(() => {
          all.delete(watched)
          close()
        })
        all.add(watched)
        // Not `Effect.acquireRelease`, which copies the whole context for a release that needs none of it.
        return Effect.as(Effect.andThen(Scope.addFinalizer(own, over), wake), watched)
      })),
    stop: (reason) => {
      for (const watched of all) watched.end(reason)
    }
  }
})
