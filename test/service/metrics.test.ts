/** The metrics of a service, and the rules and the dashboard that read them. */
import { assert } from "@effect/vitest"
import { Effect, Layer, Logger, Metric } from "effect"
import { HttpServer } from "effect/http"
import { spawnSync } from "node:child_process"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { afterAll, beforeAll, describe, it } from "vitest"
import * as App from "../../src/App.ts"
import * as SettingsFile from "../../src/layers/settings/SettingsFile.ts"
import type * as HealthDetails from "../../src/services/health/HealthDetails.ts"
import { mustRun } from "../support/DatabaseServers.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import { wires } from "../support/Wires.ts"

let upstream: FaultServer
let metrics = ""
let details: typeof HealthDetails.Report.Type
/** The status of `/health/ready` before and after the key of the only deployment was rejected, and the answer. */
const ready: Array<readonly [status: number, body: unknown]> = []

const json = { "content-type": "application/json" }

const vectors = JSON.stringify({
  object: "list",
  model: "vectors",
  data: [{ object: "embedding", index: 0, embedding: [0, 1] }],
  usage: { prompt_tokens: 5, total_tokens: 5 }
})

/** Of a provider of Anthropic's dialect, which writes its cache. */
const cachedAnswer = JSON.stringify({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "cached",
  content: [{ type: "text", text: "Hello." }],
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: { input_tokens: 2, cache_creation_input_tokens: 10, cache_read_input_tokens: 20, output_tokens: 4 }
})

const ask = async (url: string, body: object) => {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { ...json, "x-request-id": "client-1" },
    body: JSON.stringify({ messages: [{ role: "user", content: "Hello" }], ...body })
  })
  await response.text()
}

const logs: Array<Readonly<Record<string, unknown>>> = []
const logger = Logger.map(Logger.formatStructured, ({ annotations, level, message }) => {
  const [text, fields] = Array.isArray(message) ? message : [message]
  logs.push({ level, message: text, ...annotations, ...fields })
})

/** Runs a service, with metrics of its own. */
const withService = (config: SettingsFile.Config, use: (url: string) => Promise<void>) =>
  Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    yield* Effect.promise(() => use(`http://127.0.0.1:${"port" in address ? address.port : 0}`))
  }).pipe(
    Effect.provide(
      App.service.pipe(Layer.provide(SettingsFile.layer({ config })), Layer.provide(Logger.layer([logger])))
    ),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.scoped,
    Effect.runPromise
  )

const common: SettingsFile.Config = {
  logRequests: "all",
  server: { port: 0, admin: { socket: false } },
  storage: { type: "memory" },
  policies: { default: { retries: 0 } }
}

beforeAll(async () => {
  upstream = await startFaultServer((_, { body }) => {
    const { headers, pieces, buffered } = wires["openai"]
    const { model, stream } = body as { readonly model: string; readonly stream?: boolean }
    if (model === "locked") return { status: 401, headers: json, pieces: ["{}"] }
    if (model === "down") return { status: 500, headers: json, pieces: ["{}"] }
    if (model === "strict") return { status: 400, headers: json, pieces: ["{}"] }
    if (model === "vectors") return { headers: json, pieces: [vectors] }
    if (model === "cached") return { headers: json, pieces: [cachedAnswer] }
    return stream === true ? { headers, pieces } : { headers: json, pieces: [buffered] }
  })
  const remote = (model: string) => ({
    provider: "openai" as const,
    model,
    baseUrl: `${upstream.url}/v1`,
    key: "k"
  })
  await withService({
    ...common,
    ledger: { anonymous: true },
    models: {
      chat: { deployments: [{ ...remote("up"), price: { input: 1000, output: 2000 } }] },
      vectors: { deployments: [remote("vectors")] },
      cached: { deployments: [{ ...remote("cached"), provider: "anthropic" as const, baseUrl: upstream.url }] },
      second: { deployments: [remote("down")], fallbacks: ["chat"] },
      broken: { deployments: [remote("down")] },
      strict: { deployments: [remote("strict")] }
    }
  }, async (url) => {
    await ask(url, { model: "chat" })
    await ask(url, { model: "chat", stream: true })
    await ask(url, { model: "second" })
    await ask(url, { model: "broken" })
    await ask(url, { model: "nothing-of-this-name" })
    details = await (await fetch(`${url}/health/details`)).json() as typeof details
    await ask(url, { model: "cached" })
    await ask(url, { model: "strict" })
    await fetch(`${url}/v1/embeddings`, {
      method: "POST",
      headers: json,
      body: JSON.stringify({ model: "vectors", input: "Hello" })
    })
    metrics = await (await fetch(`${url}/metrics`)).text()
  })
  await withService({ ...common, models: { only: { deployments: [remote("locked")] } } }, async (url) => {
    for (const _ of [1, 2]) {
      const response = await fetch(`${url}/health/ready`)
      ready.push([response.status, await response.json()])
      await ask(url, { model: "only" })
    }
  })
}, 60_000)

afterAll(() => upstream.close())

/** The value of a series by its name and some of its labels. */
const valueOf = (name: string, labels: Readonly<Record<string, string>>): number | undefined => {
  const found = metrics.split("\n").find((line) =>
    line.startsWith(`${name}{`) &&
    Object.entries(labels).every(([label, value]) => line.includes(`${label}="${value}"`))
  )
  return found === undefined ? undefined : Number(found.split(" ").at(-1))
}

const read = (path: string) => readFileSync(new URL(`../../${path}`, import.meta.url), "utf8")

/** The names of metrics in a query. */
const namesIn = (query: string): ReadonlyArray<string> =>
  [...query.matchAll(/\b(?:llm|troupe|gen_ai_client)_\w+(?=[{[)\s]|$)/g)].map(([name]) =>
    name.replace(/_(?:bucket|sum|count)$/, "")
  )

/** Series that only some services have: of caches, storage, limits, keys, the policy for prompts, circuits, long streams, local engines and GPUs. */
const occasional =
  /^(?:llm_(?:cache_(?:hits|misses)|storage_lost_rows|admission_rejections|security_events)_total|troupe_(?:engine_restarts|model_failures)_total|gen_ai_client_inference_time_per_output_chunk_seconds|troupe_gpu_memory_(?:used|total)_bytes|troupe_circuit_open_max)$/

const known = () => new Set([...metrics.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!))

describe("/health/details", () => {
  it("has each window against the targets, and the models that can answer", () => {
    assert.deepStrictEqual(details.targets, { availability: 0.999, errorRate: 0.001 })
    assert.deepStrictEqual(details.windows.map(({ window }) => window), ["5m", "1h", "1d"])
    for (const window of details.windows) {
      assert.deepInclude(window, { requests: 4, failed: 1, errorRate: 0.25, meetsTargets: false })
    }
    assert.isAtLeast(details.uptimeSeconds, 0)
    assert.deepStrictEqual(details.models.map(({ available, model }) => [model, available]), [
      ["chat", true],
      ["vectors", true],
      ["cached", true],
      ["second", true],
      ["broken", true],
      ["strict", true]
    ])
  })
})

describe("the log", () => {
  const entries = () => logs.filter(({ operation }) => operation === "chat")

  it("has one entry for each request, with its ids and figures", () => {
    assert.lengthOf(entries(), 9)
    const [answered, , second, broken] = entries()
    assert.deepInclude(answered, {
      level: "INFO",
      message: "Request answered.",
      client_request_id: "client-1",
      model: "chat",
      deployment: "chat#0",
      attempts: 1,
      end: "success"
    })
    assert.match(String(answered?.["request_id"]), /^chatcmpl-/)
    assert.deepInclude(second, { attempts: 2, deployment: "chat#0" })
    assert.deepInclude(broken, { level: "WARN", end: "failure", error: "UpstreamFailed" })
    assert.notInclude(JSON.stringify(logs), "Hello")
  })
})

describe("a lone key in cooldown", () => {
  it("makes a service that has no other model not ready", () => {
    const [before, after] = ready
    assert.strictEqual(before?.[0], 200)
    assert.strictEqual(after?.[0], 503)
    assert.deepInclude(after?.[1], { status: "unavailable" })
  })
})

describe("metrics", () => {
  const genAi = { gen_ai_operation_name: "chat", gen_ai_provider_name: "openai", gen_ai_response_model: "up" }

  it("count attempts, fallbacks, inferences and their tokens", () => {
    assert.strictEqual(valueOf("troupe_attempts_total", { deployment: "chat#0", outcome: "answered" }), 3)
    assert.strictEqual(valueOf("troupe_attempts_total", { deployment: "second#0", outcome: "failed" }), 1)
    assert.strictEqual(valueOf("troupe_fallbacks_total", { model: "second" }), 1)
    assert.strictEqual(
      valueOf("gen_ai_client_inference_duration_seconds_count", { ...genAi, gen_ai_request_model: "chat" }),
      2
    )
    assert.strictEqual(valueOf("gen_ai_client_inference_duration_seconds_count", { error_type: "UpstreamFailed" }), 1)
    assert.strictEqual(valueOf("gen_ai_client_inference_time_to_first_chunk_seconds_count", genAi), 1)
    assert.isAbove(valueOf("gen_ai_client_inference_operation_output_tokens_sum", genAi) ?? 0, 0)
  })

  it("count tokens by kind, and embeddings by the names of their own", () => {
    for (const kind of ["input", "output"]) {
      const counted = valueOf(`gen_ai_client_inference_usage_${kind}_tokens_total`, {
        ...genAi,
        gen_ai_request_model: "chat",
        gen_ai_token_modality: "unknown"
      })
      const distributed = valueOf(`gen_ai_client_inference_operation_${kind}_tokens_sum`, {
        ...genAi,
        gen_ai_request_model: "chat"
      })
      assert.isAbove(counted ?? 0, 0)
      assert.strictEqual(counted, distributed)
    }
    const cached = { gen_ai_request_model: "cached" }
    assert.strictEqual(valueOf("gen_ai_client_inference_usage_input_tokens_total", cached), 32)
    assert.strictEqual(valueOf("gen_ai_client_inference_usage_cache_write_input_tokens_total", cached), 10)
    assert.strictEqual(valueOf("gen_ai_client_inference_usage_cache_read_input_tokens_total", cached), 20)
    const embedded = { gen_ai_operation_name: "embeddings", gen_ai_request_model: "vectors" }
    assert.strictEqual(valueOf("gen_ai_client_embeddings_duration_seconds_count", embedded), 1)
    assert.strictEqual(valueOf("gen_ai_client_embeddings_operation_input_tokens_sum", embedded), 5)
    assert.isUndefined(valueOf("gen_ai_client_operation_duration_seconds_count", embedded))
    assert.isUndefined(valueOf("gen_ai_client_inference_usage_input_tokens_total", embedded))
  })

  it("have requests by endpoint, their cost, their time to the first token and that of Troupe itself", () => {
    const chat = { model: "chat" }
    assert.strictEqual(valueOf("troupe_requests_total", { ...chat, endpoint: "chat", outcome: "success" }), 2)
    assert.strictEqual(valueOf("troupe_requests_total", { model: "broken", endpoint: "chat", outcome: "failure" }), 1)
    assert.strictEqual(valueOf("troupe_requests_total", { endpoint: "embeddings", outcome: "success" }), 1)
    assert.strictEqual(valueOf("troupe_time_to_first_token_seconds_count", chat), 1)
    assert.strictEqual(valueOf("troupe_overhead_seconds_count", chat), 2)
    assert.isAbove(valueOf("troupe_overhead_seconds_sum", chat) ?? 0, 0)
    const tokens = (kind: string) =>
      valueOf(`gen_ai_client_inference_usage_${kind}_tokens_total`, { gen_ai_request_model: "chat" }) ?? Number.NaN
    assert.closeTo(
      valueOf("troupe_cost_usd_total", { ...chat, user: "" }) ?? 0,
      (1_000 * tokens("input") + 2_000 * tokens("output")) / 1e6,
      1e-9
    )
  })

  it("have no label with the text of a caller", () => {
    assert.notInclude(metrics, "nothing-of-this-name")
  })

  it("are those that the rules and the dashboard read", () => {
    const dashboard = JSON.parse(read("deploy/compose/grafana/troupe.json")) as {
      readonly panels: ReadonlyArray<{ readonly targets: ReadonlyArray<{ readonly expr: string }> }>
    }
    const queries = dashboard.panels.flatMap(({ targets }) => targets.map(({ expr }) => expr))
    const rules = [...read("deploy/prometheus/rules.yaml").matchAll(/expr: (.*)$/gm)].map(([, expr]) => expr!)
    const names = [...queries, ...rules].flatMap(namesIn)
    assert.isAbove(names.length, 30)
    const present = known()
    assert.deepStrictEqual(names.filter((name) => !present.has(name) && !occasional.test(name)), [])
  })

  const promtool = spawnSync("promtool", ["--version"]).status === 0

  it.skipIf(!promtool && !mustRun)(
    "and rules pass promtool (skipped where the Debian package prometheus is not installed)",
    () => {
      const lint = spawnSync("promtool", ["check", "metrics"], { input: metrics, encoding: "utf8" })
      assert.strictEqual(lint.status, 0, lint.stdout + lint.stderr)
      const file = fileURLToPath(new URL("../../deploy/prometheus/rules.yaml", import.meta.url))
      const rules = spawnSync("promtool", ["check", "rules", file], { encoding: "utf8" })
      assert.strictEqual(rules.status, 0, rules.stdout + rules.stderr)
      const tests = spawnSync("promtool", ["test", "rules", file.replace(/yaml$/, "test.yaml")], { encoding: "utf8" })
      assert.strictEqual(tests.status, 0, tests.stdout + tests.stderr)
    }
  )
})
