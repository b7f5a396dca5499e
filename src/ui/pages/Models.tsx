/** How each model and each of its deployments did lately: latency, speed, errors and cost. */
import { signal } from "@preact/signals"
import type { Overview } from "../../layers/http/OverviewSchema.ts"
import type { Figures, WindowName } from "../../services/observability/RecentFigures.ts"
import { count, decimal, duration, percent, unknown } from "../format.ts"
import { overview } from "../live.ts"
import { Empty, Figure, Table, Title } from "../parts/Basics.tsx"
import type { Column } from "../parts/Basics.tsx"
import { Histogram } from "../parts/Histogram.tsx"
import { costText, failedShare, figuresFor, windowNames, withinText } from "../recent.ts"
import { hrefOf, route } from "../route.ts"

const window = signal<WindowName>("5m")

/** A model or a deployment in a table. */
interface Line {
  readonly name: string
  readonly href: string | undefined
  readonly figures: Figures | undefined
}

const Failed = ({ figures }: { readonly figures: Figures | undefined }) => {
  const share = failedShare(figures)
  return (
    <span class={(share ?? 0) > 0 ? "problem" : undefined}>
      {count(figures?.failed)} {share !== undefined && share > 0 && `(${percent(share)})`}
    </span>
  )
}

const number = (head: string, text: (figures: Figures | undefined) => string): Column<Line> => ({
  head,
  cell: ({ figures }) => text(figures),
  isNumber: true
})

const columnsOf = (first: string, requests: string): ReadonlyArray<Column<Line>> => [
  { head: first, cell: ({ href, name }) => href === undefined ? name : <a href={href}>{name}</a> },
  number(requests, (one) => count(one?.requests)),
  { head: "Failed", cell: ({ figures }) => <Failed figures={figures} />, isNumber: true },
  number("First token", (one) => duration(one?.firstTokenMs.p50)),
  number("95 %", (one) => duration(one?.firstTokenMs.p95)),
  number("Duration", (one) => duration(one?.durationMs.p50)),
  number("Duration, 95 %", (one) => duration(one?.durationMs.p95)),
  number("Tokens/s", (one) => decimal(one?.tokensPerSecond)),
  number("Tokens written", (one) => count(one?.outputTokens)),
  number("Cost", costText)
]

const linesOfDeployments = (deployments: Overview["deployments"]): ReadonlyArray<Line> =>
  deployments.map(({ deployment, figures }) => ({
    name: deployment,
    href: undefined,
    figures: figuresFor(figures, window.value)
  }))

const Histograms = ({ figures }: { readonly figures: Figures }) => (
  <div class="plots">
    <section class="card">
      <Histogram label="Time to first token" distribution={figures.firstTokenMs} />
    </section>
    <section class="card">
      <Histogram label="Duration of complete answers" distribution={figures.durationMs} />
    </section>
  </div>
)

const Detail = ({ model, snapshot }: { readonly model: string; readonly snapshot: Overview }) => {
  const found = snapshot.models.find((one) => one.model === model)
  const figures = found === undefined ? undefined : figuresFor(found.figures, window.value)
  if (figures === undefined) {
    return (
      <Empty title={`There is no model ${model}`}>
        <a href={hrefOf("models")}>All models</a>
      </Empty>
    )
  }
  return (
    <section>
      <div class="title">
        <h2>{model}</h2>
        <a href={hrefOf("models")}>All models</a>
      </div>
      <dl class="figures">
        <Figure
          label="Requests"
          value={count(figures.requests)}
          hint={`${count(figures.left)} left by their callers`}
        />
        <Figure label="Failed" value={percent(failedShare(figures))} hint={`${count(figures.failed)} requests`} />
        <Figure
          label="First token"
          value={duration(figures.firstTokenMs.p50)}
          hint={withinText(figures.firstTokenMs)}
        />
        <Figure
          label="Duration"
          value={duration(figures.durationMs.p50)}
          hint={withinText(figures.durationMs)}
        />
        <Figure label="Speed" value={decimal(figures.tokensPerSecond, "tokens/s")} />
        <Figure label="Cost" value={costText(figures)} />
      </dl>
      <Table
        caption={`Deployments of ${model}`}
        columns={columnsOf("Deployment", "Attempts")}
        rows={linesOfDeployments(snapshot.deployments.filter((one) => one.model === model))}
        keyOf={({ name }) => name}
      />
      <Histograms figures={figures} />
    </section>
  )
}

const All = ({ snapshot }: { readonly snapshot: Overview }) => (
  <>
    <Table
      caption="Models"
      columns={columnsOf("Model", "Requests")}
      rows={snapshot.models.map(({ figures, model }) => ({
        name: model,
        href: hrefOf("models", model),
        figures: figuresFor(figures, window.value)
      }))}
      keyOf={({ name }) => name}
    />
    <h2>Deployments</h2>
    <p class="muted">Attempts: a request that was tried at two deployments counts at both.</p>
    <Table
      caption="Deployments"
      columns={columnsOf("Deployment", "Attempts")}
      rows={linesOfDeployments(snapshot.deployments)}
      keyOf={({ name }) => name}
    />
  </>
)

const Windows = () => (
  <label>
    <span class="visually-hidden">Time</span>
    <select value={window.value} onChange={(event) => (window.value = event.currentTarget.value as WindowName)}>
      {Object.entries(windowNames).map(([name, label]) => <option key={name} value={name}>{label}</option>)}
    </select>
  </label>
)

const coveredText = (snapshot: Overview): string => {
  const seconds = figuresFor(snapshot.service.figures, window.value)?.seconds
  return seconds === undefined ? unknown : `covers ${duration(seconds * 1_000)}`
}

export const Models = () => {
  const snapshot = overview.value
  const { detail } = route.value
  return (
    <>
      <Title text="Models">
        <Windows />
        {snapshot !== undefined && <span class="muted">{coveredText(snapshot)}</span>}
      </Title>
      {snapshot === undefined
        ? <p class="muted">Waiting for the first figures…</p>
        : detail === undefined
        ? <All snapshot={snapshot} />
        : <Detail model={detail} snapshot={snapshot} />}
    </>
  )
}
