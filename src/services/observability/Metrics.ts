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
/** The bounds of durations in OpenTelemetry's GenAI conventions, v0.1.0, seconds. */
const durationBounds = [0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92]

/** The bounds of tokens there, as far as one request goes. */
const tokenBounds = [1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576]

const duration = Metric.histogram("llm_request_duration_seconds", {
  description: "Time from request to last token",
  boundaries: durationBounds
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
  readonly fallbacks: Update
  readonly cost: Update
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
  skipped: seriesOf(skippedEvents, context, { model }),
  fallbacks: seriesOf(fallbacks, context, { model }),
  cost: seriesOf(cost, context, { model })
})

const memoryUsage = Metric.gauge("llm_memory_usage_bytes", {
  description: "Resident memory of the service and its engine processes, bytes"
})

const queueSize = Metric.gauge("llm_queue_size", { description: "Requests waiting for an engine slot" })

const concurrencyLimit = Metric.gauge("troupe_concurrency_limit", {
  description: "Requests that may run at the same time, by deployment with an adaptive limit"
})

/** Those of one inference, by the names of OpenTelemetry's GenAI conventions, v0.1.0, as Prometheus writes them. */
const genAi = {
  inference: Metric.histogram("gen_ai_client_inference_duration_seconds", {
    description: "Time of one inference, from its slot to its last token",
    boundaries: durationBounds
  }),
  operation: Metric.histogram("gen_ai_client_operation_duration_seconds", {
    description: "Time of one other operation at a deployment",
    boundaries: durationBounds
  }),
  firstChunk: Metric.histogram("gen_ai_client_inference_time_to_first_chunk_seconds", {
    description: "Time of one inference to the first content of its stream",
    boundaries: durationBounds
  }),
  inputTokens: Metric.histogram("gen_ai_client_inference_operation_input_tokens", {
    description: "Prompt tokens of one inference",
    boundaries: tokenBounds
  }),
  outputTokens: Metric.histogram("gen_ai_client_inference_operation_output_tokens", {
    description: "Tokens that one inference has generated",
    boundaries: tokenBounds
  }),
  cacheRead: Metric.counter("gen_ai_client_inference_usage_cache_read_input_tokens_total", {
    description: "Prompt tokens that a provider's cache or an engine's prefix cache had",
    incremental: true
  }),
  reasoning: Metric.counter("gen_ai_client_inference_usage_reasoning_output_tokens_total", {
    description: "Tokens of reasoning",
    incremental: true
  })
}

const attempts = Metric.counter("troupe_attempts_total", {
  description: "Attempts that ended, by deployment and outcome",
  incremental: true
})
const fallbacks = Metric.counter("troupe_fallbacks_total", {
  description: "Requests that a later attempt has answered, by model",
  incremental: true
})
const queueWait = Metric.histogram("troupe_queue_wait_seconds", {
  description: "Time of an attempt until it had its slot",
  boundaries: durationBounds
})
const tokenRate = Metric.histogram("troupe_output_tokens_per_second", {
  description: "Tokens per second after the first content of a stream",
  boundaries: [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
})
const cost = Metric.counter("troupe_cost_usd_total", {
  description: "Cost of requests whose deployments have prices, USD, by model",
  incremental: true
})

/** How one attempt ended. */
export interface AttemptOutcome {
  readonly operation: Operation
  /** The requested model. */
  readonly model: string
  readonly deployment: string
  /** The provider's name by OpenTelemetry. */
  readonly provider: string
  /** The model by its provider's name. */
  readonly served: string
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
  readonly reasoningTokens: number | undefined
}

/** The series of one deployment, operation and error. */
class AttemptSeries {
  readonly #outcomes: Readonly<Record<AttemptOutcome["outcome"], Update>>
  readonly #wait: Update
  readonly #duration: Update
  readonly #firstChunk: Update
  readonly #rate: Update
  readonly #input: Update
  readonly #output: Update
  readonly #cached: Update
  readonly #reasoning: Update

  constructor(
    context: Context.Context<never>,
    { deployment, error, model, operation, provider, served }: AttemptOutcome
  ) {
    const own = { deployment }
    const outcomeOf = (outcome: string) => seriesOf(attempts, context, { ...own, outcome })
    const labels = {
      gen_ai_operation_name: operation,
      gen_ai_provider_name: provider,
      gen_ai_request_model: model,
      gen_ai_response_model: served
    }
    const withError = error === undefined ? labels : { ...labels, error_type: error }
    this.#outcomes = { answered: outcomeOf("answered"), failed: outcomeOf("failed"), left: outcomeOf("left") }
    this.#wait = seriesOf(queueWait, context, own)
    this.#rate = seriesOf(tokenRate, context, own)
    this.#duration = seriesOf(operation === "chat" ? genAi.inference : genAi.operation, context, withError)
    this.#firstChunk = seriesOf(genAi.firstChunk, context, labels)
    this.#input = seriesOf(genAi.inputTokens, context, withError)
    this.#output = seriesOf(genAi.outputTokens, context, withError)
    this.#cached = seriesOf(genAi.cacheRead, context, labels)
    this.#reasoning = seriesOf(genAi.reasoning, context, labels)
  }

  add(attempt: AttemptOutcome): void {
    const { firstTokenSeconds, grantedSeconds, operation, outcome, outputTokens, seconds } = attempt
    this.#outcomes[outcome](1)
    if (grantedSeconds === undefined) return
    this.#wait(grantedSeconds)
    this.#duration(seconds - grantedSeconds)
    if (operation !== "chat") return
    this.#addTokens(attempt)
    if (firstTokenSeconds === undefined) return
    this.#firstChunk(firstTokenSeconds - grantedSeconds)
    const rest = seconds - firstTokenSeconds
    if (outcome === "answered" && rest > 0 && outputTokens > 1) this.#rate((outputTokens - 1) / rest)
  }

  #addTokens({ cachedTokens = 0, inputTokens = 0, outputTokens, reasoningTokens = 0 }: AttemptOutcome): void {
    this.#input(inputTokens)
    this.#output(outputTokens)
    if (cachedTokens > 0) this.#cached(cachedTokens)
    if (reasoningTokens > 0) this.#reasoning(reasoningTokens)
  }
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
  /** An attempt has ended; at once. */
  readonly attempted?: (attempt: AttemptOutcome) => void
  /** How the response cache took part in a request of a model that has one. */
  readonly cached?: (model: string, use: CacheUse) => void
  /** Events of streams for a model's request that were left out. */
  readonly skipped?: (model: string, count: number) => void
  /** The input policy found something in some requests, or they were refused. Rules and actions are few. */
  readonly security?: (rule: string, action: string, count: number) => void
}>()("troupe/services/observability/Metrics") {}

/** Records attempts, in series that are made once. */
const makeAttempted = (context: Context.Context<never>) => {
  const series = new Map<string, AttemptSeries>()
  return (attempt: AttemptOutcome): void => {
    const key = `${attempt.operation} ${attempt.error ?? ""} ${attempt.deployment} ${attempt.model}`
    const known = series.get(key) ?? new AttemptSeries(context, attempt)
    series.set(key, known)
    known.add(attempt)
  }
}

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
      attempted: makeAttempted(context),
      skipped: (model, count) => of(model, "chat").skipped(count),
      cached: (model, use) => cacheSeriesOf(model, use)(1),
      begin: (model, operation) => of(model, operation).begun(1),
      end({ end, isFallback, model, operation, seconds, tokens, usd }: Outcome) {
        const { cost, duration, errors, failed, fallbacks, succeeded, tokens: generated } = of(model, operation)
        duration(seconds)
        generated(tokens)
        if (isFallback === true) fallbacks(1)
        if (usd !== undefined && usd > 0) cost(usd)
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
    let limited = new Set<string>()
    const sample = Effect.gen(function*() {
      const statuses = yield* models.statuses
      const engines = statuses.reduce((sum, status) => sum + status.memoryBytes, 0)
      yield* Metric.update(memoryUsage, process.memoryUsage.rss() + engines)
      yield* Metric.update(queueSize, statuses.reduce((sum, status) => sum + status.queued, 0))
      const limits = new Map(
        statuses.flatMap(({ deployment, limit }) => limit === undefined ? [] : [[deployment, limit]])
      )
      for (const [deployment, limit] of limits) {
        yield* Metric.update(Metric.withAttributes(concurrencyLimit, { deployment }), limit)
      }
      for (const deployment of limited) {
        if (!limits.has(deployment)) yield* Metric.remove(Metric.withAttributes(concurrencyLimit, { deployment }))
      }
      limited = new Set(limits.keys())
      const { compact, memory, semantic } = cache.contents()
      yield* Metric.update(cacheMemory, memory.bytes)
      yield* Metric.update(cacheCompact, compact.bytes)
      yield* Metric.update(cacheSemantic, semantic.bytes)
    })
    yield* Effect.forkScoped(Effect.repeat(sample, Schedule.spaced(sampleEvery)))
  })
)
