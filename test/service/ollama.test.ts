/** Ollama's API over the service: providers of the same dialect, keys, limits, the input policy, the cache, and the store. */
import { assert } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { request as httpRequest } from "node:http"
import { join } from "node:path"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { ModelServer } from "../support/ModelServer.ts"
import { startModelServer } from "../support/ModelServer.ts"
import type { Service } from "../support/Service.ts"
import { startService, temporaryFolder } from "../support/Service.ts"

type Fields = Readonly<Record<string, unknown>>

const secrets = {
  ALL_KEY: "a-key-of-the-whole-team",
  ONE_KEY: "a-key-of-one-model-only",
  ADMIN_KEY: "a-key-of-an-operator"
}
const tinyChat = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url)
const email = "ada@example.com"
const end = {
  done: true,
  done_reason: "stop",
  total_duration: 5_000_000_001,
  load_duration: 1_000_000,
  prompt_eval_count: 7,
  prompt_eval_duration: 3,
  eval_count: 2,
  eval_duration: 4
}
const headers = { "content-type": "application/x-ndjson" }
const json = { "content-type": "application/json" }

const contentOf = (path: string, text: string): Fields =>
  path === "/api/generate" ? { response: text } : { message: { role: "assistant", content: text } }

/** What Ollama answers. The model `gone` fails before its answer, `cut` within it. */
const answerOf = (path: string, { model, stream = true }: Fields) => {
  const head = { model: "up", created_at: "2026-01-01T00:00:00.123456789Z", x_mine: 1 }
  if (path === "/api/embed") {
    return { headers: json, pieces: [JSON.stringify({ model: "up", embeddings: [[3, 4]], x_mine: 1 })] }
  }
  if (path === "/api/embeddings") return { headers: json, pieces: [JSON.stringify({ embedding: [3, 4] })] }
  if (model === "gone") {
    return { status: 404, headers: json, pieces: [JSON.stringify({ error: "model 'gone' not found" })] }
  }
  const last = { ...head, ...contentOf(path, ""), ...end }
  if (stream !== true) {
    return { headers: json, pieces: [JSON.stringify({ ...last, ...contentOf(path, "Hello [EMAIL_1]!") })] }
  }
  const lines = [
    { ...head, ...contentOf(path, "Hello "), done: false },
    model === "cut"
      ? { error: "an error was encountered while running the model" }
      : { ...head, ...contentOf(path, "[EMAIL_1]!"), done: false },
    last
  ]
  return { headers, pieces: lines.map((line) => `${JSON.stringify(line)}\n`) }
}

let upstream: FaultServer
let hub: ModelServer
let service: Service
let folder: ReturnType<typeof temporaryFolder>
beforeAll(async () => {
  folder = temporaryFolder()
  hub = await startModelServer({ "tiny-Q8_0.gguf": readFileSync(tinyChat), "README.md": Buffer.from("A model.") })
  upstream = await startFaultServer((_, { body, path }) => answerOf(path, body as Fields))
  const remote = (model: string, more = "") =>
    `{ deployments: [{ provider: ollama, model: ${model}, baseUrl: "${upstream.url}"${more} }] }`
  service = await startService(
    `
policies: { default: { retries: 0 } }
cache: { when: always }
store: { folder: ${join(folder.path, "store")} }
guard: { rules: { email: redact, card: reject } }
keys:
  all: { key: "\${ALL_KEY}", limits: { requestsPerMinute: 1000 } }
  one: { key: "\${ONE_KEY}", models: [fake/a], limits: { requestsPerMinute: 2 } }
  operator: { key: "\${ADMIN_KEY}", admin: true }
models:
  up: ${remote("llama3.2")}
  windowed: ${remote("llama3.2", ", contextSize: 8192, maxTokens: 64")}
  gone: ${remote("gone")}
  cut: ${remote("cut")}
  "tagged:8b": ${remote("llama3.2")}
  fake/a: { deployments: [{ engine: fake, reply: aaabbbccc }] }
  fake/cached: { deployments: [{ engine: fake, reply: kept }], cache: {} }
`,
    { ...secrets, HF_ENDPOINT: hub.url }
  )
}, 60_000)
afterAll(async () => {
  await service.stop()
  await hub.close()
  await upstream.close()
  folder[Symbol.dispose]()
})

const send = (path: string, body?: object, key: keyof typeof secrets = "ALL_KEY", method = "POST") =>
  fetch(`${service.url}${path}`, {
    method,
    headers: { ...json, authorization: `Bearer ${secrets[key]}` },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })

const messages = [{ role: "user", content: "Hi" }]

const linesOf = async (response: Response) => {
  const text = await response.text()
  return text.split("\n").filter((line) => line !== "").map((line) => JSON.parse(line) as Record<string, unknown>)
}

const sent = () => upstream.seen.at(-1)!

describe("a provider of the same dialect", () => {
  it("receives a chat as it came, except for the model, and its lines are passed on", async () => {
    const body = {
      messages: [{ role: "user", content: "Hi", x_mine: 1 }],
      options: { mirostat: 2, temperature: 0.5, x_mine: null },
      think: "high",
      keep_alive: "5m",
      truncate: false,
      x_mine: { a: 1 }
    }
    const response = await send("/api/chat", { model: "up", ...body })
    assert.deepStrictEqual([response.status, response.headers.get("content-type")], [200, headers["content-type"]])
    const lines = await linesOf(response)
    assert.deepStrictEqual([sent().path, sent().body], ["/api/chat", { model: "llama3.2", ...body }])
    assert.isTrue(lines.every(({ model, x_mine }) => model === "llama3.2" && x_mine === 1))
    assert.deepInclude(lines.at(-1), end)
    assert.match(response.headers.get("x-troupe-decision")!, /^dec-/)
    assert.strictEqual(response.headers.get("x-troupe-deployment"), "up#0")
  })

  it("receives a prompt as it came, also what only it can answer", async () => {
    const body = { prompt: "a = ", suffix: "+ 1", raw: true, context: [1], template: "x", stream: false }
    const response = await send("/api/generate", { model: "up", ...body })
    assert.deepInclude(await response.json(), { model: "llama3.2", response: "Hello [EMAIL_1]!", ...end, x_mine: 1 })
    assert.deepStrictEqual([sent().path, sent().body], ["/api/generate", { model: "llama3.2", ...body }])
  })

  it("is told the window and the limit of its deployment where the caller names none", async () => {
    await (await send("/api/chat", { model: "windowed", messages, stream: false })).text()
    assert.deepStrictEqual((sent().body as Fields)["options"], { num_ctx: 8192, num_predict: 64 })
    const options = { num_ctx: 100, num_predict: 5, top_k: 3 }
    await (await send("/api/chat", { model: "windowed", messages, options, stream: false })).text()
    assert.deepStrictEqual((sent().body as Fields)["options"], options)
  })

  it("receives embeddings as they came", async () => {
    const body = { input: ["a"], truncate: false, dimensions: 2, x_mine: 1 }
    const embedded = await send("/api/embed", { model: "up", ...body })
    assert.deepStrictEqual(await embedded.json(), { model: "llama3.2", embeddings: [[3, 4]], x_mine: 1 })
    assert.deepStrictEqual(sent().body, { model: "llama3.2", ...body })
    const older = await send("/api/embeddings", { model: "up", prompt: "a" })
    assert.deepStrictEqual(await older.json(), { embedding: [3, 4] })
    assert.strictEqual(sent().path, "/api/embeddings")
  })

  it("answers callers of other dialects", async () => {
    const response = await send("/v1/chat/completions", { model: "up", messages })
    const { choices } = await response.json() as { readonly choices: ReadonlyArray<{ readonly message: Fields }> }
    assert.strictEqual(choices[0]?.message["content"], "Hello [EMAIL_1]!")
  })

  it("fails with a status before the first line, and in a line after it", async () => {
    const gone = await send("/api/chat", { model: "gone", messages })
    assert.isAtLeast(gone.status, 500)
    assert.hasAllKeys(await gone.json(), ["error", "doc_url"])
    const cut = await send("/api/chat", { model: "cut", messages })
    const lines = await linesOf(cut)
    assert.strictEqual(cut.status, 200)
    assert.hasAllKeys(lines.at(-1), ["error", "doc_url"])
    assert.isFalse(lines.some(({ done }) => done === true))
  })
})

describe("names of models", () => {
  it("may have a tag, or the tag `latest`", async () => {
    for (const [model, deployment] of [["tagged:8b", "tagged:8b#0"], ["up:latest", "up#0"], ["up", "up#0"]] as const) {
      const response = await send("/api/chat", { model, messages, stream: false })
      assert.strictEqual(((await response.json()) as Fields)["model"], "llama3.2")
      assert.strictEqual(response.headers.get("x-troupe-deployment"), deployment)
    }
    const { models } = await (await send("/api/tags", undefined, "ALL_KEY", "GET")).json() as {
      readonly models: ReadonlyArray<{ readonly name: string }>
    }
    assert.includeMembers(models.map(({ name }) => name), ["up:latest", "tagged:8b", "fake/a:latest"])
  })
})

describe("a key", () => {
  it("is a bearer token; without one the error has the dialect's shape", async () => {
    for (const path of ["/api/chat", "/api/tags", "/api/pull", "/"]) {
      const response = await fetch(
        `${service.url}${path}`,
        path === "/api/tags" || path === "/" ? {} : { method: "POST", body: "{}" }
      )
      assert.strictEqual(response.status, 401, path)
      assert.isString((await response.json() as { readonly error: unknown }).error, path)
    }
  })

  it("allows its models only, whatever their tag, and lists no others", async () => {
    const listed = await (await send("/api/tags", undefined, "ONE_KEY", "GET")).json() as Fields
    assert.deepStrictEqual((listed["models"] as ReadonlyArray<Fields>).map(({ name }) => name), ["fake/a:latest"])
    for (const [path, body] of [["/api/chat", { messages }], ["/api/show", {}], ["/api/generate", {}]] as const) {
      assert.strictEqual((await send(path, { model: "up:latest", ...body }, "ONE_KEY")).status, 403, path)
    }
    assert.strictEqual((await send("/api/show", { name: "fake/a:latest" }, "ONE_KEY")).status, 200)
  })

  it("has limits, with their headers", async () => {
    const call = { model: "fake/a:latest", messages, stream: false }
    for (const left of ["1", "0"]) {
      const response = await send("/api/chat", call, "ONE_KEY")
      assert.strictEqual(response.headers.get("x-ratelimit-remaining-requests"), left)
      await response.text()
    }
    const rejected = await send("/api/generate", { model: "fake/a", prompt: "Hi" }, "ONE_KEY")
    assert.strictEqual(rejected.status, 429)
    assert.isTrue(rejected.headers.has("retry-after"))
    assert.match(((await rejected.json()) as { readonly error: string }).error, /2 requests per minute/)
  })
})

describe("the input policy", () => {
  it("redacts texts on their way to a provider, and restores them in the answer", async () => {
    const chat = await send("/api/chat", { model: "up", messages: [{ role: "user", content: `Write to ${email}` }] })
    assert.strictEqual(chat.headers.get("x-troupe-redacted"), "EMAIL")
    const texts = (await linesOf(chat)).map(({ message }) => (message as Fields)["content"])
    assert.strictEqual(texts.join(""), `Hello ${email}!`)
    assert.include(sent().text, "Write to [EMAIL_1]")
    const prompt = await send("/api/generate", {
      model: "up",
      prompt: `Write to ${email}`,
      system: email,
      stream: false
    })
    assert.deepInclude(await prompt.json(), { response: `Hello ${email}!` })
    assert.notInclude(sent().text, email)
  })

  it("leaves images as they are, and rejects texts that it has to", async () => {
    const image = `iVBORw0KGgo${"4111".repeat(10)}A=`.slice(0, 52)
    const withImage = [{ role: "user", content: "What?", images: [image] }]
    assert.strictEqual((await send("/api/chat", { model: "up", messages: withImage, stream: false })).status, 200)
    assert.include(sent().text, image)
    const card = await send("/api/generate", { model: "up", prompt: "My card is 4111 1111 1111 1111" })
    assert.strictEqual(card.status, 400)
  })
})

describe("the cache", () => {
  it("answers a repeated request, in each endpoint's own shape", async () => {
    const call = { model: "fake/cached", options: { temperature: 0 } }
    const first = await linesOf(await send("/api/chat", { ...call, messages }))
    const again = await send("/api/generate", { ...call, prompt: "Hi", stream: false })
    assert.strictEqual(again.headers.get("x-troupe-cache-tier"), "memory")
    assert.strictEqual(
      ((await again.json()) as Fields)["response"],
      first.map(({ message }) => (message as Fields)["content"]).join("")
    )
  })
})

describe("administration", () => {
  const administer = (
    method: string,
    path: string,
    body: object
  ): Promise<{ readonly status: number; readonly text: string }> =>
    new Promise((resolve, reject) => {
      const url = new URL(path, service.admin)
      const authorization = { authorization: `Bearer ${secrets.ADMIN_KEY}` }
      httpRequest(url, {
        method,
        headers: { ...json, ...authorization, "content-length": JSON.stringify(body).length }
      }, (response) => {
        response.toArray().then((chunks) => resolve({ status: response.statusCode!, text: chunks.join("") }), reject)
      }).on("error", reject).end(JSON.stringify(body))
    })

  it("needs an admin key to pull and delete", async () => {
    for (const [method, path] of [["POST", "/api/pull"], ["DELETE", "/api/delete"]] as const) {
      const refused = await send(path, { model: "up" }, "ALL_KEY", method)
      assert.strictEqual(refused.status, 403)
      assert.match(((await refused.json()) as { readonly error: string }).error, /not an admin key/)
    }
  })

  it("pulls no file of this machine, nothing that is no source, and nothing that is there", async () => {
    const there = await administer("POST", "/api/pull", { name: "up:latest" })
    assert.deepStrictEqual(there, { status: 200, text: "{\"status\":\"success\"}\n" })
    for (const model of ["llama3.2", "/etc/passwd", "./model.gguf"]) {
      const { status, text } = await administer("POST", "/api/pull", { model })
      assert.strictEqual(status, 400)
      assert.include(text, "Sources are hf:org/repo")
    }
    assert.strictEqual((await administer("POST", "/api/pull", {})).status, 400)
  })

  it("pulls from Hugging Face with progress, serves nothing of it by itself, and deletes it", async () => {
    const source = "hf.co/org/model:Q8_0"
    const { status, text } = await administer("POST", "/api/pull", { model: source })
    assert.strictEqual(status, 200)
    const lines = text.trimEnd().split("\n").map((line) => JSON.parse(line) as Fields)
    const size = readFileSync(tinyChat).length
    assert.isTrue(lines.some(({ completed, total }) => total === size && completed === size), text)
    assert.deepStrictEqual(lines.at(-1), { status: "success" })
    assert.includeMembers(hub.seen.map(({ path }) => path.split("?")[0]!), [
      "/api/models/org/model/tree/main",
      "/org/model/resolve/main/tiny-Q8_0.gguf"
    ])
    const again = await administer("POST", "/api/pull", { model: source, stream: false })
    assert.deepStrictEqual([again.status, JSON.parse(again.text)], [200, { status: "success" }])
    const missing = await administer("POST", "/api/pull", { model: "hf.co/org/model:Q4_K_M" })
    assert.include(missing.text, "Q4_K_M")
    const removed = await administer("DELETE", "/api/delete", { model: "tiny-Q8_0" })
    assert.strictEqual(removed.status, 200, removed.text)
    assert.strictEqual((await administer("DELETE", "/api/delete", { model: "tiny-Q8_0" })).status, 404)
  })

  it("deletes what the store has only", async () => {
    const { status, text } = await administer("DELETE", "/api/delete", { name: "none:latest" })
    assert.deepStrictEqual([status, text.includes("has no model")], [404, true])
  })
})
