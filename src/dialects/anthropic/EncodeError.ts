/** Encodes errors of the Anthropic dialect: the status and the body of each reason. Pure. */
import * as ErrorCatalog from "../../domain/ErrorCatalog.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import { codeOf } from "../openai/EncodeError.ts"
import type { ErrorBody } from "./Schema.ts"

/** An error response. */
export interface AnthropicError {
  readonly status: number
  readonly body: ErrorBody
  readonly headers: Readonly<Record<string, string>>
}

/** Source: Anthropic's page on errors. */
const types: Readonly<Record<number, string>> = {
  400: "invalid_request_error",
  401: "authentication_error",
  402: "billing_error",
  403: "permission_error",
  404: "not_found_error",
  413: "request_too_large",
  429: "rate_limit_error",
  500: "api_error",
  504: "timeout_error",
  529: "overloaded_error"
}

/**
 * @param message for people: what was wrong, the limit and what to do
 * @param code of `docs/errors.md`, if the error has one
 */
export const make = (
  status: number,
  message: string,
  id: string,
  headers: Readonly<Record<string, string>> = {},
  code?: string | null
): AnthropicError => ({
  status,
  headers,
  body: {
    type: "error",
    error: {
      type: types[status] ?? (status < 500 ? "invalid_request_error" : "api_error"),
      message: Text.cut(message, Text.longestMessage),
      ...(code === undefined || code === null ? {} : { doc_url: ErrorCatalog.pathOf(code) })
    },
    request_id: id
  }
})

type Options = readonly [status: number, retryAfterMs?: number | undefined]

type Named<Tag> = Extract<Reason, { readonly _tag: Tag }>

const options: { readonly [Tag in Reason["_tag"]]: (reason: Named<Tag>) => Options } = {
  InvalidRequest: () => [400],
  ModelNotFound: () => [404],
  ContextLengthExceeded: () => [400],
  QueueFull: ({ retryAfterMs }) => [429, retryAfterMs],
  Overloaded: ({ retryAfterMs }) => [529, retryAfterMs],
  DeploymentDown: ({ retryAfterMs }) => [529, retryAfterMs],
  InsufficientMemory: () => [529],
  EngineHung: () => [500, 0],
  ModelLoadFailed: () => [500],
  EngineMissing: () => [500],
  EngineCrashed: () => [500, 0],
  EngineStopped: () => [529, 0],
  EngineFailed: () => [500],
  UpstreamFailed: ({ retryAfterMs, status }) => [status === 529 ? 529 : 500, retryAfterMs],
  UpstreamTimeout: () => [504],
  RateLimited: ({ retryAfterMs }) => [429, retryAfterMs ?? 0],
  Unauthenticated: () => [401],
  Forbidden: () => [403],
  LimitExceeded: ({ most, needed = 1, retryAfterMs }) => [429, needed > most ? undefined : retryAfterMs ?? 1_000],
  BudgetExceeded: () => [402],
  AuthenticationFailed: ({ quota, retryAfterMs }) => quota === true ? [402] : [500, retryAfterMs],
  ContentRefused: () => [400],
  HookFailed: () => [503, 0],
  NotSupported: () => [400],
  CircuitOpen: ({ retryAfterMs }) => [529, retryAfterMs],
  NoDeployment: ({ retryAfterMs }) => [529, retryAfterMs]
}

const optionsIn = (reason: Reason): Options => (options[reason._tag] as (reason: Reason) => Options)(reason)

/** The status of a response with this reason. */
export const statusOf = (reason: Reason): number => optionsIn(reason)[0]

const messageOf = (reason: Reason): string => {
  if (reason._tag !== "ContextLengthExceeded") return reason.message
  // Anthropic's own text: clients recognize it and shorten the conversation.
  return reason.promptTokens === undefined || reason.contextWindow === undefined
    ? "prompt is too long: it does not fit the context window"
    : `prompt is too long: ${reason.promptTokens} tokens > ${reason.contextWindow} maximum`
}

/** With this code, Anthropic's clients send the whole conversation instead. */
const unthreaded = ({ body, ...rest }: AnthropicError): AnthropicError => ({
  ...rest,
  body: { ...body, error: { ...body.error, details: { error_code: "thread_unsupported_request" } } }
})

/** @param reason its path has the dialect's names already */
export const fromReason = (reason: Reason, id: string): AnthropicError => {
  const [status, retryAfterMs] = optionsIn(reason)
  const headers = retryAfterMs === undefined
    ? {}
    : { "retry-after": String(Math.max(1, Math.ceil(retryAfterMs / 1000))) }
  const error = make(status, messageOf(reason), id, headers, codeOf(reason))
  return reason._tag === "InvalidRequest" && reason.path === "thread" ? unthreaded(error) : error
}
