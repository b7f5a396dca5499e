/**
 * Counts and logs what the input policy found: a counter for each event and action, and a log entry for each in
 * `Defaults.attemptLogInterval`.
 *
 * **Details**
 *
 * An entry has the name of the rule and the id of the caller's key, and no text of the request.
 */
import { Clock, Duration, Effect } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { Identity } from "../../domain/Identity.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import { Metrics } from "../observability/Metrics.ts"

/** What was done about an event. */
export type Action = "flag" | "redact" | "reject"

/** Who caused an event, and with which model. */
export interface Origin {
  readonly model: string
  readonly identity?: Identity | undefined
}

export interface SecurityEvents {
  /**
   * @param event the name of a rule, `hook`, or `unchecked` for a request that no flag was checked for
   * @param count of requests; default 1
   */
  readonly record: (event: string, action: Action, origin: Origin, count?: number) => void
}

/** The latest entry of one event and action. */
interface Logged {
  /** ms since 1970 */
  readonly at: number
  omitted: number
}

const whose = ({ identity }: Origin): string => identity === undefined ? "" : `, key ${identity.keyId}`

const done: Readonly<Record<Action, string>> = { flag: "flagged", redact: "redacted", reject: "rejected" }

export const make = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const metrics = yield* Metrics
  const callbacks = yield* GuardedCallbacks.make
  const fork = Effect.runForkWith(yield* Effect.context())
  const logged = new Map<string, Logged>()

  const log = (event: string, action: Action, origin: Origin) => {
    const key = `${event} ${action}`
    const now = clock.currentTimeMillisUnsafe()
    const last = logged.get(key)
    if (last !== undefined && now - last.at < Duration.toMillis(Defaults.attemptLogInterval)) {
      last.omitted++
      return
    }
    logged.set(key, { at: now, omitted: 0 })
    const omitted = last === undefined || last.omitted === 0 ? "" : ` ${last.omitted} before it were not logged.`
    const text = `The input policy ${done[action]} a request (rule ${event}${whose(origin)}).${omitted}`
    fork(action === "reject" ? Effect.logWarning(text) : Effect.logInfo(text))
  }

  return {
    record: (event, action, origin, count = 1) => {
      callbacks.call("metrics", () => metrics.security?.(event, action, count), undefined)
      log(event, action, origin)
    }
  } satisfies SecurityEvents
})
