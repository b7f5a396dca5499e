/**
 * Counts and logs what the input policy found, and requests that are refused before it: a counter for each event and action,
 * and a log entry for each in `Defaults.attemptLogInterval`.
 *
 * **Details**
 *
 * An entry has the name of the rule or the reason, and the id of the caller's key or the kind of its address. It has no text
 * of the request, no address and no key.
 */
import { Clock, Context, Duration, Effect, Layer } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import type { Identity } from "../../domain/Identity.ts"
import * as GuardedCallbacks from "../observability/GuardedCallbacks.ts"
import { Metrics } from "../observability/Metrics.ts"
import { currentContext } from "../observability/RequestLog.ts"

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

/**
 * What requests are refused for, and what the log says of them. The admission logs limits and budgets itself, with their setting
 * and its value: see `RejectionLog`.
 */
export const refusalReasons = {
  origin: "a web page that may not call the service",
  host: "a host name that is not the service's",
  key: "no valid API key",
  access: "an API key that does not allow it",
  admin: "administration is not allowed",
  limit: undefined,
  budget: undefined
} as const

export type Refusal = keyof typeof refusalReasons

/** Who is refused. */
export interface Refused {
  readonly identity?: Identity | undefined
  /** As `public`; left out for a caller with an identity. */
  readonly address?: AddressKind | undefined
}

/** Where a caller is: this machine, a private network or the Internet. */
export type AddressKind = "loopback" | "private" | "public"

export interface RefusalLog {
  readonly record: (refusal: Refusal, refused: Refused) => void
}

/** The requests that a service refuses; default nothing is counted. */
export const Refusals = Context.Reference<RefusalLog>("troupe/services/guard/SecurityEvents/Refusals", {
  defaultValue: () => ({ record: () => {} })
})

/** The latest entry of one event and action. */
interface Logged {
  /** ms since 1970 */
  readonly at: number
  omitted: number
}

const done: Readonly<Record<Action, string>> = { flag: "flagged", redact: "redacted", reject: "rejected" }

const makeReport = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const metrics = yield* Metrics
  const callbacks = yield* GuardedCallbacks.make
  const context = yield* Effect.context()
  const fork = (entry: Effect.Effect<void>) => Effect.runForkWith(currentContext(context))(entry)
  const logged = new Map<string, Logged>()
  const log = (event: string, action: Action, text: () => string) => {
    const key = `${event} ${action}`
    const now = clock.currentTimeMillisUnsafe()
    const last = logged.get(key)
    if (last !== undefined && now - last.at < Duration.toMillis(Defaults.attemptLogInterval)) {
      last.omitted++
      return
    }
    logged.set(key, { at: now, omitted: 0 })
    const omitted = last === undefined || last.omitted === 0 ? "" : ` ${last.omitted} before it were not logged.`
    fork(action === "reject" ? Effect.logWarning(text() + omitted) : Effect.logInfo(text() + omitted))
  }
  return (event: string, action: Action, count: number, text: (() => string) | undefined): void => {
    callbacks.call("metrics", () => metrics.security?.(event, action, count), undefined)
    if (text !== undefined) log(event, action, text)
  }
})

const keyOf = ({ identity }: Origin): string => identity === undefined ? "" : `, key ${identity.keyId}`

/** Of the input policy. */
export const make = Effect.map(makeReport, (report): SecurityEvents => ({
  record: (event, action, origin, count = 1) =>
    report(event, action, count, () => `The input policy ${done[action]} a request (rule ${event}${keyOf(origin)}).`)
}))

const whose = ({ address, identity }: Refused): string =>
  identity === undefined ? `from a ${address ?? "private"} address` : `of key ${identity.keyId}`

/** Counts and logs the requests that a service refuses. */
export const layerRefusals = Layer.effect(
  Refusals,
  Effect.map(makeReport, (report) => ({
    record: (refusal: Refusal, refused: Refused) => {
      const reason = refusalReasons[refusal]
      report(refusal, "reject", 1, reason && (() => `Refused a request ${whose(refused)}: ${reason}.`))
    }
  }))
)
