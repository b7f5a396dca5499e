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
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import { wires } from "../support/Wires.ts"

let upstream: FaultServer
let metrics = ""

const json = { "content-type": "application/json" }

const ask = async (url: string, body: object) => {
  const response = await fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: json,
    body: JSON.stringify({ messages: [{ role: "user", content: "Hello" }], ...body })
  })
  await response.text()
}

beforeAll(async () => {
  upstream = await startFaultServer((_, { body }) => {
    const { headers, pieces, buffered } = wires["openai"]
    const { model, stream } = body as { readonly model: string; readonly stream?: boolean }
    if (model === "down") return { status: 500, headers: json, pieces: ["{}"] }
    return stream === true ? { headers, pieces } : { headers: json, pieces: [buffered] }
  })
  const remote = (model: string) => ({
    provider: "openai" as const,
    model,
    baseUrl: `${upstream.url}/v1`,
    key: "k"
  })
  const config: SettingsFile.Config = {
    server: { port: 0, admin: { socket: false } },
    storage: { type: "memory" },
    policies: { default: { retries: 0 } },
    models: {
      chat: { deployments: [remote("up")] },
      second: { deployments: [remote("down")], fallbacks: ["chat"] },
      broken: { deployments: [remote("down")] }
    }
  }
  const service = App.service.pipe(Layer.provide(SettingsFile.layer({ config })), Layer.provide(Logger.layer([])))
  await Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    const url = `http://127.0.0.1:${"port" in address ? address.port : 0}`
    metrics = yield* Effect.promise(async () => {
      await ask(url, { model: "chat" })
      await ask(url, { model: "chat", stream: true })
      await ask(url, { model: "second" })
      await ask(url, { model: "broken" })
      await ask(url, { model: "nothing-of-this-name" })
      return (await fetch(`${url}/metrics`)).text()
    })
  }).pipe(
    Effect.provide(service),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.scoped,
    Effect.runPromise
  )
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

/** Series that only some services have: of caches, storage, limits, keys, the policy for prompts, circuits and local engines. */
const occasional =
  /^(?:llm_(?:cache_(?:hits|misses)|storage_lost_rows|admission_rejections|security_events)_total|troupe_(?:engine_restarts|model_failures|cost_usd)_total|troupe_circuit_open_max)$/

const known = () => new Set([...metrics.matchAll(/^# TYPE (\S+)/gm)].map(([, name]) => name!))

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

  it.skipIf(!promtool)("and rules pass promtool (skipped where the Debian package prometheus is not installed)", () => {
    const lint = spawnSync("promtool", ["check", "metrics"], { input: metrics, encoding: "utf8" })
    assert.strictEqual(lint.status, 0, lint.stdout + lint.stderr)
    const file = fileURLToPath(new URL("../../deploy/prometheus/rules.yaml", import.meta.url))
    const rules = spawnSync("promtool", ["check", "rules", file], { encoding: "utf8" })
    assert.strictEqual(rules.status, 0, rules.stdout + rules.stderr)
  })
})
