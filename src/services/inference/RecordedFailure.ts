/**
 * Why an attempt or a request failed, as its record has it: without text of a provider or a caller. Pure.
 *
 * **Details**
 *
 * The error of a request has the HTTP status of OpenAI's dialect as well, by which `RequestStatus` finds it.
 */
import * as EncodeError from "../../dialects/openai/EncodeError.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import type { End } from "../observability/RequestSpans.ts"
import { errorOf } from "../observability/RequestSpans.ts"
import type { AttemptDraft, Draft } from "../routing/DecisionLog.ts"

type RequestError = NonNullable<Draft["error"]>
type AttemptError = NonNullable<AttemptDraft["error"]>

/** Of a defect, in every dialect. */
const defectStatus = 500

/** Of a request that is refused. */
export const ofReason = (reason: Reason): RequestError => ({
  reason: reason._tag,
  message: ReasonMessage.recorded(reason),
  status: EncodeError.statusOf(reason)
})

/** Of a request; undefined: it has succeeded, or its caller has disconnected. */
export const ofRequest = (end: End): RequestError | undefined => {
  const error = errorOf(end)
  if (error === undefined) return undefined
  const { message, name, reason } = error
  return { reason: name, message, status: reason === undefined ? defectStatus : EncodeError.statusOf(reason) }
}

/** Of an attempt; undefined: it has answered, or was given up. */
export const ofAttempt = (end: End): AttemptError | undefined => {
  const error = errorOf(end)
  return error && { reason: error.name, message: error.message }
}
