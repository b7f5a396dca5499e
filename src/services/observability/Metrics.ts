/**
 * What is counted, by the names dashboards know. `GET /metrics` prints it for Prometheus.
 *
 * **Gotchas**
 *
 * A label is only ever the name of a configured model, so that callers cannot make up time series.
 */
import type { Effect } from "effect"
import { Context, Metric } from "effect"

const requests = Metric.counter("llm_requests_total", {
  description: "Requests that ended, by model and success",
  incremental: true
})
const duration = Metric.histogram("llm_request_duration_seconds", {
  description: "Time from request to last token",
  // The bounds of OpenTelemetry's gen_ai.client.operation.duration.
  boundaries: [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]
})
const errors = Metric.counter("llm_errors_total", { description: "Requests that failed", incremental: true })
const tokens = Metric.histogram("llm_tokens_generated", {
  description: "Tokens generated per request",
  // The bounds of OpenTelemetry's gen_ai.client.token.usage, as far as one answer goes.
  boundaries: [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536]
})
const usage = Metric.counter("llm_model_usage_total", {
  description: "Requests begun, by model and operation",
  incremental: true
})

/** As OpenTelemetry's `gen_ai.operation.name`, where it has a name for it. */
export type Operation = "chat" | "embeddings" | "rerank" | "classify" | "tokenize"

/** The handles of one model and operation, made once. */
export interface ModelMetrics {
  readonly begun: Metric.Counter<number>
  readonly succeeded: Metric.Counter<number>
  readonly failed: Metric.Counter<number>
  readonly errors: Metric.Counter<number>
  readonly duration: Metric.Histogram<number>
  readonly tokens: Metric.Histogram<number>
}

export const forModel = (model: string, operation: Operation): ModelMetrics => ({
  begun: Metric.withAttributes(usage, { model, operation }),
  succeeded: Metric.withAttributes(requests, { model, success: "true" }),
  failed: Metric.withAttributes(requests, { model, success: "false" }),
  errors: Metric.withAttributes(errors, { model }),
  duration: Metric.withAttributes(duration, { model }),
  tokens: Metric.withAttributes(tokens, { model })
})

/** Resident memory of this process and its engine processes. */
export const memoryUsage = Metric.gauge("llm_memory_usage_bytes", {
  description: "Resident memory of the service and its engine processes, bytes"
})

/** Requests waiting for a slot. */
export const queueSize = Metric.gauge("llm_queue_size", { description: "Requests waiting for an engine slot" })

/** How one request ended. */
export interface Outcome {
  readonly model: string
  readonly operation: Operation
  readonly seconds: number
  readonly tokens: number
  /** A caller who left is neither. */
  readonly end: "success" | "failure" | "interruption"
}

export class Metrics extends Context.Service<Metrics, {
  readonly begin: (model: string, operation: Operation) => Effect.Effect<void>
  readonly end: (outcome: Outcome) => Effect.Effect<void>
}>()("troupe/services/observability/Metrics") {}
