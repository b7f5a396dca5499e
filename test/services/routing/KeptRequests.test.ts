import { assert, describe, it } from "@effect/vitest"
import { bufferedBody, headersOf, KeptRequests } from "../../../src/services/routing/KeptRequests.ts"

const request = (text: string) => ({ path: "/v1/chat/completions", headers: {}, text })

describe("KeptRequests", () => {
  it("keeps the latest, within a number and bytes", () => {
    const kept = new KeptRequests({ keepBodies: 2, maxBytes: 10 })
    const found = () => ["a", "b", "c", "d"].filter((id) => kept.find(id) !== undefined)
    kept.add("a", request("1234"))
    kept.add("b", request("1234"))
    assert.deepStrictEqual(found(), ["a", "b"])
    kept.add("c", request("12"))
    assert.deepStrictEqual(found(), ["b", "c"])
    kept.add("d", request("12345678"))
    assert.deepStrictEqual(found(), ["c", "d"])
    // Four characters of three bytes.
    kept.add("a", request("\u20ac\u20ac\u20ac\u20ac"))
    assert.deepStrictEqual(found(), ["c", "d"])
  })

  it("keeps no header with a key", () => {
    assert.deepStrictEqual(
      headersOf({
        authorization: "Bearer secret",
        "x-api-key": "secret",
        cookie: "a=b",
        "anthropic-version": "2023-06-01"
      }),
      { "anthropic-version": "2023-06-01" }
    )
  })
})

describe("bufferedBody", () => {
  it.each([
    ["/v1/chat/completions", { stream: true, stream_options: { include_usage: true }, n: 1 }, { stream: false, n: 1 }],
    ["/v1/chat/completions", { n: 1 }, { n: 1 }],
    ["/api/chat", { model: "a" }, { model: "a", stream: false }],
    ["/api/chat", { stream: false }, { stream: false }],
    ["/v1/responses", { background: true, input: "a" }, { input: "a" }],
    ["/v1/embeddings", { input: "a" }, { input: "a" }]
  ])("asks %s for an answer at once: %o", (path, body, expected) => {
    assert.deepStrictEqual(bufferedBody(path, body), expected)
  })
})
