/** One request: what it was, why it took as long, its attempts, and why its deployments were chosen. */
import { useSignal } from "@preact/signals"
import { useEffect, useRef } from "preact/hooks"
import type { DecisionDetail } from "../../layers/http/AdminSchema.ts"
import type { Candidate, Record as Decision } from "../../services/routing/DecisionRecord.ts"
import { failuresOf, firstTokenOf, mainReason, outcomeOf } from "../explain.ts"
import { cost, count, dateTime, decimal, duration, unknown } from "../format.ts"
import { Badge, Figure, Table } from "../parts/Basics.tsx"
import { Replay } from "../parts/Replay.tsx"
import { Waterfall } from "../parts/Waterfall.tsx"
import { go, hrefOf } from "../route.ts"
import { ask, messageOf } from "../session.ts"

const useRecord = (id: string) => {
  const record = useSignal<DecisionDetail | undefined>(undefined)
  const problem = useSignal<string | undefined>(undefined)
  useEffect(() => {
    let timer: ReturnType<typeof setTimeout> | undefined
    let isOver = false
    const load = async () => {
      try {
        record.value = await ask<DecisionDetail>(`/admin/decisions/${encodeURIComponent(id)}`)
        problem.value = undefined
        // A request that runs is asked for again.
        if (record.value.end === undefined && !isOver) timer = setTimeout(() => void load(), 1_000)
      } catch (error) {
        problem.value = messageOf(error)
      }
    }
    void load()
    return () => {
      isOver = true
      clearTimeout(timer)
    }
  }, [id])
  return { record: record.value, problem: problem.value }
}

const termsOf = ({ terms, unknown: missing }: Candidate): string =>
  [
    ...Object.entries(terms).map(([name, value]) => `${name} ${decimal(value)}`),
    ...missing.map((name) => `${name} not known`)
  ].join(", ")

const Choice = ({ decision, fallbacks, policy }: Pick<Decision, "decision" | "fallbacks" | "policy">) => (
  <section>
    <h3>Why this deployment</h3>
    <p class="muted">
      Policy <strong>{policy}</strong>, strategy <strong>{decision.strategy}</strong>
      {decision.explored === true && "; tried first because it has no measurements yet"}
    </p>
    <Table
      caption="Candidates in the order of the attempts"
      columns={[
        { head: "Candidate", cell: ({ deployment }) => deployment },
        { head: "Score", cell: ({ score }) => decimal(score), isNumber: true },
        { head: "Terms", cell: (one) => termsOf(one) || unknown }
      ]}
      rows={decision.candidates}
      keyOf={({ deployment }) => deployment}
    />
    {decision.excluded.length > 0 && (
      <>
        <h3>Not considered</h3>
        <ul class="plain">
          {decision.excluded.map((one) => (
            <li key={one.deployment}>
              <strong>{one.deployment}</strong> <span class="muted">{one.reason}</span>
            </li>
          ))}
        </ul>
      </>
    )}
    {fallbacks.ordinary.length > 0 && <p class="muted">Fallbacks: {fallbacks.ordinary.join(", ")}</p>}
  </section>
)

/** A price may be unknown; a request without an attempt costs nothing. */
const costOf = ({ attempts, unpriced, usd }: Decision): string => attempts.length === 0 ? unknown : cost(usd, unpriced)

const Figures = ({ record }: { readonly record: Decision }) => (
  <dl class="figures">
    <Figure label="Total" value={duration(record.tookMs)} />
    <Figure label="First token" value={duration(firstTokenOf(record))} />
    <Figure label="Attempts" value={count(record.attempts.length)} />
    <Figure
      label="Tokens"
      value={`${count(record.inputTokens)} + ${count(record.outputTokens)}`}
      hint="prompt + answer"
    />
    <Figure label="Cost" value={costOf(record)} />
  </dl>
)

const originOf = ({ at, check, dialect, key, model, operation, requestId, tenant }: Decision): string =>
  [
    dateTime(at),
    operation,
    `model ${model}`,
    ...(check === undefined ? [] : [check === "health" ? "health check" : "probe of a rollout"]),
    ...(dialect === undefined ? [] : [`dialect ${dialect}`]),
    ...(key === undefined ? [] : [`key ${key}`]),
    ...(tenant === undefined ? [] : [`tenant ${tenant}`]),
    ...(requestId === undefined ? [] : [requestId])
  ].join(" · ")

const Body = ({ record }: { readonly record: DecisionDetail }) => (
  <>
    <p class="muted">{originOf(record)}</p>
    <p class="summary">{outcomeOf(record)} {mainReason(record)}</p>
    {record.end === "failure" && record.error !== undefined && (
      <p class="problem">
        <code>{record.error.reason}</code> {record.error.message}
      </p>
    )}
    {failuresOf(record).map((text, index) => <p key={index} class="problem">{text}</p>)}
    {record.refused !== true && <Figures record={record} />}
    {(record.attempts.length > 0 || record.admissionMs !== undefined) && (
      <section>
        <h3>Attempts</h3>
        <Waterfall admissionMs={record.admissionMs} attempts={record.attempts} tookMs={record.tookMs ?? 0} />
      </section>
    )}
    {record.end !== undefined && record.refused !== true && <Replay key={record.id} record={record} />}
    {record.refused !== true && <Choice {...record} />}
  </>
)

/** Back to the row of the request, once the list is drawn. */
const focusRow = (id: string): void => {
  requestAnimationFrame(() =>
    requestAnimationFrame(() => {
      const link = document.querySelector<HTMLElement>(`.list a[href="${hrefOf("requests", id)}"]`)
      const target = link ?? document.querySelector<HTMLElement>(".list")
      target?.focus()
    })
  )
}

/** The heading takes the focus when a request is shown; Escape closes it. */
const useFocus = (id: string) => {
  const heading = useRef<HTMLHeadingElement>(null)
  useEffect(() => {
    heading.current!.focus()
    const close = ({ defaultPrevented, key }: KeyboardEvent) => {
      if (key !== "Escape" || defaultPrevented || document.querySelector("dialog[open]") !== null) return
      go("requests")
      focusRow(id)
    }
    addEventListener("keydown", close)
    return () => removeEventListener("keydown", close)
  }, [id])
  return heading
}

export const RequestDetail = ({ id }: { readonly id: string }) => {
  const { problem, record } = useRecord(id)
  const heading = useFocus(id)
  return (
    <section class="detail" aria-label="One request">
      <div class="title">
        <h2 ref={heading} tabIndex={-1}>
          Request <code>{id}</code>
        </h2>
        {record?.end !== undefined && <Badge text={record.end} />}
        <span class="space" />
        <a class="button" href={hrefOf("requests")}>Close</a>
      </div>
      {problem !== undefined && <p class="problem" role="alert">{problem}</p>}
      {record !== undefined && <Body record={record} />}
    </section>
  )
}
