/** The log entry of a request that has ended: see `RequestLog`. */
import { Exit, Option } from "effect"
import type { InferenceError } from "../../domain/InferenceError.ts"
import type { Outcome } from "../observability/Metrics.ts"
import type { Entry } from "../observability/RequestLog.ts"
import { failureOf } from "../observability/RequestLog.ts"
import type { Draft } from "../routing/DecisionLog.ts"
import type { RequestState } from "./RequestTelemetry.ts"

/** What the entry says of a failure; of a defect, its status. */
const failed = (exit: Exit.Exit<unknown, InferenceError>, { dialect }: Draft): Partial<Entry> => {
  const error = Exit.findErrorOption(exit)
  return Option.isSome(error)
    ? failureOf(error.value.reason, dialect)
    : { error: "Defect", status: 500, code: "internal_error", detail: "It ended in a defect." }
}

export const entryOf = (
  { end, model, operation, tokens, usd }: Outcome,
  { record, stats: { promptTokens, server } }: RequestState,
  exit: Exit.Exit<unknown, InferenceError>
): Entry => {
  const entry: Entry = {
    operation,
    model,
    end,
    decision: record.id,
    deployment: server?.id,
    attempts: record.attempts.length,
    cache: record.cache,
    ms: record.tookMs ?? 0,
    firstTokenMs: record.attempts.at(-1)?.firstTokenMs,
    inputTokens: promptTokens,
    outputTokens: tokens,
    usd,
    unpriced: record.unpriced,
    error: undefined,
    key: record.key,
    check: record.check
  }
  return end === "failure" ? { ...entry, ...failed(exit, record) } : entry
}
