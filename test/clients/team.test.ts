/**
 * Two users of one `troupe.yaml`, with the `openai` and `@anthropic-ai/sdk` packages, a provider and a model on this machine:
 * what each may spend, what the report says, and what is left of it after a restart and after kills.
 */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService, temporaryFolder } from "../support/Service.ts"
import type { UsageProvider } from "../support/UsageProvider.ts"
import { startUsageProvider } from "../support/UsageProvider.ts"

const secrets = {
  ANN_KEY: "the-secret-key-of-ann",
  BEN_KEY: "the-secret-key-of-ben",
  ADMIN_KEY: "the-secret-key-of-an-admin",
  PROVIDER_KEY: "the-key-of-the-provider"
}

const price = "price: { input: 1, output: 10, cachedInput: 0.1, cacheWrite: 2, reasoning: 20 }"

/** An answer of `cloud` costs 0.00314 USD, one of `claude` 0.00324 USD, one of `tiny-chat` nothing. */
const configuration = (url: string, folder: string) => `
storage: { type: sqlite, folder: "${folder}" }
keys:
  ann: { key: "\${ANN_KEY}", tenant: team, user: ann, budgets: [{ period: month, usd: 0.008 }] }
  ben: { key: "\${BEN_KEY}", tenant: team, user: ben, models: [cloud, claude, tiny-chat] }
  admin: { key: "\${ADMIN_KEY}", admin: true }
limits:
  default: false
  bursts: { by: [user], models: [tiny-chat], requestsPerHour: 3 }
budgets:
  team: { by: [tenant], period: total, usd: 1000 }
models:
  cloud: { deployments: [{ provider: openai, model: m, baseUrl: "${url}/v1", key: "\${PROVIDER_KEY}", ${price} }] }
  claude: { deployments: [{ provider: anthropic, model: m, baseUrl: "${url}", key: "\${PROVIDER_KEY}", ${price} }] }
  tiny-chat:
    preload: false
    deployments: [{ engine: llama, file: ${new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname} }]
`

const folder = temporaryFolder()
let provider: UsageProvider
let service: Service

const start = () => startService(configuration(provider.url, folder.path), { ...secrets, NODE_ENV: "production" })

beforeAll(async () => {
  provider = await startUsageProvider()
  service = await start()
})
afterAll(async () => {
  await service.stop()
  provider.close()
  folder[Symbol.dispose]()
})

type User = "ANN_KEY" | "BEN_KEY"

const openai = (user: User) => new OpenAI({ baseURL: `${service.url}/v1`, apiKey: secrets[user], maxRetries: 0 })

const anthropic = (user: User) => new Anthropic({ baseURL: service.url, apiKey: secrets[user], maxRetries: 0 })

const chat = (model: string) => ({ model, messages: [{ role: "user" as const, content: "Hi" }], max_tokens: 100 })

const failure = (answer: PromiseLike<unknown>) => answer.then(() => assert.fail("answered"), (error: unknown) => error)

interface Sum {
  readonly user: string
  readonly model: string
  readonly attempts: number
  readonly costUsd: number
}

const usage = async (query = "by=user,model"): Promise<ReadonlyArray<Sum>> => {
  const response = await fetch(`${service.admin}/admin/usage?${query}`, {
    headers: { authorization: `Bearer ${secrets.ADMIN_KEY}` }
  })
  return ((await response.json()) as { readonly usage: ReadonlyArray<Sum> }).usage
}

const summary = (sums: ReadonlyArray<Sum>) =>
  sums.map(({ attempts, costUsd, model, user }) => [user, model, attempts, costUsd])

/** What is used after the first tests. */
const used = [
  ["ann", "claude", 1, 0.00324],
  ["ann", "cloud", 1, 0.00314],
  ["ann", "tiny-chat", 1, 0],
  ["ben", "claude", 2, 0.00648],
  ["ben", "cloud", 2, 0.00628],
  ["ben", "tiny-chat", 3, 0]
]

describe("two users with keys, limits and budgets", () => {
  it("spend in both dialects until the budget of one is used up; the other goes on", async () => {
    await openai("ANN_KEY").chat.completions.create(chat("cloud"))
    await anthropic("ANN_KEY").messages.create(chat("claude"))
    for (const stream of [false, true]) {
      const rejected = await failure(openai("ANN_KEY").chat.completions.create({ ...chat("cloud"), stream }))
      assert.instanceOf(rejected, OpenAI.RateLimitError)
      assert.deepInclude(rejected, { status: 429, code: "insufficient_quota" })
      const other = await failure(anthropic("ANN_KEY").messages.create({ ...chat("claude"), stream }))
      assert.instanceOf(other, Anthropic.APIError)
      assert.strictEqual(other.status, 402)
      assert.deepInclude(other.error, { type: "error" })
      assert.match(other.message, /billing_error/)
    }
    for (const _ of [1, 2]) {
      await openai("BEN_KEY").chat.completions.create(chat("cloud"))
      await anthropic("BEN_KEY").messages.create(chat("claude"))
    }
  })

  it("use a model of this machine without cost, up to a limit of each", async () => {
    const answer = await openai("ANN_KEY").chat.completions.create(chat("tiny-chat"))
    assert.notStrictEqual(answer.choices[0]?.message.content, "")
    for (const _ of [1, 2]) {
      const { data, response } = await anthropic("BEN_KEY").messages.create(chat("tiny-chat")).withResponse()
      assert.strictEqual(data.role, "assistant")
      assert.strictEqual(response.headers.get("x-troupe-cost"), "0")
    }
    for await (const _ of await openai("BEN_KEY").chat.completions.create({ ...chat("tiny-chat"), stream: true })) {
      // Read to its end.
    }
    assert.instanceOf(await failure(anthropic("BEN_KEY").messages.create(chat("tiny-chat"))), Anthropic.RateLimitError)
    const rejected = await failure(openai("BEN_KEY").chat.completions.create(chat("tiny-chat")))
    assert.instanceOf(rejected, OpenAI.RateLimitError)
    assert.strictEqual(rejected.code, "rate_limit_exceeded")
    assert.isAbove(Number(rejected.headers.get("retry-after")), 0)
  })

  it("are rejected for models that their key does not allow, and for wrong keys", async () => {
    const wrong = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "not-a-key", maxRetries: 0 })
    assert.instanceOf(await failure(wrong.chat.completions.create(chat("cloud"))), OpenAI.AuthenticationError)
    const other = new Anthropic({ baseURL: service.url, apiKey: "not-a-key", maxRetries: 0 })
    assert.instanceOf(await failure(other.messages.create(chat("claude"))), Anthropic.AuthenticationError)
  })

  it("are both in the report, which a restart keeps, and so are the budgets", async () => {
    assert.deepStrictEqual(summary(await usage()), used)
    await service.stop()
    service = await start()
    assert.deepStrictEqual(summary(await usage()), used)
    const rejected = await failure(openai("ANN_KEY").chat.completions.create(chat("cloud")))
    assert.instanceOf(rejected, OpenAI.RateLimitError)
    assert.include(rejected.message, "0.00638 USD of 0.008 USD spent")
    await anthropic("BEN_KEY").messages.create(chat("claude"))
  })
})

describe("a service that is killed", () => {
  it("loses no usage that it has reported, and counts nothing twice", async () => {
    const attempts = async () => (await usage("by=user&user=ben"))[0]!.attempts
    for (let kills = 0; kills < 4; kills++) {
      const before = await attempts()
      const sent = provider.count()
      const client = openai("BEN_KEY")
      const running = new Set<Promise<unknown>>()
      let answered = 0
      const until = 5 + Math.floor(Math.random() * 100)
      while (answered < until) {
        while (running.size < 8) {
          const one: Promise<unknown> = client.chat.completions.create(chat("cloud")).then(() => void answered++)
          running.add(one)
          void one.finally(() => running.delete(one)).catch(() => {})
        }
        await Promise.race(running)
      }
      const acknowledged = before + answered
      const reported = await attempts()
      assert.isAtLeast(reported, acknowledged)
      service.process.child.kill("SIGKILL")
      await Promise.allSettled(running)
      await service.process.finished
      service = await start()
      const kept = await attempts()
      assert.isAtLeast(kept, reported)
      assert.isAtMost(kept, before + provider.count() - sent)
    }
    const [sum] = await usage("by=user&user=ben&model=cloud")
    assert.strictEqual(sum?.costUsd, Number((0.00314 * sum!.attempts).toFixed(9)))
    const rejected = await failure(openai("ANN_KEY").chat.completions.create(chat("cloud")))
    assert.instanceOf(rejected, OpenAI.RateLimitError)
  }, 120_000)
})
