/**
 * Metrics of copies of requests. The labels are names of models with copies, and words of this file, so that callers cannot create
 * time series.
 */
import type { Context, Metric } from "effect"
import * as Money from "../../domain/Money.ts"
import * as Series from "../observability/Series.ts"
import { counter, durationBounds, histogram } from "../observability/Series.ts"
import type { SkipReason, Taken } from "./Shadow.ts"

const requests = counter("troupe_shadow_requests_total", "Sampled requests, by model and what became of their copies")
const agreement = histogram(
  "troupe_shadow_agreement",
  "Similarity or score of the two answers of a pair, by model",
  [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99, 1]
)
const duration = histogram(
  "troupe_shadow_duration_seconds",
  "Time from request to last token of pairs, by model and side",
  durationBounds
)
const tokens = counter(
  "troupe_shadow_tokens_total",
  "Tokens of the prompts and answers of pairs, by model, side and kind"
)
const cost = counter("troupe_shadow_cost_usd_total", "What copies have cost, USD, by model")

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
    metric.updateUnsafe(input, Series.withAttributes(this.#context, { ...attributes, model: this.#model }))
  }
}
