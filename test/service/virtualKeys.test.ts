/** Who may call the service: keys in each dialect, models, metrics, administration, and a service without keys. */
import { assert } from "@effect/vitest"
import { request as httpRequest } from "node:http"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { run, startService, temporaryFolder } from "../support/Service.ts"

const models = `
models:
  fake/a: { deployments: [{ engine: fake, reply: hi }] }
  fake/b: { deployments: [{ engine: fake, reply: hi }] }
  fake/failing:
    policy: once
    deployments: [{ engine: fake, quality: 0.9, fault: { kind: error } }, { engine: fake, fault: { kind: error } }]
policies: { once: { retries: 0, strategy: quality } }
`
const secrets = {
  ALL_KEY: "a-key-of-the-whole-team",
  ONE_KEY: "a-key-of-one-model-only",
  OLD_KEY: "a-key-that-has-expired",
  RATED_KEY: "a-key-with-a-limit",
  ADMIN_KEY: "a-key-of-an-operator"
}
const keys = `
keys:
  all: { key: "\${ALL_KEY}" }
  one: { key: "\${ONE_KEY}", models: ["fake/a*"] }
  rated: { key: "\${RATED_KEY}", limits: { requestsPerMinute: 1 } }
  old: { key: "\${OLD_KEY}", expires: 2020-01-31 }
  operator: { key: "\${ADMIN_KEY}", admin: true }
`

let open: Service
let closed: Service
beforeAll(async () => {
  open = await startService(models)
  closed = await startService(`${models}${keys}`, secrets)
})
afterAll(async () => {
  await open.stop()
  await closed.stop()
})

interface Answer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | ReadonlyArray<string> | undefined>>
  readonly text: string
  readonly json: unknown
}

const ask = (
  url: string,
  path: string,
  { body, headers = {}, method = body === undefined ? "GET" : "POST" }: {
    readonly body?: unknown
    readonly headers?: Readonly<Record<string, string>>
    readonly method?: string
  } = {}
): Promise<Answer> =>
  new Promise((resolve, reject) => {
    httpRequest(
      `${url}${path}`,
      { method, headers: { "content-type": "application/json", ...headers } },
      (response) => {
        response.toArray().then((chunks) => {
          const text = chunks.join("")
          const json: unknown = text.startsWith("{") ? JSON.parse(text) : undefined
          resolve({ status: response.statusCode!, headers: response.headers, text, json })
        }, reject)
      }
    ).on("error", reject).end(body === undefined ? undefined : JSON.stringify(body))
  })

const bearer = (secret: string) => ({ authorization: `Bearer ${secret}` })
const chat = (model = "fake/a") => ({ model, messages: [{ role: "user", content: "Hi" }], max_tokens: 5 })
const anthropic = (secret: string) => ({ "x-api-key": secret, "anthropic-version": "2023-06-01" })

describe("a request that is refused before it is routed", () => {
  const admin = bearer(secrets.ADMIN_KEY)
  const idOf = ({ headers }: Answer) => headers["x-request-id"] as string
  const recordOf = async (answer: Answer) =>
    (await ask(closed.url, `/admin/decisions/${idOf(answer)}`, { headers: admin })).json

  it("has a record by the id of its response, with its key and the reason", async () => {
    const forbidden = await ask(closed.url, "/v1/chat/completions", {
      body: chat("fake/b"),
      headers: bearer(secrets.ONE_KEY)
    })
    const missing = await ask(closed.url, "/v1/chat/completions", {
      body: chat("nowhere"),
      headers: bearer(secrets.ALL_KEY)
    })
    const rated = () => ask(closed.url, "/v1/chat/completions", { body: chat(), headers: bearer(secrets.RATED_KEY) })
    assert.strictEqual((await rated()).status, 200)
    const limited = await rated()
    assert.deepStrictEqual([forbidden, missing, limited].map(({ status }) => status), [403, 404, 429])
    const common = { refused: true, end: "failure", attempts: [] }
    assert.deepInclude(await recordOf(forbidden), {
      ...common,
      key: "one",
      model: "fake/b",
      requestId: idOf(forbidden)
    })
    assert.deepInclude(await recordOf(missing), { ...common, key: "all", model: "nowhere" })
    assert.deepInclude(await recordOf(limited), { ...common, key: "rated", model: "fake/a", requestId: idOf(limited) })
    const { json } = await ask(closed.url, "/admin/requests?status=failure", { headers: admin })
    const listed = (json as { requests: ReadonlyArray<{ requestId: string; error: { reason: string } }> }).requests
    const reasons = new Map(listed.map(({ error, requestId }) => [requestId, error.reason]))
    assert.deepStrictEqual([forbidden, missing, limited].map((one) => reasons.get(idOf(one))), [
      "Forbidden",
      "ModelNotFound",
      "LimitExceeded"
    ])
    const metrics = await ask(closed.url, "/metrics", { headers: admin })
    assert.match(metrics.text, /troupe_requests_total\{[^}]*model="fake\/b"[^}]*outcome="refused"[^}]*\} 1/)
    assert.notMatch(metrics.text, /llm_requests_total\{[^}]*model="fake\/b"[^}]*success="false"/)
    assert.notInclude(metrics.text, "nowhere")
  })
})

describe("an error after several attempts", () => {
  const failed = async (service: Service, headers = {}) => {
    const { json } = await ask(service.url, "/v1/chat/completions", { body: chat("fake/failing"), headers })
    return (json as { readonly error: { readonly attempts?: ReadonlyArray<object>; readonly doc_url: string } }).error
  }

  it("lists them for administrators and where there are no keys, and for no other caller", async () => {
    for (const { attempts } of [await failed(open), await failed(closed, bearer(secrets.ADMIN_KEY))]) {
      assert.lengthOf(attempts!, 2)
      assert.hasAllKeys(attempts![0], ["deployment", "code", "message", "took_ms"])
      assert.deepInclude(attempts![0], { deployment: "fake/failing#0", code: "engine_failed" })
    }
    assert.isUndefined((await failed(closed, bearer(secrets.ALL_KEY))).attempts)
    const refused = await ask(open.url, "/v1/chat/completions", { body: { ...chat("fake/b"), max_token: 1 } })
    assert.notInclude(refused.text, "\"attempts\"")
    const excluded = await ask(open.url, "/v1/chat/completions", {
      body: chat("fake/b"),
      headers: { "x-troupe-except": "fake/b#0" }
    })
    assert.isAtLeast(excluded.status, 400)
    assert.notInclude(excluded.text, "\"attempts\"")
  })

  it("names its explanation, which needs no key, as all errors of all dialects do", async () => {
    const { doc_url: path } = await failed(closed, bearer(secrets.ALL_KEY))
    const { status, text } = await ask(closed.url, path)
    assert.strictEqual(status, 200)
    assert.match(text, /^engine_failed: [\s\S]+\nCause: .+\nRemedy: .+\n$/)
    for (const endpoint of ["/v1/messages", "/api/chat", "/v2/rerank"]) {
      const { text } = await ask(closed.url, endpoint, { body: chat("no") })
      assert.include(text, "\"doc_url\":\"/errors/invalid_api_key\"")
    }
    const unknown = await ask(closed.url, "/errors/constructor")
    assert.strictEqual(unknown.status, 404)
    assert.include(unknown.text, "queue_full")
  })
})

describe("a service with keys", () => {
  it.each([
    ["no key", {}, "requires an API key"],
    ["an unknown key", bearer("a-key-of-another-service"), "not a key of this service"],
    ["an expired key", bearer(secrets.OLD_KEY), "has expired"],
    ["an empty key", { authorization: "Bearer " }, "requires an API key"]
  ])("rejects %s in OpenAI's shape", async (_, headers, expected) => {
    const { headers: answered, json, status } = await ask(closed.url, "/v1/chat/completions", { headers, body: chat() })
    assert.strictEqual(status, 401)
    assert.strictEqual(answered["www-authenticate"], "Bearer")
    assert.isString(answered["x-request-id"])
    const { error } = json as { error: { message: string; type: string; code: string; param: null } }
    assert.include(error.message, expected)
    assert.deepInclude(error, { type: "invalid_request_error", code: "invalid_api_key", param: null })
  })

  it("rejects an unknown key in Anthropic's shape", async () => {
    const options = { headers: anthropic("a-key-of-another-service"), body: chat() }
    const { headers, json, status } = await ask(closed.url, "/v1/messages", options)
    assert.strictEqual(status, 401)
    const { error, request_id: id, type } = json as {
      type: string
      request_id: string
      error: { type: string; message: string }
    }
    assert.strictEqual(type, "error")
    assert.strictEqual(error.type, "authentication_error")
    assert.strictEqual(headers["request-id"], id)
  })

  it.each([["OpenAI", bearer], ["Anthropic", anthropic]])(
    "answers a request with a key as %s sends it",
    async (_, send) => {
      for (const path of ["/v1/chat/completions", "/v1/messages"]) {
        const { status } = await ask(closed.url, path, { headers: send(secrets.ALL_KEY), body: chat() })
        assert.strictEqual(status, 200)
      }
    }
  )

  it("knows a client that also sends the key of another service", async () => {
    const headers = { ...bearer("a-key-of-another-service"), "x-api-key": secrets.ALL_KEY }
    assert.strictEqual((await ask(closed.url, "/v1/chat/completions", { headers, body: chat() })).status, 200)
  })

  it("rejects a model that the key does not allow, and fallbacks to one", async () => {
    const headers = bearer(secrets.ONE_KEY)
    assert.strictEqual((await ask(closed.url, "/v1/chat/completions", { headers, body: chat() })).status, 200)
    const bodies = [chat("fake/b"), { ...chat(), troupe: { fallbacks: ["fake/b"] } }, chat("unknown")]
    for (const body of bodies) {
      const { json, status } = await ask(closed.url, "/v1/chat/completions", { headers, body })
      assert.strictEqual(status, 403)
      const { error } = json as { error: { message: string; code: string } }
      assert.strictEqual(error.code, "model_not_found")
      assert.include(error.message, "Its models: fake/a*.")
    }
    const byHeader = { ...headers, "x-troupe-fallbacks": "fake/b" }
    assert.strictEqual((await ask(closed.url, "/v1/chat/completions", { headers: byHeader, body: chat() })).status, 403)
    const { json, status } = await ask(closed.url, "/v1/messages", {
      headers: anthropic(secrets.ONE_KEY),
      body: chat("fake/b")
    })
    assert.strictEqual(status, 403)
    assert.strictEqual((json as { error: { type: string } }).error.type, "permission_error")
  })

  it.each(["embeddings", "rerank", "classify", "tokenize", "messages/count_tokens"])(
    "rejects the model at /v1/%s",
    async (path) => {
      const body = { ...chat("fake/b"), input: "a", prompt: "a", query: "a", documents: ["a"] }
      const fields: Record<string, ReadonlyArray<string>> = {
        embeddings: ["model", "input"],
        rerank: ["model", "query", "documents"],
        classify: ["model", "input"],
        tokenize: ["model", "prompt"],
        "messages/count_tokens": ["model", "messages"]
      }
      const sent = Object.fromEntries(fields[path]!.map((name) => [name, body[name as keyof typeof body]]))
      const { status } = await ask(closed.url, `/v1/${path}`, { headers: bearer(secrets.ONE_KEY), body: sent })
      assert.strictEqual(status, 403)
    }
  )

  it("lists the models of the key only", async () => {
    const idsOf = async (headers: Record<string, string>) => {
      const { json } = await ask(closed.url, "/v1/models", { headers })
      return (json as { data: ReadonlyArray<{ id: string }> }).data.map(({ id }) => id)
    }
    assert.deepStrictEqual(await idsOf(bearer(secrets.ONE_KEY)), ["fake/a"])
    assert.deepStrictEqual(await idsOf(anthropic(secrets.ONE_KEY)), ["fake/a"])
    assert.includeMembers([...await idsOf(bearer(secrets.ALL_KEY))], ["fake/a", "fake/b"])
    assert.strictEqual((await ask(closed.url, "/v1/models/fake/a", { headers: bearer(secrets.ONE_KEY) })).status, 200)
    const { json, status } = await ask(closed.url, "/v1/models/fake/b", { headers: anthropic(secrets.ONE_KEY) })
    assert.strictEqual(status, 403)
    assert.strictEqual((json as { type: string }).type, "error")
  })

  it("rejects GET /v1/models without a key in the shape of the client's dialect", async () => {
    const { json, status } = await ask(closed.url, "/v1/models", { headers: { "anthropic-version": "2023-06-01" } })
    assert.strictEqual(status, 401)
    assert.strictEqual((json as { error: { type: string } }).error.type, "authentication_error")
  })

  it("needs no key for its health and its description, but for any other path", async () => {
    for (const path of ["/health/live", "/health/ready", "/openapi.json"]) {
      assert.strictEqual((await ask(closed.url, path)).status, 200, path)
    }
    for (const path of ["/", "/v1", "/v1/none", "/health", "/health/live/x", "/%2e/v1/models", "//v1/models"]) {
      assert.strictEqual((await ask(closed.url, path)).status, 401, path)
    }
  })

  it("gives metrics and administration to admin keys", async () => {
    for (const path of ["/metrics", "/health/details", "/admin/deployments"]) {
      for (const at of [closed.url, closed.admin]) {
        assert.strictEqual((await ask(at, path)).status, 401, path)
        assert.strictEqual((await ask(at, path, { headers: bearer(secrets.ALL_KEY) })).status, 403, path)
        assert.strictEqual((await ask(at, path, { headers: bearer(secrets.ADMIN_KEY) })).status, 200, path)
      }
    }
    const unload = { method: "POST", headers: bearer(secrets.ADMIN_KEY) }
    assert.strictEqual((await ask(closed.url, "/admin/models/fake/b/unload", unload)).status, 200)
  })

  it("requires the key on connections that have sent one", async () => {
    const sockets = await import("node:http").then(({ Agent }) => new Agent({ keepAlive: true, maxSockets: 1 }))
    const status = (headers: Record<string, string>) =>
      new Promise<number | undefined>((resolve, reject) => {
        httpRequest(`${closed.url}/v1/models`, { agent: sockets, headers }, (response) => {
          response.resume().on("end", () => resolve(response.statusCode))
        }).on("error", reject).end()
      })
    assert.strictEqual(await status(bearer(secrets.ALL_KEY)), 200)
    assert.strictEqual(await status({}), 401)
    sockets.destroy()
  })

  it("names no key in its output", async () => {
    await ask(closed.url, "/v1/chat/completions", { headers: bearer("a-key-of-another-service"), body: chat() })
    const { stderr, stdout } = closed.process.output()
    for (const secret of [...Object.values(secrets), "a-key-of-another-service"]) {
      assert.notInclude(`${stdout}${stderr}`, secret)
    }
    assert.include(stdout, "Requests need a key")
  })
})

describe("a service without keys", () => {
  it("says who may call it", () => {
    const { stdout } = open.process.output()
    assert.include(stdout, "programs on this machine may call it without one")
    // As it can be typed: `troupe` is not on the PATH of a clone.
    assert.match(stdout, /`(?:npm run troupe --|node \S+) keys create NAME`/)
  })

  it("answers to names of this machine only", async () => {
    const { port } = new URL(open.url)
    for (const host of ["localhost", `localhost:${port}`, "127.0.0.1", `[::1]:${port}`]) {
      assert.strictEqual((await ask(open.url, "/v1/chat/completions", { headers: { host }, body: chat() })).status, 200)
    }
    for (const path of ["/v1/chat/completions", "/v1/messages"]) {
      const answer = await ask(open.url, path, { headers: { host: "rebound.example" }, body: chat() })
      assert.strictEqual(answer.status, 403, path)
      assert.include(answer.text, "rebound.example")
    }
    for (const path of ["/v1/models", "/metrics"]) {
      assert.strictEqual((await ask(open.url, path, { headers: { host: "rebound.example" } })).status, 403, path)
    }
  })

  it("answers to web pages of its own origin only", async () => {
    const { host } = new URL(open.url)
    const body = chat()
    const own = await ask(open.url, "/v1/chat/completions", { headers: { origin: `http://${host}` }, body })
    assert.strictEqual(own.status, 200)
    const foreign = await ask(open.url, "/v1/chat/completions", { headers: { origin: "https://page.example" }, body })
    assert.strictEqual(foreign.status, 403)
    assert.isUndefined(foreign.headers["access-control-allow-origin"])
    const preflight = await ask(open.url, "/v1/chat/completions", {
      method: "OPTIONS",
      headers: { origin: "https://page.example", "access-control-request-method": "POST" }
    })
    assert.strictEqual(preflight.status, 403)
  })

  it("is not started on an address that other machines reach", async () => {
    using folder = temporaryFolder()
    const serve = (env: Record<string, string>, ...args: ReadonlyArray<string>) =>
      run(["serve", "--port", "0", ...args], { cwd: folder.path, env })
    for (const host of ["0.0.0.0", "::"]) {
      const { code, stderr, stdout } = await serve({}, "--host", host)
      assert.strictEqual(code, 1)
      assert.strictEqual(stdout, "")
      for (const way of [host, "keys create NAME", "server.allowAnonymous"]) assert.include(stderr, way)
    }
    const production = await serve({ NODE_ENV: "production", HOST: "0.0.0.0" })
    assert.strictEqual(production.code, 1)
    assert.include(production.stderr, "In production")
  })
})

describe("a service on every address", () => {
  it("prints the address that was bound, with keys and where anonymous callers are allowed", async () => {
    for (
      const [settings, callers] of [[`server: { host: 0.0.0.0 }${keys}`, "Requests need a key"], [
        "server: { host: 0.0.0.0, allowAnonymous: true }",
        "everyone who reaches this address may call it"
      ]]
    ) {
      const service = await startService(`${models}\n${settings}`, secrets)
      assert.match(service.url, /^http:\/\/0\.0\.0\.0:\d+$/)
      assert.include(service.process.output().stdout, callers!)
      assert.include(service.process.output().stdout, "curl -s http://127.0.0.1:")
      await service.stop()
    }
  })
})
