/** The OpenAI dialect as all its endpoints speak it. */
import { HttpServerResponse } from "effect/http"
import * as OpenAiError from "../../dialects/openai/EncodeError.ts"
import { bearerTokenOf } from "../../dialects/shared/CallerIdentity.ts"
import type { Fields } from "../../dialects/shared/FieldNames.ts"
import type { Trouble } from "../../dialects/shared/HttpProblem.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import type { Dialect } from "./Endpoint.ts"

export const failure = ({ code, headers, message, status }: Trouble): OpenAiError.OpenAiError =>
  OpenAiError.make(message, {
    status,
    type: status >= 500 ? "server_error" : "invalid_request_error",
    code,
    ...(headers === undefined ? {} : { headers })
  })

/** Of an endpoint with these names. */
export const failureOf = (fields: Fields) => (reason: Reason): OpenAiError.OpenAiError =>
  OpenAiError.fromReason(reason, fields)

export const dialect: Dialect = {
  failure,
  identify: (response, id) => HttpServerResponse.setHeader(response, "x-request-id", id),
  keyOf: (headers) => bearerTokenOf(headers["authorization"])
}
