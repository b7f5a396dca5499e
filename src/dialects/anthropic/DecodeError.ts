/** What goes wrong at Anthropic's Messages API, by status and within streams. Pure. */
import type { Reason } from "../../domain/InferenceError.ts"
import { type Found, reasonOf, statusOf } from "../shared/ErrorMapping.ts"
import { textAt } from "../shared/Json.ts"
import type { Refusal, Target } from "../shared/ProviderDialect.ts"

const foundIn = (body: unknown): Found => ({
  message: textAt(body, "error", "message") ?? textAt(body, "message") ?? "",
  codes: [textAt(body, "error", "type"), textAt(body, "error", "details", "error_code")]
})

export const failure = (refusal: Refusal, target: Target): Reason => reasonOf(refusal, target, foundIn(refusal.body))

/** Of an event whose type is `error`. */
export const inBand = (body: unknown, target: Target): Reason =>
  failure({ status: statusOf(textAt(body, "error", "type")) ?? 500, headers: {}, body, now: 0 }, target)
