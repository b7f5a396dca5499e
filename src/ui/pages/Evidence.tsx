/** The evidence of a rollout: the gates of every metric, and how far each is from a rollback, over time. */
import { useMemo } from "preact/hooks"
import type { RolloutView } from "../../layers/http/RolloutSchema.ts"
import type { Evidence as Sample, MetricEvidence } from "../../services/rollout/Rollout.ts"
import { count, decimal, percent } from "../format.ts"
import { Empty, Meter, Table } from "../parts/Basics.tsx"
import { Plot } from "../parts/Plot.tsx"
import { metricColors, metricNames, typicalText } from "./rolloutTypes.ts"

/** What the page has seen of rollouts: the service keeps the evidence of changes of phase only. */
const seen = new Map<string, Array<Sample>>()

const mostSamples = 5_000

/** Samples of the history and those that were seen since, ascending by time. */
const samplesOf = ({ evidence, history, id }: RolloutView): ReadonlyArray<Sample> => {
  const own = seen.get(id) ?? []
  seen.set(id, own)
  if (evidence !== null && own.at(-1)?.at !== evidence.at) own.push(evidence)
  if (own.length > mostSamples) own.shift()
  const all = [...history.flatMap((one) => one.evidence === null ? [] : [one.evidence]), ...own]
  return [...new Map(all.map((one) => [one.at, one])).values()].toSorted((one, other) => one.at - other.at)
}

/** The share of the evidence that a rollback needs: 1 rolls back, 0 and below says nothing against the candidate. */
const progressOf = ({ logE, needed }: MetricEvidence): number => needed <= 0 ? 0 : Math.max(0, logE / needed)

const EvidencePlot = ({ rollout }: { readonly rollout: RolloutView }) => {
  const samples = samplesOf(rollout)
  const { series, times } = useMemo(() => ({
    times: samples.map(({ at }) => at / 1_000),
    series: rollout.plan.metrics.map((metric) => ({
      label: metricNames[metric],
      color: metricColors[metric],
      values: samples.map(({ metrics }) => {
        const found = metrics.find((one) => one.metric === metric)
        return found === undefined ? null : progressOf(found)
      })
    }))
  }), [samples.length, rollout.id])
  if (samples.length < 2) return null
  return (
    <Plot
      label="Evidence against the candidate: it is rolled back where a line reaches 100 %"
      times={times}
      series={series}
      format={percent}
      most={1}
      height={160}
    />
  )
}

const gate = (one: MetricEvidence) => (
  <>
    <Meter
      label={`${metricNames[one.metric]}: ${percent(progressOf(one))} of the evidence for a rollback`}
      value={Math.min(1, progressOf(one))}
      of={1}
      tone={progressOf(one) >= 1 ? "bad" : progressOf(one) > 0.5 ? "warn" : "good"}
    />{" "}
    {percent(Math.min(1, progressOf(one)))}
  </>
)

export const Evidence = ({ rollout }: { readonly rollout: RolloutView }) => {
  const { evidence, plan } = rollout
  if (evidence === null) {
    return (
      <Empty title="No comparison yet">
        The versions are compared when both have answered requests. A step needs {count(plan.minRequests)}{" "}
        requests of the candidate.
      </Empty>
    )
  }
  return (
    <>
      <p class="muted">
        {count(evidence.requests.stable)} requests of the stable version, {count(evidence.requests.candidate)}{" "}
        of the candidate; {percent(plan.alpha)} chance that a version that is not worse is rolled back
      </p>
      <Table
        caption={`Gates of the rollout of ${rollout.model}`}
        columns={[
          { head: "Metric", cell: ({ metric }) => metricNames[metric] },
          { head: "Stable", cell: ({ metric, typical }) => typicalText(metric, typical.stable), isNumber: true },
          { head: "Candidate", cell: ({ metric, typical }) => typicalText(metric, typical.candidate), isNumber: true },
          { head: "Tolerance", cell: ({ metric }) => decimal(plan.tolerance[metric]), isNumber: true },
          { head: "Evidence for a rollback", cell: gate }
        ]}
        rows={evidence.metrics}
        keyOf={({ metric }) => metric}
      />
      <EvidencePlot rollout={rollout} />
    </>
  )
}
