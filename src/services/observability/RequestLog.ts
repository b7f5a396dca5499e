/**
 * One log line for each request that has ended, with its figures as fields.
 *
 * **Details**
 *
 * A line has no prompt, no answer, no key and no text of a provider. `request_id` is that of the response's header, and
 * `client_request_id` the one that the caller has sent as `x-request-id`.
 */
import { Context, Effect, Fiber, Layer } from "effect"
import * as Anthropic from "../../dialects/anthropic/EncodeError.ts"
import * as OpenAi from "../../dialects/openai/EncodeError.ts"
import type { Check, LogIds } from "../../domain/Caller.ts"
import { RequestLogIds } from "../../domain/Caller.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import { Settings } from "../settings/Settings.ts"

/** How a request ended; what is undefined is left out. */
export interface Entry {
  readonly operation: string
  readonly model: string
  readonly end: "success" | "failure" | "interruption"
  /** The id of its record; undefined: it has none. */
  readonly decision: string | undefined
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
  /** Status and code of the response to a request that failed, and why, without texts of callers and providers. */
  readonly status?: number | undefined
  readonly code?: string | undefined
  readonly detail?: string | undefined
  /** Name or id of the caller's key. */
  readonly key?: string | undefined
  /** Troupe itself has sent it. */
  readonly check?: Check | undefined
  /** It was refused before it was routed, for a fault of its caller or of the service. */
  readonly refusedFor?: "caller" | "service" | undefined
}

/** Which requests have a line. */
export type Logged = "none" | "failed" | "all"

/**
 * Writes a line, or returns the effect that does; undefined: none is written.
 *
 * @param context of the request's fiber
 * @param ids for its line; left out, those that the context has
 */
export const RequestLog = Context.Reference<
  ((entry: Entry, context: Context.Context<never>, ids?: LogIds) => Effect.Effect<void> | void) | undefined
>("troupe/services/observability/RequestLog", { defaultValue: () => undefined })

/**
 * Writes a line at once, where the process itself writes the log: an effect for each request costs more than its line.
 * Undefined where a program has loggers of its own.
 */
export const LogLines = Context.Reference<((entry: Entry, ids: LogIds) => void) | undefined>(
  "troupe/services/observability/RequestLog/LogLines",
  { defaultValue: () => undefined }
)

const rounded = (ms: number | undefined): number | undefined => ms === undefined ? undefined : Math.round(ms * 10) / 10

const messages = {
  success: "Request answered.",
  failure: "Request failed.",
  interruption: "Request left by its caller."
} as const

const checkMessages = {
  success: "answered.",
  failure: "failed.",
  interruption: "left."
} as const

const checkNames = { health: "Health check", probe: "Probe of a rollout" } as const

export const messageOf = ({ check, end, refusedFor }: Entry): string => {
  if (check !== undefined) return `${checkNames[check]} ${checkMessages[end]}`
  return refusedFor === undefined ? messages[end] : "Request refused."
}

/** Whether an operator may have to act: not where a caller is refused, such as by its limit. */
export const isWarning = ({ end, refusedFor }: Entry): boolean => end === "failure" && refusedFor !== "caller"

/** The fields of a line, in their order. */
export const fieldsOf = (entry: Entry): Readonly<Record<string, string | number | undefined>> => ({
  operation: entry.operation,
  model: entry.model,
  end: entry.end,
  check: entry.check,
  error: entry.error,
  status: entry.status,
  code: entry.code,
  detail: entry.detail,
  key: entry.key,
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

/** The fields are a part of the message: annotations would copy the context of the caller. */
const write = (entry: Entry): Effect.Effect<void> => {
  const log = isWarning(entry) ? Effect.logWarning : Effect.logInfo
  return log(messageOf(entry), fieldsOf(entry))
}

/**
 * The context for an entry that is written beside the fiber which runs now, so that the entry has the ids of its request.
 *
 * @param context where no fiber runs
 */
export const currentContext = (context: Context.Context<never>): Context.Context<never> =>
  Fiber.getCurrent()?.context ?? context

const noIds: LogIds = {}

/**
 * The line of a failure that is not in the line of its request: of a service that writes none.
 *
 * @param text the ids of the request, and why it failed
 */
export const warnAlone = (text: () => string): Effect.Effect<void> =>
  Effect.flatMap(RequestLog, (log) => log === undefined ? Effect.logWarning(text()) : Effect.void)

/** The status of the response to a request that failed, in the dialect of its caller. */
export const statusOf = (reason: Reason, dialect: string | undefined): number =>
  dialect === "anthropic" ? Anthropic.statusOf(reason) : OpenAi.statusOf(reason)

/** What a line says of a failure. */
export const failureOf = (
  reason: Reason,
  dialect: string | undefined
): Required<Pick<Entry, "code" | "detail" | "error" | "status">> => ({
  error: reason._tag,
  status: statusOf(reason, dialect),
  code: OpenAi.codeOf(reason),
  detail: ReasonMessage.recorded(reason)
})

/** As `logRequests` in the settings says. */
export const layer = Layer.unwrap(Effect.gen(function*() {
  const { logRequests = "none" } = yield* Settings
  const lines = yield* LogLines
  if (logRequests === "none") return Layer.empty
  return Layer.succeed(RequestLog, (entry, context, ids) => {
    if (logRequests !== "all" && !isWarning(entry)) return undefined
    if (lines === undefined) return ids === undefined ? write(entry) : Effect.annotateLogs(write(entry), ids)
    return lines(entry, ids ?? Context.get(context, RequestLogIds)(context) ?? noIds)
  })
}))
