/** The OpenAI dialect as all its endpoints speak it. */
import { HttpServerResponse } from "effect/http"
import type { Reason } from "../../services/InferenceError.ts"
import type { Fields } from "./Fields.ts"
import type { Dialect, Trouble } from "./Handler.ts"
import * as OpenAiError from "./OpenAiError.ts"
import { bearerTokenOf } from "./Standing.ts"

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
