/** Why a request failed, as its record has it: without text of a provider or a caller. Pure. */
import * as EncodeError from "../../dialects/openai/EncodeError.ts"
import type { Reason } from "../../domain/InferenceError.ts"
import * as ReasonMessage from "../../domain/ReasonMessage.ts"
import type { End } from "../observability/RequestSpans.ts"
import { errorOf } from "../observability/RequestSpans.ts"
import type { Draft } from "../routing/DecisionLog.ts"

type RecordedError = NonNullable<Draft["error"]>

/** Of a defect, in every dialect. */
const defectStatus = 500

export const ofReason = (reason: Reason): RecordedError => ({
  reason: reason._tag,
  message: ReasonMessage.recorded(reason),
  status: EncodeError.statusOf(reason)
})

/** Undefined: the request has succeeded, or its caller has disconnected. */
export const ofEnd = (end: End): RecordedError | undefined => {
  const error = errorOf(end)
  if (error === undefined) return undefined
  const { message, name, reason } = error
  return { reason: name, message, status: reason === undefined ? defectStatus : EncodeError.statusOf(reason) }
}
