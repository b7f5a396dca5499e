/** The semantic cache of a service: similar requests over HTTP, in both dialects, by tenant, and the cost of embeddings. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const secrets = { ADA_KEY: "the-secret-of-ada", BOB_KEY: "the-secret-of-bob", ADMIN_KEY: "the-secret-of-an-admin" }

const chat = {
  id: "c",
  object: "chat.completion",
  created: 1,
  model: "up",
  choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, logprobs: null, finish_reason: "stop" }],
  usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
}

/** All questions have the same embedding. */
const embeddings = {
  object: "list",
  model: "up",
  data: [{ object: "embedding", index: 0, embedding: [0.6, 0.8] }],
  usage: { prompt_tokens: 7, total_tokens: 7 }
}

const configuration = (url: string) => `
storage: { type: memory }
keys:
  ada: { key: "\${ADA_KEY}", tenant: red, models: [chat] }
  bob: { key: "\${BOB_KEY}", tenant: blue }
  admin: { key: "\${ADMIN_KEY}", admin: true }
limits: { default: false }
models:
  chat:
    cache: { when: always, semantic: { embeddings: embedder, timeout: 30 seconds } }
    deployments: [{ provider: openai, model: up, baseUrl: "${url}" }]
  embedder:
    deployments: [{ provider: openai, model: up, baseUrl: "${url}", price: { input: 1, output: 0 } }]
`

let provider: FaultServer
let service: Service

beforeAll(async () => {
  provider = await startFaultServer((_, { path }) => ({
    headers: { "content-type": "application/json" },
    pieces: [JSON.stringify(path.endsWith("/embeddings") ? embeddings : chat)]
  }))
  service = await startService(configuration(provider.url), { ...secrets, NODE_ENV: "production" })
}, 60_000)

afterAll(async () => {
  await service.stop()
  await provider.close()
})

const post = (path: string, body: object, key: keyof typeof secrets, headers: Record<string, string> = {}) =>
  fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${secrets[key]}`, ...headers },
    body: JSON.stringify(body)
  })

/** The headers of the cache. */
const used = async (answer: Promise<Response>) => {
  const response = await answer
  const text = await response.text()
  assert.strictEqual(response.status, 200, text)
  const [tier, similarity] = ["tier", "similarity"].map((name) => response.headers.get(`x-troupe-cache-${name}`))
  return similarity === null ? tier ?? response.headers.get("x-troupe-cache") : `${tier} ${similarity}`
}

const ask = (content: string, key: keyof typeof secrets = "ADA_KEY", headers?: Record<string, string>) =>
  used(post("/v1/chat/completions", { model: "chat", messages: [{ role: "user", content }] }, key, headers))

const askAnthropic = (content: unknown) =>
  used(post("/v1/messages", { model: "chat", max_tokens: 9, messages: [{ role: "user", content }] }, "ADA_KEY"))

describe("the semantic cache of a service", () => {
  it("gives similar requests of one tenant the same answer, and no other request", async () => {
    assert.strictEqual(await ask("How do I reset my password?"), "miss")
    assert.strictEqual(await ask("how can I reset my password, please"), "semantic 1.000")
    assert.strictEqual(await ask("How do I reset my password?"), "memory")
    assert.strictEqual(await ask("How do I not reset my password?"), "miss")
    assert.strictEqual(await ask("how could I reset my password", "BOB_KEY"), "miss")
    assert.strictEqual(await ask("how could I reset the password", "ADA_KEY", { "cache-control": "no-cache" }), "miss")
    assert.strictEqual(await ask("how do you reset a password", "ADA_KEY", { "cache-control": "no-store" }), "bypass")
  })

  it("compares questions of the Anthropic dialect, also as parts", async () => {
    assert.strictEqual(await askAnthropic("How do I bake bread?"), "miss")
    assert.strictEqual(await askAnthropic("how can I bake bread"), "semantic 1.000")
    assert.strictEqual(await askAnthropic([{ type: "text", text: "please: how do I bake bread?" }]), "semantic 1.000")
  })

  it("counts embeddings in the ledger of the caller", async () => {
    const admin = { authorization: `Bearer ${secrets.ADMIN_KEY}` }
    const response = await fetch(`${service.url}/admin/usage?by=tenant,model,endpoint`, { headers: admin })
    const text = await response.text()
    assert.strictEqual(response.status, 200, text)
    const { usage } = JSON.parse(text) as { readonly usage: ReadonlyArray<Record<string, unknown>> }
    const row = usage.find(({ model, tenant }) => tenant === "blue" && model === "embedder")
    assert.deepInclude(row, { endpoint: "embeddings", promptTokens: 7 })
  })

  const cli = async (...args: ReadonlyArray<string>) => {
    const { code, stderr, stdout } = await invoke(["cache", ...args, "--url", service.admin], {
      env: { TROUPE_ADMIN_TOKEN: secrets.ADMIN_KEY }
    })
    assert.strictEqual(code, 0, stderr)
    return stdout
  }

  it("shows the questions and hits of each tenant of a model", async () => {
    const rows = (await cli("show")).split("\n").map((row) => row.split(/ {2,}/))
    const of = (tenant: string) => rows.find(([model, found]) => model === "chat" && found === tenant)
    assert.deepStrictEqual(of("red"), ["chat", "red", "3", "1584 bytes", "3"])
    assert.deepStrictEqual(of("blue"), ["chat", "blue", "1", "528 bytes", "0"])
    const { semantic } = JSON.parse(await cli("show", "--json")) as {
      readonly semantic: { readonly entries: number; readonly hits: number; readonly questions: ReadonlyArray<object> }
    }
    assert.deepInclude(semantic, { entries: 4, hits: 3 })
    assert.strictEqual(semantic.questions.length, 2)
  })

  it("forgets questions with their answers, of a tenant or a model", async () => {
    await cli("clear", "--tenant", "red")
    const shown = await cli("show")
    assert.notMatch(shown, /^chat +red /m)
    assert.match(shown, /^chat +blue /m)
    await cli("clear", "--model", "chat")
    assert.notMatch(await cli("show"), /QUESTIONS/)
    assert.strictEqual(await ask("how would I reset my password"), "miss")
  })
})
