/**
 * What `/admin/rollouts` answers, and how metrics are named.
 */
import type { ExperimentView, RolloutView, ShadowView } from "../../layers/http/RolloutSchema.ts"
import type { MetricEvidence } from "../../services/rollout/Rollout.ts"
import { decimal, duration, percent } from "../format.ts"

export interface RolloutList {
  readonly rollouts: ReadonlyArray<RolloutView>
  readonly experiments: ReadonlyArray<ExperimentView>
  readonly shadows: ReadonlyArray<ShadowView>
}

export type Metric = MetricEvidence["metric"]

export const metricNames: Readonly<Record<Metric, string>> = {
  errors: "Failures",
  refusals: "Refusals",
  firstToken: "Time to first token",
  speed: "Tokens per second",
  score: "Score",
  hanging: "Time without a token"
}

/** The colors of the style sheet that lines of metrics have. */
export const metricColors: Readonly<Record<Metric, string>> = {
  errors: "line-1",
  refusals: "line-2",
  firstToken: "line-3",
  speed: "line-4",
  score: "line-5",
  hanging: "line-6"
}

/** A typical value of a metric, with its unit. */
export const typicalText = (metric: Metric, value: number | null): string => {
  switch (metric) {
    case "errors":
    case "refusals":
      return percent(value)
    case "firstToken":
    case "hanging":
      return duration(value)
    case "speed":
      return decimal(value, "tokens/s")
    case "score":
      return decimal(value)
  }
}
