/** What goes wrong at Anthropic's Messages API, by status and within streams. Pure. */
import type { Reason } from "../../services/InferenceError.ts"
import * as InferenceError from "../../services/InferenceError.ts"
import type { Refusal, Target } from "./Dialect.ts"
import { textAt } from "./Json.ts"
import { type Found, reasonOf, retryAfterOf } from "./Refusals.ts"

/** The statuses that the types of errors come with, where one comes within a stream. */
const statuses: Readonly<Record<string, number>> = {
  invalid_request_error: 400,
  authentication_error: 401,
  billing_error: 402,
  permission_error: 403,
  not_found_error: 404,
  request_too_large: 413,
  rate_limit_error: 429,
  api_error: 500,
  timeout_error: 504,
  overloaded_error: 529
}

const resets = ["requests", "tokens", "input-tokens", "output-tokens"].map(
  (what) => [`anthropic-ratelimit-${what}-remaining`, `anthropic-ratelimit-${what}-reset`] as const
)

/** Prompt and window; the second also where the prompt leaves too little room for `max_tokens`. */
const unfit = [
  /prompt is too long: (\d+) tokens > (\d+)/,
  /input length and `max_tokens` exceed context limit: (\d+) \+ \d+ > (\d+)/
]

const contextLengthOf = (message: string): Found["contextLength"] => {
  const figures = unfit.map((words) => words.exec(message)).find((match) => match !== null)
  if (figures !== undefined) return { promptTokens: Number(figures[1]), contextWindow: Number(figures[2]) }
  return /prompt is too long/i.test(message) ? true : undefined
}

export const failure = (refusal: Refusal, target: Target): Reason => {
  const message = textAt(refusal.body, "error", "message") ?? ""
  // It is told with status 400, and is no mistake of the request's.
  if (/credit balance is too low/i.test(message)) {
    return new InferenceError.AuthenticationFailed({ deployment: target.deployment, status: refusal.status })
  }
  const isCallers = refusal.status === 400 || refusal.status === 413
  return reasonOf(
    refusal,
    target,
    { message, contextLength: isCallers ? contextLengthOf(message) : undefined },
    retryAfterOf(refusal, resets)
  )
}

/** Of an event whose type is `error`. */
export const inBand = (body: unknown, target: Target): Reason => {
  const type = textAt(body, "error", "type") ?? ""
  const status = Object.hasOwn(statuses, type) ? statuses[type]! : 500
  return failure({ status, headers: {}, body, now: 0 }, target)
}
