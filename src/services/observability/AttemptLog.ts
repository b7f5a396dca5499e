/**
 * Logs failed attempts, also those that another deployment makes up for: one line for each deployment and kind of failure
 * in `Defaults.attemptLogInterval`.
 *
 * **Details**
 *
 * A failure of a deployment is a warning. A mistake of the caller, a limit that the request sets and a deployment that was
 * not called are logged at `Debug`. A line has no text of a provider, which may quote the prompt: the caller gets it.
 */
import { Duration, Effect } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { classify, isRefusal } from "../../domain/FailureClass.ts"
import type { AuthenticationFailed, Reason } from "../../domain/InferenceError.ts"

/** The failed attempt. */
interface FailedAttempt {
  readonly deployment: string
  readonly reason: Reason
  /** The id of the request's decision record. */
  readonly decision: string
  /** monotonic ms */
  readonly now: number
}

const rejection = ({ quota, status }: AuthenticationFailed): string => {
  if (quota === true) return "the provider's quota is used up: check the plan and billing"
  return `the provider rejected the API key${status === undefined ? "" : ` with HTTP status ${status}`}: check the key`
}

/** The kind of the failure, with its figures. */
const kindOf = (reason: Reason): string => {
  switch (reason._tag) {
    case "UpstreamFailed":
      return `UpstreamFailed, ${reason.status === undefined ? reason.kind : `HTTP status ${reason.status}`}`
    case "UpstreamTimeout":
      return `UpstreamTimeout, ${reason.phase} after ${reason.afterMs} ms`
    case "AuthenticationFailed":
      return `AuthenticationFailed, ${rejection(reason)}`
    default:
      return reason._tag
  }
}

const isMinor = (reason: Reason): boolean =>
  isRefusal(reason) || classify(reason).isCallerMistake || reason._tag === "ContentRefused" ||
  (reason._tag === "UpstreamTimeout" && reason.byCaller === true)

/** The latest line of one deployment and kind. */
interface Logged {
  /** monotonic ms */
  readonly at: number
  omitted: number
}

/** @param attempt what a line begins with, where the requests have no decision record; left out, it names the record */
export const make = (attempt?: string) => {
  const logged = new Map<string, Logged>()
  return ({ decision, deployment, now, reason }: FailedAttempt): Effect.Effect<void> => {
    const level = isMinor(reason) ? "Debug" : "Warn"
    // Without the figures, which a request may choose.
    const key = `${level} ${reason._tag} ${deployment}`
    const last = logged.get(key)
    if (last !== undefined && now - last.at < Duration.toMillis(Defaults.attemptLogInterval)) {
      last.omitted++
      return Effect.void
    }
    logged.set(key, { at: now, omitted: 0 })
    const omitted = last === undefined || last.omitted === 0 ? "" : ` ${last.omitted} before it were not logged.`
    const see = attempt === undefined ? `; see decision ${decision}` : ""
    const text = `${attempt ?? "An attempt"} at "${deployment}" failed (${kindOf(reason)})${see}.${omitted}`
    return level === "Debug" ? Effect.logDebug(text) : Effect.logWarning(text)
  }
}
