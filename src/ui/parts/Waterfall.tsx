/** The attempts of a request as bars on one scale of time: pauses, waits, until the first token, and after it. */
import type { Attempt } from "../../services/routing/DecisionRecord.ts"
import { pauseBefore } from "../explain.ts"
import { duration } from "../format.ts"
import { Badge } from "./Basics.tsx"

const shareOf = (ms: number, total: number): string => `${total <= 0 ? 0 : Math.min(100, (ms / total) * 100)}%`

/** A wait for a slot, or a pause, that is shorter is not worth a word, ms. */
const shortest = 1

const wordsOf = (
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
const names = {
  slot: "waits for limits, a slot or the load",
  pause: "pause before a retry",
  first: "until the first token",
  after: "after the first token",
  whole: "the whole answer, not streamed",
  running: "runs",
  failed: "failed",
  left: "given up"
} as const
type Kind = keyof typeof names

interface Piece {
  readonly kind: Kind
  readonly from: number
  readonly tookMs: number
}

/** What an attempt was doing after it had its slot and before its first token, or until its end. */
const firstKind = ({ firstTokenMs, outcome }: Attempt): Kind => {
  if (outcome !== "answered") return outcome
  return firstTokenMs === undefined ? "whole" : "first"
}

const piecesOf = (attempt: Attempt, pauseMs: number, total: number): ReadonlyArray<Piece> => {
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

interface Row {
  readonly attempt: Attempt
  readonly pauseMs: number
  readonly pieces: ReadonlyArray<Piece>
}

const Track = (
  { label, pieces, total, words }: {
    readonly label: string
    readonly pieces: ReadonlyArray<Piece>
    readonly total: number
    readonly words: string
  }
) => (
  <div class="track" role="img" aria-label={`${label}: ${words}`} title={words}>
    {pieces.map(({ from, kind, tookMs }) => (
      <span
        key={`${kind} ${from}`}
        class={`bar ${kind}`}
        style={{ left: shareOf(from, total), width: shareOf(tookMs, total) }}
      />
    ))}
  </div>
)

const Step = (
  { index, row: { attempt, pauseMs, pieces }, total }: {
    readonly index: number
    readonly row: Row
    readonly total: number
  }
) => {
  const { deployment, error, hedge, outcome, reasoningDropped, skippedEvents = 0, tookMs } = attempt
  const words = wordsOf(attempt, pauseMs)
  return (
    <li>
      <div class="step">
        <span class="muted">{index + 1}</span>
        <strong>{deployment}</strong>
        <Badge text={outcome} />
        {hedge === true && <Badge text="hedge" tone="info" />}
        <span class="space" />
        <span>{duration(tookMs)}</span>
      </div>
      <Track label={deployment} pieces={pieces} total={total} words={words} />
      <p class="muted times">{words}</p>
      {error !== undefined && (
        <p class="problem">
          <code>{error.reason}</code> {error.message}
        </p>
      )}
      {skippedEvents > 0 && <p class="muted">{skippedEvents} events of its stream were not readable.</p>}
      {reasoningDropped === true && <p class="muted">Reasoning of another provider was left out of the request.</p>}
    </li>
  )
}

/** The time before the request was admitted. */
const Admission = ({ tookMs, total }: { readonly tookMs: number; readonly total: number }) => {
  const words = `waited ${duration(tookMs)} for limits and budgets`
  return (
    <div>
      <div class="step">
        <strong>limits and budgets</strong>
        <span class="space" />
        <span>{duration(tookMs)}</span>
      </div>
      <Track label="limits and budgets" pieces={[{ kind: "slot", from: 0, tookMs }]} total={total} words={words} />
      <p class="muted times">{words}</p>
    </div>
  )
}

const marks = [0, 0.25, 0.5, 0.75, 1]

/** The kinds of bars that there are. */
const Legend = ({ kinds }: { readonly kinds: ReadonlySet<Kind> }) => (
  <ul class="legend muted" aria-hidden="true">
    {(Object.keys(names) as Array<Kind>).filter((kind) => kinds.has(kind)).map((kind) => (
      <li key={kind}>
        <span class={`bar ${kind}`} /> {names[kind]}
      </li>
    ))}
  </ul>
)

export const Waterfall = (
  { admissionMs = 0, attempts, tookMs }: {
    readonly admissionMs?: number | undefined
    readonly attempts: ReadonlyArray<Attempt>
    readonly tookMs: number
  }
) => {
  const total = Math.max(tookMs, ...attempts.map((one) => one.startedMs + (one.tookMs ?? 0)), 0.001)
  const rows = attempts.map((attempt, index): Row => {
    const pauseMs = pauseBefore(attempts, index)
    return { attempt, pauseMs, pieces: piecesOf(attempt, pauseMs, total) }
  })
  const kinds = new Set(rows.flatMap(({ pieces }) => pieces.map(({ kind }) => kind)))
  if (admissionMs > 0) kinds.add("slot")
  return (
    <div class="waterfall">
      <div class="scale" aria-hidden="true">
        {marks.map((mark) => <span key={mark}>{duration(total * mark)}</span>)}
      </div>
      {admissionMs > 0 && <Admission tookMs={admissionMs} total={total} />}
      <ol>
        {rows.map((row, index) => <Step key={index} index={index} row={row} total={total} />)}
      </ol>
      <Legend kinds={kinds} />
    </div>
  )
}
