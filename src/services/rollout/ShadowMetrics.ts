/**
 * Metrics of copies of requests. The labels are names of models with copies, and words of this file, so that callers cannot create
 * time series.
 */
import { Context, Metric } from "effect"
import * as Money from "../../domain/Money.ts"
import type { SkipReason, Taken } from "./Shadow.ts"

const requests = Metric.counter("troupe_shadow_requests_total", {
  description: "Sampled requests, by model and what became of their copies",
  incremental: true
})
const agreement = Metric.histogram("troupe_shadow_agreement", {
  description: "Similarity or score of the two answers of a pair, by model",
  boundaries: [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1]
})
const duration = Metric.histogram("troupe_shadow_duration_seconds", {
  description: "Time from request to last token of pairs, by model and side",
  boundaries: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
})
const tokens = Metric.counter("troupe_shadow_tokens_total", {
  description: "Tokens of the prompts and answers of pairs, by model, side and kind",
  incremental: true
})
const cost = Metric.counter("troupe_shadow_cost_usd_total", {
  description: "What copies have cost, USD, by model",
  incremental: true
})

/** What became of a sampled request. `exact` and `different` are answered pairs. */
export type Outcome = "exact" | "different" | "failed" | "timed_out" | "cancelled" | "unanswered" | SkipReason

type Attributes = Readonly<Record<string, string>>

/** The metrics of one model. */
export class ShadowMetrics {
  readonly #context: Context.Context<never>
  readonly #model: string

  constructor(context: Context.Context<never>, model: string) {
    this.#context = context
    this.#model = model
  }

  ended(outcome: Outcome): void {
    this.#update(requests, 1, { outcome })
  }

  agreed(value: number): void {
    this.#update(agreement, value)
  }

  took(side: "primary" | "candidate", { completionTokens, promptTokens, tookMs }: Taken): void {
    this.#update(duration, tookMs / 1_000, { side })
    this.#update(tokens, promptTokens, { side, kind: "prompt" })
    this.#update(tokens, completionTokens, { side, kind: "completion" })
  }

  spent(nano: Money.Nano): void {
    this.#update(cost, Money.usdOf(nano))
  }

  #update(metric: Metric.Counter<number> | Metric.Histogram<number>, input: number, attributes: Attributes = {}): void {
    metric.updateUnsafe(
      input,
      Context.add(this.#context, Metric.CurrentMetricAttributes, {
        ...Context.get(this.#context, Metric.CurrentMetricAttributes),
        ...attributes,
        model: this.#model
      })
    )
  }
}
