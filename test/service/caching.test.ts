/** The response cache of a service: over HTTP, in both dialects, across a restart, and cleared by the command line. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService, temporaryFolder } from "../support/Service.ts"

const folder = temporaryFolder()
let upstream: FaultServer
let service: Service

const answer = {
  id: "c",
  object: "chat.completion",
  created: 1,
  model: "up",
  system_fingerprint: "fp_1",
  choices: [{ index: 0, message: { role: "assistant", content: "Hello" }, logprobs: null, finish_reason: "stop" }],
  usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
}

const chunk = (delta: object, finish_reason: string | null = null) =>
  `data: ${
    JSON.stringify({
      id: "c",
      object: "chat.completion.chunk",
      created: 1,
      model: "up",
      choices: [{ index: 0, delta, finish_reason }]
    })
  }\n\n`

const stream = [chunk({ role: "assistant", content: "" }), chunk({ content: "Hel" }), chunk({ content: "lo" })]
const end = [
  chunk({}, "stop"),
  `data: ${
    JSON.stringify({
      id: "c",
      object: "chat.completion.chunk",
      created: 1,
      model: "up",
      choices: [],
      usage: answer.usage
    })
  }\n\n`,
  "data: [DONE]\n\n"
]

const start = () =>
  startService(`
storage: { type: sqlite, folder: "${folder.path}" }
cache: { when: always }
models:
  remote:
    deployments: [{ provider: openai, model: up, baseUrl: "${upstream.url}" }]
  fake/local:
    deployments: [{ engine: fake, reply: one two three }]
  fake/never:
    cache: { when: never }
    deployments: [{ engine: fake, reply: one }]
`)

beforeAll(async () => {
  upstream = await startFaultServer((_, { body }) =>
    (body as { readonly stream?: boolean }).stream === true
      ? { headers: { "content-type": "text/event-stream" }, pieces: [...stream, ...end], delayMs: 20 }
      : { headers: { "content-type": "application/json" }, pieces: [JSON.stringify(answer)], delayMs: 100 }
  )
  service = await start()
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
  folder[Symbol.dispose]()
})

const openai = () => new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "mine", maxRetries: 0 })

const ask = async (content: string, more: object = {}, headers: Record<string, string> = {}) => {
  const request = { model: "remote", messages: [{ role: "user" as const, content }], ...more }
  const { data, response } = await openai().chat.completions.create(request, { headers }).withResponse()
  const tier = response.headers.get("x-troupe-cache-tier")
  return { data, headers: response.headers, used: tier ?? response.headers.get("x-troupe-cache") }
}

const streamed = async (content: string) => {
  const request = { model: "remote", messages: [{ role: "user" as const, content }], stream: true as const }
  const { data, response } = await openai().chat.completions.create(request).withResponse()
  let text = ""
  for await (const part of data) text += part.choices[0]?.delta.content ?? ""
  return { text, used: response.headers.get("x-troupe-cache-tier") ?? response.headers.get("x-troupe-cache") }
}

describe("a service with a cache", () => {
  it("answers an equal request from memory, with the provider's fields and its own id", async () => {
    const first = await ask("one")
    const second = await ask("one")
    assert.deepStrictEqual([first.used, second.used], ["miss", "memory"])
    assert.deepStrictEqual(second.data.choices, first.data.choices)
    assert.strictEqual(second.data.system_fingerprint, "fp_1")
    assert.strictEqual(second.data.usage?.prompt_tokens_details?.cached_tokens, 3)
    assert.strictEqual(second.headers.get("x-troupe-attempts"), "0")
    assert.strictEqual(second.headers.get("x-troupe-cache-age"), "0")
    assert.strictEqual(second.headers.get("x-troupe-cache-key"), first.headers.get("x-troupe-cache-key"))
  })

  it("gives a stream again as a stream and as one answer", async () => {
    assert.deepStrictEqual(await streamed("two"), { text: "Hello", used: "miss" })
    assert.deepStrictEqual(await streamed("two"), { text: "Hello", used: "memory" })
    const whole = await ask("two")
    assert.deepStrictEqual([whole.used, whole.data.choices[0]?.message.content], ["memory", "Hello"])
    await ask("three")
    assert.deepStrictEqual(await streamed("three"), { text: "Hello", used: "memory" })
  })

  it("calls the provider once for requests at the same time", async () => {
    const before = upstream.seen.length
    const all = await Promise.all([
      ...Array.from({ length: 10 }, () => streamed("four")),
      ...Array.from({ length: 10 }, async () => {
        const { data, used } = await ask("four")
        return { text: data.choices[0]?.message.content, used }
      })
    ])
    assert.deepStrictEqual(new Set(all.map(({ text }) => text)), new Set(["Hello"]))
    assert.strictEqual(upstream.seen.length, before + 1)
  })

  it("obeys Cache-Control, and calls for every one of several choices", async () => {
    await ask("five")
    assert.strictEqual((await ask("five", {}, { "cache-control": "no-store" })).used, "bypass")
    assert.strictEqual((await ask("five", {}, { "cache-control": "no-cache" })).used, "miss")
    assert.strictEqual((await ask("five", {}, { "cache-control": "max-age=60" })).used, "memory")
    assert.strictEqual((await ask("five", { n: 2 })).used, "bypass")
    assert.isNull((await ask("five", { model: "fake/never" })).used)
  })

  it("shares answers of a local model among dialects, each in its own", async () => {
    const first = await ask("six", { model: "fake/local", max_tokens: 50 })
    const client = new Anthropic({ baseURL: service.url, apiKey: "mine", maxRetries: 0 })
    const { data, response } = await client.messages.create({
      model: "fake/local",
      max_tokens: 50,
      messages: [{ role: "user", content: "six" }]
    }).withResponse()
    const [block] = data.content
    assert.strictEqual(block?.type === "text" ? block.text : "", first.data.choices[0]?.message.content)
    assert.strictEqual(response.headers.get("x-troupe-cache-tier"), "memory")
    assert.strictEqual(data.usage.cache_read_input_tokens, first.data.usage?.prompt_tokens)
  })

  it("has its answers after a restart, from the store and then from memory", async () => {
    await ask("seven")
    await streamed("eight")
    await service.stop()
    const before = upstream.seen.length
    service = await start()
    assert.deepStrictEqual([(await ask("seven")).used, (await ask("seven")).used], ["store", "memory"])
    assert.deepStrictEqual(await streamed("eight"), { text: "Hello", used: "store" })
    assert.strictEqual(upstream.seen.length, before)
  })

  it("is shown and cleared by the command line", async () => {
    await ask("nine")
    const cli = (...args: ReadonlyArray<string>) => invoke(["cache", ...args, "--url", service.admin])
    assert.match((await cli("show")).stdout, /memory\s+[1-9]/)
    assert.strictEqual((await cli("clear")).code, 1)
    const unknown = await cli("clear", "--model", "remoet")
    assert.strictEqual(unknown.code, 1)
    assert.include(unknown.stderr, "Did you mean remote?")
    assert.strictEqual((await ask("nine")).used, "memory")
    assert.match((await cli("clear", "--model", "remote")).stdout, /Cleared [1-9]\d* answers?/)
    assert.deepStrictEqual([(await ask("nine")).used, (await ask("nine")).used], ["miss", "memory"])
    await cli("clear", "--all")
    assert.strictEqual((await ask("nine")).used, "miss")
  })

  it("is not cleared by a request without a filter, or with a misspelt one", async () => {
    await ask("ten")
    const clear = async (query: string) => {
      const response = await fetch(`${service.admin}/admin/cache${query}`, { method: "DELETE" })
      const { error } = (await response.json()) as { error?: { param: string | null; message: string } }
      return [response.status, error?.param, error?.message ?? ""] as const
    }
    for (
      const [query, param, message] of [
        ["", "", /all=true/],
        ["?modle=remote", "modle", /Did you mean model\?/],
        ["?model=remote&colour=red", "colour", /Available parameters: all, model, tenant, key/],
        ["?all=yes", "all", /Expected true/],
        ["?all=true&model=remote", "all", /no other parameter/]
      ] as const
    ) {
      const [status, path, text] = await clear(query)
      assert.deepStrictEqual([status, path], [400, param], query)
      assert.match(text, message)
    }
    assert.strictEqual((await ask("ten")).used, "memory")
    assert.strictEqual((await clear("?all=true"))[0], 200)
    assert.strictEqual((await ask("ten")).used, "miss")
  })
})
