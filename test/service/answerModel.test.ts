/** The `model` of answers over HTTP, in every dialect: that of the deployment that answered, or the one in the request. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import { json } from "../support/Faults.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"
import { wires } from "../support/Wires.ts"

const providers = ["openai", "anthropic", "ollama", "gemini"] as const

const messages = [{ role: "user", content: "Hello" }]

/** How a caller asks, and where an answer has its model. */
const callers = {
  openai: { path: "/v1/chat/completions", body: { messages } },
  anthropic: { path: "/v1/messages", body: { messages, max_tokens: 100 } },
  completions: { path: "/v1/completions", body: { prompt: "Hello" } },
  responses: { path: "/v1/responses", body: { input: "Hello" } },
  "ollama chat": { path: "/api/chat", body: { messages } },
  "ollama generate": { path: "/api/generate", body: { prompt: "Hello" } }
} as const
const dialects = Object.keys(callers) as ReadonlyArray<keyof typeof callers>

/** Few providers continue a text. */
const providersOf = (dialect: keyof typeof callers): ReadonlyArray<typeof providers[number]> =>
  dialect === "completions" ? ["ollama"] : providers

let upstream: FaultServer
let served: Service
let requested: Service

const isStream = (path: string, body: unknown): boolean =>
  path.includes("streamGenerateContent") || (body as { readonly stream?: boolean }).stream === true

beforeAll(async () => {
  upstream = await startFaultServer((_, { body, path }) => {
    if (path.startsWith("/down")) return { status: 503, headers: json, pieces: ["{}"] }
    const wire = wires[providers.find((name) => path.startsWith(`/${name}`))!]
    return isStream(path, body) ? wire : { headers: json, pieces: [wire.buffered] }
  })
  const models = Object.fromEntries(providers.map((provider) => [`ask-${provider}`, {
    preload: false,
    deployments: [
      { provider: "openai", model: "failing", baseUrl: `${upstream.url}/down`, quality: 0.9 },
      { provider, model: "stand-in", baseUrl: `${upstream.url}/${provider}`, key: "${K}", quality: 0.1 }
    ]
  }]))
  const fake = {
    "fake/local": { preload: false, deployments: [{ engine: "fake", reply: "Hi" }] },
    "fake/falls-back": {
      preload: false,
      fallbacks: ["fake/local"],
      deployments: [{ engine: "fake", fault: { kind: "error", afterTokens: 0 } }]
    },
    "fake/hands-over": {
      preload: false,
      policy: "continues",
      fallbacks: ["next"],
      deployments: [{ engine: "fake", reply: "one two three four", fault: { kind: "error", afterTokens: 3 } }]
    },
    next: {
      preload: false,
      deployments: [{ provider: "ollama", model: "stand-in", baseUrl: `${upstream.url}/ollama` }]
    }
  }
  const settings = {
    circuits: { failures: 1000 },
    models: { ...models, ...fake },
    policies: { default: { strategy: "quality", retries: 0 }, continues: { continue: true } }
  }
  ;[served, requested] = await Promise.all([
    startService(JSON.stringify(settings), { K: "key" }),
    startService(JSON.stringify({ ...settings, troupe: { model: "requested" } }), { K: "key" })
  ])
}, 60_000)

afterAll(async () => {
  await Promise.all([served.stop(), requested.stop(), upstream.close()])
})

interface Named {
  readonly model?: string
  readonly message?: { readonly model?: string }
  readonly response?: { readonly model?: string }
}

/** The models that the JSON texts of a response name, each once. */
const modelsIn = (text: string): ReadonlyArray<string> => {
  const texts = text.split("\n").map((line) => line.replace(/^data: /, "")).filter((line) => line.startsWith("{"))
  const found = texts.map((one) => JSON.parse(one) as Named)
    .flatMap(({ message, model, response }) => model ?? message?.model ?? response?.model ?? [])
  return [...new Set(found)]
}

const ask = async (service: Service, dialect: keyof typeof callers, model: string, stream: boolean) => {
  const { body, path } = callers[dialect]
  const response = await fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, stream, ...body })
  })
  const text = await response.text()
  assert.strictEqual(response.status, 200, text)
  return modelsIn(text)
}

for (const dialect of dialects) {
  describe.concurrent(`an answer of the dialect ${dialect}`, () => {
    for (const stream of [false, true]) {
      const how = stream ? "streamed" : "whole"
      for (const provider of providersOf(dialect)) {
        it(`names the model of ${provider} that answers after a failure, ${how}`, async () => {
          assert.deepStrictEqual(await ask(served, dialect, `ask-${provider}`, stream), ["stand-in"])
        })
      }

      it(`names the model in the request where the settings say so, ${how}`, async () => {
        for (const model of [...providersOf(dialect).map((provider) => `ask-${provider}`), "fake/falls-back"]) {
          assert.deepStrictEqual(await ask(requested, dialect, model, stream), [model])
        }
      })

      it(`names a local model, also as a fallback, ${how}`, async () => {
        assert.deepStrictEqual(await ask(served, dialect, "fake/local", stream), ["fake/local"])
        assert.deepStrictEqual(await ask(served, dialect, "fake/falls-back", stream), ["fake/local"])
      })
    }

    it.skipIf(dialect === "completions")(
      "names the deployment that continues a stream, where the dialect names it after the start",
      async () => {
        const names = await ask(served, dialect, "fake/hands-over", true)
        assert.deepStrictEqual(names, dialect === "anthropic" ? ["fake/hands-over"] : ["fake/hands-over", "stand-in"])
      }
    )
  })
}

describe("an answer of Ollama's dialect", () => {
  it("names a local model as the caller wrote it", async () => {
    assert.deepStrictEqual(await ask(served, "ollama chat", "fake/local:latest", false), ["fake/local:latest"])
    assert.deepStrictEqual(await ask(served, "ollama chat", "fake/local:latest", true), ["fake/local:latest"])
  })
})
