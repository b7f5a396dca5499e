/** `troupe.listener` behind a server of Node. */
import { assert } from "@effect/vitest"
import { once } from "node:events"
import type { IncomingMessage, RequestListener, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { afterAll, describe, it } from "vitest"
import { Troupe } from "../../../src/index.ts"
import * as NodeListener from "../../../src/layers/http/NodeListener.ts"
import { until } from "../../support/Service.ts"

const reply = "Snow is white."
const troupe = Troupe.start({
  config: {
    models: {
      "fake/chat": { deployments: [{ engine: "fake", reply }] },
      "fake/slow": { deployments: [{ engine: "fake", reply: "word ".repeat(500), tokenDelayMs: 20 }] }
    }
  }
})
afterAll(() => troupe.close())

const withServer = async (listener: RequestListener, use: (url: string) => Promise<void>) => {
  const server = createServer(listener)
  await once(server.listen(0, "127.0.0.1"), "listening")
  try {
    await use(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
  } finally {
    server.closeAllConnections()
    server.close()
  }
}

const chat = { model: "fake/chat", messages: [{ role: "user", content: "What color is snow?" }], temperature: 0 }
const post = (body: unknown) => ({
  method: "POST",
  headers: { "content-type": "application/json" },
  body: JSON.stringify(body)
})

const running = async () => (await troupe.models()).find(({ name }) => name === "fake/slow")!.deployments[0]!.running

describe("the listener", () => {
  it("answers, whole and streamed", async () => {
    await withServer(troupe.listener, async (url) => {
      const whole = await fetch(`${url}/v1/chat/completions`, post(chat))
      assert.strictEqual(whole.status, 200)
      assert.include(await whole.text(), reply)
      const streamed = await fetch(`${url}/v1/chat/completions`, post({ ...chat, stream: true }))
      assert.include(await streamed.text(), "data: [DONE]")
      const other = await fetch(`${url}//models.example/v1/models`)
      assert.strictEqual(other.status, 404)
      const models = await fetch(`${url}/v1/models`)
      assert.include(await models.text(), "fake/slow")
    })
  })

  it("answers below a path that the program's server takes off, as Express and Connect do", async () => {
    const listener = (message: IncomingMessage, response: ServerResponse) => {
      message.url = message.url!.replace(/^\/ai/, "")
      troupe.listener(message, response)
    }
    await withServer(listener, async (url) => {
      const response = await fetch(`${url}/ai/v1/chat/completions`, post(chat))
      assert.include(await response.text(), reply)
    })
  })

  it("stops the engine when the client disconnects, before and within an answer", async () => {
    await withServer(troupe.listener, async (url) => {
      for (const stream of [false, true]) {
        const left = new AbortController()
        const call = { ...post({ ...chat, model: "fake/slow", stream }), signal: left.signal }
        const answered = fetch(`${url}/v1/chat/completions`, call).then(
          async (response) => {
            await response.body!.getReader().read()
            return "begun"
          },
          () => "left"
        )
        await until(async () => (await running()) === 1 || undefined)
        if (stream) assert.strictEqual(await answered, "begun")
        left.abort()
        assert.isTrue(await until(async () => (await running()) === 0 || undefined))
        if (!stream) assert.strictEqual(await answered, "left")
      }
    })
  })

  it("gives the error of a handler that fails to `next`, and no details to the client", async () => {
    const failing = NodeListener.make(() => Promise.reject(new Error("secret")))
    const seen: Array<unknown> = []
    const withNext: RequestListener = (message, response) =>
      failing(message, response, (error) => {
        seen.push(error)
        response.writeHead(502).end()
      })
    await withServer(withNext, async (url) => {
      assert.strictEqual((await fetch(url)).status, 502)
      assert.strictEqual((seen[0] as Error).message, "secret")
    })
    await withServer((message, response) => failing(message, response), async (url) => {
      const response = await fetch(url)
      assert.strictEqual(response.status, 500)
      assert.notInclude(await response.text(), "secret")
    })
  })

  it("cuts a response that fails within its body", async () => {
    const broken = NodeListener.make(async () =>
      new Response(
        new ReadableStream({
          pull(controller) {
            controller.enqueue(new TextEncoder().encode("begun"))
            controller.error(new Error("broken"))
          }
        })
      )
    )
    await withServer((message, response) => broken(message, response), async (url) => {
      const text = await fetch(url).then((response) => response.text()).catch(() => "cut")
      assert.strictEqual(text, "cut")
    })
  })
})
