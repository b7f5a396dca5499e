import { assert, describe, it } from "@effect/vitest"
import { Duration, Result, Schema } from "effect"
import * as fc from "fast-check"
import * as Tasks from "../../../src/dialects/openai/Tasks.ts"
import * as TaskSchema from "../../../src/dialects/openai/TaskSchema.ts"
import type { InvalidRequest } from "../../../src/domain/InferenceError.ts"

type Decode = (json: unknown, caller?: { readonly key?: string }) => Result.Result<unknown, InvalidRequest>

const refusal = <A>(result: Result.Result<A, InvalidRequest>): InvalidRequest =>
  Result.getOrThrowWith(Result.flip(result), () => new Error("It was taken."))

const { decodeClassify, decodeEmbedding, decodeRerank, decodeTokenize } = Tasks

const messages = [{ role: "user", content: "Hello" }]
const tool = { type: "function", function: { name: "f" } }

const least: ReadonlyArray<readonly [name: string, decode: Decode, body: object]> = [
  ["embeddings", decodeEmbedding, { model: "m", input: "a" }],
  ["rerank", decodeRerank, { model: "m", query: "a", documents: ["b"] }],
  ["classify", decodeClassify, { model: "m", input: "a" }],
  ["tokenize", decodeTokenize, { model: "m", prompt: "a" }]
]

describe("Tasks", () => {
  describe.each(least)("%s", (_, decode, body) => {
    const requestOf = (fields: object, bearerToken?: string): object => {
      const decoded = Result.getOrThrow(
        decode({ ...body, ...fields }, bearerToken === undefined ? {} : { key: bearerToken })
      ) as { readonly request?: object }
      const { source: _, ...request } = (decoded.request ?? decoded) as { readonly source?: unknown }
      return request
    }

    it("leaves missing fields and null to their defaults", () => {
      assert.notProperty(requestOf({}), "tenant")
      const fields = ["keep_alive", "priority", "user", "safety_identifier"]
      assert.deepStrictEqual(requestOf(Object.fromEntries(fields.map((field) => [field, null]))), requestOf({}))
    })

    it("has the tenant, the priority and how long the model stays loaded", () => {
      const fields = { user: "me", priority: "low", keep_alive: "2m" }
      assert.deepInclude(requestOf(fields), { priority: "low", keepAlive: Duration.minutes(2) })
      assert.property(requestOf(fields), "tenant")
      assert.notDeepEqual(requestOf(fields, "token"), requestOf(fields))
    })

    it("rejects a body that is not an object, and invalid fields by their path", () => {
      assert.isUndefined(refusal(decode([])).path)
      assert.strictEqual(refusal(decode({ ...body, model: "" })).path, "model")
      assert.strictEqual(refusal(decode({ ...body, keep_alive: "soon" })).path, "keep_alive")
    })
  })

  it.each<[name: string, decode: Decode, fields: object, path: string]>([
    ["embeddings", decodeEmbedding, { input: "" }, "input"],
    ["embeddings", decodeEmbedding, { input: ["a", ""] }, "input[1]"],
    ["embeddings", decodeEmbedding, { input: Array.from({ length: 2049 }, () => "a") }, "input"],
    ["embeddings", decodeEmbedding, { input: "a", encoding_format: "int8" }, "encoding_format"],
    ["embeddings", decodeEmbedding, { input: "a", dimensions: 0 }, "dimensions"],
    ["classify", decodeClassify, { input: [1, 2] }, "input"],
    ["classify", decodeClassify, { input: "a", labels: ["b"] }, "labels"],
    ["rerank", decodeRerank, { query: "a", documents: [] }, "documents"],
    ["rerank", decodeRerank, { query: "", documents: ["a"] }, "query"],
    ["rerank", decodeRerank, { query: "a", documents: ["a", { title: "b" }] }, "documents[1].text"],
    ["rerank", decodeRerank, { query: "a", documents: ["a"], top_n: 0 }, "top_n"],
    ["rerank", decodeRerank, { query: "a", documents: ["a"], rank_fields: ["title"] }, "rank_fields"],
    ["tokenize", decodeTokenize, {}, "prompt"],
    ["tokenize", decodeTokenize, { prompt: "a", messages }, "messages"],
    ["tokenize", decodeTokenize, { prompt: "a", tools: [tool] }, "tools"],
    ["tokenize", decodeTokenize, { prompt: "a", continue_final_message: true }, "continue_final_message"],
    ["tokenize", decodeTokenize, { messages, continue_final_message: true }, "continue_final_message"],
    ["tokenize", decodeTokenize, { messages: [{ role: "user" }] }, "messages[0].content"],
    ["tokenize", decodeTokenize, { messages, tools: [tool, tool] }, "tools[1].function.name"],
    ["tokenize", decodeTokenize, { prompt: "a", return_token_strs: true }, "return_token_strs"]
  ])("%s: %#", (_, decode, fields, path) => {
    assert.strictEqual(refusal(decode({ model: "m", ...fields })).path, path)
  })

  it("rejects tokens instead of texts with what to do", () => {
    assert.include(refusal(decodeClassify({ model: "m", input: [1, 2] })).detail, "Send the text")
  })

  it("decodes tokens to embed, however many they are", () => {
    const { request } = Result.getOrThrow(decodeEmbedding({ model: "m", input: Array.from({ length: 8000 }, () => 1) }))
    assert.deepStrictEqual(request.inputs, [""])
    assert.deepStrictEqual(request.tokens?.map(({ length }) => length), [8000])
    const several = Result.getOrThrow(decodeEmbedding({ model: "m", input: [[1], [2, 3]] }))
    assert.deepInclude(several.request, { inputs: ["", ""], tokens: [[1], [2, 3]] })
    for (
      const [input, path] of [[[1, "a"], "input"], [[[1], []], "input[1]"], [[[1], [2, -3]], "input[1][1]"], [
        [1, 2.5],
        "input[1]"
      ]] as const
    ) {
      assert.strictEqual(refusal(decodeEmbedding({ model: "m", input })).path?.slice(0, path.length), path)
    }
  })

  it("accepts one text as a list of one, and a document as an object", () => {
    assert.deepStrictEqual(Result.getOrThrow(decodeEmbedding({ model: "m", input: "a" })).request.inputs, ["a"])
    const { request } = Result.getOrThrow(decodeRerank({ model: "m", query: "q", documents: ["a", { text: "b" }] }))
    assert.deepStrictEqual(request.documents, ["a", "b"])
  })

  it("decodes a conversation to tokenize as that of a chat", () => {
    const { input } = Result.getOrThrow(decodeTokenize({ model: "m", messages, tools: [tool] }))
    assert.deepStrictEqual(input, { messages: [{ role: "user", content: "Hello" }], tools: [{ name: "f" }] })
  })

  describe("vectors", () => {
    const call = (fields: object = {}) => Result.getOrThrow(decodeEmbedding({ model: "m", input: "a", ...fields }))
    const vector = fc.float32Array({ minLength: 1, maxLength: 32, noNaN: true, noDefaultInfinity: true })
    const encoded = (fields: object, vectors: ReadonlyArray<Float32Array>) =>
      Tasks.encodeEmbeddings(call(fields), {
        vectors,
        promptTokens: 7,
        deployment: "m#0",
        attempts: 1,
        decision: "dec-1"
      })

    it("are the same as numbers and as base64, also if they share a buffer", () => {
      fc.assert(fc.property(vector, vector, (one, two) => {
        const both = new Float32Array([...one, ...two])
        const vectors = [both.subarray(0, one.length), both.subarray(one.length)]
        const floats = Result.getOrThrow(encoded({}, vectors))
        const base64 = Result.getOrThrow(encoded({ encoding_format: "base64" }, vectors))
        const decoded = base64.data.map(({ embedding }) => {
          const bytes = Buffer.from(embedding as string, "base64")
          return Array.from({ length: bytes.length / 4 }, (_, index) => bytes.readFloatLE(index * 4))
        })
        assert.deepStrictEqual(decoded, [Array.from(one), Array.from(two)])
        assert.deepStrictEqual(floats.data.map(({ embedding }) => embedding), decoded)
      }))
    })

    it("have the described shape", () => {
      const body = Result.getOrThrow(encoded({}, [new Float32Array([0, 1]), new Float32Array([1, 0])]))
      assert.deepStrictEqual(body, {
        object: "list",
        data: [
          { object: "embedding", index: 0, embedding: [0, 1] },
          { object: "embedding", index: 1, embedding: [1, 0] }
        ],
        model: "m",
        usage: { prompt_tokens: 7, total_tokens: 7 }
      })
      Schema.decodeSync(TaskSchema.EmbeddingList, { onExcessProperty: "error" })(body)
    })

    it("are not shortened to other dimensions", () => {
      const vectors = [new Float32Array([0, 1])]
      assert.isTrue(Result.isSuccess(encoded({ dimensions: 2 }, vectors)))
      const { detail, path } = refusal(encoded({ dimensions: 1 }, vectors))
      assert.strictEqual(path, "dimensions")
      assert.include(detail, "2 dimensions")
    })
  })

  describe("rankings", () => {
    const scores = fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 12 })

    it("have the best documents first, at most top_n, each with its index, score and text", () => {
      fc.assert(
        fc.property(scores, fc.integer({ min: 1, max: 15 }), fc.boolean(), (scores, top_n, return_documents) => {
          const documents = scores.map((_, index) => `document ${index}`)
          const body = { model: "m", query: "q", documents, top_n, return_documents }
          const call = Result.getOrThrow(decodeRerank(body))
          const { results } = Tasks.encodeRerank("id", call, {
            scores,
            promptTokens: 3,
            deployment: "m#0",
            attempts: 1,
            decision: "dec-1"
          })
          assert.strictEqual(results.length, Math.min(top_n, scores.length))
          assert.strictEqual(new Set(results.map(({ index }) => index)).size, results.length)
          const scoresInOrder = results.map(({ relevance_score }) => relevance_score)
          assert.deepStrictEqual(scoresInOrder, [...scores].sort((one, two) => two - one).slice(0, top_n))
          for (const { document, index, relevance_score } of results) {
            assert.strictEqual(relevance_score, scores[index])
            assert.deepStrictEqual(document, return_documents ? { text: documents[index] } : undefined)
          }
        })
      )
    })
  })

  it("lists labels likeliest first", () => {
    const labels = [{ label: "good", score: 0.9 }, { label: "bad", score: 0.1 }]
    const classifications = [{ labels, promptTokens: 2 }, { labels, promptTokens: 3 }]
    const body = Tasks.encodeClassifications("id", "m", {
      classifications,
      deployment: "m#0",
      attempts: 1,
      decision: "dec-1"
    })
    assert.deepStrictEqual(body.data[1], {
      object: "classification",
      index: 1,
      prediction: "good",
      score: 0.9,
      predictions: labels
    })
    assert.deepStrictEqual(body.usage, { prompt_tokens: 5, total_tokens: 5 })
    Schema.decodeSync(TaskSchema.ClassifyList, { onExcessProperty: "error" })(body)
  })
})
