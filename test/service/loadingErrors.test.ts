/** What errors say of an engine that cannot answer now. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

/** One caller waits for the load, which the test stops; further callers are refused. */
const yaml = `
server: { shutdownGrace: false }
models:
  fake/loads:
    preload: false
    queueLimit: 1
    deployments: [{ engine: fake, loadDelayMs: 1000000 }]
`

let service: Service
beforeAll(async () => {
  service = await startService(yaml)
}, 60_000)
afterAll(() => service.stop())

const messages = [{ role: "user", content: "Hello" }]

const ask = (path: string, body: object, init: RequestInit = {}) =>
  fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model: "fake/loads", ...body }),
    ...init
  })

const isLoading = async (): Promise<true | undefined> => {
  const { deployments } = await (await fetch(`${service.admin}/admin/deployments`)).json() as {
    readonly deployments: ReadonlyArray<{ readonly queued: number; readonly state: string }>
  }
  return deployments.some(({ queued, state }) => queued === 1 && state === "loading") ? true : undefined
}

describe("an error while a model loads", () => {
  it("says so, in the shape of each dialect", async () => {
    const controller = new AbortController()
    const waiting = ask("/v1/chat/completions", { messages }, { signal: controller.signal }).catch(() => {})
    await until(isLoading)
    const loading = { state: "loading", progress: null }
    const of = async (path: string, body: object): Promise<readonly [status: number, loading: unknown]> => {
      const response = await ask(path, body)
      const json = await response.json() as {
        readonly error: { readonly loading?: unknown }
        readonly loading?: unknown
      }
      return [response.status, json.error.loading ?? json.loading]
    }
    assert.deepStrictEqual(await of("/v1/chat/completions", { messages }), [429, loading])
    assert.deepStrictEqual(await of("/v1/chat/completions", { messages, stream: true }), [429, loading])
    assert.deepStrictEqual(await of("/v1/responses", { input: "Hello" }), [429, loading])
    assert.deepStrictEqual(await of("/v1/messages", { messages, max_tokens: 9 }), [429, loading])
    assert.deepStrictEqual(await of("/api/chat", { messages, stream: false }), [429, loading])
    controller.abort()
    await waiting
  })
})
