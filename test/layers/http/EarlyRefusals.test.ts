/** Requests that are refused before they are routed, and those that fail: each has one log entry and counts once, in every dialect. */
import { assert } from "@effect/vitest"
import { Effect, Layer, Logger, Metric } from "effect"
import { HttpServer } from "effect/http"
import { request } from "node:http"
import { describe, it } from "vitest"
import * as App from "../../../src/App.ts"
import * as SettingsFile from "../../../src/layers/settings/SettingsFile.ts"
import { startFaultServer } from "../../support/FaultServer.ts"

interface Line {
  readonly [name: string]: unknown
  readonly level: string
  readonly message: string
}

/** Runs a service, with metrics and a log of its own. */
const withService = (config: SettingsFile.Config, use: (url: string, lines: Array<Line>) => Promise<void>) => {
  const lines: Array<Line> = []
  const logger = Logger.map(Logger.formatStructured, ({ annotations, level, message }) => {
    const [text, fields] = Array.isArray(message) ? message : [message]
    lines.push({ ...annotations, ...fields as object, level, message: String(text) })
  })
  return Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    yield* Effect.promise(() => use(`http://127.0.0.1:${"port" in address ? address.port : 0}`, lines))
  }).pipe(
    Effect.provide(
      App.service.pipe(Layer.provide(SettingsFile.layer({ config })), Layer.provide(Logger.layer([logger])))
    ),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.scoped,
    Effect.runPromise
  )
}

const common: SettingsFile.Config = {
  server: { port: 0, admin: { socket: false } },
  storage: { type: "memory" },
  policies: { default: { retries: 0 } }
}

interface Sent {
  readonly path: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string
}

interface Answer {
  readonly status: number
  readonly id: string
  readonly text: string
}

/** Not `fetch`, which refuses some headers. */
const send = (url: string, { body, headers, path }: Sent): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const sent = request(`${url}${path}`, {
      method: "POST",
      headers: { "content-type": "application/json", ...headers },
      agent: false
    }, (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (part: string) => {
        text += part
      })
      response.on("end", () =>
        resolve({ status: response.statusCode!, id: response.headers["x-request-id"] as string, text }))
    })
    sent.on("error", reject).end(body)
  })

const messages = [{ role: "user", content: "Hello" }]

/** The endpoints of all dialects whose requests are for a model, with a valid body. */
const endpoints: Readonly<Record<string, (model: string) => object>> = {
  "/v1/chat/completions": (model) => ({ model, messages }),
  "/v1/completions": (model) => ({ model, prompt: "Hello" }),
  "/v1/embeddings": (model) => ({ model, input: "Hello" }),
  "/v1/rerank": (model) => ({ model, query: "Hello", documents: ["a"] }),
  "/v1/classify": (model) => ({ model, input: "Hello" }),
  "/v1/tokenize": (model) => ({ model, prompt: "Hello" }),
  "/v1/messages": (model) => ({ model, max_tokens: 5, messages }),
  "/v1/messages/count_tokens": (model) => ({ model, messages }),
  "/v1/responses": (model) => ({ model, input: "Hello" }),
  "/v1/responses/input_tokens": (model) => ({ model, input: "Hello" }),
  "/api/chat": (model) => ({ model, messages }),
  "/api/generate": (model) => ({ model, prompt: "Hello" }),
  "/api/embed": (model) => ({ model, input: "Hello" }),
  "/v2/rerank": (model) => ({ model, query: "Hello", documents: ["a"] })
}

const bearer = (key: string) => ({ authorization: `Bearer ${key}-key-0123456789` })

/** What makes the service refuse a request, with its status, its code and the name of its key. */
const refusals: ReadonlyArray<readonly [code: string, status: number, key: string | undefined, change: Partial<Sent>]> =
  [
    ["invalid_api_key", 401, undefined, {}],
    ["invalid_api_key", 401, undefined, { headers: bearer("none") }],
    ["origin_not_allowed", 403, undefined, { headers: { ...bearer("app"), origin: "https://other.example" } }],
    ["expectation_failed", 417, undefined, { headers: { ...bearer("app"), expect: "a-miracle" } }],
    ["invalid_request", 400, "app", { headers: bearer("app"), body: "{" }],
    ["invalid_request", 400, "app", { headers: bearer("app"), body: "[]" }],
    ["invalid_request", 400, "app", { headers: bearer("app"), body: "{\"model\":7}" }],
    ["invalid_request", 400, "app", { headers: { ...bearer("app"), "content-encoding": "gzip" } }],
    ["request_too_large", 413, "app", { headers: bearer("app"), body: JSON.stringify({ text: "x".repeat(5_000) }) }],
    ["rate_limit_exceeded", 429, "slow", { headers: bearer("slow") }]
  ]

const endpointOf = (path: string) => endpoints[path]!

describe("a request that is refused before it is routed", () => {
  it("has one log entry with its status, code and key, and counts once", async () => {
    const config: SettingsFile.Config = {
      ...common,
      logRequests: "all",
      server: { ...common.server, maxBodyBytes: 4_000 },
      models: {
        "fake/chat": { deployments: [{ engine: "fake" }] },
        "fake/other": { deployments: [{ engine: "fake" }] }
      },
      keys: {
        app: { key: "app-key-0123456789", models: ["fake/chat", "none"] },
        slow: { key: "slow-key-0123456789", limits: { requestsPerHour: 1 } },
        boss: { key: "boss-key-0123456789", admin: true }
      }
    }
    await withService(config, async (url, lines) => {
      const chat = JSON.stringify(endpointOf("/v1/chat/completions")("fake/chat"))
      await send(url, { path: "/v1/chat/completions", headers: bearer("slow"), body: chat })
      let count = 0
      for (const [path, bodyOf] of Object.entries(endpoints)) {
        const valid = { path, body: JSON.stringify(bodyOf("fake/chat")) }
        const ofModels = [
          ["model_not_found", 404, "app", { headers: bearer("app"), body: JSON.stringify(bodyOf("none")) }],
          ["model_not_found", 403, "app", { headers: bearer("app"), body: JSON.stringify(bodyOf("fake/other")) }]
        ] as const
        const ofTarget = ["invalid_target", 400, undefined, { headers: bearer("app"), path: `${path}?a=%` }] as const
        for (const [code, status, key, change] of [...refusals, ...ofModels, ofTarget]) {
          const what = `${path} ${code} ${JSON.stringify(change).slice(0, 100)}`
          const answer = await send(url, { ...valid, ...change })
          assert.strictEqual(answer.status, status, `${what} ${answer.text}`)
          const own = lines.filter(({ request_id }) => request_id === answer.id)
          assert.deepStrictEqual(
            own.filter(({ message }) => message === "Request refused.").map((line) =>
              ["level", "status", "code", "key"].map((name) => line[name])
            ),
            [["INFO", status, code, key]],
            what
          )
          assert.isString(own.at(-1)!["detail"])
          assert.strictEqual(own.at(-1)!["decision"] === undefined, key === undefined, what)
          count++
        }
      }
      const limited = lines.filter(({ message }) => message.startsWith("Limit requestsPerHour"))
      assert.isAbove(limited.length, 0)
      for (const { level, request_id } of limited) {
        assert.deepStrictEqual([level, typeof request_id], ["WARN", "string"])
      }
      const metrics = await (await fetch(`${url}/metrics`, { headers: bearer("boss") })).text()
      const counted = [...metrics.matchAll(/^troupe_requests_total\{[^}]*outcome="refused"[^}]*\} (\d+)$/gm)]
      assert.strictEqual(counted.reduce((sum, [, value]) => sum + Number(value), 0), count)
    })
  })
})

const streaming = ["/v1/chat/completions", "/v1/messages", "/v1/responses", "/api/chat"]
const ways = [
  ...streaming.flatMap((path) => [[path, false], [path, true]] as const),
  ["/v1/embeddings", false] as const
]

describe("a request that fails", () => {
  it.each(["all", "failed", "none"] as const)(
    "has one entry that says everything, with %s logged",
    async (logRequests) => {
      const upstream = await startFaultServer(() => ({ status: 500, headers: {}, pieces: ["{}"] }))
      const config: SettingsFile.Config = {
        ...common,
        logRequests,
        // Each request has its own deployment, whose circuit stays closed.
        models: Object.fromEntries(ways.map(([path, stream]) => [`${path} ${stream}`, {
          deployments: [{ provider: "openai", model: "m", key: "k", baseUrl: `${upstream.url}/v1` }]
        }]))
      }
      try {
        await withService(config, async (url, lines) => {
          for (const [path, stream] of ways) {
            const model = `${path} ${stream}`
            const body = JSON.stringify({
              ...endpointOf(path)(model),
              ...(path === "/v1/embeddings" ? {} : { stream })
            })
            const { id, status } = await send(url, { path, body })
            const own = lines.filter(({ message, request_id }) =>
              (request_id === id || message.includes(id)) && !message.startsWith("An attempt at")
            )
            assert.deepStrictEqual(own.map(({ level }) => level), ["WARN"], model)
            const [{ code, detail, message, status: logged }] = own as [Line]
            const text = `The provider of "${model}#0" failed: it answered with HTTP status 500.`
            if (logRequests === "none") assert.include(message, text)
            else {assert.deepStrictEqual([message, logged, code, detail], [
                "Request failed.",
                status,
                "upstream_failed",
                text
              ])}
          }
        })
      } finally {
        await upstream.close()
      }
    }
  )
})
