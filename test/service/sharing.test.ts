/** Callers share a model's queue: no single request and no single address can fill it. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { resume, startService, suspend, until } from "../support/Service.ts"

const queueLimit = 8
const yaml = `
models:
  fake/slow:
    queueLimit: ${queueLimit}
    deployments: [{ engine: fake, slots: 1, reply: one two three }]
server:
  trustedProxies: [127.0.0.1]
`

let service: Service
beforeAll(async () => {
  service = await startService(yaml)
})
afterAll(() => service.stop())

/** Aborted, or complete. */
const ask = (headers: Record<string, string>, more: object = {}, signal?: AbortSignal): Promise<number> =>
  fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ model: "fake/slow", messages: [{ role: "user", content: "Hello" }], ...more }),
    ...(signal === undefined ? {} : { signal })
  }).then(async (response) => {
    await response.text()
    return response.status
  }, () => 0)

const queued = async (count: number) =>
  until(async () => {
    const { deployments } = await (await fetch(`${service.url}/health/ready`)).json() as {
      readonly deployments: ReadonlyArray<{ readonly queued: number }>
    }
    return deployments[0]!.queued === count ? true : undefined
  })

describe("a queue", () => {
  it("has slots for an address while another sends a new key with each request", async () => {
    const engines = service.engines()
    suspend(engines)
    const gone = new AbortController()
    const flood = Array.from(
      { length: 4 * queueLimit },
      (_, index) => ask({ authorization: `Bearer made-up-${index}`, "x-forwarded-for": "192.0.2.1" }, {}, gone.signal)
    )
    await queued(queueLimit)
    const others = Array.from(
      { length: queueLimit / 2 },
      () => ask({ authorization: "Bearer mine", "x-forwarded-for": "192.0.2.2" })
    )
    resume(engines)
    assert.deepStrictEqual(await Promise.all(others), Array<number>(queueLimit / 2).fill(200))
    gone.abort()
    await Promise.all(flood)
  })

  it("is not filled by the choices of one request", async () => {
    const gone = new AbortController()
    const engines = service.engines()
    suspend(engines)
    const many = ask({}, { n: 128 }, gone.signal)
    await queued(3)
    const other = ask({})
    await queued(4)
    resume(engines)
    assert.strictEqual(await Promise.race([other, many.then(() => "many first")]), 200)
    gone.abort()
    await many
  })

  it("serves every choice of one request", async () => {
    const response = await fetch(`${service.url}/v1/chat/completions`, {
      method: "POST",
      body: JSON.stringify({ model: "fake/slow", n: 12, messages: [{ role: "user", content: "Hello" }] })
    })
    const { choices } = await response.json() as { readonly choices: ReadonlyArray<{ readonly index: number }> }
    assert.deepStrictEqual(choices.map(({ index }) => index), Array.from({ length: 12 }, (_, index) => index))
  })
})
