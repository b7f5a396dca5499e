/** `troupe.handler` with plain requests, with unmodified clients whose `fetch` it is, and mounted in Hono. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import { Ollama } from "ollama"
import OpenAI from "openai"
import { afterAll, describe, it } from "vitest"
import { Settings, Troupe } from "../../../src/index.ts"
import { startFaultServer } from "../../support/FaultServer.ts"
import { temporaryFolder, until } from "../../support/Service.ts"

const reply = "Snow is white."
const models = {
  "fake/chat": { deployments: [{ engine: "fake", reply }] },
  "fake/other": { deployments: [{ engine: "fake", reply }] },
  "fake/slow": { deployments: [{ engine: "fake", reply: "word ".repeat(500), tokenDelayMs: 20 }] }
} as const

const troupe = Troupe.start({ config: { models, server: { maxBodyBytes: 10_000 } } })
const withKeys = Troupe.start({
  config: {
    models,
    keys: {
      app: { key: "app-key-0123456789", models: ["fake/chat"], limits: { requestsPerMinute: 3 } },
      boss: { key: "boss-key-0123456789", admin: true }
    },
    server: { cors: { origins: ["https://app.example"] } }
  }
})
afterAll(() => Promise.all([troupe.close(), withKeys.close()]))

const origin = "https://models.example"

interface Init {
  readonly headers?: Readonly<Record<string, string>>
  readonly signal?: AbortSignal
}

const post = (path: string, body: unknown, { headers, ...init }: Init = {}) =>
  new Request(`${origin}${path}`, {
    ...init,
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify(body)
  })

const messages = [{ role: "user", content: "What color is snow?" }] as const
const chat = { model: "fake/chat", messages, temperature: 0 }

/** Waits until no job of the model runs. */
const untilIdle = (name: string) =>
  until(async () => {
    const found = (await troupe.models()).find((model) => model.name === name)!
    return found.deployments.every(({ queued, running }) => running + queued === 0) || undefined
  })

interface ErrorBody {
  readonly error: { readonly message: string; readonly code: string | null; readonly type: string }
}
const errorOf = async (response: Response) => ((await response.json()) as ErrorBody).error

describe("the handler", () => {
  it("answers each dialect", async () => {
    const bodies = {
      "/v1/chat/completions": chat,
      "/v1/messages": { ...chat, max_tokens: 50 },
      "/v1/responses": { model: "fake/chat", input: "What color is snow?", temperature: 0 },
      "/api/chat": { model: "fake/chat", messages, stream: false, options: { temperature: 0 } }
    }
    for (const [path, body] of Object.entries(bodies)) {
      const response = await troupe.handler(post(path, body))
      assert.strictEqual(response.status, 200, path)
      assert.include(await response.text(), reply, path)
      assert.strictEqual(response.headers.get("x-troupe-deployment"), "fake/chat#0")
    }
    const embedded = await troupe.handler(post("/v1/embeddings", { model: "fake/chat", input: ["snow"] }))
    assert.include(await embedded.text(), "\"embedding\":[")
  })

  it.each([["50 millis", true], [false, false]] as const)(
    "keeps streams alive after %s",
    async (streamKeepAlive, isKept) => {
      const late = { deployments: [{ engine: "fake", reply, promptDelayMs: 300 }] } as const
      const kept = Troupe.start({ config: { models: { "fake/late": late }, server: { streamKeepAlive } } })
      const response = await kept.handler(post("/v1/chat/completions", { ...chat, model: "fake/late", stream: true }))
      const text = await response.text()
      assert.strictEqual(text.startsWith(": keep-alive\n\n"), isKept)
      assert.include(text, "Sno")
      await kept.close()
    }
  )

  it("keeps responses that are stored", async () => {
    const made = await troupe.handler(post("/v1/responses", { model: "fake/chat", input: "Hello!" }))
    const { id } = (await made.json()) as { readonly id: string }
    const found = await troupe.handler(new Request(`${origin}/v1/responses/${id}`))
    assert.strictEqual(((await found.json()) as { readonly id: string }).id, id)
  })

  it("streams events as they are generated, and stops when the body is cancelled", async () => {
    const { body, headers, status } = await troupe.handler(
      post("/v1/chat/completions", { ...chat, model: "fake/slow", stream: true })
    )
    assert.strictEqual(status, 200)
    assert.match(headers.get("content-type")!, /^text\/event-stream/)
    const reader = body!.getReader()
    const { value } = await reader.read()
    assert.match(new TextDecoder().decode(value), /^data: \{/)
    await reader.cancel()
    assert.isTrue(await untilIdle("fake/slow"))
  })

  it("stops when the request is aborted, before and within an answer", async () => {
    const waiting = new AbortController()
    const answered = troupe.handler(
      post("/v1/chat/completions", { ...chat, model: "fake/slow" }, { signal: waiting.signal })
    )
    await until(async () => {
      const found = (await troupe.models()).find(({ name }) => name === "fake/slow")!
      return found.deployments[0]!.running === 1 || undefined
    })
    waiting.abort()
    assert.strictEqual((await answered).status, 499)
    assert.isTrue(await untilIdle("fake/slow"))
    const within = new AbortController()
    const { body } = await troupe.handler(
      post("/v1/chat/completions", { ...chat, model: "fake/slow", stream: true }, { signal: within.signal })
    )
    const reader = body!.getReader()
    await reader.read()
    within.abort()
    const ended = await (async () => {
      for (;;) if ((await reader.read()).done) return
    })().catch(() => "cut")
    assert.include([undefined, "cut"], ended)
    assert.isTrue(await untilIdle("fake/slow"))
  })

  it("answers errors in the shape of the dialect", async () => {
    const missing = await troupe.handler(post("/v1/chat/completions", { ...chat, model: "gpt-9" }))
    assert.strictEqual(missing.status, 404)
    assert.strictEqual((await errorOf(missing)).code, "model_not_found")
    const anthropic = await troupe.handler(post("/v1/messages", { ...chat, model: "gpt-9", max_tokens: 5 }))
    assert.strictEqual((await errorOf(anthropic)).type, "not_found_error")
    const large = await troupe.handler(post("/v1/chat/completions", { ...chat, user: "x".repeat(20_000) }))
    assert.strictEqual(large.status, 413)
    assert.include((await errorOf(large)).message, "10000 bytes")
    assert.isNull(large.headers.get("connection"))
    const wrong = await troupe.handler(new Request(`${origin}/v1/chat/completions`))
    assert.strictEqual(wrong.status, 405)
    assert.strictEqual(wrong.headers.get("allow"), "POST")
    const path = await troupe.handler(new Request(`${origin}/v1/modles`))
    assert.include((await errorOf(path)).message, "Did you mean /v1/models?")
    const target = await troupe.handler(new Request(`${origin}/v1/models?limit=1&limit=2`))
    assert.strictEqual((await errorOf(target)).code, "invalid_target")
    const text = await troupe.handler(new Request(`${origin}/v1/chat/completions`, { method: "POST", body: "{" }))
    assert.strictEqual(text.status, 400)
  })

  it("finds models whose names have slashes, and answers HEAD", async () => {
    for (const name of ["fake/chat", "fake%2Fchat"]) {
      const found = await troupe.handler(new Request(`${origin}/v1/models/${name}`))
      assert.strictEqual(((await found.json()) as { readonly id: string }).id, "fake/chat")
    }
    const head = await troupe.handler(new Request(`${origin}/v1/models`, { method: "HEAD" }))
    assert.strictEqual(head.status, 200)
    assert.strictEqual(await head.text(), "")
  })

  it("rejects with what is wrong with the configuration, and answers 503 after the end", async () => {
    const wrong = Troupe.start({ config: { models: { a: { deployments: [] } } } } as never)
    const error = await wrong.handler(new Request(`${origin}/v1/models`)).catch((cause: unknown) => cause)
    assert.instanceOf(error, Settings.SettingsError)
    await wrong.close()
    const other = Troupe.start({ config: { models } })
    assert.strictEqual((await other.handler(new Request(`${origin}/v1/models`))).status, 200)
    await other.close()
    const late = await other.handler(new Request(`${origin}/v1/models`))
    assert.strictEqual(late.status, 503)
    const never = Troupe.start({ config: { models } })
    await never.close()
    const unbuilt = await never.handler(post("/v1/messages", chat))
    assert.strictEqual((await errorOf(unbuilt)).type, "overloaded_error")
  })
})

describe("who may call the handler", () => {
  const as = (key: string) => ({ headers: { authorization: `Bearer ${key}` } })

  it("is everyone without keys, except pages of other origins, and administration", async () => {
    const page = { headers: { origin: "https://other.example" } }
    const refused = await troupe.handler(post("/v1/chat/completions", chat, page))
    assert.strictEqual(refused.status, 403)
    assert.strictEqual((await errorOf(refused)).code, "origin_not_allowed")
    const own = await troupe.handler(post("/v1/chat/completions", chat, { headers: { origin } }))
    assert.strictEqual(own.status, 200)
    assert.strictEqual((await troupe.handler(new Request(`${origin}/admin/decisions`))).status, 403)
    assert.strictEqual((await troupe.handler(post("/admin/models/fake%2Fchat/unload", {}))).status, 403)
  })

  it("is who has a key, within its models and limits", async () => {
    const none = await withKeys.handler(post("/v1/chat/completions", chat))
    assert.strictEqual(none.status, 401)
    const wrong = await withKeys.handler(post("/v1/messages", { ...chat, max_tokens: 5 }, as("nope")))
    assert.strictEqual((await errorOf(wrong)).type, "authentication_error")
    const app = as("app-key-0123456789")
    const forbidden = await withKeys.handler(post("/v1/chat/completions", { ...chat, model: "fake/other" }, app))
    assert.strictEqual(forbidden.status, 403)
    const listed = await withKeys.handler(new Request(`${origin}/v1/models`, app))
    assert.notInclude(await listed.text(), "fake/other")
    const statuses: Array<number> = []
    for (let index = 0; index < 4; index++) {
      statuses.push((await withKeys.handler(post("/v1/chat/completions", chat, app))).status)
    }
    assert.deepStrictEqual(statuses, [200, 200, 200, 429])
    const decisions = await withKeys.handler(new Request(`${origin}/admin/decisions`, app))
    assert.strictEqual(decisions.status, 403)
    const boss = await withKeys.handler(new Request(`${origin}/admin/decisions`, as("boss-key-0123456789")))
    assert.strictEqual(boss.status, 200)
  })

  it("is pages of origins in the settings, with the answer to their preflight", async () => {
    const page = { origin: "https://app.example" }
    const preflight = await withKeys.handler(
      new Request(`${origin}/v1/chat/completions`, {
        method: "OPTIONS",
        headers: { ...page, "access-control-request-method": "POST" }
      })
    )
    assert.strictEqual(preflight.status, 204)
    assert.strictEqual(preflight.headers.get("access-control-allow-origin"), page.origin)
    const answer = await withKeys.handler(
      post("/v1/chat/completions", chat, { headers: { ...page, authorization: "Bearer boss-key-0123456789" } })
    )
    assert.strictEqual(answer.status, 200)
    assert.strictEqual(answer.headers.get("access-control-allow-origin"), page.origin)
  })
})

describe("the state of the handler", () => {
  it("is kept where the configuration has storage: stored responses, and what was used", async () => {
    using folder = temporaryFolder()
    const admin = { headers: { authorization: "Bearer boss-key-0123456789" } }
    const start = () =>
      Troupe.start({
        config: {
          models,
          keys: { boss: { key: "boss-key-0123456789", admin: true } },
          storage: { type: "sqlite", folder: folder.path }
        }
      })
    const first = start()
    const made = await first.handler(post("/v1/responses", { model: "fake/chat", input: "Hello!" }, admin))
    const { id } = (await made.json()) as { readonly id: string }
    await first.close()
    const second = start()
    const found = await second.handler(new Request(`${origin}/v1/responses/${id}`, admin))
    assert.strictEqual(found.status, 200)
    const usage = await second.handler(new Request(`${origin}/admin/usage`, admin))
    assert.include(await usage.text(), "fake/chat")
    await second.close()
  })
})

describe("clients with the handler as their fetch", () => {
  const fetch =
    ((input: string | URL | Request, init?: RequestInit) => troupe.handler(new Request(input, init))) as never

  it("openai", async () => {
    const client = new OpenAI({ baseURL: `${origin}/v1`, apiKey: "none", fetch })
    const { choices } = await client.chat.completions.create({ ...chat, messages: [...messages] })
    assert.strictEqual(choices[0]!.message.content, reply)
    let text = ""
    const stream = await client.chat.completions.create({ ...chat, messages: [...messages], stream: true })
    for await (const chunk of stream) text += chunk.choices[0]?.delta.content ?? ""
    assert.strictEqual(text, reply)
    const error = await client.chat.completions.create({ ...chat, messages: [...messages], model: "gpt-9" })
      .catch((cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.NotFoundError)
  })

  it("@anthropic-ai/sdk", async () => {
    const client = new Anthropic({ baseURL: origin, apiKey: "none", fetch })
    const stream = client.messages.stream({ ...chat, messages: [...messages], max_tokens: 50 })
    assert.strictEqual(await stream.finalText(), reply)
  })

  it("ollama", async () => {
    const client = new Ollama({ host: origin, fetch })
    const call = { model: "fake/chat", messages: [...messages], options: { temperature: 0 } }
    let text = ""
    for await (const { message } of await client.chat({ ...call, stream: true })) text += message.content
    assert.strictEqual(text, reply)
  })
})

describe("Hono", () => {
  /** What of Hono is used. */
  interface App {
    readonly all: (path: string, handler: (context: { readonly req: { readonly raw: Request } }) => unknown) => App
    readonly mount: (path: string, handler: (request: Request) => Promise<Response>) => App
    readonly request: (path: string, init?: RequestInit) => Promise<Response>
  }
  const init = { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(chat) }

  it("passes requests on, at their own paths and below another", async () => {
    const name = "hono"
    const { Hono } = (await import(name)) as { readonly Hono: new() => App }
    const app = new Hono()
    app.all("/v1/*", (context) => troupe.handler(context.req.raw))
    app.mount("/ai", troupe.handler)
    for (const path of ["/v1/chat/completions", "/ai/v1/chat/completions"]) {
      const response = await app.request(path, init)
      assert.strictEqual(response.status, 200, path)
      assert.include(await response.text(), reply)
    }
  })
})

describe("Next", () => {
  it("exports the handler as the methods of a route, which get a request of its own and the path's parameters", async () => {
    class NextRequest extends Request {}
    type Route = (request: NextRequest, context: { readonly params: Promise<object> }) => Promise<Response>
    const { handler: GET, handler: POST } = troupe as { readonly handler: Route }
    const context = { params: Promise.resolve({ path: ["chat", "completions"] }) }
    const answer = await POST(new NextRequest(post("/v1/chat/completions", chat)), context)
    assert.include(await answer.text(), reply)
    const models = await GET(new NextRequest(`${origin}/v1/models`), context)
    assert.include(await models.text(), "fake/chat")
  })
})

describe("a stream that waits at another instance", () => {
  const frame = `event: troupe.progress\ndata: ${
    JSON.stringify({
      type: "troupe.progress",
      model: "b",
      deployment: "b#0",
      state: "queued",
      position: 7,
      waitedMs: 5
    })
  }\n\n`
  const chunk = (delta: object, finish_reason: string | null = null) =>
    `data: ${JSON.stringify({ id: "c", choices: [{ index: 0, delta, finish_reason }] })}\n\n`
  const answer = [chunk({ role: "assistant", content: "Hi" }), chunk({}, "stop"), "data: [DONE]\n\n"]
  const paths = ["/v1/chat/completions", "/v1/messages"]
  const asks = { "x-troupe-progress": "true" }

  it("is told of the wait there, with the names of this one; a caller that does not ask is not", async () => {
    const other = await startFaultServer((_, { headers }) =>
      headers["x-troupe-progress"] === "true" ? { pieces: [frame, ...answer], gated: 1 } : { pieces: answer }
    )
    const baseUrl = `${other.url}/v1`
    const near = Troupe.start({
      config: {
        models: { near: { deployments: [{ provider: "troupe", model: "b", baseUrl, key: "key-0123456789" }] } }
      }
    })
    const send = async (path: string, headers: Readonly<Record<string, string>>) => {
      const response = await near.handler(
        post(path, { model: "near", messages, max_tokens: 5, stream: true }, { headers })
      )
      return response.body!.pipeThrough(new TextDecoderStream()).getReader()
    }
    try {
      const readers = await Promise.all(paths.map((path) => send(path, asks)))
      const told = await Promise.all(readers.map((reader) => reader.read()))
      const expected = {
        model: "near",
        deployment: "near#0",
        state: "queued",
        position: 7,
        progress: null,
        waitedMs: 5
      }
      for (const { value } of told) {
        assert.strictEqual(
          value,
          `event: troupe.progress\ndata: ${JSON.stringify({ type: "troupe.progress", ...expected })}\n\n`
        )
      }
      other.release()
      for (const reader of [...readers, ...await Promise.all(paths.map((path) => send(path, {})))]) {
        let text = ""
        for (let next = await reader.read(); !next.done; next = await reader.read()) text += next.value
        assert.include(text, "Hi")
      }
      const asked = other.seen.map(({ headers }) => headers["x-troupe-progress"])
      assert.deepStrictEqual(asked, ["true", "true", undefined, undefined])
    } finally {
      await near.close()
      await other.close()
    }
  })
})
