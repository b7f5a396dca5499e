/**
 * One log line for each request that has ended, with its figures as fields.
 *
 * **Details**
 *
 * A line has no prompt, no answer, no key and no text of a provider. `request_id` is that of the response's header, and
 * `client_request_id` the one that the caller has sent as `x-request-id`.
 */
import { Context, Effect, Layer } from "effect"
import { Settings } from "../settings/Settings.ts"

/** How a request ended; what is undefined is left out. */
export interface Entry {
  readonly operation: string
  readonly model: string
  readonly end: "success" | "failure" | "interruption"
  readonly decision: string
  readonly deployment: string | undefined
  readonly attempts: number
  /** The tier of the cache that had the answer. */
  readonly cache: string | undefined
  readonly ms: number
  readonly firstTokenMs: number | undefined
  readonly inputTokens: number | undefined
  readonly outputTokens: number
  readonly usd: number | undefined
  /** Attempts whose price is unknown: they are not in `usd`. */
  readonly unpriced: number | undefined
  /** The kind of the failure. */
  readonly error: string | undefined
}

/** Which requests have a line. */
export type Logged = "none" | "failed" | "all"

/** Writes lines; undefined: none is written. */
export const RequestLog = Context.Reference<((entry: Entry) => Effect.Effect<void> | void) | undefined>(
  "troupe/services/observability/RequestLog",
  { defaultValue: () => undefined }
)

/** Of a caller, if it is fit for a log. */
const clientId = /^[\w.:/+=-]{1,128}$/

/** The ids of a request in its log lines. */
export const idsOf = (id: string, sent: string | undefined): Readonly<Record<string, string>> =>
  sent !== undefined && clientId.test(sent) ? { request_id: id, client_request_id: sent } : { request_id: id }

const rounded = (ms: number | undefined): number | undefined => ms === undefined ? undefined : Math.round(ms * 10) / 10

const messages = {
  success: "Request answered.",
  failure: "Request failed.",
  interruption: "Request left by its caller."
} as const

/** The fields are a part of the message: annotations would copy the context of the caller. */
const write = (entry: Entry): Effect.Effect<void> => {
  const log = entry.end === "failure" ? Effect.logWarning : Effect.logInfo
  return log(messages[entry.end], {
    operation: entry.operation,
    model: entry.model,
    end: entry.end,
    error: entry.error,
    deployment: entry.deployment,
    attempts: entry.attempts,
    cache: entry.cache,
    ms: rounded(entry.ms),
    first_token_ms: rounded(entry.firstTokenMs),
    input_tokens: entry.inputTokens,
    output_tokens: entry.outputTokens,
    cost_usd: entry.usd,
    unpriced_attempts: entry.unpriced,
    decision: entry.decision
  })
}

/** As `logRequests` in the settings says. */
export const layer = Layer.unwrap(Effect.map(Settings, ({ logRequests = "none" }): Layer.Layer<never> => {
  if (logRequests === "none") return Layer.empty
  return Layer.succeed(
    RequestLog,
    (entry) => logRequests === "all" || entry.end === "failure" ? write(entry) : undefined
  )
}))
