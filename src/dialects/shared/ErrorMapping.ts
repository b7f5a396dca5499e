/** Maps error responses of providers to reasons: by status, code and text. Pure. */
import * as InferenceError from "../../domain/InferenceError.ts"
import { bounded, retryAfterOf } from "../../domain/RetryAfter.ts"
import type { ContextFigures } from "./ErrorMeaning.ts"
import { figuresOf, meaningOf } from "./ErrorMeaning.ts"
import { ownOf } from "./Json.ts"
import type { Refusal, Target } from "./ProviderDialect.ts"

const mostCharacters = 300

/** Marks a text that `brief` has cut. */
export const ellipsis = "…"

/** A provider's text on one line of limited length. */
export const brief = (text: string): string => {
  const line = text.replaceAll(/[\p{Cc}\s]+/gu, " ").trim()
  return line.length <= mostCharacters ? line : `${line.slice(0, mostCharacters)}${ellipsis}`
}

/** The parts of an error's body that all dialects share. */
export interface ErrorDetails {
  /** The provider's message. */
  readonly message: string
  /** The provider's codes and types. */
  readonly codes?: ReadonlyArray<string | undefined>
  /** The invalid field, by the core's name. */
  readonly path?: string | undefined
  /** The error of the host behind a router of hosts, as text. */
  readonly inner?: string | undefined
  /** Token counts that are separate from the message. */
  readonly figures?: ContextFigures | undefined
}

/** HTTP statuses of providers' codes and types, for errors without a status. */
const statuses: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  invalid_encrypted_content: 400,
  badrequesterror: 400,
  invalid_argument: 400,
  failed_precondition: 400,
  authentication_error: 401,
  invalid_api_key: 401,
  unauthenticated: 401,
  billing_error: 402,
  permission_error: 403,
  permission_denied: 403,
  not_found_error: 404,
  notfounderror: 404,
  not_found: 404,
  request_too_large: 413,
  rate_limit_error: 429,
  rate_limit_exceeded: 429,
  ratelimiterror: 429,
  insufficient_quota: 429,
  resource_exhausted: 429,
  api_error: 500,
  server_error: 500,
  internal_server_error: 500,
  internalservererror: 500,
  internal: 500,
  service_unavailable: 503,
  serviceunavailableerror: 503,
  unavailable: 503,
  timeout_error: 504,
  deadline_exceeded: 504,
  overloaded_error: 529
}

const statusOfCode = (code: unknown): number | undefined => {
  const number = typeof code === "number" || (typeof code === "string" && /^\d{3}$/.test(code))
    ? Number(code)
    : undefined
  if (number !== undefined && number >= 400 && number < 600) return number
  return typeof code === "string" ? ownOf(statuses, code.toLowerCase()) : undefined
}

/** The status that the first of these codes stands for: a number, or a name. */
export const statusOf = (...codes: ReadonlyArray<unknown>): number | undefined =>
  codes.map(statusOfCode).find((status) => status !== undefined)

/** Whether the status is about the request itself, so that a retry cannot succeed. */
const isRequestError = (status: number): boolean => status === 400 || status === 413 || status === 422

const detailOf = ({ status }: Refusal, { message }: ErrorDetails): string =>
  message === "" ? `HTTP status ${status}.` : `${brief(message)} (HTTP status ${status})`

const contextExceeded = ({ model, options }: Target, details: ErrorDetails): InferenceError.Reason => {
  const { contextSize } = options
  // Without a count from the provider, the prompt is at least as long as the window.
  const least = contextSize === undefined
    ? undefined
    : { promptTokens: contextSize, contextWindow: contextSize, atLeast: true }
  return new InferenceError.ContextLengthExceeded({ model, ...details.figures ?? figuresOf(details.message) ?? least })
}

/** Of Anthropic and hosts of its models, of OpenAI's Responses API, and of Gemini, in this order. */
const foreignReasoning =
  /invalid [`'"]?(?:signature|data)[`'"]? in [`'"]?(?:redacted_)?thinking[`'"]? block|encrypted content .{0,400}could not be (?:verified|decrypted)|encrypted content item_id did not match|(?:corrupted|invalid) thought[ _]signature|thought[ _]signature is (?:not valid|invalid)/is

/** Characters of a text that are read. */
const mostRead = 4000

/** Whether the provider cannot read signed or encrypted reasoning of the request. */
const rejectsReasoning = ({ codes = [], inner = "", message }: ErrorDetails): boolean =>
  codes.includes("invalid_encrypted_content") ||
  [message, inner].some((text) => foreignReasoning.test(text.slice(0, mostRead)))

const optionally = (retryAfterMs: number | undefined) =>
  retryAfterMs === undefined ? {} : { retryAfterMs: bounded(retryAfterMs) }

const reasonOfStatus = (
  { status }: Refusal,
  { deployment }: Target,
  details: ErrorDetails,
  detail: string,
  retryAfterMs: number | undefined
): InferenceError.Reason => {
  const { path } = details
  if (status === 401 || status === 403) return new InferenceError.AuthenticationFailed({ deployment, status })
  if (status === 429) return new InferenceError.RateLimited({ deployment, ...optionally(retryAfterMs) })
  if (isRequestError(status)) {
    return new InferenceError.InvalidRequest({
      detail,
      ...(path === undefined ? {} : { path }),
      ...(rejectsReasoning(details) ? { isForeignReasoning: true } : {})
    })
  }
  const kind = status >= 300 && status < 400 ? "redirect" as const : "status" as const
  return new InferenceError.UpstreamFailed({ deployment, kind, status, detail, ...optionally(retryAfterMs) })
}

/**
 * The reason of an error response: by its code or type, by its message, else by its status.
 *
 * @param retryAfterMs default from headers and body
 */
export const reasonOf = (
  refusal: Refusal,
  target: Target,
  details: ErrorDetails,
  retryAfterMs = retryAfterOf(refusal)
): InferenceError.Reason => {
  const { status } = refusal
  const { deployment } = target
  const detail = detailOf(refusal, details)
  switch (meaningOf({ status, codes: details.codes ?? [], message: details.message })) {
    case "context":
      return contextExceeded(target, details)
    case "content":
      return new InferenceError.ContentRefused({ deployment, detail })
    case "quota":
      return new InferenceError.AuthenticationFailed({ deployment, status, quota: true })
    case "rate":
      return new InferenceError.RateLimited({ deployment, ...optionally(retryAfterMs) })
    case "overloaded":
      // 429 concerns the key; any other status is no better than Anthropic's own for this.
      return reasonOfStatus(
        { ...refusal, status: status === 429 ? 429 : 529 },
        target,
        { message: "" },
        detail,
        retryAfterMs
      )
    case undefined:
      return reasonOfStatus(refusal, target, details, detail, retryAfterMs)
  }
}

/**
 * The reason of an error in a successful response, or within a stream.
 *
 * @param status from the error, if it has one
 */
export const inBandReason = (
  body: unknown,
  target: Target,
  details: ErrorDetails,
  status: number | undefined
): InferenceError.Reason => {
  const reason = reasonOf({ status: status ?? 500, headers: {}, body, now: 0 }, target, details)
  if (reason._tag !== "UpstreamFailed") return reason
  const detail = details.message === "" ? "it sent an error in a successful response." : brief(details.message)
  const { deployment } = target
  const { retryAfterMs } = reason
  return new InferenceError.UpstreamFailed({
    deployment,
    kind: "status",
    detail,
    ...(status === undefined ? {} : { status }),
    ...optionally(retryAfterMs)
  })
}

/** The response does not follow the dialect. */
export const malformed = ({ deployment }: Target, what: string): InferenceError.Reason =>
  new InferenceError.UpstreamFailed({ deployment, kind: "malformed", detail: `invalid response: ${what}.` })

/** The response ended early. */
export const cut = ({ deployment }: Target): InferenceError.Reason =>
  new InferenceError.UpstreamFailed({ deployment, kind: "cut", detail: "the response ended early." })

/** The response is complete and has no content. */
export const empty = ({ deployment }: Target): InferenceError.Reason =>
  new InferenceError.UpstreamFailed({ deployment, kind: "empty", detail: "the response has no content." })

/** The provider's API cannot express it. */
export const notSupported = ({ deployment }: Target, path: string, detail: string): InferenceError.Reason =>
  new InferenceError.NotSupported({ deployment, path, detail })
