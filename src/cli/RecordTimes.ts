/**
 * Where the time of a request went: the wait for limits and budgets, the parts of its attempts and the waits between
 * them. Pure.
 *
 * **Details**
 *
 * Parts of attempts that ran at the same time, as a hedge does, overlap.
 */
import type { Attempt, Record as DecisionRecord } from "../services/routing/DecisionRecord.ts"

/** A part of a request's time. */
export interface Part {
  readonly ms: number
  /** As "until chat#0 had a free slot". */
  readonly what: string
}

const partsOf = ({ deployment, firstTokenMs, grantedMs, outcome, tookMs }: Attempt): ReadonlyArray<Part> => {
  const slot = grantedMs ?? 0
  const wait = { ms: slot, what: `until ${deployment} was loaded and had a free slot` }
  if (tookMs === undefined) return [wait]
  if (outcome === "failed" && firstTokenMs === undefined) {
    return [wait, { ms: tookMs - slot, what: `at ${deployment}, which failed` }]
  }
  if (firstTokenMs === undefined) return [wait, { ms: tookMs - slot, what: `for the answer of ${deployment}` }]
  return [
    wait,
    { ms: firstTokenMs - slot, what: `until the first token of ${deployment}` },
    { ms: tookMs - firstTokenMs, what: `from the first token of ${deployment} to its end` }
  ]
}

/** The waits before attempts, in which nothing ran; the first of them is that for limits and budgets. */
const waitsOf = (attempts: ReadonlyArray<Attempt>, admissionMs: number): ReadonlyArray<Part> => {
  let end = admissionMs
  const waits: Array<Part> = admissionMs === 0 ? [] : [{ ms: admissionMs, what: "for limits and budgets" }]
  for (const { deployment, startedMs, tookMs = 0 } of attempts) {
    if (startedMs > end) waits.push({ ms: startedMs - end, what: `before the attempt at ${deployment}` })
    end = Math.max(end, startedMs + tookMs)
  }
  return waits
}

/** The longest part; undefined without an attempt and a wait. */
export const longestPart = (
  { admissionMs = 0, attempts }: Pick<DecisionRecord, "admissionMs" | "attempts">
): Part | undefined =>
  [...attempts.flatMap(partsOf), ...waitsOf(attempts, admissionMs)].toSorted((one, other) => other.ms - one.ms)[0]
