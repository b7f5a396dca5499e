/** What goes wrong at the Gemini API, by status and within streams. Pure. */
import type { Reason } from "../../domain/InferenceError.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import { brief, reasonOf, statusOf } from "../shared/ErrorMapping.ts"
import { at, listAt, textAt } from "../shared/Json.ts"
import type { Refusal, Target } from "../shared/ProviderDialect.ts"

/** Where it is told that the key is wrong, with status 400. */
const isOfKey = (details: ReadonlyArray<unknown>): boolean =>
  details.some((detail) => textAt(detail, "reason")?.startsWith("API_KEY_") === true)

export const failure = (refusal: Refusal, target: Target): Reason => {
  const { status } = refusal
  const { deployment } = target
  const body = Array.isArray(refusal.body) ? refusal.body[0] : refusal.body
  const details = listAt(body, "error", "details")
  const message = textAt(body, "error", "message") ?? ""
  if (isOfKey(details)) return new InferenceError.AuthenticationFailed({ deployment, status })
  // Where the host is, or that nobody pays, is no mistake of the request's.
  if (textAt(body, "error", "status") === "FAILED_PRECONDITION") {
    return new InferenceError.UpstreamFailed({
      deployment,
      kind: "status",
      status,
      detail: `${brief(message)} (HTTP status ${status})`
    })
  }
  return reasonOf(refusal, target, { message, codes: [textAt(body, "error", "status")] })
}

/** Of an error that comes in the place of an answer. */
export const inBand = (body: unknown, target: Target): Reason =>
  failure({
    status: statusOf(at(body, "error", "code"), at(body, "error", "status")) ?? 500,
    headers: {},
    body,
    now: 0
  }, target)
