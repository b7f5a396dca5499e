import { assert } from "@effect/vitest"
import { OpenApi } from "effect/http-api"
import { readFileSync } from "node:fs"
import { describe, it } from "vitest"
import { Api } from "../../src/services/Api.ts"

const description = OpenApi.fromApi(Api)

describe("the OpenAPI description", () => {
  it("has the package's version", () => {
    const { version } = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as {
      readonly version: string
    }
    assert.strictEqual(description.info.version, version)
  })

  it("names every status of a chat completion, and both kinds of answer", () => {
    const { responses } = description.paths["/v1/chat/completions"]!.post!
    assert.sameMembers(Object.keys(responses), ["200", "400", "404", "413", "500", "503"])
    const { content } = responses["200"] as { readonly content: Readonly<Record<string, unknown>> }
    assert.sameMembers(Object.keys(content), ["application/json", "text/event-stream"])
  })
})
