/**
 * Failures as the AI SDK's `APICallError`, with the status that Troupe's HTTP interface would have.
 *
 * **Details**
 *
 * `isRetryable` is true where the same call may succeed later, so that `maxRetries` of the AI SDK does not repeat calls in
 * vain; a wait that is known is in `responseHeaders["retry-after"]`. `data` is the reason, with its fields, and `cause` the
 * `InferenceError`.
 */
import { APICallError } from "@ai-sdk/provider"
import * as EncodeError from "../../dialects/openai/EncodeError.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import { InferenceError } from "../../domain/InferenceError.ts"

/** Reasons with a status that is usually retried, which stay until an operator changes something. */
const lasting: ReadonlySet<Reason["_tag"]> = new Set<Reason["_tag"]>([
  "EngineMissing",
  "InsufficientMemory",
  "ModelLoadFailed"
])

/** Reasons that end at a time which the reason names, and otherwise last. */
const timed: ReadonlySet<Reason["_tag"]> = new Set<Reason["_tag"]>(["AuthenticationFailed", "NoDeployment"])

const isTransient = (status: number): boolean => status === 408 || status === 409 || status === 429 || status >= 500

const isRetryable = ({ _tag }: Reason, { headers, status }: EncodeError.OpenAiError): boolean => {
  if (lasting.has(_tag) || headers["x-should-retry"] === "false") return false
  return timed.has(_tag) ? headers["retry-after"] !== undefined : isTransient(status)
}

/** Paths of Troupe's requests stay: the program has no body of another API. */
const names = { prompt: "messages", rename: (path: string) => path }

/** The failure of a call; what is no failure of Troupe, such as the reason of an aborted signal, stays as it is. */
export const toFailure = (error: unknown, model: string, request: unknown): unknown => {
  if (!(error instanceof InferenceError)) return error
  const { attempts, decision, reason } = error
  const encoded = EncodeError.fromReason(reason, names)
  return new APICallError({
    message: error.message,
    url: `troupe:${model}`,
    requestBodyValues: request,
    statusCode: encoded.status,
    responseHeaders: {
      ...encoded.headers,
      ...(decision === undefined ? {} : { "x-troupe-decision": decision }),
      ...(attempts === undefined ? {} : { "x-troupe-attempts": String(attempts.length) })
    },
    responseBody: JSON.stringify(encoded.body),
    isRetryable: isRetryable(reason, encoded),
    data: reason,
    cause: error
  })
}
