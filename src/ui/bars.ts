/** The bar of an attempt in the waterfall of its request: pauses, waits, until the first token, and after it. Pure. */
import type { Attempt } from "../services/routing/DecisionRecord.ts"
import { duration } from "./format.ts"

/** A wait for a slot, or a pause, that is shorter is not worth a word, ms. */
const shortest = 1

/** What happened in an attempt. */
export const wordsOf = (
  { firstTokenMs, grantedMs = 0, hedge, outcome, startedMs, tookMs }: Attempt,
  pauseMs: number
): string =>
  [
    `started at ${duration(startedMs)}`,
    ...(pauseMs > shortest ? [`after a pause of ${duration(pauseMs)}`] : []),
    ...(grantedMs > shortest ? [`waited ${duration(grantedMs)} for a slot or the load`] : []),
    ...(hedge === true ? ["beside the attempt before it"] : []),
    ...(firstTokenMs === undefined ? [] : [`first token after ${duration(firstTokenMs)}`]),
    tookMs === undefined ? "still running" : `${outcome} after ${duration(tookMs)}`,
    ...(outcome === "answered" && firstTokenMs === undefined ? ["not streamed"] : [])
  ].join(", ")

/** The parts of a bar, by their class, with their names in the legend. */
export const names = {
  slot: "waits for limits, a slot or the load",
  pause: "pause between attempts",
  first: "until the first token",
  after: "after the first token",
  whole: "the whole answer, not streamed",
  running: "runs",
  failed: "failed",
  left: "given up"
} as const
export type Kind = keyof typeof names

export interface Piece {
  readonly kind: Kind
  /** ms after the request arrived */
  readonly from: number
  readonly tookMs: number
}

/** What an attempt was doing after it had its slot and before its first token, or until its end. */
const firstKind = ({ firstTokenMs, outcome }: Attempt): Kind => {
  if (outcome !== "answered") return outcome
  return firstTokenMs === undefined ? "whole" : "first"
}

/** @param total time of the request, ms */
export const piecesOf = (attempt: Attempt, pauseMs: number, total: number): ReadonlyArray<Piece> => {
  const { firstTokenMs, grantedMs = 0, outcome, startedMs, tookMs } = attempt
  const took = tookMs ?? total - startedMs
  const granted = Math.min(grantedMs, took)
  const first = Math.min(firstTokenMs ?? took, took)
  const pieces: ReadonlyArray<Piece> = [
    { kind: "pause", from: startedMs - pauseMs, tookMs: pauseMs > shortest ? pauseMs : 0 },
    { kind: "slot", from: startedMs, tookMs: granted },
    { kind: firstKind(attempt), from: startedMs + granted, tookMs: first - granted },
    { kind: outcome === "answered" ? "after" : outcome, from: startedMs + first, tookMs: took - first }
  ]
  return pieces.filter((piece) => piece.tookMs > 0)
}
