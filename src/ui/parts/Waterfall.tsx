/** The attempts of a request as bars on one scale of time. */
import type { Attempt } from "../../services/routing/DecisionRecord.ts"
import type { Kind, Piece } from "../bars.ts"
import { names, piecesOf, wordsOf } from "../bars.ts"
import { pauseBefore } from "../explain.ts"
import { duration } from "../format.ts"
import { Badge } from "./Basics.tsx"

const shareOf = (ms: number, total: number): string => `${total <= 0 ? 0 : Math.min(100, (ms / total) * 100)}%`

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
