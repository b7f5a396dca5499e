/** Instances that forward requests to each other in a circle: the hop limit ends the circle. */
import { assert } from "@effect/vitest"
import { once } from "node:events"
import { createServer, request as ask } from "node:http"
import type { AddressInfo } from "node:net"
import { afterAll, beforeAll, describe, it } from "vitest"
import { maxHops } from "../../src/domain/Caller.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

/** Forwards requests to the service, whose address is unknown before its start. */
const forwarder = createServer((request, response) => {
  passed.push(String(request.headers["x-troupe-hops"]))
  const { headers, method, url } = request
  const { hostname, port } = new URL(service.url)
  request.pipe(ask({ hostname, port, method, path: url, headers }, (answer) => {
    response.writeHead(answer.statusCode!, answer.headers)
    answer.pipe(response)
  }))
})
const passed: Array<string> = []
let service: Service

beforeAll(async () => {
  await once(forwarder.listen(0, "127.0.0.1"), "listening")
  const baseUrl = `http://127.0.0.1:${(forwarder.address() as AddressInfo).port}/v1`
  const deployment = { provider: "troupe", model: "circle", baseUrl }
  service = await startService(JSON.stringify({ models: { circle: { deployments: [deployment] } } }))
})

afterAll(async () => {
  await service.stop()
  forwarder.closeAllConnections()
  forwarder.close()
})

describe("instances in a circle", () => {
  const messages = [{ role: "user", content: "Hello" }]
  const cases: ReadonlyArray<readonly [name: string, path: string, body: object]> = [
    ["a buffered answer", "/v1/chat/completions", { messages }],
    ["a stream", "/v1/chat/completions", { messages, stream: true }],
    ["a message", "/v1/messages", { messages, max_tokens: 9 }],
    ["embeddings", "/v1/embeddings", { input: ["Hello"] }],
    ["scores", "/v1/rerank", { query: "Hello", documents: ["a"] }]
  ]
  for (const [name, path, body] of cases) {
    it(`are called once each for ${name}, and then report the circle`, async () => {
      const response = await fetch(`${service.url}${path}`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ model: "circle", ...body })
      })
      const text = await response.text()
      assert.strictEqual(response.status, 400, text)
      assert.include(text, "in a circle")
      assert.deepStrictEqual(passed.splice(0), Array.from({ length: maxHops }, (_, index) => String(index + 1)))
    })
  }

  it("does not affect requests with another value of the header", async () => {
    const response = await fetch(`${service.url}/v1/tokenize`, {
      method: "POST",
      headers: { "content-type": "application/json", "x-troupe-hops": "many" },
      body: JSON.stringify({ model: "circle", prompt: "Hello" })
    })
    assert.include(await response.text(), "in a circle")
    assert.strictEqual(passed.splice(0).length, maxHops)
  })
})
