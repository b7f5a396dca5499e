import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { decode, encode, fromReason } from "../../../src/dialects/cohere/Rerank.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"

const body = { model: "r", query: "q", documents: ["a", "b", "c"], top_n: 2 }
const by = { deployment: "r#0", attempts: 1, decision: "dec-1" }

describe("Cohere's rerank", () => {
  it("has the best results first, with the use in Cohere's names", () => {
    const call = Result.getOrThrow(decode({ ...body, max_tokens_per_doc: 4096, priority: 3 }))
    assert.deepStrictEqual(call.request, { model: "r", query: "q", documents: ["a", "b", "c"] })
    assert.deepStrictEqual(encode("rerank-1", call, { ...by, scores: [0.1, 0.9, 0.5], promptTokens: 12 }), {
      id: "rerank-1",
      results: [{ index: 1, relevance_score: 0.9 }, { index: 2, relevance_score: 0.5 }],
      meta: {
        api_version: { version: "2" },
        billed_units: { search_units: 1 },
        tokens: { input_tokens: 12, output_tokens: 0 }
      }
    })
  })

  it("counts a search unit for each 100 documents", () => {
    const documents = Array.from({ length: 101 }, () => "a")
    const call = Result.getOrThrow(decode({ ...body, documents }))
    const { meta } = encode("rerank-1", call, { ...by, scores: documents.map(() => 0), promptTokens: 1 })
    assert.strictEqual(meta.billed_units.search_units, 2)
  })

  it.each([
    [{ ...body, documents: [] }, "documents"],
    [{ ...body, documents: [{ text: "a" }] }, "documents[0]"],
    [{ ...body, top_n: 0 }, "top_n"],
    [{ model: "r", query: "q", texts: ["a"] }, "documents"],
    [{ ...body, rank: 1 }, "rank"]
  ])("refuses %j by its field", (given, path) => {
    assert.deepInclude(Result.getOrThrow(Result.flip(decode(given))), { path })
  })

  it("has errors of an id and a message", () => {
    const missing = new InferenceError.ModelNotFound({ model: "x", available: ["r"] })
    const { body, status } = fromReason(missing, "rerank-1")
    assert.strictEqual(status, 404)
    assert.deepStrictEqual(Object.keys(body), ["id", "message", "doc_url"])
    assert.strictEqual(body.id, "rerank-1")
  })
})
