/** A/B tests, and deployments that get copies of requests. */
import type { ExperimentView, ShadowView } from "../../layers/http/RolloutSchema.ts"
import { cost, count, dateTime, duration, percent, shareText, unknown } from "../format.ts"
import { Badge, Figure, Table } from "../parts/Basics.tsx"
import { metricNames, typicalText } from "./rolloutTypes.ts"
import type { Metric } from "./rolloutTypes.ts"

type Variant = ExperimentView["variants"][number]

const measured = (variants: ReadonlyArray<Variant>): ReadonlyArray<Metric> => {
  const found = variants.flatMap(({ typical }) =>
    (Object.entries(typical) as Array<[Metric, number | null]>).filter(([, value]) => value !== null)
  )
  return [...new Set(found.map(([metric]) => metric))]
}

const Experiment = ({ experiment: { model, variants } }: { readonly experiment: ExperimentView }) => (
  <section class="card">
    <h2>A/B test of {model}</h2>
    <Table
      caption={`Variants of ${model}`}
      columns={[
        { head: "Variant", cell: ({ deployment }) => deployment },
        { head: "Now", cell: ({ version }) => version === undefined ? unknown : shareText(version), isNumber: true },
        { head: "Requests", cell: ({ requests }) => count(requests), isNumber: true },
        ...measured(variants).map((metric) => ({
          head: metricNames[metric],
          cell: ({ typical }: Variant) => typicalText(metric, typical[metric]),
          isNumber: true
        })),
        { head: "Verdict", cell: ({ verdict }) => <Badge text={verdict} /> }
      ]}
      rows={variants}
      keyOf={({ deployment }) => deployment}
    />
  </section>
)

export const Experiments = ({ experiments }: { readonly experiments: ReadonlyArray<ExperimentView> }) => (
  <>{experiments.map((one) => <Experiment key={one.model} experiment={one} />)}</>
)

const estimate = (value: ShadowView["exact"]): string =>
  value === null ? unknown : `${percent(value.value)} (${percent(value.low)} to ${percent(value.high)})`

const Shadow = ({ shadow }: { readonly shadow: ShadowView }) => (
  <section class="card">
    <div class="title">
      <h2>Copies of {shadow.model}</h2>
      <span class="muted">
        {percent(shadow.share)} to <strong>{shadow.to}</strong>
      </span>
    </div>
    <dl class="figures">
      <Figure label="Sent" value={count(shadow.sent)} hint={`${count(shadow.running)} running`} />
      <Figure label="Failed" value={count(shadow.failed)} hint={`${count(shadow.timedOut)} timed out`} />
      <Figure label="Equal answers" value={estimate(shadow.exact)} />
      <Figure label="Agreement" value={estimate(shadow.agreement)} />
      <Figure
        label="Median"
        value={duration(shadow.candidate.medianMs)}
        hint={`${duration(shadow.primary.medianMs)} of the primary`}
      />
      <Figure label="Cost" value={cost(shadow.unpriced > 0 && shadow.costUsd === 0 ? undefined : shadow.costUsd)} />
    </dl>
    {shadow.comparisonProblem !== undefined && (
      <p class="problem">
        {count(shadow.incomparable)} comparisons failed, the last: {shadow.comparisonProblem}
      </p>
    )}
    {shadow.differing.length > 0 && (
      <details>
        <summary>Different answers ({shadow.differing.length})</summary>
        {shadow.differing.map((one) => (
          <div key={`${one.at} ${one.prompt}`} class="pair">
            <p class="muted">{dateTime(one.at)} · {one.prompt}</p>
            <p>{one.primary}</p>
            <p>{one.candidate}</p>
          </div>
        ))}
      </details>
    )}
  </section>
)

export const Shadows = ({ shadows }: { readonly shadows: ReadonlyArray<ShadowView> }) => (
  <>{shadows.map((one) => <Shadow key={one.model} shadow={one} />)}</>
)
