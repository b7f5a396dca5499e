/**
 * The metrics of requests and attempts, whose series are made at their first update.
 *
 * **Gotchas**
 *
 * Labels hold names of the configuration and words of this file, so that callers cannot create time series; `bounded` sees
 * to names that a wildcard serves. Keys of callers, of
 * which there may be many, have series of their own up to a limit: see `mostPayers`.
 */
import type { Context, Metric } from "effect"
import type { CacheUse } from "../../domain/CacheControl.ts"
import type { Registry } from "../models/Registry.ts"
import { deploymentLabel, modelLabel, ServedNames } from "../models/Registry.ts"
import type { AttemptLabels, AttemptOutcome, Metrics, Operation, Outcome } from "./Metrics.ts"
import type { Update } from "./Series.ts"
import * as Series from "./Series.ts"
import { counter, durationBounds, histogram, tokenBounds } from "./Series.ts"

const requests = counter("llm_requests_total", "Requests that ended, by model and success")
const duration = histogram("llm_request_duration_seconds", "Time from request to last token", durationBounds)
const errors = counter("llm_errors_total", "Requests that failed")
/** Failed requests whose callers are the cause: `llm_requests_total` and `llm_errors_total` have them as well. */
export const callerErrors = counter(
  "troupe_caller_errors_total",
  "Failed requests whose cause is the request itself or a limit or right of its caller, by model"
)
const tokens = histogram("llm_tokens_generated", "Tokens generated per request", tokenBounds)
const usage = counter("llm_model_usage_total", "Requests begun, by model and operation")
const cacheHits = counter("llm_cache_hits_total", "Requests answered by the response cache, by model and tier")
const cacheMisses = counter("llm_cache_misses_total", "Requests that the response cache had no answer for")
const cacheBypasses = counter(
  "llm_cache_bypasses_total",
  "Requests of models with a response cache that it does not apply to"
)
const skippedEvents = counter(
  "llm_stream_events_skipped_total",
  "Events of providers' streams that were not readable and were left out, by model"
)
const securityEvents = counter(
  "llm_security_events_total",
  "Matches of the input policy and refused requests, by rule and action"
)

const ended = counter("troupe_requests_total", "Requests that ended, by model, endpoint and outcome")
const firstToken = histogram(
  "troupe_time_to_first_token_seconds",
  "Time from a request to the first content of its streamed answer, waits and failed attempts included",
  durationBounds
)
const overhead = histogram(
  "troupe_overhead_seconds",
  "Time of a request before its first attempt and after its last one: that of Troupe itself",
  [0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5]
)
const fallbacks = counter("troupe_fallbacks_total", "Requests that a later attempt has answered, by model")
const cost = counter(
  "troupe_cost_usd_total",
  "Cost of requests whose deployments have prices, USD, by model and the key of the caller"
)

const attempts = counter("troupe_attempts_total", "Attempts that ended, by deployment and outcome")
const queueWait = histogram("troupe_queue_wait_seconds", "Time of an attempt until it had its slot", durationBounds)
const tokenRate = histogram(
  "troupe_output_tokens_per_second",
  "Tokens per second after the first content of a stream",
  [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000]
)

const usageOf = (kind: string, description: string) =>
  counter(`gen_ai_client_inference_usage_${kind}_tokens_total`, description)

/** Those of one inference, by the names of OpenTelemetry's GenAI conventions, v0.1.0, as Prometheus writes them. */
const inference = {
  duration: histogram(
    "gen_ai_client_inference_duration_seconds",
    "Time of one inference, from its slot to its last token",
    durationBounds
  ),
  firstChunk: histogram(
    "gen_ai_client_inference_time_to_first_chunk_seconds",
    "Time of one inference to the first content of its stream",
    durationBounds
  ),
  chunk: histogram(
    "gen_ai_client_inference_time_per_output_chunk_seconds",
    "Time between two chunks of one inference, after the first",
    durationBounds
  ),
  inputTokens: histogram(
    "gen_ai_client_inference_operation_input_tokens",
    "Prompt tokens of one inference",
    tokenBounds
  ),
  outputTokens: histogram(
    "gen_ai_client_inference_operation_output_tokens",
    "Tokens that one inference has generated",
    tokenBounds
  ),
  input: usageOf("input", "Prompt tokens of inferences, cached ones included"),
  output: usageOf("output", "Tokens that inferences have generated, reasoning included"),
  cacheRead: usageOf("cache_read_input", "Prompt tokens that a provider's cache or an engine's prefix cache had"),
  cacheWrite: usageOf("cache_write_input", "Prompt tokens that a provider has written to its cache"),
  reasoning: usageOf("reasoning_output", "Tokens of reasoning")
}

const embeddings = {
  duration: histogram("gen_ai_client_embeddings_duration_seconds", "Time of one embeddings operation", durationBounds),
  inputTokens: histogram(
    "gen_ai_client_embeddings_operation_input_tokens",
    "Tokens of the inputs of one embeddings operation",
    tokenBounds
  )
}

const otherDuration = histogram(
  "gen_ai_client_operation_duration_seconds",
  "Time of one other operation at a deployment",
  durationBounds
)

const durations: Readonly<Record<Operation, Metric.Histogram<number>>> = {
  chat: inference.duration,
  embeddings: embeddings.duration,
  rerank: otherDuration,
  classify: otherDuration,
  tokenize: otherDuration
}

type Services = Context.Context<never>
type Attributes = Readonly<Record<string, string>>

/** A series that is made at its first update: most models and deployments never have some of them. */
const series = (
  metric: Metric.Counter<number> | Metric.Histogram<number>,
  context: Services,
  attributes: Attributes
): Update => {
  let update: Update | undefined
  return (input) => (update ??= Series.of(metric, context, attributes))(input)
}

/** Makes something once for each name. */
const once = <Key, A>(make: (key: Key) => A, nameOf: (key: Key) => string) => {
  const all = new Map<string, A>()
  return (key: Key): A => {
    const name = nameOf(key)
    const known = all.get(name)
    if (known !== undefined) return known
    const made = make(key)
    all.set(name, made)
    return made
  }
}

const same = (name: string): string => name

/** Keys with costs of their own; those after them are `other`. */
export const mostPayers = 100

/** The label of a caller's key. */
const makePayerOf = () => {
  const known = new Set<string>()
  return (payer: string): string => {
    if (known.has(payer)) return payer
    if (known.size >= mostPayers) return "other"
    known.add(payer)
    return payer
  }
}

/** The series of one model and operation. */
class ModelSeries {
  readonly begun: Update
  readonly skipped: Update
  readonly cost: (payer: string) => Update
  readonly #ended: Readonly<Record<Outcome["end"], Update>>
  readonly #refused: Update
  readonly #success: Update
  readonly #failure: Update
  readonly #errors: Update
  readonly #callerErrors: Update
  readonly #duration: Update
  readonly #tokens: Update
  readonly #firstToken: Update
  readonly #overhead: Update
  readonly #fallbacks: Update

  constructor(context: Services, model: string, operation: Operation) {
    const own = (metric: Metric.Counter<number> | Metric.Histogram<number>, more: Attributes = {}) =>
      series(metric, context, { model, ...more })
    const endedBy = (outcome: string) => own(ended, { endpoint: operation, outcome })
    this.begun = own(usage, { operation })
    this.skipped = own(skippedEvents)
    this.cost = once((user: string) => own(cost, { user }), same)
    this.#ended = { success: endedBy("success"), failure: endedBy("failure"), interruption: endedBy("left") }
    this.#refused = endedBy("refused")
    this.#success = own(requests, { success: "true" })
    this.#failure = own(requests, { success: "false" })
    this.#errors = own(errors)
    this.#callerErrors = own(callerErrors)
    this.#duration = own(duration)
    this.#tokens = own(tokens)
    this.#firstToken = own(firstToken)
    this.#overhead = own(overhead)
    this.#fallbacks = own(fallbacks)
  }

  /** A refused request whose cause is the service counts as one that failed. */
  refused(isOfCaller: boolean): void {
    if (isOfCaller) return this.#refused(1)
    this.#ended.failure(1)
    this.#failure(1)
    this.#errors(1)
  }

  end({ end, firstTokenSeconds, isFallback, isOfCaller, overheadSeconds, seconds, tokens }: Outcome): void {
    this.#ended[end](1)
    this.#duration(seconds)
    this.#tokens(tokens)
    if (overheadSeconds !== undefined) this.#overhead(overheadSeconds)
    if (firstTokenSeconds !== undefined) this.#firstToken(firstTokenSeconds)
    if (isFallback === true) this.#fallbacks(1)
    if (end === "success") this.#success(1)
    if (end !== "failure") return
    this.#failure(1)
    this.#errors(1)
    if (isOfCaller === true) this.#callerErrors(1)
  }
}

/** The labels of OpenTelemetry. */
const labelsOf = ({ model, operation, provider, served }: AttemptLabels) => ({
  gen_ai_operation_name: operation,
  gen_ai_provider_name: provider,
  gen_ai_request_model: model,
  gen_ai_response_model: served
})

/** The tokens of inferences. What they stand for, text or images, is not known of all of them. */
class TokenSeries {
  readonly #inputTokens: Update
  readonly #outputTokens: Update
  readonly #input: Update
  readonly #output: Update
  readonly #cacheRead: Update
  readonly #cacheWrite: Update
  readonly #reasoning: Update

  constructor(context: Services, labels: Attributes, error: Attributes) {
    const used = (metric: Metric.Counter<number>) =>
      series(metric, context, { ...labels, gen_ai_token_modality: "unknown" })
    this.#inputTokens = series(inference.inputTokens, context, { ...labels, ...error })
    this.#outputTokens = series(inference.outputTokens, context, { ...labels, ...error })
    this.#input = used(inference.input)
    this.#output = used(inference.output)
    this.#cacheRead = used(inference.cacheRead)
    this.#cacheWrite = used(inference.cacheWrite)
    this.#reasoning = used(inference.reasoning)
  }

  add({ cacheWriteTokens = 0, cachedTokens = 0, inputTokens = 0, outputTokens, reasoningTokens = 0 }: AttemptOutcome) {
    this.#inputTokens(inputTokens)
    this.#outputTokens(outputTokens)
    this.#input(inputTokens)
    this.#output(outputTokens)
    if (cachedTokens > 0) this.#cacheRead(cachedTokens)
    if (cacheWriteTokens > 0) this.#cacheWrite(cacheWriteTokens)
    if (reasoningTokens > 0) this.#reasoning(reasoningTokens)
  }
}

/** The series of one deployment, model, operation and error. */
class AttemptSeries {
  readonly #attempt: AttemptOutcome
  readonly #outcomes: Readonly<Record<AttemptOutcome["outcome"], Update>>
  readonly #wait: Update
  readonly #duration: Update
  readonly #firstChunk: Update
  readonly #rate: Update
  readonly #tokens: TokenSeries
  readonly #embedded: Update

  constructor(context: Services, attempt: AttemptOutcome) {
    const { deployment, error, operation } = attempt
    const outcomeOf = (outcome: string) => series(attempts, context, { deployment, outcome })
    const labels = labelsOf(attempt)
    const withError = error === undefined ? {} : { error_type: error }
    this.#attempt = attempt
    this.#outcomes = { answered: outcomeOf("answered"), failed: outcomeOf("failed"), left: outcomeOf("left") }
    this.#wait = series(queueWait, context, { deployment })
    this.#rate = series(tokenRate, context, { deployment })
    this.#duration = series(durations[operation], context, { ...labels, ...withError })
    this.#firstChunk = series(inference.firstChunk, context, labels)
    this.#tokens = new TokenSeries(context, labels, withError)
    this.#embedded = series(embeddings.inputTokens, context, { ...labels, ...withError })
  }

  isOf({ deployment, error, model, operation }: AttemptOutcome): boolean {
    const own = this.#attempt
    return own.deployment === deployment && own.model === model && own.error === error && own.operation === operation
  }

  add(attempt: AttemptOutcome): void {
    const { firstTokenSeconds, grantedSeconds, inputTokens = 0, operation, outcome, outputTokens, seconds } = attempt
    this.#outcomes[outcome](1)
    if (grantedSeconds === undefined) return
    this.#wait(grantedSeconds)
    this.#duration(seconds - grantedSeconds)
    if (operation === "embeddings") this.#embedded(inputTokens)
    if (operation !== "chat") return
    this.#tokens.add(attempt)
    if (firstTokenSeconds === undefined) return
    this.#firstChunk(firstTokenSeconds - grantedSeconds)
    const rest = seconds - firstTokenSeconds
    if (outcome === "answered" && rest > 0 && outputTokens > 1) this.#rate((outputTokens - 1) / rest)
  }
}

const cacheSeries = (context: Services, model: string, use: CacheUse): Update =>
  use.result === "hit"
    ? series(cacheHits, context, { model, tier: use.tier })
    : series(use.result === "miss" ? cacheMisses : cacheBypasses, context, { model })

const makeModels = (context: Services) => {
  const of = (operation: Operation) => once((model: string) => new ModelSeries(context, model, operation), same)
  return {
    chat: of("chat"),
    embeddings: of("embeddings"),
    rerank: of("rerank"),
    classify: of("classify"),
    tokenize: of("tokenize")
  } satisfies Record<Operation, unknown>
}

const makeAttempted = (context: Services) => {
  const series = once(
    (attempt: AttemptOutcome) => new AttemptSeries(context, attempt),
    ({ deployment, error = "", model, operation }) => `${operation} ${error} ${deployment} ${model}`
  )
  /** Most attempts are like the one before. */
  let latest: AttemptSeries | undefined
  return (attempt: AttemptOutcome): void => {
    if (latest?.isOf(attempt) !== true) latest = series(attempt)
    latest.add(attempt)
  }
}

/** Records into the registry of the context. */
export const make = (context: Services): Metrics["Service"] => {
  const payerOf = makePayerOf()
  const models = makeModels(context)
  const attempted = makeAttempted(context)
  const chunk = once(
    (labels: AttemptLabels) => series(inference.chunk, context, labelsOf(labels)),
    ({ deployment, model }) => `${deployment} ${model}`
  )
  const cached = once(
    ([model, use]: readonly [string, CacheUse]) => cacheSeries(context, model, use),
    ([model, use]) => `${use.result} ${use.result === "hit" ? use.tier : ""} ${model}`
  )
  const security = once(
    ([rule, action]: readonly [string, string]) => series(securityEvents, context, { rule, action }),
    ([rule, action]) => `${rule} ${action}`
  )
  return {
    begin: (model, operation) => models[operation](model).begun(1),
    end(outcome) {
      const { model, operation, payer = "", usd = 0 } = outcome
      const own = models[operation](model)
      own.end(outcome)
      if (usd > 0) own.cost(payerOf(payer))(usd)
    },
    refused: (model, operation, isOfCaller) => models[operation](model).refused(isOfCaller),
    attempted,
    chunks: (labels) => chunk(labels),
    cached: (model, use) => cached([model, use])(1),
    skipped: (model, count) => models.chat(model).skipped(count),
    security: (rule, action, count) => security([rule, action])(count)
  }
}

/**
 * The metrics with labels that callers cannot multiply by names that a wildcard serves: the first names of a wildcard are labels,
 * and the others have that of the wildcard (`Wildcards.mostLabels`).
 */
export const bounded = (metrics: Metrics["Service"], registry: Registry["Service"]): Metrics["Service"] => {
  const served = new ServedNames(registry)
  const { attempted, cached, chunks, refused, skipped } = metrics
  const boundedLabels = <A extends AttemptLabels>(labels: A): A => {
    if (registry.wildcardOf === undefined) return labels
    const model = modelLabel(registry, labels.model)
    const deployment = deploymentLabel(registry, labels.deployment)
    if (model === labels.model && deployment === labels.deployment) return labels
    const isSame = deployment === labels.deployment
    return { ...labels, model, deployment, served: isSame ? labels.served : served.nameOf(deployment) ?? deployment }
  }
  return {
    begin: (model, operation) => metrics.begin(modelLabel(registry, model), operation),
    end(outcome) {
      const model = modelLabel(registry, outcome.model)
      return metrics.end(model === outcome.model ? outcome : { ...outcome, model })
    },
    ...(refused && {
      refused: (model, operation, isOfCaller) =>
        refused.call(metrics, modelLabel(registry, model), operation, isOfCaller)
    }),
    ...(attempted && { attempted: (attempt) => attempted.call(metrics, boundedLabels(attempt)) }),
    ...(chunks && { chunks: (labels) => chunks.call(metrics, boundedLabels(labels)) }),
    ...(cached && { cached: (model, use) => cached.call(metrics, modelLabel(registry, model), use) }),
    ...(skipped && { skipped: (model, count) => skipped.call(metrics, modelLabel(registry, model), count) })
  }
}
