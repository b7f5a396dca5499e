/**
 * The service's metrics, recorded in Effect's metric registry. `GET /metrics` prints them for Prometheus.
 *
 * **Gotchas**
 *
 * The `model` label holds names of configured models only, so that callers cannot create time series.
 */
import { Context, Effect, Layer, Metric, Schedule } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { Models } from "../models/Models.ts"

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

/** The value of OpenTelemetry's `gen_ai.operation.name`, where the conventions have one. */
export type Operation = "chat" | "embeddings" | "rerank" | "classify" | "tokenize"

/** The metrics of one model and operation, created once. */
interface ModelMetrics {
  readonly begun: Metric.Counter<number>
  readonly succeeded: Metric.Counter<number>
  readonly failed: Metric.Counter<number>
  readonly errors: Metric.Counter<number>
  readonly duration: Metric.Histogram<number>
  readonly tokens: Metric.Histogram<number>
}

const forModel = (model: string, operation: Operation): ModelMetrics => ({
  begun: Metric.withAttributes(usage, { model, operation }),
  succeeded: Metric.withAttributes(requests, { model, success: "true" }),
  failed: Metric.withAttributes(requests, { model, success: "false" }),
  errors: Metric.withAttributes(errors, { model }),
  duration: Metric.withAttributes(duration, { model }),
  tokens: Metric.withAttributes(tokens, { model })
})

const memoryUsage = Metric.gauge("llm_memory_usage_bytes", {
  description: "Resident memory of the service and its engine processes, bytes"
})

const queueSize = Metric.gauge("llm_queue_size", { description: "Requests waiting for an engine slot" })

/** How one request ended. */
export interface Outcome {
  readonly model: string
  readonly operation: Operation
  readonly seconds: number
  readonly tokens: number
  /** `interruption`: the caller disconnected. */
  readonly end: "success" | "failure" | "interruption"
}

/**
 * Records how requests begin and end. No answer waits for an effect that a method returns: it runs beside the request, for
 * at most 5 s. A method that records at once returns nothing.
 */
export class Metrics extends Context.Service<Metrics, {
  readonly begin: (model: string, operation: Operation) => Effect.Effect<void> | void
  /** The effect of `begin` has ended before the effect of `end` starts. */
  readonly end: (outcome: Outcome) => Effect.Effect<void> | void
}>()("troupe/services/observability/Metrics") {}

/** Records into Effect's metric registry. */
export const layer = Layer.effect(
  Metrics,
  Effect.gen(function*() {
    const context = yield* Effect.context()
    const handles = new Map<string, ModelMetrics>()
    const handlesOf = (model: string, operation: Operation): ModelMetrics => {
      const key = `${operation} ${model}`
      const known = handles.get(key)
      if (known !== undefined) return known
      const created = forModel(model, operation)
      handles.set(key, created)
      return created
    }
    return Metrics.of({
      begin(model, operation) {
        handlesOf(model, operation).begun.updateUnsafe(1, context)
      },
      end({ end, model, operation, seconds, tokens }: Outcome) {
        const metrics = handlesOf(model, operation)
        metrics.duration.updateUnsafe(seconds, context)
        metrics.tokens.updateUnsafe(tokens, context)
        if (end === "success") metrics.succeeded.updateUnsafe(1, context)
        if (end === "failure") {
          metrics.failed.updateUnsafe(1, context)
          metrics.errors.updateUnsafe(1, context)
        }
      }
    })
  })
)

/** Samples memory and queue sizes every `Defaults.sampleInterval`. */
export const layerSampler = Layer.effectDiscard(
  Effect.gen(function*() {
    const models = yield* Models
    const sample = Effect.gen(function*() {
      const statuses = yield* models.statuses
      const engines = statuses.reduce((sum, status) => sum + status.memoryBytes, 0)
      yield* Metric.update(memoryUsage, process.memoryUsage.rss() + engines)
      yield* Metric.update(queueSize, statuses.reduce((sum, status) => sum + status.queued, 0))
    })
    yield* Effect.forkScoped(Effect.repeat(sample, Schedule.spaced(Defaults.sampleInterval)))
  })
)
