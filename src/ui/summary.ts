/** Figures of a decision record. */
import type { Attempt, Record as Decision } from "../services/routing/DecisionRecord.ts"

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
