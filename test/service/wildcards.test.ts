/** Wildcard models over the service: what reaches the provider, and what keys, lists and answers say. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Overview } from "../../src/layers/http/OverviewSchema.ts"
import { mostLabels, mostNames } from "../../src/services/models/Wildcards.ts"
import type { FaultServer, Play, Seen } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const secrets = { MINI_KEY: "a-key-of-some-models", ALL_KEY: "a-key-of-all-models" }

const json = { "content-type": "application/json" }
const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }

const frame = (body: object) => `data: ${JSON.stringify(body)}\n\n`

const playOf = ({ body, path }: Seen): Play => {
  const { model, n = 1, stream } = body as { readonly model: string; readonly n?: number; readonly stream?: boolean }
  if (model === "none") {
    return { status: 404, headers: json, pieces: [`{"error":{"message":"No such model","code":"model_not_found"}}`] }
  }
  if (path === "/v1/embeddings") {
    return {
      headers: json,
      pieces: [JSON.stringify({ object: "list", model, data: [{ index: 0, embedding: [1, 0] }], usage })]
    }
  }
  const indexes = Array.from({ length: n }, (_, index) => index)
  if (stream !== true) {
    const choices = indexes.map((index) => ({
      index,
      message: { role: "assistant", content: `by ${model}` },
      finish_reason: "stop"
    }))
    return {
      headers: json,
      pieces: [JSON.stringify({ id: "x", object: "chat.completion", created: 1, model, choices, usage })]
    }
  }
  const chunk = { id: "x", object: "chat.completion.chunk", created: 1, model }
  return {
    headers: { "content-type": "text/event-stream" },
    pieces: [
      ...indexes.map((index) =>
        frame({ ...chunk, choices: [{ index, delta: { content: `by ${model}` }, finish_reason: null }] })
      ),
      ...indexes.map((index) => frame({ ...chunk, choices: [{ index, delta: {}, finish_reason: "stop" }] })),
      frame({ ...chunk, choices: [], usage }),
      "data: [DONE]\n\n"
    ]
  }
}

let provider: FaultServer
let service: Service
let mini: OpenAI
let all: OpenAI
beforeAll(async () => {
  provider = await startFaultServer((_, request) => playOf(request))
  service = await startService(
    `
policies: { default: { retries: 0 } }
keys:
  mini: { key: "\${MINI_KEY}", models: ["openai/*-mini"] }
  all: { key: "\${ALL_KEY}", admin: true }
limits:
  nano: { models: ["openai/*-nano"], requestsPerDay: 1 }
models:
  openai/*:
    deployments: [{ provider: openai, model: "*", baseUrl: "${provider.url}/v1", price: { input: 1, output: 2 } }]
  tuned/*:
    deployments: [{ provider: openai, model: "ft:*:acme", baseUrl: "${provider.url}/v1" }]
`,
    secrets
  )
  const clientOf = (apiKey: string) => new OpenAI({ baseURL: `${service.url}/v1`, apiKey, maxRetries: 0 })
  mini = clientOf(secrets.MINI_KEY)
  all = clientOf(secrets.ALL_KEY)
}, 60_000)
afterAll(async () => {
  await service.stop()
  await provider.close()
})

const messages = [{ role: "user" as const, content: "Hi" }]

const statusOf = (answer: Promise<unknown>): Promise<unknown> =>
  answer.then(() => 200, (error: unknown) => (error as { readonly status: number }).status)

describe("a wildcard", () => {
  it("sends the rest of a name to the provider, which the answer names", async () => {
    const answer = await all.chat.completions.create({ model: "openai/gpt-x", messages })
    assert.deepStrictEqual([answer.choices[0]?.message.content, answer.model], ["by gpt-x", "gpt-x"])
    const tuned = await all.chat.completions.create({ model: "tuned/gpt", messages })
    assert.strictEqual(tuned.choices[0]?.message.content, "by ft:gpt:acme")
    const { data } = await all.embeddings.create({ model: "openai/embed-x", input: "Hi", encoding_format: "float" })
    assert.deepStrictEqual(data[0]?.embedding, [1, 0])
  })

  it("asks the provider once for several choices", async () => {
    const before = provider.seen.length
    const stream = await all.chat.completions.create({ model: "openai/gpt-x", messages, n: 2, stream: true })
    const texts: Array<string> = []
    for await (const { choices } of stream) {
      for (const { delta, index } of choices) texts[index] = (texts[index] ?? "") + (delta.content ?? "")
    }
    assert.deepStrictEqual([texts, provider.seen.length - before], [["by gpt-x", "by gpt-x"], 1])
  })

  it("is allowed, and limited, by the names that are requested", async () => {
    const ask = (client: OpenAI, model: string) => statusOf(client.chat.completions.create({ model, messages }))
    assert.strictEqual(await ask(mini, "openai/gpt-mini"), 200)
    assert.strictEqual(await ask(mini, "openai/gpt-x"), 403)
    assert.deepStrictEqual([await ask(all, "openai/a-nano"), await ask(all, "openai/a-nano")], [200, 429])
    assert.strictEqual(await ask(all, "openai/gpt-x"), 200)
  })

  it("is not used up by names that no deployment is called for", async () => {
    const names = Array.from({ length: mostNames }, (_, index) => index)
    const described = await Promise.all(names.map((index) => statusOf(all.models.retrieve(`openai/seen-${index}`))))
    const limited = await Promise.all(
      names.map((index) => statusOf(all.chat.completions.create({ model: `openai/${index}-nano`, messages })))
    )
    assert.deepStrictEqual([[...new Set(described)], [...new Set(limited)]], [[200], [429]])
    assert.strictEqual(await statusOf(all.chat.completions.create({ model: "openai/new", messages })), 200)
  })

  it("adds a limited number of series to the metrics, and has figures of all its names", async () => {
    const names = Array.from({ length: mostLabels + 5 }, (_, index) => `tuned/series-${index}`)
    for (const model of names) assert.strictEqual(await statusOf(all.chat.completions.create({ model, messages })), 200)
    const read = (path: string) =>
      fetch(`${service.url}${path}`, { headers: { authorization: `Bearer ${secrets.ALL_KEY}` } })
    const text = await (await read("/metrics")).text()
    const labels = new Set(text.match(/[a-z_]+="(?:tuned\/|ft:)[^"]*"/g))
    const named = (label: string) => [...labels].filter((one) => one.startsWith(`${label}=`))
    assert.include(named("model"), "model=\"tuned/*\"")
    assert.include(named("deployment"), "deployment=\"tuned/*#0\"")
    assert.include(named("gen_ai_response_model"), "gen_ai_response_model=\"ft:*:acme\"")
    for (const label of ["model", "deployment", "gen_ai_request_model", "gen_ai_response_model"]) {
      assert.lengthOf(named(label), mostLabels + 1, label)
    }
    const { deployments, models } = await (await read("/admin/overview")).json() as Overview
    const [, , hour] = models.find(({ model }) => model === "tuned/*")!.figures
    const own = deployments.find(({ deployment }) => deployment === "tuned/*#0")!.figures[2]!
    assert.isAtLeast(hour!.requests, names.length)
    assert.deepInclude(own, { requests: hour!.requests, failed: 0 })
    assert.notProperty(own, "usd")
  })

  it("is refused as it is written, as a model and as a fallback", async () => {
    const before = provider.seen.length
    const fallback = { model: "tuned/gpt", messages, troupe: { fallbacks: ["openai/*"] } }
    for (const body of [{ model: "openai/*", messages }, fallback]) {
      const refused: unknown = await all.chat.completions.create(body).catch((error: unknown) => error)
      assert.instanceOf(refused, OpenAI.BadRequestError)
      assert.include(refused.message, "write the name of one in place of `*`")
    }
    assert.strictEqual(provider.seen.length, before)
  })

  it("passes on that the provider does not know a model, and serves no other names", async () => {
    assert.strictEqual(await statusOf(all.chat.completions.create({ model: "openai/none", messages })), 502)
    assert.strictEqual(await statusOf(all.chat.completions.create({ model: "other/gpt", messages })), 404)
  })
  it("is listed as it is written, and describes the models of its names", async () => {
    assert.deepStrictEqual((await all.models.list()).data.map(({ id }) => id), ["openai/*", "tuned/*"])
    assert.deepInclude(await all.models.retrieve("openai/gpt-x") as object, {
      id: "openai/gpt-x",
      owned_by: "openai",
      state: "remote",
      pricing: { input: 1, output: 2 }
    })
    assert.strictEqual(await statusOf(mini.models.retrieve("openai/gpt-x")), 403)
  })
})
