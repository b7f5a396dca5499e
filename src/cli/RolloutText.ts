/** Rollouts as text: a table of all, and one with its evidence. */
import type { ExperimentView, RolloutView } from "../layers/http/RolloutSchema.ts"
import type { MetricEvidence } from "../services/rollout/Rollout.ts"
import { evidenceText } from "../services/rollout/RolloutMachine.ts"
import { percent, percents, table, versionText } from "./Output.ts"

const time = (ms: number): string => new Date(ms).toISOString().replace(/\.\d+Z$/, "Z")

const endOf = ({ outcome, phase }: RolloutView): string => {
  if (outcome === undefined) return phase.toLowerCase()
  const result = outcome.result === "rolledBack" ? "rolled back" : outcome.result
  return phase === "Ended" ? result : `${result}, draining`
}

/** The table of `troupe rollout list`. */
export const rolloutTable = (rollouts: ReadonlyArray<RolloutView>): string =>
  table([
    ["ROLLOUT", "MODEL", "FROM", "TO", "STATE", "SHARE", "STARTED"],
    ...rollouts.map((rollout) => [
      rollout.id,
      rollout.model,
      rollout.stable.join(", "),
      rollout.candidate,
      endOf(rollout),
      percent(rollout.weight),
      time(rollout.startedAt)
    ])
  ])

/** The variants of all A/B tests. */
export const experimentTable = (experiments: ReadonlyArray<ExperimentView>): string =>
  table([
    ["A/B TEST", "VARIANT", "NOW", "REQUESTS", "SHARE", "ERRORS", "FIRST TOKEN", "SPEED", "VERDICT"],
    ...experiments.flatMap(({ model, variants }) => {
      const shares = percents(variants.map(({ share }) => share))
      return variants.map(({ deployment, requests, typical, verdict, version }, index) => [
        model,
        deployment,
        version === undefined ? "" : versionText(version),
        String(requests),
        shares[index]!,
        typicalText("errors", typical.errors),
        typicalText("firstToken", typical.firstToken),
        typicalText("speed", typical.speed),
        verdict
      ])
    })
  ])

const names = {
  errors: "errors",
  refusals: "refusals",
  firstToken: "time to first token",
  speed: "tokens per second",
  score: "score",
  hanging: "time without a token"
} as const satisfies Record<MetricEvidence["metric"], string>

const isShare = (metric: MetricEvidence["metric"]): boolean => metric === "errors" || metric === "refusals"

const typicalText = (metric: MetricEvidence["metric"], value: number | null): string => {
  if (value === null) return ""
  if (isShare(metric)) return percent(value)
  const rounded = String(Number(value.toPrecision(3)))
  return metric === "firstToken" || metric === "hanging"
    ? `${rounded} ms`
    : metric === "speed"
    ? `${rounded} tokens/s`
    : rounded
}

const metricRow = ({ candidate, logE, metric, needed, stable, typical }: MetricEvidence): ReadonlyArray<string> => [
  names[metric],
  typicalText(metric, typical.stable),
  typicalText(metric, typical.candidate),
  `${stable.count} of ${stable.of}`,
  `${candidate.count} of ${candidate.of}`,
  evidenceText(logE),
  evidenceText(needed)
]

/** The comparison of the versions, a row for each metric. */
const evidenceTable = ({ candidate, evidence }: RolloutView): ReadonlyArray<string> =>
  evidence === null ? [] : [
    "",
    `Evidence that ${candidate} is worse, ${time(evidence.at)}, step ${evidence.step + 1}:`,
    table([
      ["METRIC", "OLD", "NEW", "OLD WORSE", "NEW WORSE", "EVIDENCE", "LIMIT"],
      ...evidence.metrics.map(metricRow)
    ])
  ]

const historyTable = ({ history }: RolloutView): ReadonlyArray<string> => [
  "",
  table([["TIME", "SHARE", "EVENT"], ...history.map(({ at, weight, what }) => [time(at), percent(weight), what])])
]

/** What `troupe rollout status` prints. */
export const rolloutText = (rollout: RolloutView): string => {
  const { candidate, experiment, id, model, outcome, plan, problem, stable, step, waitingFor, weight } = rollout
  const steps = plan.steps.map((share, index) =>
    index === step && outcome === undefined ? `[${percent(share)}]` : percent(share)
  )
  return [
    `${id}: ${model} from ${stable.join(", ")} to ${candidate}`,
    `State: ${endOf(rollout)}, ${percent(weight)} of the requests at ${candidate}`,
    `Steps: ${steps.join(", ")}`,
    ...(outcome === undefined
      ? (waitingFor === "" ? [] : [`Waits for: ${waitingFor}`])
      : [`Reason: ${outcome.reason}`]),
    ...(experiment === undefined ? [] : [`A/B test: ${experiment.message}`]),
    ...(problem === undefined ? [] : [`Last check: ${problem}`]),
    ...evidenceTable(rollout),
    ...historyTable(rollout)
  ].join("\n")
}
