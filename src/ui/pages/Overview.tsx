/** The service at a glance: its load, its memory, every actor, and what happened last. */
import { useMemo } from "preact/hooks"
import type { Overview as Snapshot } from "../../layers/http/OverviewSchema.ts"
import { bytes, count, decimal, duration, percent } from "../format.ts"
import { events, history, overview } from "../live.ts"
import { Actors } from "../parts/Actors.tsx"
import { Empty, Figure, Title } from "../parts/Basics.tsx"
import { EventList } from "../parts/EventList.tsx"
import { LostStores } from "../parts/LostStores.tsx"
import { Plot } from "../parts/Plot.tsx"
import { ReadOnly } from "../parts/ReadOnly.tsx"
import { firing } from "../polled.ts"
import { costText, figuresFor, withinText } from "../recent.ts"
import { hrefOf } from "../route.ts"

const rateTone = (rate: number | undefined, target: number) =>
  rate === undefined || rate <= target ? undefined : rate > 10 * target ? "bad" as const : "warn" as const

const Load = ({ snapshot: { service } }: { readonly snapshot: Snapshot }) => {
  const five = figuresFor(service.figures, "5m")
  const hour = figuresFor(service.figures, "1h")
  return (
    <dl class="figures">
      <Figure
        label="Requests"
        value={decimal(service.requestsPerSecond, "/s")}
        hint={`${count(service.inFlight)} running`}
      />
      <Figure
        label="Failed, 5 min"
        value={percent(service.errorRate)}
        hint={`${count(five?.failed)} of ${count(five?.requests)}; target ${percent(service.targets.errorRate)}`}
        {...toneOf(rateTone(service.errorRate, service.targets.errorRate))}
      />
      <Figure
        label="First token, 5 min"
        value={duration(five?.firstTokenMs.p50)}
        hint={withinText(five?.firstTokenMs)}
      />
      <Figure
        label="Duration, 5 min"
        value={duration(five?.durationMs.p50)}
        hint={withinText(five?.durationMs)}
      />
      <Figure label="Speed, 5 min" value={decimal(five?.tokensPerSecond, "tokens/s")} />
      <Figure label="Cost, 1 h" value={costText(hour)} hint={`${count(hour?.outputTokens)} tokens written`} />
    </dl>
  )
}

const toneOf = <A extends string>(tone: A | undefined): { readonly tone?: A } => tone === undefined ? {} : { tone }

const State = ({ snapshot: { memory, service } }: { readonly snapshot: Snapshot }) => {
  const day = service.windows.find(({ window }) => window === "1d")
  return (
    <dl class="figures">
      <Figure
        label="Availability, 1 d"
        value={day === undefined ? "–" : `${(day.availability * 100).toFixed(day.availability > 0.9995 ? 0 : 2)} %`}
        hint={`target ${(service.targets.availability * 100).toFixed(1)} %`}
        {...toneOf(day !== undefined && day.availability < service.targets.availability ? "warn" as const : undefined)}
      />
      <Figure
        label="Uptime"
        value={duration(service.uptimeSeconds * 1_000)}
        hint={`${count(service.processes)} process${service.processes === 1 ? "" : "es"}`}
      />
      <Figure
        label="Memory of models"
        value={bytes(memory.grantedBytes)}
        hint={memory.budgetBytes === undefined ? "no budget" : `of ${bytes(memory.budgetBytes)}`}
      />
      <Figure
        label="Memory in use"
        value={bytes(memory.engineBytes + memory.processBytes)}
        hint={`${bytes(memory.engineBytes)} in engines`}
      />
      <Figure
        label="Memory pressure"
        value={memory.pressure}
        {...toneOf(memory.pressure === "normal" ? undefined : "warn" as const)}
      />
    </dl>
  )
}

const usePlots = () => {
  const samples = history.value
  return useMemo(() => {
    const times = samples.map(({ at }) => at / 1_000)
    const of = (value: (snapshot: Snapshot) => number | undefined) => samples.map((one) => value(one) ?? null)
    const minute = (snapshot: Snapshot) => figuresFor(snapshot.service.figures, "1m")
    return {
      times,
      load: [
        { label: "Running", color: "line-3", values: of(({ service }) => service.inFlight) },
        {
          label: "Waiting",
          color: "line-2",
          values: of(({ deployments }) => deployments.reduce((sum, one) => sum + one.queued, 0))
        },
        { label: "Requests a second", color: "line-4", values: of(({ service }) => service.requestsPerSecond) }
      ],
      latency: [
        { label: "First token, median", color: "line-3", values: of((one) => minute(one)?.firstTokenMs.p50) },
        { label: "First token, 95 %", color: "line-5", values: of((one) => minute(one)?.firstTokenMs.p95) },
        { label: "Duration, 95 %", color: "line-2", values: of((one) => minute(one)?.durationMs.p95) }
      ]
    }
  }, [samples])
}

const Plots = () => {
  const { latency, load, times } = usePlots()
  if (times.length < 2) return null
  return (
    <div class="plots">
      <section class="card">
        <Plot label="Load since the page was opened" times={times} series={load} format={decimal} />
      </section>
      <section class="card">
        <Plot
          label="Latency of the last minute, since the page was opened"
          times={times}
          series={latency}
          format={duration}
        />
      </section>
    </div>
  )
}

/** The alerts that are named; the others are counted. */
const named = 3

const Firing = () => {
  const alerts = firing.value
  if (alerts.length === 0) return null
  const isCritical = alerts.some(({ severity }) => severity === "critical")
  const names = alerts.slice(0, named).map(({ rule, target }) => target === undefined ? rule : `${rule} of ${target}`)
  return (
    <p class={`notice ${isCritical ? "bad" : "warn"}`}>
      <span>
        {alerts.length === 1 ? "1 alert fires" : `${alerts.length} alerts fire`}: {names.join(", ")}
        {alerts.length > named && ` and ${alerts.length - named} more`}
      </span>
      <a href={hrefOf("alerts")}>Show the alerts</a>
    </p>
  )
}

export const Overview = () => {
  const snapshot = overview.value
  if (snapshot === undefined) {
    return (
      <>
        <Title text="Overview" />
        <p class="muted">Waiting for the first figures…</p>
      </>
    )
  }
  return (
    <>
      <Title text="Overview">
        <span class="muted">Troupe {snapshot.service.version} · {snapshot.service.status}</span>
      </Title>
      <LostStores />
      <Firing />
      <Load snapshot={snapshot} />
      <State snapshot={snapshot} />
      <h2>Actors</h2>
      <ReadOnly />
      <Actors deployments={snapshot.deployments} />
      <Plots />
      <h2>Latest events</h2>
      {events.value.length === 0
        ? (
          <Empty title="Nothing has happened yet">
            Loads, restarts, circuits, stores, reloads, rollouts and alerts are listed here.
          </Empty>
        )
        : <EventList events={events.value.slice(0, 8)} />}
    </>
  )
}
