/** The attempts of a request as bars on one scale of time: until the first token, and after it. */
import type { Attempt } from "../../services/routing/DecisionRecord.ts"
import { duration } from "../format.ts"
import { Badge } from "./Basics.tsx"

const shareOf = (ms: number, total: number): string => `${total <= 0 ? 0 : Math.min(100, (ms / total) * 100)}%`

/** A wait for a slot that is shorter is not worth a word, ms. */
const shortest = 1

const wordsOf = ({ firstTokenMs, grantedMs = 0, hedge, outcome, startedMs, tookMs }: Attempt): string =>
  [
    `started at ${duration(startedMs)}`,
    ...(grantedMs > shortest ? [`waited ${duration(grantedMs)} for a slot or the load`] : []),
    ...(hedge === true ? ["beside the attempt before it"] : []),
    ...(firstTokenMs === undefined ? [] : [`first token after ${duration(firstTokenMs)}`]),
    tookMs === undefined ? "still running" : `${outcome} after ${duration(tookMs)}`
  ].join(", ")

const Bar = ({ attempt, total }: { readonly attempt: Attempt; readonly total: number }) => {
  const { deployment, firstTokenMs, grantedMs = 0, outcome, startedMs, tookMs } = attempt
  const took = tookMs ?? total - startedMs
  const granted = Math.min(grantedMs, took)
  const before = Math.min(firstTokenMs ?? took, took)
  return (
    <div class="track" role="img" aria-label={`${deployment}: ${wordsOf(attempt)}`} title={wordsOf(attempt)}>
      {granted > 0 && (
        <span class="bar slot" style={{ left: shareOf(startedMs, total), width: shareOf(granted, total) }} />
      )}
      <span
        class={`bar wait ${outcome}`}
        style={{ left: shareOf(startedMs + granted, total), width: shareOf(before - granted, total) }}
      />
      {firstTokenMs !== undefined && (
        <span
          class={`bar ${outcome}`}
          style={{ left: shareOf(startedMs + before, total), width: shareOf(took - before, total) }}
        />
      )}
    </div>
  )
}

const Step = (
  { attempt, index, total }: { readonly attempt: Attempt; readonly index: number; readonly total: number }
) => {
  const { deployment, error, hedge, outcome, reasoningDropped, skippedEvents = 0, tookMs } = attempt
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
      <Bar attempt={attempt} total={total} />
      <p class="muted times">{wordsOf(attempt)}</p>
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
      <div class="track" role="img" aria-label={words} title={words}>
        <span class="bar slot" style={{ left: "0%", width: shareOf(tookMs, total) }} />
      </div>
      <p class="muted times">{words}</p>
    </div>
  )
}

const marks = [0, 0.25, 0.5, 0.75, 1]

export const Waterfall = (
  { admissionMs = 0, attempts, tookMs }: {
    readonly admissionMs?: number | undefined
    readonly attempts: ReadonlyArray<Attempt>
    readonly tookMs: number
  }
) => {
  const total = Math.max(tookMs, ...attempts.map((one) => one.startedMs + (one.tookMs ?? 0)), 0.001)
  return (
    <div class="waterfall">
      <div class="scale" aria-hidden="true">
        {marks.map((mark) => <span key={mark}>{duration(total * mark)}</span>)}
      </div>
      {admissionMs > 0 && <Admission tookMs={admissionMs} total={total} />}
      <ol>
        {attempts.map((attempt, index) => <Step key={index} attempt={attempt} index={index} total={total} />)}
      </ol>
      <p class="legend muted" aria-hidden="true">
        <span class="bar slot" /> waits for limits, a slot or the load <span class="bar wait answered" />{" "}
        until the first token <span class="bar answered" /> after it <span class="bar failed wait" /> failed
      </p>
    </div>
  )
}
