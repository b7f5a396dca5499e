/** Encodes errors of the OpenAI dialect: the status and the body of each reason. Pure. */
import * as ErrorCatalog from "../../domain/ErrorCatalog.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as Text from "../../domain/Text.ts"
import type { ErrorNames } from "../shared/FieldNames.ts"
import type { ErrorBody } from "./Schema.ts"

/** An error response. */
export interface OpenAiError {
  readonly status: number
  readonly body: ErrorBody
  readonly headers: Readonly<Record<string, string>>
}

interface Options {
  readonly status: number
  readonly type: "invalid_request_error" | "rate_limit_error" | "server_error" | "insufficient_quota"
  readonly code: string | null
  readonly param?: string | null
  readonly headers?: Readonly<Record<string, string>>
}

/** @param message for people: what was wrong, the limit and what to do */
export const make = (message: string, { code, headers = {}, param = null, status, type }: Options): OpenAiError => ({
  status,
  headers,
  body: {
    error: {
      message: Text.cut(message, Text.longestMessage),
      type,
      param: param === null ? null : Text.cut(param, Text.longestPath),
      code,
      doc_url: ErrorCatalog.pathOf(code ?? ErrorCatalog.withoutCode)
    }
  }
})

const invalid = (code: string | null, param: string | null, status = 400): Options => ({
  status,
  type: "invalid_request_error",
  code,
  param
})

const server = (status: number, code: string, headers: Readonly<Record<string, string>> = {}): Options => ({
  status,
  type: "server_error",
  code,
  headers
})

const after = (ms: number) => ({ "retry-after": String(Math.max(1, Math.ceil(ms / 1000))) })
const soon = after(0)

const tooMany = (code: string, retryAfterMs: number): Options => ({
  status: 429,
  type: "rate_limit_error",
  code,
  headers: after(retryAfterMs)
})

/** As OpenAI's API; OpenAI's clients retry a 429 unless this header forbids it. */
const noQuota: Options = {
  status: 429,
  type: "insufficient_quota",
  code: "insufficient_quota",
  headers: { "x-should-retry": "false" }
}

/** A provider's 529 becomes 503: OpenAI's API has no 529. */
const upstreamFailed = ({ retryAfterMs, status }: Named<"UpstreamFailed">): Options =>
  server(
    status === 529 ? 503 : 502,
    status === 529 ? "upstream_overloaded" : "upstream_failed",
    retryAfterMs === undefined ? {} : after(retryAfterMs)
  )

type Named<Tag> = Extract<Reason, { readonly _tag: Tag }>

const options: { readonly [Tag in Reason["_tag"]]: (reason: Named<Tag>, names: ErrorNames) => Options } = {
  InvalidRequest: ({ path, rule }, { rename }) =>
    invalid(rule === undefined ? null : "content_policy_violation", path === undefined ? null : rename(path)),
  ModelNotFound: () => invalid("model_not_found", "model", 404),
  ContextLengthExceeded: (_, { prompt }) => invalid("context_length_exceeded", prompt),
  QueueFull: ({ retryAfterMs }) => tooMany("queue_full", retryAfterMs),
  Overloaded: ({ budgets, retryAfterMs }) =>
    budgets === undefined ? tooMany("overloaded", retryAfterMs) : server(503, "overloaded", after(retryAfterMs)),
  DeploymentDown: ({ retryAfterMs }) => server(503, "deployment_down", after(retryAfterMs)),
  InsufficientMemory: () => server(503, "insufficient_memory"),
  EngineHung: () => server(503, "engine_hung", soon),
  ModelLoadFailed: () => server(503, "model_load_failed"),
  EngineMissing: () => server(503, "engine_missing"),
  EngineCrashed: () => server(503, "engine_crashed", soon),
  EngineStopped: ({ by }) => server(503, by === "shutdown" ? "shutting_down" : "engine_stopped", soon),
  EngineFailed: () => server(500, "engine_failed"),
  UpstreamFailed: upstreamFailed,
  UpstreamTimeout: () => server(504, "upstream_timeout"),
  RateLimited: ({ retryAfterMs }) => tooMany("rate_limit_exceeded", retryAfterMs ?? 0),
  Unauthenticated: () => ({ ...invalid("invalid_api_key", null, 401), headers: { "www-authenticate": "Bearer" } }),
  // As OpenAI's API for a project without access to a model.
  Forbidden: ({ model }) =>
    model === undefined ? invalid("forbidden", null, 403) : invalid("model_not_found", "model", 403),
  LimitExceeded: ({ most, needed = 1, retryAfterMs }) =>
    needed > most
      ? { ...tooMany("rate_limit_exceeded", 0), headers: { "x-should-retry": "false" } }
      : tooMany("rate_limit_exceeded", retryAfterMs ?? 1_000),
  BudgetExceeded: () => noQuota,
  AuthenticationFailed: ({ quota, retryAfterMs }) =>
    quota === true
      ? noQuota
      : server(502, "upstream_authentication_failed", retryAfterMs === undefined ? {} : after(retryAfterMs)),
  ContentRefused: () => invalid("content_policy_violation", null),
  HookFailed: () => server(503, "input_policy_failed", soon),
  NotSupported: ({ path }, { rename }) => invalid("not_supported", rename(path)),
  CircuitOpen: ({ retryAfterMs }) => server(503, "circuit_open", after(retryAfterMs)),
  NoDeployment: ({ retryAfterMs }) =>
    server(503, "no_deployment", retryAfterMs === undefined ? {} : after(retryAfterMs))
}

/** The message, with the endpoint's name of the field instead of the core's. */
const messageOf = (reason: Reason, { rename }: ErrorNames): string => {
  if (reason._tag === "InvalidRequest") return reason.renamed(rename).message
  const path = "path" in reason ? reason.path : undefined
  const { message } = reason
  return path !== undefined && message.startsWith(`${path}: `)
    ? `${rename(path)}${message.slice(path.length)}`
    : message
}

const optionsFor = (reason: Reason, names: ErrorNames): Options => {
  const optionsOf = options[reason._tag] as (reason: Reason, names: ErrorNames) => Options
  return optionsOf(reason, names)
}

const coreNames: ErrorNames = { prompt: "messages", rename: (path) => path }

/** The code of a reason in `docs/errors.md`, in all dialects. */
export const codeOf = (reason: Reason): string => optionsFor(reason, coreNames).code ?? ErrorCatalog.withoutCode

/** The HTTP status of a reason. */
export const statusOf = (reason: Reason): number => optionsFor(reason, coreNames).status

/** @param endpoint the field names of the endpoint */
export const fromReason = (reason: Reason, endpoint: ErrorNames): OpenAiError => {
  const isInBody = reason._tag === "InvalidRequest" && reason.inBody === true
  const names: ErrorNames = isInBody ? { ...endpoint, rename: (path) => path } : endpoint
  return make(messageOf(reason, names), optionsFor(reason, names))
}
