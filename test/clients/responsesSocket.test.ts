/** WebSocket mode of Responses with the `openai` package's client, and with `ws` where that client cannot. */
import { assert } from "@effect/vitest"
import { once } from "node:events"
import { connect } from "node:net"
import OpenAI from "openai"
import type { ResponsesServerEvent } from "openai/resources/responses/responses"
import { ResponsesWS } from "openai/resources/responses/ws"
import { afterAll, beforeAll, describe, it } from "vitest"
import { WebSocket } from "ws"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const tinyChat = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname
const keys = { ADA: "a-key-of-ada-in-team-one", BOB: "a-key-of-bob-in-team-two" }

let service: Service
beforeAll(async () => {
  service = await startService(
    `
keys:
  ada: { key: "\${ADA}", tenant: one }
  bob: { key: "\${BOB}", tenant: two, models: ["fake/fast"] }
limits:
  few: { by: [key], keys: [bob], requestsPerHour: 2 }
models:
  tiny-chat: { deployments: [{ engine: llama, file: ${tinyChat} }] }
  fake/fast: { deployments: [{ engine: fake, reply: hi }] }
  fake/slow: { deployments: [{ engine: fake, reply: "${"slow ".repeat(500)}", tokenDelayMs: 1000, slots: 1 }] }
`,
    keys
  )
}, 60_000)
afterAll(() => service.stop())

type Events = ReadonlyArray<ResponsesServerEvent>

const open = (key = keys.ADA) =>
  new ResponsesWS(new OpenAI({ baseURL: `${service.url}/v1`, apiKey: key, maxRetries: 0 }))

const isLast = ({ type }: ResponsesServerEvent): boolean =>
  ["error", "response.completed", "response.incomplete", "response.failed"].includes(type)

/** The events of the answer to one request. */
const ask = (client: ResponsesWS, fields: object): Promise<Events> =>
  new Promise((resolve) => {
    const events: Array<ResponsesServerEvent> = []
    const listen = (event: ResponsesServerEvent) => {
      events.push(event)
      if (!isLast(event)) return
      client.off("event", listen)
      resolve(events)
    }
    client.on("event", listen)
    client.on("error", () => {})
    client.send({ type: "response.create", model: "tiny-chat", temperature: 0, ...fields })
  })

const responseOf = (events: Events) => {
  const last = events.at(-1)!
  assert.strictEqual(last.type, "response.completed", JSON.stringify(last))
  return (last as Extract<typeof last, { readonly type: "response.completed" }>).response
}

const errorOf = (events: Events): Readonly<Record<string, unknown>> => {
  const last = events.at(-1) as unknown as Readonly<Record<string, unknown>>
  assert.strictEqual(last["type"], "error")
  return { status: last["status"], ...last["error"] as object }
}

describe("a connection", () => {
  it("answers its requests in their order, with the events of a stream", async () => {
    const client = open()
    const events: Array<ResponsesServerEvent> = []
    const both = new Promise<void>((resolve) => {
      client.on("event", (event) => {
        events.push(event)
        if (events.filter(isLast).length === 2) resolve()
      })
    })
    for (const input of ["What color is snow?", "What is the capital of Japan?"]) {
      client.send({ type: "response.create", model: "tiny-chat", temperature: 0, input })
    }
    await both
    const end = events.findIndex(isLast) + 1
    for (const [answer, word] of [[events.slice(0, end), "white"], [events.slice(end), "Tokyo"]] as const) {
      const numbers = answer.map((event) => "sequence_number" in event ? event.sequence_number : -1)
      assert.deepStrictEqual(numbers, [...answer.keys()])
      assert.strictEqual(answer[0]!.type, "response.created")
      assert.include(JSON.stringify(responseOf(answer).output), word)
    }
    client.close()
  })

  it("continues its latest response, also one that is not stored, and refuses one that it does not know", async () => {
    const client = open()
    const first = responseOf(await ask(client, { input: "My name is Ada.", store: false }))
    const second = responseOf(
      await ask(client, { input: "What is my name?", previous_response_id: first.id, store: false })
    )
    const alone = responseOf(await ask(client, { input: "What is my name?", store: false }))
    assert.strictEqual(second.previous_response_id, first.id)
    assert.isAbove(second.usage!.input_tokens, alone.usage!.input_tokens)
    const missing = await ask(client, { input: "Hi", previous_response_id: first.id })
    assert.deepInclude(errorOf(missing), {
      status: 400,
      code: "previous_response_not_found",
      param: "previous_response_id"
    })
    client.close()
  })

  it("continues a stored response of a request by HTTP", async () => {
    const http = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: keys.ADA })
    const first = await http.responses.create({ model: "tiny-chat", input: "My name is Ada." })
    const client = open()
    const second = responseOf(await ask(client, { input: "What is my name?", previous_response_id: first.id }))
    assert.strictEqual((await http.responses.retrieve(second.id)).previous_response_id, first.id)
    client.close()
  })

  it("stores the whole conversation of a response that continues one which is not stored", async () => {
    const client = open()
    const first = responseOf(await ask(client, { input: "My name is Ada.", store: false }))
    const second = responseOf(await ask(client, { input: "What is my name?", previous_response_id: first.id }))
    client.close()
    const http = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: keys.ADA })
    const { data } = await http.responses.inputItems.list(second.id, { order: "asc" })
    assert.lengthOf(data, 3)
  })

  it("prepares a conversation without an answer", async () => {
    const client = open()
    const empty = responseOf(await ask(client, { input: "My name is Ada.", generate: false }))
    assert.deepStrictEqual(empty.output, [])
    const next = responseOf(await ask(client, { input: "What is my name?", previous_response_id: empty.id }))
    assert.isNotEmpty(next.output)
    client.close()
  })

  it("checks a conversation that it prepares as one that is answered", async () => {
    const client = open()
    const prepare = async (fields: object) => errorOf(await ask(client, { input: "Hi", generate: false, ...fields }))
    const image = { type: "input_image", image_url: "data:image/png;base64,iVBORw0KGgo=" }
    for (const generate of [false, true]) {
      assert.deepInclude(await prepare({ model: "none", generate }), { status: 404, code: "model_not_found" })
      assert.deepInclude(await prepare({ temperature: 9, generate }), { status: 400, param: "temperature" })
      assert.deepInclude(await prepare({ input: [{ role: "user", content: [image] }], generate }), { status: 400 })
      assert.deepInclude(await prepare({ previous_response_id: "resp_none", generate }), { status: 400 })
    }
    assert.deepInclude(await prepare({ generate: "no" }), { status: 400, code: "invalid_message" })
    client.close()
    const bob = open(keys.BOB)
    assert.deepInclude(errorOf(await ask(bob, { input: "Hi", generate: false })), { status: 403 })
    bob.close()
  })

  it("answers invalid messages with errors, and goes on", async () => {
    const client = open()
    assert.deepInclude(errorOf(await ask(client, { type: "response.steer" })), { status: 400, code: "invalid_message" })
    assert.deepInclude(errorOf(await ask(client, { input: 5 })), { status: 400, param: "input" })
    assert.deepInclude(errorOf(await ask(client, { model: "none", input: "Hi" })), {
      status: 404,
      code: "model_not_found"
    })
    assert.isNotEmpty(responseOf(await ask(client, { input: "What color is snow?" })).output)
    client.close()
  })

  it("has the limits and the models of its key", async () => {
    const client = open(keys.BOB)
    assert.deepInclude(errorOf(await ask(client, { input: "Hi" })), { status: 403 })
    responseOf(await ask(client, { model: "fake/fast", input: "Hi" }))
    responseOf(await ask(client, { model: "fake/fast", input: "Hi" }))
    const limited = errorOf(await ask(client, { model: "fake/fast", input: "Hi" }))
    assert.deepInclude(limited, { status: 429, code: "rate_limit_exceeded" })
    client.close()
  })

  it("ends its response when the client leaves", async () => {
    const client = open()
    const begun = new Promise<void>((resolve) =>
      client.on("event", ({ type }) => type === "response.output_text.delta" && resolve())
    )
    client.send({ type: "response.create", model: "fake/slow", input: "Hi" })
    await begun
    client.close()
    // The only slot is free again: the response would take 500 s.
    const http = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: keys.ADA })
    const next = await http.responses.create({ model: "fake/slow", input: "Hi", max_output_tokens: 1 })
    assert.strictEqual(next.status, "incomplete")
  })
})

describe("messages that wait", () => {
  it("hold memory for requests, and get an error in their turn where there is no room", async () => {
    const small = await startService(`
server: { maxRequestMemory: 1 MiB }
models:
  fake/fast: { deployments: [{ engine: fake, reply: hi }] }
  fake/slow: { deployments: [{ engine: fake, reply: "${"slow ".repeat(500)}", tokenDelayMs: 100, slots: 1 }] }
`)
    const textOf = (fields: object, padding = "") =>
      JSON.stringify({ model: "fake/fast", input: "Hi", ...fields }) + padding
    const post = (text: string, signal?: AbortSignal) =>
      fetch(`${small.url}/v1/responses`, {
        method: "POST",
        headers: { "content-type": "application/json" },
        body: text,
        ...(signal === undefined ? {} : { signal })
      })
    const padding = " ".repeat(400_000)
    const untilLarge = async (status: number) => {
      while ((await post(textOf({}, padding))).status !== status) {
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    }
    const connect = async () => {
      const socket = new WebSocket(`${small.url.replace("http", "ws")}/v1/responses`)
      const results: Array<unknown> = []
      socket.on("message", (data: Buffer) => {
        const { error, type } = JSON.parse(data.toString())
        if (type === "error" || type === "response.completed" || type === "response.incomplete") {
          results.push(error?.code ?? type)
        }
      })
      await once(socket, "open")
      const type = "response.create"
      // It waits for the slot.
      socket.send(textOf({ type, model: "fake/slow", max_output_tokens: 1 }))
      for (let index = 0; index < 4; index++) socket.send(textOf({ type }, padding))
      const ponged = once(socket, "pong")
      socket.ping()
      await ponged
      await untilLarge(503)
      return { socket, results }
    }
    const slot = new AbortController()
    await post(textOf({ model: "fake/slow", stream: true }), slot.signal)
    const left = await connect()
    left.socket.close()
    await untilLarge(200)

    const { results, socket } = await connect()
    slot.abort()
    while (results.length < 5) await once(socket, "message")
    assert.deepStrictEqual(results, [
      "response.incomplete",
      "response.completed",
      "response.completed",
      "overloaded",
      "overloaded"
    ])
    await untilLarge(200)
    await small.stop()
  }, 60_000)
})

describe("an idle connection", () => {
  it("is closed when the service stops, which does not wait for it", async () => {
    const stopping = await startService("models:\n  fake/fake: { deployments: [{ engine: fake, reply: hi }] }\n")
    const socket = new WebSocket(`${stopping.url.replace("http", "ws")}/v1/responses`)
    await once(socket, "open")
    const closed = once(socket, "close") as Promise<[code: number]>
    const [{ code }, [closeCode]] = await Promise.all([stopping.stop(), closed])
    assert.strictEqual(closeCode, 1001)
    assert.strictEqual(code, 0)
  }, 60_000)
})

describe("the handshake", () => {
  const closed = async (url: string, headers: Record<string, string>) => {
    const socket = new WebSocket(url, { headers })
    const [, response] = await once(socket, "unexpected-response") as [unknown, { readonly statusCode: number }]
    return response.statusCode
  }
  const url = (path: string) => `${service.url.replace("http", "ws")}${path}`

  it("needs a key, and a page that may call the service", async () => {
    assert.strictEqual(await closed(url("/v1/responses"), {}), 401)
    assert.strictEqual(await closed(url("/v1/responses"), { authorization: "Bearer none" }), 401)
    const page = { authorization: `Bearer ${keys.ADA}`, origin: "https://example.com" }
    assert.strictEqual(await closed(url("/v1/responses"), page), 403)
  })

  it("does not let a request for an upgrade pass without a key", async () => {
    const { host, hostname, port } = new URL(service.url)
    for (const path of ["/v1/models", "/v1/responses/resp_1", "/admin/deployments"]) {
      const socket = connect(Number(port), hostname)
      socket.write(`GET ${path} HTTP/1.1\r\nHost: ${host}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n`)
      const [bytes] = await once(socket, "data") as [Buffer]
      assert.match(bytes.toString(), /^HTTP\/1\.1 40[13] /, path)
      socket.destroy()
    }
  })

  it.each(["/v1/responses", "/nowhere"])("is refused at %s behind a request that is not answered yet", async (path) => {
    const { host, hostname, port } = new URL(service.url)
    const socket = connect(Number(port), hostname)
    const headers = `Host: ${host}\r\nAuthorization: Bearer ${keys.ADA}\r\n`
    const handshake =
      "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    socket.write(
      `GET /v1/models HTTP/1.1\r\n${headers}\r\n` +
        `GET ${path} HTTP/1.1\r\n${headers}Connection: Upgrade, close\r\n${handshake}\r\n`
    )
    const statuses = (await socket.toArray()).join("").match(/(?<=HTTP\/1\.1 )\d+/g)
    assert.deepStrictEqual(statuses, ["200", path === "/nowhere" ? "404" : "400"])
    assert.strictEqual((await fetch(`${service.url}/health/live`)).status, 200)
  })

  it("is told to a request without it", async () => {
    const answer = await fetch(`${service.url}/v1/responses`, { headers: { authorization: `Bearer ${keys.ADA}` } })
    assert.strictEqual(answer.status, 426)
    assert.strictEqual(answer.headers.get("upgrade"), "websocket")
  })
})
