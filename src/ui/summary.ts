/**
 * A decision record as the line of a list: the service sends ended requests as such lines, and lists records.
 */
import type { Attempt, Record as Decision } from "../services/routing/DecisionRecord.ts"
import type { DecisionSummary } from "../services/routing/DecisionSummary.ts"

/** The attempt whose answer the caller got. */
export const answering = ({ answeredBy, attempts }: Pick<Decision, "answeredBy" | "attempts">): Attempt | undefined =>
  attempts.findLast(({ deployment, firstTokenMs, outcome }) =>
    deployment === answeredBy && (firstTokenMs !== undefined || outcome === "answered")
  )

/** From the arrival of the request to the first content of its answer, ms. */
export const firstTokenOf = (record: Pick<Decision, "answeredBy" | "attempts">): number | undefined => {
  const attempt = answering(record)
  return attempt?.firstTokenMs === undefined ? undefined : attempt.startedMs + attempt.firstTokenMs
}

const waitedOf = ({ attempts }: Pick<Decision, "attempts">): number | undefined => {
  const waits = attempts.flatMap(({ grantedMs }) => grantedMs ?? [])
  return waits.length === 0 ? undefined : waits.reduce((sum, ms) => sum + ms, 0)
}

/** The fields that records and lines share. */
const shared = [
  "requestId",
  "dialect",
  "tookMs",
  "inputTokens",
  "outputTokens",
  "usd",
  "tenant",
  "key",
  "cache"
] as const satisfies ReadonlyArray<keyof Decision & keyof DecisionSummary>

const defined = (fields: object): object =>
  Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined))

export const summaryOf = (record: Decision): DecisionSummary => {
  const { answeredBy, at, attempts, end, error, id, model, operation } = record
  const optional = {
    ...Object.fromEntries(shared.map((name) => [name, record[name]])),
    deployment: answeredBy ?? attempts.at(-1)?.deployment,
    firstTokenMs: firstTokenOf(record),
    waitedMs: waitedOf(record),
    error: end === "failure" ? error : undefined
  }
  return {
    id,
    at,
    operation,
    model,
    status: end ?? "running",
    attempts: attempts.length,
    failed: attempts.flatMap(({ deployment, outcome }) => outcome === "failed" ? [deployment] : []),
    ...defined(optional)
  }
}
