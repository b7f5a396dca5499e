import { assert, describe, it } from "@effect/vitest"
import { Effect, Layer, Result } from "effect"
import { HttpServer } from "effect/http"
import { connect } from "node:net"
import type { Model } from "../../../src/domain/Deployment.ts"
import type { Answer } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { makeDialectOf } from "../../../src/layers/http/Dialect.ts"
import * as Server from "../../../src/layers/http/Server.ts"
import { Registry } from "../../../src/services/models/Registry.ts"
import { httpServices } from "../../support/HttpServices.ts"
import * as PlainDialect from "../../support/PlainDialect.ts"

const answer: Answer = {
  text: "Hello.",
  toolCalls: [],
  finishReason: "stop",
  usage: { promptTokens: 1, completionTokens: 1, cachedTokens: 0 },
  deployment: "m#0",
  attempts: 1,
  decision: "dec-1"
}

const model = { name: "m", deployments: [{ id: "m#0", options: { engine: "fake" } }] } as unknown as Model

const registry = Layer.mock(Registry)({
  models: () => [model],
  find: (name) =>
    name === "m" ? Result.succeed(model) : Result.fail(
      InferenceError.make(new InferenceError.ModelNotFound({ model: name, available: ["m"] }))
    )
})

const server = Server.make([...Server.dialects, PlainDialect.dialect]).pipe(
  Layer.provide(httpServices({ inference: { generate: () => Effect.succeed(answer) }, registry }))
)

/** The raw response to a request line. */
const raw = (port: number, line: string): Promise<string> =>
  new Promise((resolve, reject) => {
    let text = ""
    const socket = connect(port, "127.0.0.1")
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString()
    }).on("close", () => resolve(text)).on("error", reject)
    socket.write(`${line} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: 0\r\n\r\n`)
  })

const withServer = (use: (url: string, port: number) => Promise<void>) =>
  Effect.gen(function*() {
    const { address } = yield* HttpServer.HttpServer
    const port = "port" in address ? address.port : 0
    yield* Effect.promise(() => use(`http://127.0.0.1:${port}`, port))
  }).pipe(Effect.provide(server))

const post = (url: string, body: unknown) => fetch(url, { method: "POST", body: JSON.stringify(body) })

describe("a dialect added to the server's list", () => {
  it.live("has its routes", () =>
    withServer(async (url) => {
      const response = await post(`${url}/plain/ask`, { model: "m", text: "Hello?" })
      assert.strictEqual(response.status, 200)
      assert.deepStrictEqual(await response.json(), { text: "Hello." })
      assert.strictEqual(response.headers.get("x-troupe-deployment"), "m#0")
      assert.match(response.headers.get("x-plain-id")!, /^plain-/)
    }))

  it.live("is described", () =>
    withServer(async (url) => {
      const { paths } = await (await fetch(`${url}/openapi.json`)).json() as { readonly paths: object }
      assert.includeMembers(Object.keys(paths), ["/plain/ask", "/v1/chat/completions", "/v1/messages"])
    }))

  it.live("has its own format for errors from every source", () =>
    withServer(async (url, port) => {
      const problemOf = async (response: Response) =>
        [response.status, (await response.json() as { readonly problem: string }).problem] as const
      assert.deepStrictEqual(await problemOf(await post(`${url}/plain/ask`, {})), [
        400,
        "`model` and `text` are required"
      ])
      assert.deepStrictEqual(await problemOf(await fetch(`${url}/plain/ask`)), [
        405,
        "The path /plain/ask does not allow GET. Use POST."
      ])
      assert.deepStrictEqual(await problemOf(await fetch(`${url}/plain/ask/more`)), [
        404,
        "The path /plain/ask/more does not exist. GET /openapi.json lists all paths."
      ])
      assert.include(await raw(port, "POST /plain/ask?a=%"), "{\"problem\":\"The query has")
    }))

  it.live("and every other dialect has its own, for an unknown path and for a method that a path does not allow", () =>
    withServer(async (url) => {
      const openAi = (body: Readonly<Record<string, Readonly<Record<string, unknown>>>>) =>
        assert.hasAllKeys(body["error"], ["message", "type", "param", "code", "doc_url"])
      const anthropic = (body: Readonly<Record<string, unknown>>) => {
        assert.hasAllKeys(body, ["type", "error", "request_id"])
        assert.strictEqual(body["type"], "error")
      }
      const cohere = (body: Readonly<Record<string, unknown>>) => assert.hasAllKeys(body, ["id", "message", "doc_url"])
      const ollama = (body: Readonly<Record<string, unknown>>) => {
        assert.hasAllKeys(body, ["error", "doc_url"])
        assert.isString(body["error"])
      }
      for (
        const [method, path, status, check] of [
          ["GET", "/v1/chat/completions", 405, openAi],
          ["POST", "/v1/chat/completions/more", 404, openAi],
          ["GET", "/v1/responses", 426, openAi],
          ["PUT", "/v1/responses", 405, openAi],
          ["GET", "/v2/rerank", 405, cohere],
          ["POST", "/other", 404, openAi],
          ["POST", "/apix", 404, openAi],
          ["GET", "/v1/messages", 405, anthropic],
          ["POST", "/v1/messages/more", 404, anthropic],
          ["GET", "/api/chat", 405, ollama],
          ["POST", "/", 405, ollama],
          ["POST", "/api/chat/more", 404, ollama],
          ["POST", "/api/nothing", 404, ollama],
          ["GET", "/api", 404, ollama],
          ["POST", "/v1/models", 405, openAi],
          ["POST", "/v1/models", 405, anthropic],
          ["POST", "/v1/mesages", 404, anthropic],
          ["GET", "/other", 404, anthropic],
          ["GET", "/other?a=%", 400, anthropic]
        ] as const
      ) {
        // At a path that is of no dialect.
        const headers: Record<string, string> = check === anthropic ? { "anthropic-version": "2023-06-01" } : {}
        const response = await fetch(url + path, { method, headers })
        assert.strictEqual(response.status, status, `${method} ${path}`)
        check(await response.json() as never)
      }
    }))

  it.live("is suggested where a path is near one of its own", () =>
    withServer(async (url) => {
      const messageOf = async (path: string) => JSON.stringify(await (await post(url + path, {})).json())
      for (
        const [path, meant] of [
          ["/plain/aks", "/plain/ask"],
          ["/v1/v1/chat/completions", "/v1/chat/completions"],
          ["/chat/completions", "/v1/chat/completions"],
          ["/v1/chat/completion", "/v1/chat/completions"],
          ["/completions", "/v1/completions"],
          ["/v1/v1/completions", "/v1/completions"],
          ["/v1/embedings", "/v1/embeddings"]
        ] as const
      ) {
        assert.include(await messageOf(path), `The path ${path} does not exist. Did you mean ${meant}? GET`)
      }
      assert.include(await messageOf("/nothing/like/it"), "does not exist. GET")
    }))

  it.live("has its own format of the model list", () =>
    withServer(async (url) => {
      const get = async (path: string) =>
        await (await fetch(url + path, { headers: { "x-plain-version": "1" } })).json()
      assert.deepStrictEqual(await get("/v1/models"), { names: ["m"] })
      assert.deepStrictEqual(await get("/v1/models/m"), { name: "m" })
      assert.hasAllKeys(await get("/v1/models/other"), ["problem", "id"])
    }))
})

describe("the dialect of a path", () => {
  const dialectOf = makeDialectOf(Server.dialects)
  const [openAi, anthropic, _responses, ollama] = Server.dialects

  it("is that of the endpoint at the path or above", () => {
    for (const path of ["/v1/messages", "/v1/messages?beta=true", "/v1/messages/count_tokens", "/v1/messages/%"]) {
      assert.strictEqual(dialectOf(path, {}), anthropic)
    }
    for (const path of ["/", "/?a=b", "/api/chat"]) assert.strictEqual(dialectOf(path, {}), ollama)
  })

  it("is that of the client, and not at the endpoints of another dialect", () => {
    const headers = { "anthropic-version": "2023-06-01" }
    assert.strictEqual(dialectOf("/other", headers), anthropic)
    assert.strictEqual(dialectOf("/v1/models", headers), anthropic)
    assert.strictEqual(dialectOf("/v1/chat/completions", headers), openAi)
    assert.strictEqual(dialectOf("/api/chat", headers), ollama)
  })

  it("is the first dialect for other paths", () => {
    for (const path of ["/v1/chat/completions", "/v1/messages2", "/other", ""]) {
      assert.strictEqual(dialectOf(path, {}), openAi)
    }
  })
})
