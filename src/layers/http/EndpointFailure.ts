/**
 * Responses to requests that fail before an answer, in the shape of their dialect and with the id that the log has.
 *
 * **Details**
 *
 * A failure that no operation has recorded is recorded as that of a refused request. Defects are logged with their cause. Without a
 * log of requests (`logRequests`), failures of the service have an entry of their own, and a caller's own mistakes have none.
 */
import { Cause, Effect, Option } from "effect"
import type { HttpServerResponse } from "effect/http"
import { codeOf } from "../../dialects/openai/EncodeError.ts"
import { isCancellation } from "../../domain/FailureClass.ts"
import type { Identity } from "../../domain/Identity.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import * as Text from "../../domain/Text.ts"
import type { Refusal } from "../../services/guard/SecurityEvents.ts"
import { Refusals } from "../../services/guard/SecurityEvents.ts"
import type { Models } from "../../services/models/Models.ts"
import { warnAlone } from "../../services/observability/RequestLog.ts"
import type { Conventions, ErrorResponse, HttpProblem } from "./Dialect.ts"
import { respondError } from "./Dialect.ts"
import * as EarlyRefusals from "./EarlyRefusals.ts"
import * as LimitHeaders from "./LimitHeaders.ts"
import type * as RequestBody from "./RequestBody.ts"

/** Why a request has no answer. */
export type Failure = InferenceError.InferenceError | InferenceError.InvalidRequest | RequestBody.BodyReadError

/** The response to a defect. */
export const internalError: HttpProblem = {
  status: 500,
  code: "internal_error",
  message: "The service failed with an internal error. Its log has the details."
}

type Headers = Readonly<Record<string, string>>

/** The number of attempts and the id of the decision record; of a request that was not routed, the limit that rejected it. */
export const errorHeaders = (
  { attempts, decision, reason, started = attempts?.length ?? 1 }: InferenceError.InferenceError
): Headers =>
  decision === undefined
    ? reason._tag === "LimitExceeded" ? LimitHeaders.ofRejection(reason) : {}
    : { "x-troupe-attempts": String(started), "x-troupe-decision": decision }

/** The ids of a request in log entries: its own, and that of its decision record if it was routed. */
export const logName = (id: string, { "x-troupe-decision": decision }: Headers): string =>
  decision === undefined ? id : `${id} (${decision})`

/** A request that failed. */
export interface FailedRequest {
  readonly id: string
  readonly conventions: Conventions
  readonly bodyProblems: ReturnType<typeof RequestBody.problemsOf>
  /** Encodes an error with the field names of the endpoint. */
  readonly encodeError: (reason: InferenceError.Reason, id: string) => ErrorResponse
  /** Renames paths in the text of an error; undefined if they are those of the body. */
  readonly renamePath: ((text: string) => string) | undefined
  readonly identity: Identity | undefined
  readonly loadingOf: Models["Service"]["loading"]
  /** Records a request that nothing else has recorded. */
  readonly refused: (error: InferenceError.InferenceError, answer: EarlyRefusals.Answer) => void
  /** Whether an operation has had the request, and so has recorded a defect. */
  readonly hasBegun: boolean
}

/** The response to a problem of the HTTP interface itself. */
export const respondProblem = (
  { conventions, id }: Pick<FailedRequest, "conventions" | "id">,
  problem: HttpProblem
): HttpServerResponse.HttpServerResponse =>
  respondError(conventions.encodeProblem(problem, id), conventions.idHeaders(id))

/** As `respondProblem`, of a request that is recorded as refused. */
export const refuse = (
  request: Pick<FailedRequest, "conventions" | "id" | "refused">,
  problem: HttpProblem,
  isNew = true
): HttpServerResponse.HttpServerResponse => {
  const response = respondProblem(request, problem)
  if (isNew) request.refused(EarlyRefusals.errorOf(problem), EarlyRefusals.answerOf(problem, response.status))
  return response
}

const renamed = ({ renamePath }: FailedRequest, reason: InferenceError.Reason): InferenceError.Reason =>
  renamePath === undefined || reason._tag !== "InvalidRequest" || reason.path === undefined
    ? reason
    : reason.renamed(renamePath, renamePath(reason.detail))

/** Failures that are events of security. */
const refusalOf: { readonly [Tag in InferenceError.Reason["_tag"]]?: Refusal } = {
  Forbidden: "access",
  LimitExceeded: "limit",
  BudgetExceeded: "budget"
}

/** Counts and logs a request that the service refuses. */
const noteRefusal = ({ identity }: FailedRequest, { _tag }: InferenceError.Reason): Effect.Effect<void> => {
  const refusal = refusalOf[_tag]
  return refusal === undefined ? Effect.void : Effect.map(Refusals, ({ record }) => record(refusal, { identity }))
}

/** Statuses that tell a client to come back; 529 is Anthropic's for 503. */
const laterStatuses: ReadonlySet<number> = new Set([429, 503, 529])

/** The error with more fields: in the object of the error, or beside its text. */
const withFields = (response: ErrorResponse, fields: Readonly<Record<string, unknown>>): ErrorResponse => {
  const body = response.body as { readonly error?: unknown }
  const { error } = body
  return {
    ...response,
    body: typeof error === "object" ? { ...body, error: { ...error, ...fields } } : { ...body, ...fields }
  }
}

/** At most this many attempts are in the body of an error; the decision record has all. */
const mostAttempts = 20

/** The error with the attempts before it, for those who may see them: administrators, and all where there are no keys. */
const withAttempts = (
  { identity }: FailedRequest,
  attempts: InferenceError.InferenceError["attempts"],
  response: ErrorResponse
): ErrorResponse => {
  if (attempts === undefined || attempts.length === 0 || identity?.isAdmin === false) return response
  const shown = attempts.slice(-mostAttempts).map(({ deployment, reason, tookMs }) => ({
    deployment,
    code: codeOf(reason),
    message: Text.cut(reason.message, Text.longestMessage),
    took_ms: Math.round(tookMs)
  }))
  return withFields(response, { attempts: shown })
}

/** The error with the state of the engine that cannot answer now: in the object of the error, or beside its text. */
const withLoading = (
  { loadingOf }: FailedRequest,
  reason: InferenceError.Reason,
  response: ErrorResponse
): Effect.Effect<ErrorResponse> => {
  if (!laterStatuses.has(response.status) || !("deployment" in reason)) return Effect.succeed(response)
  return Effect.map(loadingOf(reason.deployment), (loading) => {
    return loading === undefined ? response : withFields(response, { loading })
  })
}

const respondReason = (
  request: FailedRequest,
  failed: InferenceError.InferenceError
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const { conventions, encodeError, id } = request
  const headers = errorHeaders(failed)
  const reason = renamed(request, failed.reason)
  const error = withAttempts(request, failed.attempts, encodeError(reason, id))
  if (failed.decision === undefined && failed.refusal === undefined) {
    request.refused(failed, EarlyRefusals.answerTo(reason, error.status))
  }
  const log = error.status >= 500
    ? warnAlone(() => `${logName(id, headers)}: ${ReasonMessage.recorded(reason)}`)
    : noteRefusal(request, reason)
  return Effect.map(
    Effect.andThen(log, withLoading(request, reason, error)),
    (told) => respondError(told, { ...headers, ...conventions.idHeaders(id) })
  )
}

/** The response to a failure; a cancelled request has none. */
export const respondFailure = (
  request: FailedRequest,
  cause: Cause.Cause<Failure>
): Effect.Effect<HttpServerResponse.HttpServerResponse> => {
  const found = Cause.findErrorOption(cause)
  if (Option.isNone(found)) {
    if (isCancellation(cause)) return Effect.failCause(cause as Cause.Cause<never>)
    const response = refuse(request, internalError, !request.hasBegun)
    return Effect.as(Effect.logError(`${request.id} failed with a defect.`, Cause.squash(cause)), response)
  }
  const error = found.value
  switch (error._tag) {
    case "BodyReadError":
      return Effect.succeed(refuse(request, request.bodyProblems[error.kind]))
    case "InvalidRequest":
      return respondReason(request, InferenceError.make(error))
    case "InferenceError":
      return respondReason(request, error)
  }
}
