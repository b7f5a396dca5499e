/**
 * What several processes of a service share, and several services: limits and budgets, which 200 requests at once never
 * overspend, and stored responses.
 */
import { assert } from "@effect/vitest"
import { once } from "node:events"
import { createServer, request as httpRequest } from "node:http"
import type { AddressInfo } from "node:net"
import { join } from "node:path"
import { afterEach, describe, it } from "vitest"
import { installed, mustRun, startPostgres, startRedis } from "../support/DatabaseServers.ts"
import type { Service } from "../support/Service.ts"
import { startService, temporaryFolder, until } from "../support/Service.ts"

const tokens = 4

/** Each answer has `tokens` tokens. */
const startProvider = async () => {
  let count = 0
  const server = createServer((request, response) => {
    request.resume().on("end", () => {
      count++
      // So that many run at the same time.
      setTimeout(() =>
        response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({
          id: "c",
          object: "chat.completion",
          created: 0,
          model: "m",
          choices: [{ index: 0, message: { role: "assistant", content: "hi" }, finish_reason: "stop" }],
          usage: { prompt_tokens: 1, completion_tokens: tokens, total_tokens: 1 + tokens }
        })), 20)
    })
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    count: () => count,
    [Symbol.dispose]: () => {
      server.closeAllConnections()
      server.close()
    }
  }
}

const secrets = {
  MONEY: "a-key-with-a-budget",
  RATE: "a-key-with-a-limit-of-requests",
  STATE: "a-key-without-limits",
  PROVIDER: "the-provider's-key"
}

/** A token of an answer costs a thousandth of a USD: the budget is enough for 25 requests. */
const yamlOf = (provider: { readonly url: string }, more: string) => `
${more}
keys:
  money: { key: "\${MONEY}", limits: { requestsPerDay: 100000 }, budgets: [{ period: total, usd: 0.1 }] }
  rate: { key: "\${RATE}", limits: { requestsPerDay: 30 } }
  state: { key: "\${STATE}" }
models:
  m:
    deployments:
      - { provider: openai, model: m, baseUrl: "${provider.url}/v1", key: "\${PROVIDER}", maxConcurrent: 64,
          price: { input: 0, output: 1000 } }
`

interface Answer {
  readonly status: number
  readonly text: string
}

/** A request over a connection of its own, which the kernel gives to any process. */
const ask = ({ url }: Service, key: keyof typeof secrets): Promise<Answer> =>
  new Promise((resolve, reject) => {
    const headers = { "content-type": "application/json", authorization: `Bearer ${secrets[key]}` }
    httpRequest(`${url}/v1/chat/completions`, { agent: false, headers, method: "POST" }, (response) => {
      let text = ""
      response.setEncoding("utf8").on("data", (chunk: string) => {
        text += chunk
      })
      response.on("end", () => resolve({ status: response.statusCode!, text }))
      response.on("error", reject)
    }).on("error", reject).end(
      JSON.stringify({ model: "m", max_tokens: tokens, messages: [{ role: "user", content: "Hello" }] })
    )
  })

const askAll = (services: ReadonlyArray<Service>, key: keyof typeof secrets, count: number) =>
  Promise.all(Array.from({ length: count }, (_, index) => ask(services[index % services.length]!, key)))

const answered = (answers: ReadonlyArray<Answer>): number => answers.filter(({ status }) => status === 200).length

/** The budget and the limit are used up to the last request, and not exceeded. */
const expectExact = async (services: ReadonlyArray<Service>, provider: { readonly count: () => number }) => {
  const paid = await askAll(services, "MONEY", 200)
  assert.deepStrictEqual(new Set(paid.map(({ status }) => status)), new Set([200, 429]))
  // Each request uses what it has reserved.
  assert.strictEqual(answered(paid), 25)
  assert.strictEqual(provider.count(), 25)
  assert.include(paid.find(({ status }) => status === 429)!.text, "insufficient_quota")
  const limited = await askAll(services, "RATE", 100)
  assert.strictEqual(answered(limited), 30)
  assert.include(limited.find(({ status }) => status === 429)!.text, "limit of 30 requests per day is reached")
}

interface Body {
  readonly id: string
  readonly status: string
  readonly store: boolean
  readonly data: ReadonlyArray<unknown>
  readonly error: { readonly message: string }
}

const fetchJson = async (
  { url }: Service,
  method: string,
  path: string,
  body?: object,
  key: string = secrets.STATE
) => {
  const response = await fetch(`${url}/v1/${path}`, {
    method,
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })
  return { status: response.status, body: await response.json() as Body }
}

/** What one service stores, the other has. */
const expectShared = async ([first, second]: ReadonlyArray<Service>) => {
  const request = { model: "m", input: "Hello" }
  const { body: one } = await fetchJson(first!, "POST", "responses", request)
  const two = await fetchJson(second!, "POST", "responses", { ...request, previous_response_id: one.id })
  assert.strictEqual(two.status, 200)
  assert.strictEqual((await fetchJson(second!, "GET", `responses/${one.id}`)).body.id, one.id)
  assert.lengthOf((await fetchJson(first!, "GET", `responses/${two.body.id}/input_items`)).body.data, 3)
  const { body: conversation } = await fetchJson(first!, "POST", "conversations", {})
  await fetchJson(second!, "POST", "responses", { ...request, conversation: conversation.id })
  assert.lengthOf((await fetchJson(first!, "GET", `conversations/${conversation.id}/items`)).body.data, 2)
  const { body: queued } = await fetchJson(first!, "POST", "responses", { ...request, background: true })
  const cancelled = await fetchJson(second!, "POST", `responses/${queued.id}/cancel`)
  assert.include(["cancelled", "completed"], cancelled.body.status)
  // To another key they do not exist, in either service.
  for (const service of [first!, second!]) {
    for (const [method, path] of [["GET", ""], ["GET", "/input_items"], ["POST", "/cancel"], ["DELETE", ""]] as const) {
      const denied = await fetchJson(service, method, `responses/${one.id}${path}`, undefined, secrets.RATE)
      assert.strictEqual(denied.status, 404, `${method} ${path}`)
    }
    const continued = { ...request, previous_response_id: one.id }
    const { body, status } = await fetchJson(service, "POST", "responses", continued, secrets.RATE)
    assert.strictEqual(status, 400, JSON.stringify(body))
    assert.include(JSON.stringify(body), "previous_response_not_found")
  }
  assert.strictEqual((await fetchJson(second!, "DELETE", `responses/${one.id}`)).status, 200)
  assert.strictEqual((await fetchJson(first!, "GET", `responses/${one.id}`)).status, 404)
}

const running: Array<Service> = []
const start = async (yaml: string, env: Record<string, string> = {}): Promise<Service> => {
  const service = await startService(yaml, { ...secrets, NODE_ENV: "production", ...env })
  running.push(service)
  return service
}
afterEach(() => {
  for (const service of running.splice(0)) service.process.child.kill("SIGKILL")
})

const inProcesses = "server: { processes: 2 }\nstorage: { type: sqlite, folder: data }"

describe("limits and budgets of two processes", () => {
  it("hold for both together", async () => {
    using provider = await startProvider()
    const service = await start(yamlOf(provider, inProcesses))
    await expectExact([service], provider)
    assert.strictEqual((await service.stop()).code, 0)
  })

  it("begin with what was spent before the service has started", async () => {
    using provider = await startProvider()
    using folder = temporaryFolder()
    const yaml = yamlOf(
      provider,
      inProcesses.replace("folder: data", `folder: ${JSON.stringify(join(folder.path, "d"))}`)
    )
    const first = await start(yaml)
    assert.strictEqual(answered(await askAll([first], "MONEY", 10)), 10)
    assert.strictEqual((await first.stop()).code, 0)
    const second = await start(yaml)
    assert.strictEqual(answered(await askAll([second], "MONEY", 60)), 15)
    assert.strictEqual((await second.stop()).code, 0)
  })
})

describe.skipIf(!installed.redis && !mustRun)("two services on one Redis", () => {
  it("share limits, budgets and stored responses; without Redis, budgets reject and limits go on", async () => {
    using provider = await startProvider()
    const redis = await startRedis()
    try {
      const more = `storage: { type: memory }\nredis: { url: "${redis.url}" }`
      const services = await Promise.all([1, 2].map(() => start(yamlOf(provider, more))))
      await expectExact(services, provider)
      await expectShared(services)
      await redis.stop()
      const rejected = await until(async () => {
        const answer = await ask(services[0]!, "MONEY")
        return answer.status === 503 ? answer : undefined
      })
      assert.include(rejected.text, "The storage of budgets cannot be reached")
      assert.strictEqual((await ask(services[0]!, "RATE")).status, 200)
      const lost = await fetchJson(services[0]!, "GET", `responses/resp_${"0".repeat(22)}`)
      assert.strictEqual(lost.status, 503)
      assert.include(lost.body.error.message, "Stored responses cannot be read or written: Redis failed")
      assert.isFalse((await fetchJson(services[0]!, "POST", "responses", { model: "m", input: "Hello" })).body.store)
      const logged = services[0]!.process.output().stderr.match(/cannot be counted in Redis/g)
      assert.lengthOf(logged ?? [], 1)
    } finally {
      await redis.stop()
    }
  })
})

describe.skipIf(!installed.postgres && !mustRun)("limits and budgets of two services on one Postgres", () => {
  it("hold for both together", async () => {
    using provider = await startProvider()
    const postgres = await startPostgres()
    try {
      const yaml = yamlOf(provider, "storage: { type: postgres, url: \"${DATABASE}\" }")
      const env = { DATABASE: postgres.url }
      const services = [await start(yaml, env), await start(yaml, env)]
      await expectExact(services, provider)
      for (const service of services) assert.strictEqual((await service.stop()).code, 0)
    } finally {
      await postgres.stop()
    }
  })
})
