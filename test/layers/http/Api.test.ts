import { assert } from "@effect/vitest"
import { OpenApi } from "effect/http-api"
import { readFileSync } from "node:fs"
import { describe, it } from "vitest"
import * as Api from "../../../src/layers/http/Api.ts"
import { dialects } from "../../../src/layers/http/Server.ts"

const description = OpenApi.fromApi(Api.make(dialects))

describe("the OpenAPI description", () => {
  it("has the package's version", () => {
    const { version } = JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
      readonly version: string
    }
    assert.strictEqual(description.info.version, version)
  })

  it("lists every status of every inference endpoint", () => {
    for (const path of ["chat/completions", "embeddings", "rerank", "classify", "tokenize"]) {
      const { responses } = description.paths[`/v1/${path}`]!.post!
      assert.sameMembers(Object.keys(responses), ["200", "400", "404", "413", "429", "500", "503"], path)
    }
  })

  it("lists every status of the endpoints of Anthropic's dialect", () => {
    for (const path of ["messages", "messages/count_tokens"]) {
      const { responses } = description.paths[`/v1/${path}`]!.post!
      assert.sameMembers(Object.keys(responses), ["200", "400", "404", "413", "429", "500", "504", "529"], path)
    }
  })

  it("lists every status of the endpoints of Ollama's API", () => {
    for (const path of ["chat", "generate", "embed", "embeddings", "show"]) {
      const { responses } = description.paths[`/api/${path}`]!.post!
      assert.sameMembers(
        Object.keys(responses),
        ["200", "400", "404", "413", "429", "500", "502", "503", "504"],
        path
      )
    }
  })

  it("describes the lines of Ollama's API by the clients' schemas", () => {
    const { content } = description.paths["/api/chat"]!.post!.responses["200"] as {
      readonly content: Readonly<Record<string, { readonly schema: unknown }>>
    }
    assert.deepStrictEqual<unknown>(Object.entries(content).map(([type, { schema }]) => [type, schema]), [
      ["application/json", { $ref: "#/components/schemas/OllamaChatResponse" }],
      ["application/x-ndjson", { $ref: "#/components/schemas/OllamaChatLine" }]
    ])
  })

  it.each([
    ["chat/completions", "ChatCompletion", "ChatChunk"],
    ["messages", "AnthropicMessage", "AnthropicStreamEvent"]
  ])("describes the buffered and the streamed answer of %s by the clients' schemas", (path, buffered, streamed) => {
    const { content } = description.paths[`/v1/${path}`]!.post!.responses["200"] as {
      readonly content: Readonly<Record<string, { readonly schema: unknown }>>
    }
    assert.deepStrictEqual(Object.fromEntries(Object.entries(content).map(([type, { schema }]) => [type, schema])), {
      "application/json": { $ref: `#/components/schemas/${buffered}` },
      "text/event-stream": { $ref: `#/components/schemas/${streamed}` }
    })
  })
})
