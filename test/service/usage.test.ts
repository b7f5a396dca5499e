/** What is counted, through the service: exact costs of each dialect, the report of usage, its alerts and its metrics. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import { invoke } from "../support/CommandLine.ts"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"
import type { UsageProvider } from "../support/UsageProvider.ts"
import { startUsageProvider } from "../support/UsageProvider.ts"

const secrets = {
  ADA_KEY: "the-secret-key-of-ada",
  BOB_KEY: "the-secret-key-of-bob",
  ADMIN_KEY: "the-secret-key-of-an-admin",
  PROVIDER_KEY: "the-key-of-the-provider"
}

const price = "price: { input: 1, output: 10, cachedInput: 0.1, cacheWrite: 2, cacheWriteHour: 4, reasoning: 20 }"

const configuration = (url: string) => `
storage: { type: memory }
keys:
  ada: { key: "\${ADA_KEY}", user: ada@example.com, tenant: team-red }
  bob:
    key: "\${BOB_KEY}"
    user: bob@example.com
    tenant: team-blue
    budgets: [{ period: total, usd: 0.02 }]
  admin: { key: "\${ADMIN_KEY}", admin: true }
limits:
  default: false
  few: { by: [user], users: [ada@example.com], endpoints: [embeddings], requestsPerDay: 1, mode: shadow }
budgets:
  pool: { by: [user], users: [bob@example.com], period: month, usd: 0.01 }
models:
  openai: { deployments: [{ provider: openai, model: m, baseUrl: "${url}/v1", key: "\${PROVIDER_KEY}", ${price} }] }
  anthropic: { deployments: [{ provider: anthropic, model: m, baseUrl: "${url}", key: "\${PROVIDER_KEY}", ${price} }] }
  gemini: { deployments: [{ provider: gemini, model: m, baseUrl: "${url}", key: "\${PROVIDER_KEY}", ${price} }] }
  cached: { cache: {}, deployments: [{ provider: openai, model: m, baseUrl: "${url}/v1", key: "\${PROVIDER_KEY}", ${price} }] }
  unpriced: { deployments: [{ provider: openai, model: m, baseUrl: "${url}/v1", key: "\${PROVIDER_KEY}" }] }
  fake/tail:
    policy: in-order
    deployments:
      - { engine: fake, reply: aaabbbcccddd, quality: 0.9, fault: { kind: error, afterTokens: 3 }, price: { input: 0, output: 1000 } }
      - { engine: fake, reply: aaabbbcccddd, quality: 0.1, price: { input: 0, output: 1000 } }
  fake/cut: { deployments: [{ engine: fake, reply: aaabbbcccddd, fault: { kind: error, afterTokens: 3 }, price: { input: 0, output: 1000 } }] }
policies:
  in-order: { strategy: quality, retries: 0 }
`

let provider: UsageProvider
let service: Service
beforeAll(async () => {
  provider = await startUsageProvider()
  service = await startService(configuration(provider.url), { ...secrets, NODE_ENV: "production" })
})
afterAll(async () => {
  await service.stop()
  provider.close()
})

type Key = keyof typeof secrets

const post = (path: string, body: object, key: Key = "ADA_KEY") =>
  fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${secrets[key]}` },
    body: JSON.stringify(body)
  })

const messages = [{ role: "user", content: "Hi" }]

const chat = (model: string, more: object = {}, key?: Key) =>
  post("/v1/chat/completions", { model, messages, ...more }, key)

const costOf = async (answer: Promise<Response>, status = 200) => {
  const response = await answer
  const text = await response.text()
  assert.strictEqual(response.status, status, text)
  return response.headers.get("x-troupe-cost")
}

const admin = (path: string, headers: Record<string, string> = {}) =>
  fetch(`${service.admin}${path}`, { headers: { authorization: `Bearer ${secrets.ADMIN_KEY}`, ...headers } })

const usage = async (query: string) =>
  ((await (await admin(`/admin/usage?${query}`)).json()) as { usage: ReadonlyArray<Record<string, unknown>> }).usage

/** USD: 600 new, 400 cached, 150 of the answer and 50 of reasoning; with 100 of the new ones written to the cache, 40 of them for an hour. */
const costs = { openai: 0.00314, anthropic: 0.00332, gemini: 0.00314 }

describe("costs", () => {
  it("are exact with cached, written and reasoning tokens of each dialect, for callers of each dialect", async () => {
    for (const [model, cost] of Object.entries(costs)) {
      const toMessages = { model, messages, max_tokens: 300 }
      assert.strictEqual(await costOf(chat(model)), String(cost), model)
      assert.strictEqual(await costOf(post("/v1/messages", toMessages)), String(cost), model)
      // The head of a stream is sent before its cost is known.
      assert.isNull(await costOf(chat(model, { stream: true })))
      assert.isNull(await costOf(post("/v1/messages", { ...toMessages, stream: true })))
      const [sum] = await usage(`by=model&model=${model}`)
      assert.deepStrictEqual(sum, {
        model,
        attempts: 4,
        promptTokens: 4000,
        cachedTokens: 1600,
        cacheWriteTokens: model === "anthropic" ? 400 : 0,
        completionTokens: 800,
        reasoningTokens: 200,
        costUsd: 4 * cost,
        unpriced: 0
      })
    }
  })

  it("are the sum of all choices, of one request to the provider or of several", async () => {
    assert.strictEqual(await costOf(chat("openai", { n: 3 })), "0.00314")
    assert.strictEqual(await costOf(chat("anthropic", { n: 3 })), "0.00996")
  })

  it("of an answer from the cache are 0", async () => {
    const miss = await chat("cached", { temperature: 0 })
    assert.strictEqual(miss.headers.get("x-troupe-cache"), "miss")
    assert.strictEqual(await costOf(Promise.resolve(miss)), "0.00314")
    const hit = await chat("cached", { temperature: 0 })
    assert.strictEqual(hit.headers.get("x-troupe-cache"), "hit")
    assert.strictEqual(await costOf(Promise.resolve(hit)), "0")
  })

  it("of embeddings are those of the prompt", async () => {
    assert.strictEqual(await costOf(post("/v1/embeddings", { model: "openai", input: "Hi" })), "0.001")
  })

  it("include an attempt that failed after a part of its answer, and are in the ledger if all failed", async () => {
    // The first attempt has generated three tokens of a thousandth of a USD, the second one four.
    assert.strictEqual(await costOf(chat("fake/tail")), "0.007")
    await costOf(chat("fake/cut"), 500)
    const [sum] = await usage("by=model&model=fake/cut")
    assert.isAtLeast(Number(sum?.["costUsd"]), 0.003)
  })

  it("that are unknown are not 0", async () => {
    assert.isNull(await costOf(chat("unpriced")))
    const [sum] = await usage("by=model&model=unpriced")
    assert.deepInclude(sum, { attempts: 1, costUsd: 0, unpriced: 1 })
  })

  it("of an answer that the provider refuses are 0", async () => {
    await costOf(chat("gemini", { messages: [{ role: "user", content: "break" }] }), 502)
    assert.strictEqual((await usage("by=model&model=gemini"))[0]?.["attempts"], 4)
  })
})

describe("the report of usage", () => {
  it("groups by day, user, tenant, model and endpoint, and filters", async () => {
    await costOf(chat("openai", {}, "BOB_KEY"))
    const today = new Date().toISOString().slice(0, 10)
    const sums = await usage("by=day,user,tenant,endpoint&model=openai&from=2020-01-01&to=9999-12-31")
    assert.deepStrictEqual(
      sums.map(({ attempts, costUsd, endpoint, tenant, user }) => [user, tenant, endpoint, attempts, costUsd]),
      [
        ["ada@example.com", "team-red", "chat", 5, 0.0157],
        ["ada@example.com", "team-red", "embeddings", 1, 0.001],
        ["bob@example.com", "team-blue", "chat", 1, 0.00314]
      ]
    )
    assert.isTrue(sums.every(({ day }) => String(day) >= today))
    assert.deepStrictEqual(await usage("by=model&to=2020-01-01"), [])
    const [all] = await usage("by=")
    assert.isAbove(Number(all?.["attempts"]), 10)
  })

  it("is CSV by the query or by the accepted type", async () => {
    const path = "/admin/usage?by=user,model&model=openai"
    const expected =
      "user,model,attempts,promptTokens,cachedTokens,cacheWriteTokens,completionTokens,reasoningTokens,costUsd,unpriced\r\n"
      + "ada@example.com,openai,6,6000,2000,0,1000,250,0.0167,0\r\n"
      + "bob@example.com,openai,1,1000,400,0,200,50,0.00314,0\r\n"
    for (const response of [await admin(`${path}&format=csv`), await admin(path, { accept: "text/csv" })]) {
      assert.match(response.headers.get("content-type")!, /^text\/csv/)
      assert.strictEqual(await response.text(), expected)
    }
    const json = await admin(`${path}&format=json`, { accept: "text/csv" })
    assert.match(json.headers.get("content-type")!, /^application\/json/)
    await json.text()
  })

  it("names the field of an invalid query, and is for admin keys only", async () => {
    for (
      const [query, param] of [
        ["by=modle", "by"],
        ["from=yesterday", "from"],
        ["to=2026-02-30", "to"],
        [
          "format=xml",
          "format"
        ],
        ["modle=openai", "modle"],
        ["from=2027-02-01&to=2027-01-31", "from"],
        ["user=nobody", "user"]
      ] as const
    ) {
      const response = await admin(`/admin/usage?${query}`)
      const { error } = (await response.json()) as { error: { param: string; message: string } }
      assert.deepStrictEqual([response.status, error.param], [400, param])
      if (query.includes("modle")) assert.include(error.message, "Did you mean model?")
    }
    const refused = await admin("/admin/usage", { authorization: `Bearer ${secrets.ADA_KEY}` })
    assert.strictEqual(refused.status, 403)
    await refused.text()
  })

  it("is printed by `troupe usage` as a table, JSON and CSV", async () => {
    const run = (...args: ReadonlyArray<string>) =>
      invoke(["usage", "--url", service.admin, ...args], { env: { TROUPE_ADMIN_TOKEN: secrets.ADMIN_KEY } })
    const table = await run("--by", "user,model", "--user", "bob@example.com")
    assert.strictEqual(table.code, 0, table.stderr)
    assert.deepStrictEqual(table.stdout.trimEnd().split("\n").map((line) => line.split(/ {2,}/)), [
      ["USER", "MODEL", "ATTEMPTS", "PROMPT", "CACHED", "ANSWER", "REASONING", "USD"],
      ["bob@example.com", "openai", "1", "1000", "400", "200", "50", "0.00314"]
    ])
    assert.match((await run("--by", "model", "--model", "unpriced")).stdout, / unknown\n$/)
    assert.deepInclude(JSON.parse((await run("--by", "user", "--tenant", "team-blue", "--json")).stdout), {
      user: "bob@example.com",
      attempts: 1,
      promptTokens: 1000,
      cachedTokens: 400,
      cacheWriteTokens: 0,
      completionTokens: 200,
      reasoningTokens: 50,
      costUsd: 0.00314,
      unpriced: 0
    })
    const csv = await run("--by", "tenant,user", "--model", "openai", "--csv")
    const response = await admin("/admin/usage?by=tenant,user&model=openai&format=csv")
    assert.strictEqual(csv.stdout, await response.text())
    assert.match(csv.stdout, /^tenant,user,[^\r]*\r\n/)
    assert.include((await run("--tenant", "team-red", "--to", "2020-01-01")).stdout, "Nothing was used")
    for (const key of ["bob", "settings/bob"]) {
      const { stdout } = await run("--by", "key", "--key", key, "--model", "openai")
      assert.match(stdout, /^KEY +NAME +ATTEMPTS .*\nsettings\/bob +bob +1 /)
    }
    assert.match((await run("--by", "key", "--key", "bob", "--csv")).stdout, /^key,keyName,.*\r\nsettings\/bob,bob,1,/)
    await costOf(chat("fake/tail", {}, "ADMIN_KEY"))
    for (const by of ["user", "key,user"]) {
      const { stdout } = await run("--by", by, "--model", "fake/tail")
      assert.match(stdout, /^(?:settings\/admin +admin +)?admin \(settings\/admin\) +\d/m)
      assert.match(stdout, /^(?:settings\/ada +ada +)?ada@example.com +\d/m)
    }
    const byUser = await usage("by=user&user=settings/admin&model=fake/tail")
    assert.deepInclude(byUser[0], { user: "settings/admin", keyName: "admin" })
    for (
      const [flag, value, said] of [
        ["key", "bop", "Did you mean bob?"],
        ["user", "ada@exampel.com", "Did you mean ada@example.com?"],
        ["tenant", "team-rde", "Did you mean team-red?"],
        ["model", "opnai", "Did you mean openai?"],
        ["model", "xyz", "Expected one of openai, "],
        ["deployment", "openai#1", "Did you mean openai#0?"],
        ["endpoint", "chta", "Did you mean chat?"],
        ["endpoint", "speech", "Expected one of chat, embeddings, rerank, classify, tokenize"]
      ] as const
    ) {
      const { code, stderr, stdout } = await run(`--${flag}`, value)
      assert.deepStrictEqual([code, stdout], [1, ""], value)
      assert.include(stderr, said)
    }
    const { stdout: ofKey } = await run("--model", "gemini", "--key", "bob")
    assert.include(ofKey, "Nothing was used")
    assert.notInclude(ofKey, "anonymous")
    assert.include((await run("--to", "2020-01-01")).stdout, "`ledger: { anonymous: true }`")
    const wrong = await run("--from", "2026-13-01")
    assert.deepStrictEqual(wrong.code, 1)
    assert.match(wrong.stderr, /2027-01-31/)
  })
})

describe("alerts and rejections", () => {
  it("are logged and counted by the names of rules, without names of users and keys", async () => {
    // 0.00314 of the pool of 0.01 are spent; 18 tokens of the prompt and the answer are reserved.
    await costOf(chat("openai", { max_tokens: 100 }, "BOB_KEY"))
    await costOf(chat("openai", { max_tokens: 300 }, "BOB_KEY"), 429)
    await costOf(chat("openai", { max_tokens: 100 }, "BOB_KEY"))
    const embed = (key: Key) => costOf(post("/v1/embeddings", { model: "openai", input: "Hi" }, key))
    await embed("BOB_KEY")
    await embed("ADA_KEY")
    const output = await until(() => {
      const { stderr, stdout } = service.process.output()
      return /95 % is spent/.test(stdout + stderr) ? stdout + stderr : undefined
    })
    for (
      const text of ["50 % is spent, 0.00628 of 0.01 USD", "80 % is spent", "less than 10 times the last cost is left"]
    ) {
      assert.include(output, text)
    }
    const budgets = await invoke(["budgets", "--url", service.admin], {
      env: { TROUPE_ADMIN_TOKEN: secrets.ADMIN_KEY }
    })
    assert.deepStrictEqual(budgets.stdout.trimEnd().split("\n").map((line) => line.split(/ {2,}/)), [
      ["BUDGET", "OF", "PERIOD", "SPENT", "MOST", "LEFT", "MODE"],
      ["pool", "user bob@example.com", "month", "0.01042 USD", "0.01 USD", "0 USD"],
      ["key total", "key bob (settings/bob)", "total", "0.01042 USD", "0.02 USD", "0.00958 USD"]
    ])
    assert.match(output, /Budget budgets\.pool\.usd: 0\.01 \([^)]*\) rejected a request\./)
    assert.match(output, /Limit limits\.few\.\w+: \d+ \([^)]*\) would have rejected a request\./)
    // Each refusal is logged once, with its setting.
    assert.lengthOf(output.match(/rejected a request/g)!, 2)
    assert.notMatch(output, /Refused a request[^\n]*(?:limit|budget)/)
    const metrics = await (await admin("/metrics")).text()
    assert.match(metrics, /^llm_security_events_total\{rule="budget",action="reject"\} \d+$/m)
    const samples = metrics.split("\n").filter((line) => /^llm_(?:budget_alerts|admission_rejections)_total/.test(line))
    assert.deepStrictEqual(samples.toSorted(), [
      "llm_admission_rejections_total{rule=\"few\",mode=\"shadow\"} 1",
      "llm_admission_rejections_total{rule=\"pool\",mode=\"enforced\"} 1",
      "llm_budget_alerts_total{budget=\"key total\",counter=\"key settings/bob\"} 2",
      "llm_budget_alerts_total{budget=\"pool\",counter=\"user of key settings/bob\"} 4"
    ])
    // Costs and alerts of budgets have the ids of keys, which are names where the keys are in the settings.
    const others = metrics.replaceAll(
      /^(?:troupe_cost_usd_total|llm_budget_alerts_total)\{.*"(?:user of key |key )?settings\/\w+"\}.*$/gm,
      ""
    )
    for (const text of ["bob", "ada", "team-red", "team-blue", ...Object.values(secrets)]) {
      assert.notInclude(others, text)
    }
  })
})
