/** The series of requests and attempts in a registry. */
import { assert, describe, it } from "@effect/vitest"
import { Context, Metric } from "effect"
import type { AttemptOutcome, Outcome } from "../../../src/services/observability/Metrics.ts"
import * as RequestMetrics from "../../../src/services/observability/RequestMetrics.ts"

const registry = () => Context.make(Metric.MetricRegistry, new Map())

/** The values of all series of a metric, by their labels: counts of counters, sums of histograms. */
const valuesOf = (context: Context.Context<never>, id: string) =>
  Object.fromEntries(
    Metric.snapshotUnsafe(context).filter((one) => one.id === id).map((one) => [
      Object.entries(one.attributes ?? {}).map((label) => label.join("=")).toSorted().join(" "),
      one.type === "Counter" ? Number(one.state.count) : one.type === "Histogram" ? one.state.sum : Number.NaN
    ])
  )

const request = (more: Partial<Outcome> = {}): Outcome => ({
  model: "m",
  operation: "chat",
  seconds: 1,
  tokens: 2,
  end: "success",
  ...more
})

const attempt = (more: Partial<AttemptOutcome> = {}): AttemptOutcome => ({
  operation: "chat",
  model: "m",
  deployment: "m#0",
  provider: "openai",
  served: "gpt",
  outcome: "answered",
  error: undefined,
  grantedSeconds: 1,
  firstTokenSeconds: 2,
  seconds: 4,
  inputTokens: 10,
  outputTokens: 5,
  cachedTokens: 0,
  cacheWriteTokens: undefined,
  reasoningTokens: undefined,
  ...more
})

describe("the metrics of requests", () => {
  it("have the cost by model and key, of keys beyond the limit together", () => {
    const context = registry()
    const metrics = RequestMetrics.make(context)
    metrics.end(request({ usd: 1, payer: "key_a" }))
    metrics.end(request({ usd: 2, payer: "key_a" }))
    metrics.end(request({ usd: 4 }))
    metrics.end(request({ usd: 0, payer: "free" }))
    for (let key = 2; key < RequestMetrics.mostPayers + 10; key++) metrics.end(request({ usd: 1, payer: `key_${key}` }))
    metrics.end(request({ usd: 5, payer: "key_a", model: "n" }))
    const costs = valuesOf(context, "troupe_cost_usd_total")
    assert.deepInclude(costs, { "model=m user=key_a": 3, "model=m user=": 4, "model=m user=other": 10 })
    assert.strictEqual(costs["model=n user=key_a"], 5)
    assert.notProperty(costs, "model=m user=free")
    assert.lengthOf(Object.keys(costs), RequestMetrics.mostPayers + 2)
  })

  it("count refused requests, which are errors only where the service is their cause", () => {
    const context = registry()
    const metrics = RequestMetrics.make(context)
    metrics.refused!("m", "chat", true)
    assert.deepStrictEqual(valuesOf(context, "llm_requests_total"), {})
    metrics.refused!("m", "chat", false)
    assert.deepStrictEqual(valuesOf(context, "troupe_requests_total"), {
      "endpoint=chat model=m outcome=refused": 1,
      "endpoint=chat model=m outcome=failure": 1
    })
    assert.deepStrictEqual(valuesOf(context, "llm_requests_total"), { "model=m success=false": 1 })
    assert.deepStrictEqual(valuesOf(context, "llm_errors_total"), { "model=m": 1 })
    assert.deepStrictEqual(valuesOf(context, "troupe_caller_errors_total"), {})
  })

  it("have one outcome for each request, and callers that left are no errors", () => {
    const context = registry()
    const metrics = RequestMetrics.make(context)
    for (const end of ["success", "failure", "interruption"] as const) {
      metrics.end(request({ end, operation: "rerank" }))
    }
    assert.deepStrictEqual(valuesOf(context, "troupe_requests_total"), {
      "endpoint=rerank model=m outcome=success": 1,
      "endpoint=rerank model=m outcome=failure": 1,
      "endpoint=rerank model=m outcome=left": 1
    })
    assert.deepStrictEqual(valuesOf(context, "llm_errors_total"), { "model=m": 1 })
    assert.deepStrictEqual(valuesOf(context, "troupe_caller_errors_total"), {})
    metrics.end(request({ end: "failure", isOfCaller: true }))
    assert.deepStrictEqual(valuesOf(context, "llm_errors_total"), { "model=m": 2 })
    assert.deepStrictEqual(valuesOf(context, "troupe_caller_errors_total"), { "model=m": 1 })
  })

  it("are added up where several record into one registry", () => {
    const context = registry()
    RequestMetrics.make(context).end(request())
    RequestMetrics.make(context).end(request())
    assert.deepStrictEqual(valuesOf(context, "llm_requests_total"), { "model=m success=true": 2 })
  })

  it("have the attributes of the context", () => {
    const context = registry().pipe(Context.add(Metric.CurrentMetricAttributes, { zone: "a" }))
    RequestMetrics.make(context).end(request())
    assert.deepStrictEqual(valuesOf(context, "llm_requests_total"), { "model=m success=true zone=a": 1 })
  })
})

describe("the metrics of attempts", () => {
  const labels =
    "gen_ai_operation_name=chat gen_ai_provider_name=openai gen_ai_request_model=m gen_ai_response_model=gpt"

  it("measure from the slot on, and count only what was used", () => {
    const context = registry()
    const { attempted } = RequestMetrics.make(context)
    attempted?.(attempt())
    attempted?.(attempt({ grantedSeconds: undefined, outcome: "failed", error: "QueueFull" }))
    assert.deepStrictEqual(valuesOf(context, "gen_ai_client_inference_duration_seconds"), { [labels]: 3 })
    assert.deepStrictEqual(valuesOf(context, "gen_ai_client_inference_usage_input_tokens_total"), {
      [`${labels} gen_ai_token_modality=unknown`]: 10
    })
    assert.deepStrictEqual(valuesOf(context, "gen_ai_client_inference_usage_cache_write_input_tokens_total"), {})
    assert.deepStrictEqual(valuesOf(context, "troupe_output_tokens_per_second"), { "deployment=m#0": 2 })
  })

  it("have the time between chunks of a stream", () => {
    const context = registry()
    const { chunks } = RequestMetrics.make(context)
    for (const seconds of [0.5, 0.25]) chunks?.(attempt())(seconds)
    assert.deepStrictEqual(valuesOf(context, "gen_ai_client_inference_time_per_output_chunk_seconds"), {
      [labels]: 0.75
    })
  })
})
