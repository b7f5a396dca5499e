/**
 * Where the time of a request went and what happened to it, as sentences, from its decision record. Pure.
 *
 * **Details**
 *
 * The time is divided into parts that follow each other and have the request's time as their sum: the wait for limits and budgets, before the first
 * attempt, each attempt that failed, pauses between attempts, the wait for a slot, the wait for the first token, and the answer after it;
 * an answer that is not streamed is one part.
 */
import type { Attempt, Record as Decision } from "../services/routing/DecisionRecord.ts"
import { duration } from "./format.ts"

/** A part of a request's time, ms. */
export interface Part {
  readonly kind: "admission" | "before" | "failed" | "pause" | "slot" | "firstToken" | "answer" | "whole"
  readonly deployment: string | undefined
  readonly tookMs: number
}

const endOf = ({ startedMs, tookMs }: Attempt, total: number): number =>
  tookMs === undefined ? total : startedMs + tookMs

const partsOfAnswer = (attempt: Attempt, from: number, total: number): ReadonlyArray<Part> => {
  const { deployment, firstTokenMs, grantedMs = 0, startedMs } = attempt
  const end = endOf(attempt, total)
  const granted = Math.min(end, Math.max(from, startedMs + grantedMs))
  const slot: Part = { kind: "slot", deployment, tookMs: granted - from }
  if (firstTokenMs === undefined) return [slot, { kind: "whole", deployment, tookMs: end - granted }]
  const first = Math.min(end, Math.max(granted, startedMs + firstTokenMs))
  return [
    slot,
    { kind: "firstToken", deployment, tookMs: first - granted },
    { kind: "answer", deployment, tookMs: end - first }
  ]
}

type Timed = Pick<Decision, "admissionMs" | "attempts" | "tookMs">

/** The parts of the request's time, in order. An attempt beside another counts from when the other one ended. */
export const partsOf = ({ admissionMs = 0, attempts, tookMs }: Timed): ReadonlyArray<Part> => {
  const total = tookMs ?? Math.max(0, ...attempts.map((one) => endOf(one, 0)))
  const parts: Array<Part> = [{ kind: "admission", deployment: undefined, tookMs: admissionMs }]
  let at = admissionMs
  for (const attempt of attempts) {
    if (attempt.startedMs > at) {
      const kind = parts.length === 1 ? "before" : "pause"
      parts.push({ kind, deployment: undefined, tookMs: attempt.startedMs - at })
      at = attempt.startedMs
    }
    const end = endOf(attempt, total)
    if (end <= at) continue
    if (attempt.outcome === "answered") parts.push(...partsOfAnswer(attempt, at, total))
    else parts.push({ kind: "failed", deployment: attempt.deployment, tookMs: end - at })
    at = end
  }
  return parts.filter((part) => part.tookMs > 0)
}

const textOf = ({ deployment, kind, tookMs }: Part): string => {
  const time = duration(tookMs)
  switch (kind) {
    case "admission":
      return `${time} of waiting for limits and budgets`
    case "before":
      return `${time} before the first attempt: checks of the request, cache`
    case "failed":
      return `${time} in an attempt at ${deployment} that did not answer`
    case "pause":
      return `${time} of waiting between attempts`
    case "slot":
      return `${time} of waiting for ${deployment} to be loaded or to have a free slot`
    case "firstToken":
      return `${time} of waiting for the first token of ${deployment}`
    case "whole":
      return `${time} of waiting for the answer of ${deployment}, which was not streamed`
    case "answer":
      return `${time} while ${deployment} was writing the answer`
  }
}

/** The pause before an attempt: from the end of all attempts before it until it began, ms. */
export const pauseBefore = (attempts: ReadonlyArray<Attempt>, index: number): number => {
  const { startedMs } = attempts[index]!
  const ends = attempts.slice(0, index).map((one) => endOf(one, startedMs))
  return ends.length === 0 ? 0 : Math.max(0, startedMs - Math.max(...ends))
}

/** The longest part, with its share of the time: why the request took as long. */
export const mainReason = (record: Timed): string | undefined => {
  const parts = partsOf(record)
  const total = parts.reduce((sum, { tookMs }) => sum + tookMs, 0)
  const [longest] = parts.toSorted((one, other) => other.tookMs - one.tookMs)
  if (longest === undefined || total <= 0) return undefined
  return `Most of the time: ${textOf(longest)} (${Math.round((longest.tookMs / total) * 100)} %).`
}

const failureOf = ({ deployment, error, tookMs }: Attempt): string =>
  `${deployment} failed after ${duration(tookMs)}: ${
    error === undefined ? "no reason is known" : `${error.reason}: ${error.message}`
  }`

/** How the request ended, in a sentence. */
export const outcomeOf = ({ answeredBy, attempts, cache, end, refused, tookMs }: Decision): string => {
  const time = duration(tookMs)
  if (refused === true) {
    return tookMs === undefined || tookMs === 0
      ? "Refused before it was routed: no deployment was considered."
      : `Refused after ${time}, before it was routed: no deployment was considered.`
  }
  const tries = attempts.length === 1 ? "1 attempt" : `${attempts.length} attempts`
  if (end === undefined) return `Running, with ${tries} so far.`
  if (cache !== undefined) return `Answered from the cache (${cache}) in ${time}, without a call.`
  if (end === "success") return `Answered by ${answeredBy ?? "a deployment"} in ${time}, with ${tries}.`
  return end === "interruption"
    ? `The caller disconnected after ${time}, with ${tries}.`
    : `Failed after ${time}, with ${tries}.`
}

/** The attempts that failed, a sentence each. */
export const failuresOf = ({ attempts }: Pick<Decision, "attempts">): ReadonlyArray<string> =>
  attempts.filter(({ outcome }) => outcome === "failed").map(failureOf)

/** The attempt whose answer the caller got. */
const answering = ({ answeredBy, attempts }: Pick<Decision, "answeredBy" | "attempts">): Attempt | undefined =>
  attempts.findLast(({ deployment, firstTokenMs, outcome }) =>
    deployment === answeredBy && (firstTokenMs !== undefined || outcome === "answered")
  )

/** From the arrival of the request to the first content of its answer, ms. */
export const firstTokenOf = (record: Pick<Decision, "answeredBy" | "attempts">): number | undefined => {
  const attempt = answering(record)
  return attempt?.firstTokenMs === undefined ? undefined : attempt.startedMs + attempt.firstTokenMs
}
