/**
 * The service's metrics, recorded in Effect's metric registry. `GET /metrics` prints them for Prometheus.
 *
 * **Gotchas**
 *
 * The `model` label holds names of configured models only, so that callers cannot create time series.
 */
import { Context, Effect, Layer, Metric, Schedule } from "effect"
import type { CacheUse } from "../../domain/CacheControl.ts"
import * as Defaults from "../../domain/Defaults.ts"
import { ResponseCache } from "../cache/ResponseCache.ts"
import { Models } from "../models/Models.ts"
import { Settings } from "../settings/Settings.ts"

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

const cacheHits = Metric.counter("llm_cache_hits_total", {
  description: "Requests answered by the response cache, by model and tier",
  incremental: true
})
const cacheMisses = Metric.counter("llm_cache_misses_total", {
  description: "Requests that the response cache had no answer for",
  incremental: true
})
const cacheBypasses = Metric.counter("llm_cache_bypasses_total", {
  description: "Requests of models with a response cache that it does not apply to",
  incremental: true
})

const skippedEvents = Metric.counter("llm_stream_events_skipped_total", {
  description: "Events of providers' streams that were not readable and were left out, by model",
  incremental: true
})

const securityEvents = Metric.counter("llm_security_events_total", {
  description: "Matches of the input policy and refused requests, by rule and action",
  incremental: true
})

const cacheBytes = Metric.gauge("llm_cache_bytes", {
  description: "Memory of the response cache, by tier"
})
const cacheMemory = Metric.withAttributes(cacheBytes, { tier: "memory" })
const cacheCompact = Metric.withAttributes(cacheBytes, { tier: "compact" })
const cacheSemantic = Metric.withAttributes(cacheBytes, { tier: "semantic" })

/** Of local deployments whose replicas follow their load. Deployments are those of the configuration. */
export const scaling = {
  replicas: Metric.gauge("llm_replicas", { description: "Replicas that get jobs, by deployment" }),
  changes: Metric.counter("llm_replica_changes_total", {
    description: "Replicas added and removed, by deployment, direction and reason",
    incremental: true
  })
}

/** Rows on their way to storage; `store` is the name of the concern. */
export const storedRows = {
  written: Metric.counter("llm_storage_written_rows_total", {
    description: "Rows written to storage, by store",
    incremental: true
  }),
  lost: Metric.counter("llm_storage_lost_rows_total", {
    description: "Rows that could not be written to storage, by store",
    incremental: true
  })
}

/** The value of OpenTelemetry's `gen_ai.operation.name`, where the conventions have one. */
export type Operation = "chat" | "embeddings" | "rerank" | "classify" | "tokenize"

/** Updates one series of a metric. */
type Update = (input: number) => void

/** The series of one model and operation, created once. */
interface ModelSeries {
  readonly begun: Update
  readonly succeeded: Update
  readonly failed: Update
  readonly errors: Update
  readonly duration: Update
  readonly tokens: Update
  readonly skipped: Update
}

/** The series with these attributes. Not `Metric.withAttributes`, which makes a context at every update. */
const seriesOf = (
  metric: Metric.Counter<number> | Metric.Histogram<number>,
  context: Context.Context<never>,
  attributes: Readonly<Record<string, string>>
): Update => {
  const own = Context.add(context, Metric.CurrentMetricAttributes, {
    ...Context.get(context, Metric.CurrentMetricAttributes),
    ...attributes
  })
  return (input) => metric.updateUnsafe(input, own)
}

const forModel = (context: Context.Context<never>, model: string, operation: Operation): ModelSeries => ({
  begun: seriesOf(usage, context, { model, operation }),
  succeeded: seriesOf(requests, context, { model, success: "true" }),
  failed: seriesOf(requests, context, { model, success: "false" }),
  errors: seriesOf(errors, context, { model }),
  duration: seriesOf(duration, context, { model }),
  tokens: seriesOf(tokens, context, { model }),
  skipped: seriesOf(skippedEvents, context, { model })
})

const memoryUsage = Metric.gauge("llm_memory_usage_bytes", {
  description: "Resident memory of the service and its engine processes, bytes"
})

const queueSize = Metric.gauge("llm_queue_size", { description: "Requests waiting for an engine slot" })

const concurrencyLimit = Metric.gauge("troupe_concurrency_limit", {
  description: "Requests that may run at the same time, by deployment with an adaptive limit"
})

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
  /** How the response cache took part in a request of a model that has one. */
  readonly cached?: (model: string, use: CacheUse) => void
  /** Events of streams for a model's request that were left out. */
  readonly skipped?: (model: string, count: number) => void
  /** The input policy found something in some requests, or they were refused. Rules and actions are few. */
  readonly security?: (rule: string, action: string, count: number) => void
}>()("troupe/services/observability/Metrics") {}

/** Records into Effect's metric registry. */
export const layer = Layer.effect(
  Metrics,
  Effect.gen(function*() {
    const context = yield* Effect.context()
    const series = new Map<string, ModelSeries>()
    const of = (model: string, operation: Operation): ModelSeries => {
      const key = `${operation} ${model}`
      const known = series.get(key)
      if (known !== undefined) return known
      const created = forModel(context, model, operation)
      series.set(key, created)
      return created
    }
    const cacheSeries = new Map<string, Update>()
    const cacheSeriesOf = (model: string, use: CacheUse): Update => {
      const tier = use.result === "hit" ? use.tier : ""
      const key = `${use.result} ${tier} ${model}`
      const known = cacheSeries.get(key)
      if (known !== undefined) return known
      const created = use.result === "hit"
        ? seriesOf(cacheHits, context, { model, tier })
        : seriesOf(use.result === "miss" ? cacheMisses : cacheBypasses, context, { model })
      cacheSeries.set(key, created)
      return created
    }
    const securitySeries = new Map<string, Update>()
    return Metrics.of({
      security: (rule, action, count) => {
        const key = `${rule} ${action}`
        const known = securitySeries.get(key) ?? seriesOf(securityEvents, context, { rule, action })
        securitySeries.set(key, known)
        known(count)
      },
      skipped: (model, count) => of(model, "chat").skipped(count),
      cached: (model, use) => cacheSeriesOf(model, use)(1),
      begin: (model, operation) => of(model, operation).begun(1),
      end({ end, model, operation, seconds, tokens }: Outcome) {
        const { duration, errors, failed, succeeded, tokens: generated } = of(model, operation)
        duration(seconds)
        generated(tokens)
        if (end === "success") succeeded(1)
        if (end === "failure") {
          failed(1)
          errors(1)
        }
      }
    })
  })
)

/** Samples memory and queue sizes every `engines.sampleEvery`. */
export const layerSampler = Layer.effectDiscard(
  Effect.gen(function*() {
    const models = yield* Models
    const cache = yield* ResponseCache
    const { sampleEvery = Defaults.sampleInterval } = yield* Settings
    const sample = Effect.gen(function*() {
      const statuses = yield* models.statuses
      const engines = statuses.reduce((sum, status) => sum + status.memoryBytes, 0)
      yield* Metric.update(memoryUsage, process.memoryUsage.rss() + engines)
      yield* Metric.update(queueSize, statuses.reduce((sum, status) => sum + status.queued, 0))
      for (const { deployment, limit } of statuses) {
        if (limit !== undefined) yield* Metric.update(Metric.withAttributes(concurrencyLimit, { deployment }), limit)
      }
      const { compact, memory, semantic } = cache.contents()
      yield* Metric.update(cacheMemory, memory.bytes)
      yield* Metric.update(cacheCompact, compact.bytes)
      yield* Metric.update(cacheSemantic, semantic.bytes)
    })
    yield* Effect.forkScoped(Effect.repeat(sample, Schedule.spaced(sampleEvery)))
  })
)
