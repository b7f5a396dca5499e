/** Responses over providers: reasoning, failures, refusals, what is sent upstream; and over keys, limits and rules of the service. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer, Play } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

type Fields = Readonly<Record<string, unknown>>

const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
const delta = (fields: Fields, finish_reason: string | null = null) => ({
  choices: [{ index: 0, delta: fields, finish_reason }]
})
const frame = (fields: Fields) => `data: ${JSON.stringify(fields)}\n\n`
const buffered = (message: Fields): Play => ({
  headers: { "content-type": "application/json" },
  pieces: [
    JSON.stringify({
      choices: [{ index: 0, message: { role: "assistant", ...message }, finish_reason: "stop" }],
      usage
    })
  ]
})
const streamed = (...deltas: ReadonlyArray<Fields>): Play => ({
  pieces: [...deltas.map((one) => frame(delta(one))), frame({ ...delta({}, "stop"), usage }), "data: [DONE]\n\n"]
})

let play: Play
let upstream: FaultServer
let service: Service
const keys = { ADA: "a-key-of-ada-in-team-one", EVE: "a-key-of-eve-in-team-one", BOB: "a-key-of-bob-in-team-two" }
beforeAll(async () => {
  upstream = await startFaultServer(() => play)
  service = await startService(
    `
circuits: { failures: 1000 }
policies: { default: { retries: 0 } }
keys:
  ada: { key: "\${ADA}", tenant: one }
  eve: { key: "\${EVE}", tenant: one }
  bob: { key: "\${BOB}", tenant: two, models: ["fake/fake"] }
limits:
  few: { by: [key], keys: [bob], requestsPerHour: 2 }
guard: { rules: { email: redact } }
models:
  up: { deployments: [{ provider: openai, model: up, baseUrl: "${upstream.url}", key: "\${K}" }] }
  fake/fake: { deployments: [{ engine: fake, reply: hi }] }
`,
    { K: "key", ...keys }
  )
}, 60_000)
afterAll(async () => {
  await service.stop()
  await upstream.close()
})

const ask = async (path: string, body?: Fields, key = keys.ADA, method = body === undefined ? "GET" : "POST") => {
  const response = await fetch(`${service.url}/v1${path}`, {
    method,
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
  return { status: response.status, headers: response.headers, text: await response.text() }
}

const json = (answer: { readonly text: string }): Fields => JSON.parse(answer.text) as Fields

const create = (fields: Fields, key?: string) => ask("/responses", { model: "up", input: "Hi", ...fields }, key)

const eventsOf = ({ text }: { readonly text: string }): ReadonlyArray<Fields> =>
  text.split("\n\ndata: [DONE]\n\n")[0]!.split("\n\n").map((one) =>
    JSON.parse(one.slice(one.indexOf("data: ") + 6)) as Fields
  )

const lastOf = (answer: { readonly text: string }): Fields => eventsOf(answer).at(-1)!["response"] as Fields

describe("a provider's answer", () => {
  it("with reasoning has a reasoning item, buffered and streamed", async () => {
    const output = [
      { type: "reasoning", summary: [], content: [{ type: "reasoning_text", text: "Hm." }] },
      { type: "message", status: "completed", role: "assistant" }
    ]
    const summaryOf = (body: Fields) =>
      (body["output"] as ReadonlyArray<Fields>).map(({ content, id: _, ...item }) =>
        item["type"] === "reasoning" ? { ...item, content } : item
      )
    play = buffered({ content: "Hi", reasoning_content: "Hm." })
    const whole = await create({})
    assert.sameDeepMembers(summaryOf(json(whole)), output)
    assert.match(whole.headers.get("x-troupe-decision") ?? "", /^dec-/)
    play = streamed({ reasoning_content: "H" }, { reasoning_content: "m." }, { content: "Hi" })
    const stream = await create({ stream: true })
    assert.sameDeepMembers(summaryOf(lastOf(stream)), output)
    assert.match(stream.headers.get("x-troupe-decision") ?? "", /^dec-/)
    assert.strictEqual(stream.headers.get("content-type"), "text/event-stream; charset=utf-8")
  })

  it("comes from a chat completion with OpenAI's own fields", async () => {
    play = buffered({ content: "Hi" })
    await create({
      instructions: "Be brief.",
      reasoning: { effort: "low" },
      text: { verbosity: "high", format: { type: "json_object" } },
      prompt_cache_key: "p",
      max_output_tokens: 20
    })
    const { body } = upstream.seen.at(-1)!
    assert.deepInclude(body as Fields, {
      messages: [{ role: "system", content: "Be brief." }, { role: "user", content: "Hi" }],
      reasoning_effort: "low",
      verbosity: "high",
      prompt_cache_key: "p",
      response_format: { type: "json_object" },
      max_tokens: 20
    })
    assert.notProperty(body, "store")
  })

  it("that is a refusal is a part of a message, and is stored", async () => {
    play = buffered({ content: null, refusal: "I can't." })
    const part = { type: "refusal", refusal: "I can't." }
    const contentOf = (body: Fields) => (body["output"] as ReadonlyArray<Fields>)[0]!["content"]
    const whole = json(await create({}))
    assert.deepStrictEqual(contentOf(whole), [part])
    assert.deepStrictEqual(contentOf(json(await ask(`/responses/${String(whole["id"])}`))), [part])
    play = streamed({ refusal: "I ca" }, { refusal: "n't." })
    const stream = await create({ stream: true })
    assert.deepStrictEqual(contentOf(lastOf(stream)), [part])
    assert.deepStrictEqual(contentOf(json(await ask(`/responses/${String(lastOf(stream)["id"])}`))), [part])
  })

  it("that breaks off is a failed response, which is stored; before any content it is an error", async () => {
    play = { ...streamed({ content: "Hi" }, { content: " there" }), fault: { kind: "cut", after: 2 } }
    const stream = await create({ stream: true })
    const events = eventsOf(stream)
    assert.deepStrictEqual(events.slice(-2).map(({ type }) => type), ["error", "response.failed"])
    assert.deepInclude(lastOf(stream), { status: "failed" })
    const found = json(await ask(`/responses/${String(lastOf(stream)["id"])}`))
    assert.deepInclude(found, { status: "failed" })
    assert.deepInclude(found["error"], { code: "server_error" })
    play = {
      status: 500,
      headers: { "content-type": "application/json" },
      pieces: ["{\"error\":{\"message\":\"down\"}}"]
    }
    const failed = await create({ stream: true })
    assert.strictEqual(failed.status, 502)
    assert.deepInclude(json(failed)["error"], { code: "upstream_failed" })
  })
})

describe("the rules of the service", () => {
  it("let the keys of one tenant continue each other's responses, and no other's", async () => {
    const { id } = json(await create({ model: "fake/fake" }))
    assert.strictEqual((await ask(`/responses/${String(id)}`, undefined, keys.EVE)).status, 200)
    assert.strictEqual((await create({ model: "fake/fake", previous_response_id: id }, keys.EVE)).status, 200)
    assert.strictEqual((await ask(`/responses/${String(id)}`, undefined, keys.BOB)).status, 404)
    assert.strictEqual((await ask(`/responses/${String(id)}`, undefined, keys.BOB, "DELETE")).status, 404)
    assert.strictEqual((await ask(`/responses/${String(id)}`, undefined, "no key")).status, 401)
  })

  it("count responses as requests, and refuse models that a key may not use", async () => {
    assert.strictEqual((await create({}, keys.BOB)).status, 403)
    const allowed = await create({ model: "fake/fake" }, keys.BOB)
    assert.strictEqual(allowed.headers.get("x-ratelimit-limit-requests"), "2")
    await create({ model: "fake/fake", stream: true }, keys.BOB)
    const refused = await create({ model: "fake/fake" }, keys.BOB)
    assert.strictEqual(refused.status, 429)
    assert.deepInclude(json(refused)["error"], { code: "rate_limit_exceeded" })
  })

  it("redact what models get, also of earlier responses", async () => {
    play = buffered({ content: "Hi" })
    const first = await create({ input: "I am ada@example.com." })
    assert.strictEqual(first.headers.get("x-troupe-redacted"), "EMAIL")
    await create({ previous_response_id: json(first)["id"], input: "Who am I?" })
    assert.notInclude(upstream.seen.at(-1)!.text, "ada@example.com")
  })
})
