/** Limits and budgets of virtual keys, through the service: who is rejected, with what, and what is refunded. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const secrets = {
  RATE_KEY: "a-key-with-a-rate-limit",
  DEFAULT_KEY: "a-key-with-the-default-limit",
  MONEY_KEY: "a-key-with-a-money-budget",
  TOKEN_KEY: "a-key-with-a-token-budget",
  FREE_KEY: "a-key-for-unpriced-models",
  PARALLEL_KEY: "a-key-with-one-at-a-time",
  PROMPTS_KEY: "a-key-for-several-prompts",
  CHOICES_KEY: "a-key-for-several-choices",
  WRONG_KEY: "a-key-for-invalid-requests"
}

/** The answer is 12 bytes, which are 4 tokens; a token costs a thousandth of a USD. */
const configuration = `
storage: { type: memory }
keys:
  rate: { key: "\${RATE_KEY}", limits: { requestsPerMinute: 3, tokensPerDay: 100000 } }
  default: { key: "\${DEFAULT_KEY}", user: ada }
  money: { key: "\${MONEY_KEY}", budgets: [{ period: total, usd: 0.02 }] }
  tokens: { key: "\${TOKEN_KEY}", budgets: [{ period: month, tokens: 300 }] }
  free: { key: "\${FREE_KEY}", budgets: [{ period: day, usd: 1 }] }
  parallel: { key: "\${PARALLEL_KEY}", limits: { parallel: 1 } }
  prompts: { key: "\${PROMPTS_KEY}", limits: { tokensPerDay: 1000 } }
  choices: { key: "\${CHOICES_KEY}", limits: { tokensPerDay: 1000 } }
  wrong: { key: "\${WRONG_KEY}", models: ["fake/a", "fake/text", nobody], limits: { requestsPerMinute: 9, tokensPerDay: 100000 } }
models:
  fake/a: { deployments: [{ engine: fake, reply: aaabbbcccddd, price: { input: 0, output: 1000 } }] }
  fake/text: { deployments: [{ engine: fake, abilities: [generate] }] }
  fake/slow: { deployments: [{ engine: fake, reply: aaabbbcccddd, tokenDelayMs: 60000 }] }
  fake/broken: { deployments: [{ engine: fake, fault: { kind: error }, price: { input: 0, output: 1000 } }] }
  fake/cached: { deployments: [{ engine: fake, reply: kept }], cache: {} }
  unpriced: { deployments: [{ provider: openai, model: m, baseUrl: "http://127.0.0.1:9/v1", key: "\${FREE_KEY}" }] }
`

let service: Service
beforeAll(async () => {
  service = await startService(configuration, { ...secrets, NODE_ENV: "production" })
})
afterAll(() => service.stop())

type Key = keyof typeof secrets

const ask = (key: Key, body: object = {}, path = "/v1/chat/completions", signal?: AbortSignal) =>
  fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${secrets[key]}` },
    body: JSON.stringify({ model: "fake/a", messages: [{ role: "user", content: "Hi" }], ...body }),
    ...(signal === undefined ? {} : { signal })
  })

const errorOf = async (response: Response) =>
  ((await response.json()) as {
    readonly error: { readonly message: string; readonly code?: string; readonly type: string }
  })
    .error

describe("a limit of requests", () => {
  it("tells what is left, and rejects the request above it in each dialect with the time to wait", async () => {
    for (const left of [2, 1, 0]) {
      const response = await ask("RATE_KEY", { max_tokens: 4 })
      assert.strictEqual(response.status, 200)
      assert.strictEqual(response.headers.get("x-ratelimit-limit-requests"), "3")
      assert.strictEqual(response.headers.get("x-ratelimit-remaining-requests"), String(left))
      assert.match(response.headers.get("x-ratelimit-reset-requests")!, /^\d+s$/)
      assert.strictEqual(response.headers.get("x-ratelimit-limit-tokens"), "100000")
      await response.text()
    }
    const rejected = await ask("RATE_KEY")
    assert.strictEqual(rejected.status, 429)
    const wait = Number(rejected.headers.get("retry-after"))
    assert.isTrue(wait >= 1 && wait <= 60, String(wait))
    assert.strictEqual(rejected.headers.get("x-ratelimit-remaining-requests"), "0")
    const error = await errorOf(rejected)
    assert.strictEqual(error.code, "rate_limit_exceeded")
    assert.match(error.message, /limit of 3 requests per minute is reached/)
    const other = await ask("RATE_KEY", { max_tokens: 5 }, "/v1/messages")
    assert.strictEqual(other.status, 429)
    assert.strictEqual((await errorOf(other)).type, "rate_limit_error")
  })

  it("is 100 an hour for each user and endpoint of a key without one", async () => {
    const response = await ask("DEFAULT_KEY", { stream: true })
    assert.strictEqual(response.headers.get("x-ratelimit-limit-requests"), "100")
    await response.text()
  })

  it("does not count a request that is invalid", async () => {
    const before = (await ask("DEFAULT_KEY")).headers.get("x-ratelimit-remaining-requests")
    assert.strictEqual((await ask("DEFAULT_KEY", { model: "nobody" })).status, 404)
    assert.strictEqual((await ask("DEFAULT_KEY", { messages: [] })).status, 400)
    const after = (await ask("DEFAULT_KEY")).headers.get("x-ratelimit-remaining-requests")
    assert.strictEqual(Number(after), Number(before) - 1)
  })

  const text = { model: "fake/text" }
  const image = { type: "image_url", image_url: { url: "data:image/png;base64,AAAA" } }
  const refused: Readonly<Record<string, readonly [status: number, body: object | string, path?: string]>> = {
    "a body that is not JSON": [400, "{"],
    "a field that is invalid": [400, { messages: [] }],
    "an unknown model": [404, { model: "nobody" }],
    "a model that the key does not allow": [403, { model: "fake/slow" }],
    "tools": [400, { ...text, tools: [{ type: "function", function: { name: "f" } }] }],
    "a format": [400, { ...text, response_format: { type: "json_object" } }],
    "log probabilities": [400, { ...text, logprobs: true }],
    "images": [400, { ...text, messages: [{ role: "user", content: [image] }] }],
    "tools of a stream": [400, { ...text, stream: true, tools: [{ type: "function", function: { name: "f" } }] }],
    "tools of Anthropic's dialect": [
      400,
      { ...text, max_tokens: 4, tools: [{ name: "f", input_schema: { type: "object" } }] },
      "/v1/messages"
    ],
    "embeddings": [400, { ...text, input: "Hi" }, "/v1/embeddings"],
    "a ranking": [400, { ...text, query: "a", documents: ["b"] }, "/v1/rerank"],
    "a classification": [400, { ...text, input: "Hi" }, "/v1/classify"],
    "a path that does not exist": [404, {}, "/v1/nothing"]
  }

  it("counts no request that is refused before it runs", async () => {
    const left = async () => {
      const response = await ask("WRONG_KEY", { max_tokens: 4 })
      await response.text()
      return ["requests", "tokens"].map((of) => Number(response.headers.get(`x-ratelimit-remaining-${of}`)))
    }
    const [requests, tokens] = await left()
    for (const [what, [status, body, path = "/v1/chat/completions"]] of Object.entries(refused)) {
      const response = await (typeof body === "string"
        ? fetch(`${service.url}${path}`, {
          method: "POST",
          headers: { "content-type": "application/json", authorization: `Bearer ${secrets.WRONG_KEY}` },
          body
        })
        : ask("WRONG_KEY", path === "/v1/embeddings" ? { ...body, messages: undefined } : body, path))
      assert.strictEqual(response.status, status, `${what}: ${await response.text()}`)
    }
    const [requestsAfter, tokensAfter] = await left()
    assert.strictEqual(requestsAfter, requests! - 1)
    assert.isAtLeast(tokensAfter!, tokens! - 100)
  })

  it("counts cached answers", async () => {
    const body = { model: "fake/cached", temperature: 0 }
    const left = async (): Promise<readonly [string | null, number]> => {
      const response = await ask("DEFAULT_KEY", body)
      const remaining = Number(response.headers.get("x-ratelimit-remaining-requests"))
      await response.text()
      return [response.headers.get("x-troupe-cache"), remaining]
    }
    const [first, count] = await left()
    assert.strictEqual(first, "miss")
    assert.deepStrictEqual(await left(), ["hit", count - 1])
  })
})

describe("a limit of requests at the same time", () => {
  it("frees its place when a caller leaves", async () => {
    const leaving = new AbortController()
    // The model takes a minute for a token: only a rejected request is answered.
    const two = [1, 2].map(() => ask("PARALLEL_KEY", { model: "fake/slow" }, undefined, leaving.signal))
    const rejected = await Promise.race(two)
    assert.strictEqual(rejected.status, 429)
    assert.match((await errorOf(rejected)).message, /1 request at the same time/)
    leaving.abort()
    await Promise.allSettled(two)
    let response = await ask("PARALLEL_KEY")
    while (response.status === 429) response = await ask("PARALLEL_KEY")
    assert.strictEqual(response.status, 200)
  })
})

describe("a budget", () => {
  it("is never exceeded by requests at the same time, refunds what failed, and says what it has left", async () => {
    // Each may cost 0.004: five fit, and the failed ones cost nothing.
    const failed = await Promise.all(
      Array.from({ length: 5 }, () => ask("MONEY_KEY", { model: "fake/broken", max_tokens: 4 }))
    )
    assert.isTrue(failed.every(({ status }) => status >= 500), String(failed.map(({ status }) => status)))
    const all = await Promise.all(Array.from({ length: 20 }, () => ask("MONEY_KEY", { max_tokens: 4 })))
    const answered = all.filter(({ status }) => status === 200)
    assert.strictEqual(answered.length, 5)
    assert.deepStrictEqual([...new Set(answered.map(({ headers }) => headers.get("x-troupe-cost")))], ["0.004"])
    const rejected = all.filter(({ status }) => status !== 200)
    assert.isTrue(rejected.every(({ status }) => status === 429))
    const error = await errorOf(rejected[0]!)
    assert.strictEqual(error.code, "insufficient_quota")
    const last = await ask("MONEY_KEY", { max_tokens: 4 }, "/v1/messages")
    assert.strictEqual(last.status, 402)
    const { message, type } = await errorOf(last)
    assert.strictEqual(type, "billing_error")
    assert.match(message, /0\.02 USD of 0\.02 USD spent.*may cost up to 0\.004 USD/)
  })

  it("ends an answer with length where its request sets no limit", async () => {
    // A token of the prompt has at least a byte, and a template adds up to 16 to each message: 2 of 300 are left.
    const bodyOf = (content: string) => ({ model: "fake/a", messages: [{ role: "user", content }] })
    const length = 300 - 2 - 2 * 16 - JSON.stringify(bodyOf("")).length
    const response = await ask("TOKEN_KEY", bodyOf("x".repeat(length)))
    const { choices } = (await response.json()) as { choices: ReadonlyArray<{ finish_reason: string }> }
    assert.deepStrictEqual(choices.map((choice) => choice.finish_reason), ["length"])
  })

  it("names a max_tokens that all prompts and choices of a call fit with", async () => {
    const completions = { messages: undefined, prompt: ["One", "Another one"], n: 2 }
    const calls = [
      ["PROMPTS_KEY", completions, "/v1/completions"],
      ["CHOICES_KEY", { n: 4 }, "/v1/chat/completions"]
    ] as const
    for (const [key, body, path] of calls) {
      const { message } = await errorOf(await ask(key, { ...body, max_tokens: 2_000 }, path))
      assert.match(message, /the 4 prompts and choices of the call together \d{4}/)
      const most = Number(/at most (\d+)/.exec(message)?.[1])
      assert.isAbove(most, 1)
      assert.strictEqual((await ask(key, { ...body, max_tokens: most }, path)).status, 200)
    }
  })

  it("rejects a deployment whose price is unknown", async () => {
    const response = await ask("FREE_KEY", { model: "unpriced" })
    assert.strictEqual(response.status, 429)
    assert.match((await errorOf(response)).message, /price of "unpriced#0" is unknown/)
  })
})
