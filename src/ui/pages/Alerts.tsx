/** The alerts that fire or are pending, their rules, the webhook, and the latest events. */
import { useSignal } from "@preact/signals"
import type { AlertReport } from "../../services/alerts/AlertNotice.ts"
import { ago, count, decimal, duration, percent, unknown } from "../format.ts"
import { events } from "../live.ts"
import { Badge, Empty, Figure, Table, Title } from "../parts/Basics.tsx"
import type { Tone } from "../parts/Basics.tsx"
import { EventList } from "../parts/EventList.tsx"
import { usePolled } from "../polled.ts"

type Rule = AlertReport["rules"][number]
type Alert = AlertReport["alerts"][number]

const tones: Readonly<Record<Alert["severity"], Tone>> = { info: "info", warning: "warn", critical: "bad" }

/** A value of a metric, with its unit. */
const valueText = (metric: Rule["metric"], value: number): string => {
  if (metric === "error_rate" || metric === "memory_used") return percent(value)
  return metric === "latency_p95" || metric === "first_token_p95" ? duration(value * 1_000) : decimal(value)
}

const Firing = ({ alerts }: Pick<AlertReport, "alerts">) =>
  alerts.length === 0
    ? <Empty title="No alert">No rule is broken now.</Empty>
    : (
      <Table
        caption="Alerts"
        columns={[
          { head: "Alert", cell: ({ rule, target }) => <>{rule}{target !== undefined && <small>{target}</small>}</> },
          { head: "State", cell: ({ state }) => <Badge text={state} /> },
          { head: "Severity", cell: ({ severity }) => <Badge text={severity} tone={tones[severity]} /> },
          { head: "Value", cell: ({ metric, value }) => valueText(metric, value), isNumber: true },
          { head: "Since", cell: ({ since }) => ago(since) }
        ]}
        rows={alerts}
        keyOf={({ alert }) => alert}
      />
    )

const Rules = ({ rules }: Pick<AlertReport, "rules">) => (
  <Table
    caption="Rules"
    columns={[
      {
        head: "Rule",
        cell: ({ rule, targets }) => <>{rule}{targets !== undefined && <small>{targets.join(", ")}</small>}</>
      },
      { head: "Metric", cell: ({ metric }) => metric },
      { head: "Fires from", cell: ({ metric, threshold }) => valueText(metric, threshold), isNumber: true },
      { head: "Clear below", cell: ({ clear, metric }) => valueText(metric, clear), isNumber: true },
      { head: "After", cell: ({ forMs }) => forMs === 0 ? "at once" : duration(forMs), isNumber: true },
      { head: "Window", cell: ({ windowMs }) => windowMs === undefined ? unknown : duration(windowMs), isNumber: true },
      { head: "Severity", cell: ({ severity }) => <Badge text={severity} tone={tones[severity]} /> },
      { head: "Actions", cell: ({ actions }) => actions.join(", ") }
    ]}
    rows={rules}
    keyOf={({ rule }) => rule}
  />
)

const Webhook = ({ webhook }: Pick<AlertReport, "webhook">) => {
  if (webhook === undefined) {
    return (
      <p class="muted">
        No webhook is configured: <code>alerts.webhook</code> in troupe.yaml sets one.
      </p>
    )
  }
  const { delivered, lost, problem, waiting } = webhook
  return (
    <>
      <dl class="figures">
        <Figure label="Delivered" value={count(delivered)} />
        <Figure label="Waiting" value={count(waiting)} />
        <Figure label="Given up" value={count(lost)} {...(lost > 0 ? { tone: "bad" as const } : {})} />
      </dl>
      {problem !== undefined && <p class="problem">The last attempt failed: {problem}</p>}
    </>
  )
}

const Events = () => {
  const kind = useSignal("")
  const all = events.value
  const kinds = [...new Set(all.map((one) => one.kind))].toSorted()
  const shown = kind.value === "" ? all : all.filter((one) => one.kind === kind.value)
  return (
    <>
      <div class="title">
        <h2>Events</h2>
        <label>
          <span class="visually-hidden">Kind of event</span>
          <select value={kind.value} onChange={(event) => (kind.value = event.currentTarget.value)}>
            <option value="">All kinds</option>
            {kinds.map((name) => <option key={name}>{name}</option>)}
          </select>
        </label>
      </div>
      {shown.length === 0
        ? (
          <Empty title="Nothing has happened yet">
            Loads, restarts, circuits, reloads, rollouts and alerts are listed here.
          </Empty>
        )
        : <EventList events={shown.slice(0, 200)} />}
    </>
  )
}

export const Alerts = () => {
  const { problem, value } = usePolled<AlertReport>("/admin/alerts", 3_000)
  return (
    <>
      <Title text="Alerts" />
      {problem !== undefined && <p class="problem" role="alert">{problem}</p>}
      {value !== undefined && (
        <>
          <Firing alerts={value.alerts} />
          <Events />
          <h2>Webhook</h2>
          <Webhook {...value} />
          <h2>Rules</h2>
          <Rules rules={value.rules} />
        </>
      )}
    </>
  )
}
