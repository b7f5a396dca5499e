/** The Anthropic dialect as all its endpoints speak it. */
import { HttpServerResponse } from "effect/http"
import * as AnthropicError from "../../dialects/anthropic/EncodeError.ts"
import { bearerTokenOf } from "../../dialects/shared/CallerIdentity.ts"
import type { Trouble } from "../../dialects/shared/HttpProblem.ts"
import type { Dialect } from "./Endpoint.ts"

/** 503 is not among the dialect's statuses: who cannot answer now is overloaded. */
export const failure = ({ headers, message, status }: Trouble, id: string): AnthropicError.AnthropicError =>
  AnthropicError.make(status === 503 ? 529 : status, message, id, headers)

const apiKeyOf = (value: string | undefined): string | undefined => value?.trim() || undefined

export const dialect: Dialect = {
  failure,
  identify: (response, id) => HttpServerResponse.setHeaders(response, { "request-id": id, "x-request-id": id }),
  keyOf: (headers) => apiKeyOf(headers["x-api-key"]) ?? bearerTokenOf(headers["authorization"])
}
