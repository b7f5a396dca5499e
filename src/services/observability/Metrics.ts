/**
 * The service's metrics, recorded in Effect's metric registry. `GET /metrics` prints them for Prometheus.
 *
 * **Gotchas**
 *
 * The `model` label holds names of configured models, and a limited number of those that a wildcard serves, so that callers cannot
 * create time series: see `RequestMetrics.bounded`.
 */
import { Context, Effect, Layer, Schedule } from "effect"
import type { CacheUse } from "../../domain/CacheControl.ts"
import * as Defaults from "../../domain/Defaults.ts"
import { ResponseCache } from "../cache/ResponseCache.ts"
import { Models } from "../models/Models.ts"
import { deploymentLabel, Registry } from "../models/Registry.ts"
import { Settings } from "../settings/Settings.ts"
import * as RequestMetrics from "./RequestMetrics.ts"
import { counter, gauge, SampledGauges } from "./Series.ts"

const cacheBytes = gauge("llm_cache_bytes", "Memory of the response cache, by tier")

/** Of local deployments whose replicas follow their load. Deployments are those of the configuration. */
export const scaling = {
  replicas: gauge("llm_replicas", "Replicas that get jobs, by deployment"),
  changes: counter("llm_replica_changes_total", "Replicas added and removed, by deployment, direction and reason")
}

/** Rows on their way to storage; `store` is the name of the concern. */
export const storedRows = {
  written: counter("llm_storage_written_rows_total", "Rows written to storage, by store"),
  lost: counter("llm_storage_lost_rows_total", "Rows that could not be written to storage, by store")
}

/** The value of OpenTelemetry's `gen_ai.operation.name`, where the conventions have one. */
export type Operation = "chat" | "embeddings" | "rerank" | "classify" | "tokenize"

const memoryUsage = gauge("llm_memory_usage_bytes", "Resident memory of the service and its engine processes, bytes")

const queueSize = gauge("llm_queue_size", "Requests waiting for an engine slot")

const concurrencyLimit = gauge(
  "troupe_concurrency_limit",
  "Requests that may run at the same time, by deployment with an adaptive limit"
)

/** Where an attempt runs. */
export interface AttemptLabels {
  readonly operation: Operation
  /** The requested model. */
  readonly model: string
  readonly deployment: string
  /** The provider's name by OpenTelemetry. */
  readonly provider: string
  /** The model by its provider's name. */
  readonly served: string
}

/** How one attempt ended. */
export interface AttemptOutcome extends AttemptLabels {
  readonly outcome: "answered" | "failed" | "left"
  /** The kind of the failure. */
  readonly error: string | undefined
  /** From its start; undefined if it has not had a slot. */
  readonly grantedSeconds: number | undefined
  /** From its start to its first content; undefined if its answer was buffered. */
  readonly firstTokenSeconds: number | undefined
  readonly seconds: number
  readonly inputTokens: number | undefined
  readonly outputTokens: number
  readonly cachedTokens: number | undefined
  readonly cacheWriteTokens: number | undefined
  readonly reasoningTokens: number | undefined
}

/** How one request ended. */
export interface Outcome {
  readonly model: string
  readonly operation: Operation
  readonly seconds: number
  readonly tokens: number
  /** Whether another attempt than the first has answered. */
  readonly isFallback?: boolean
  /** What it cost, USD; left out, unknown. */
  readonly usd?: number | undefined
  /** The id of the key that pays; left out, none does. */
  readonly payer?: string | undefined
  /** From its beginning to the first content of a streamed answer. */
  readonly firstTokenSeconds?: number | undefined
  /** Its time before the first attempt and after the last one. */
  readonly overheadSeconds?: number | undefined
  /** `interruption`: the caller disconnected. */
  readonly end: "success" | "failure" | "interruption"
  /** Whether the caller is the cause of its failure. */
  readonly isOfCaller?: boolean
}

/**
 * Records how requests begin and end. No answer waits for an effect that a method returns: it runs beside the request, for
 * at most 5 s. A method that records at once returns nothing.
 */
export class Metrics extends Context.Service<Metrics, {
  readonly begin: (model: string, operation: Operation) => Effect.Effect<void> | void
  /** The effect of `begin` has ended before the effect of `end` starts. */
  readonly end: (outcome: Outcome) => Effect.Effect<void> | void
  /**
   * A request was refused before it was routed; at once.
   *
   * @param model of the configuration; empty, none
   */
  readonly refused?: (model: string, operation: Operation, isOfCaller: boolean) => void
  /** An attempt has ended; at once. */
  readonly attempted?: (attempt: AttemptOutcome) => void
  /** A stream of chunks begins; what is returned gets the time between two of them, seconds. */
  readonly chunks?: (attempt: AttemptLabels) => (seconds: number) => void
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
  Effect.map(Effect.context(), (context) => Metrics.of(RequestMetrics.make(context)))
)

/** Samples memory and queue sizes every `engines.sampleEvery`. */
export const layerSampler = Layer.effectDiscard(
  Effect.gen(function*() {
    const models = yield* Models
    const cache = yield* ResponseCache
    const registry = yield* Registry
    const { sampleEvery = Defaults.sampleInterval } = yield* Settings
    const gauges = new SampledGauges(yield* Effect.context())
    const sample = Effect.gen(function*() {
      const statuses = yield* models.statuses
      const engines = statuses.reduce((sum, status) => sum + status.memoryBytes, 0)
      gauges.set(memoryUsage, process.memoryUsage.rss() + engines)
      gauges.set(queueSize, statuses.reduce((sum, status) => sum + status.queued, 0))
      for (const { deployment, limit } of statuses) {
        if (limit !== undefined) {
          gauges.raise(concurrencyLimit, limit, { deployment: deploymentLabel(registry, deployment) })
        }
      }
      const contents = cache.contents()
      for (const tier of ["memory", "compact", "semantic"] as const) {
        gauges.set(cacheBytes, contents[tier].bytes, { tier })
      }
      gauges.end()
    })
    yield* Effect.forkScoped(Effect.repeat(sample, Schedule.spaced(sampleEvery)))
  })
)
