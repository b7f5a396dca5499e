/** The embedding model of the package: a service without a configuration, and the semantic cache over it. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import { nearMisses, paraphrases, unseenNearMisses } from "../support/QuestionPairs.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"
import { cosine } from "../support/Similarity.ts"

const post = (url: string, path: string, body: object) =>
  fetch(`${url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body)
  })

describe("a service without models in its configuration", () => {
  let service: Service

  beforeAll(async () => {
    service = await startService("storage: { type: memory }")
  }, 60_000)

  afterAll(() => service.stop())

  const stateOf = async (model: string) => {
    const response = await fetch(`${service.admin}/admin/deployments`)
    const { deployments } = await response.json() as {
      readonly deployments: ReadonlyArray<{ readonly deployment: string; readonly state: string }>
    }
    return deployments.find(({ deployment }) => deployment === `${model}#0`)?.state
  }

  it("knows what a model can do before it is loaded", async () => {
    const response = await fetch(`${service.url}/v1/models/tiny-embed`)
    const { capabilities, state } = await response.json() as { capabilities: unknown; state: unknown }
    assert.deepStrictEqual({ capabilities, state }, {
      capabilities: ["embed", "embedTokens", "tokenize"],
      state: "unloaded"
    })
    const messages = [{ role: "user", content: "Hello" }]
    const refused = await post(service.url, "/v1/chat/completions", { model: "tiny-embed", messages })
    assert.strictEqual(refused.status, 400)
    assert.include(await refused.text(), "it does not support text generation, only embeddings and tokenization")
    assert.strictEqual(await stateOf("tiny-embed"), "cold")
  })

  it("loads the embedding model at its first request", async () => {
    assert.strictEqual(await stateOf("tiny-chat"), "ready")
    assert.strictEqual(await stateOf("tiny-embed"), "cold")
    const input = ["How do I reset my password?", "I forgot my password. What can I do?", "Lions hunt at night."]
    const response = await post(service.url, "/v1/embeddings", { model: "tiny-embed", input })
    const text = await response.text()
    assert.strictEqual(response.status, 200, text)
    const { data, usage } = JSON.parse(text) as {
      readonly data: ReadonlyArray<{ readonly embedding: ReadonlyArray<number> }>
      readonly usage: unknown
    }
    const [question, same, other] = data.map(({ embedding }) => embedding)
    assert.isAbove(cosine(question!, same!), 0.8)
    assert.isBelow(cosine(question!, other!), 0.3)
    assert.deepStrictEqual(usage, { prompt_tokens: 25, total_tokens: 25 })
    assert.strictEqual(await stateOf("tiny-embed"), "ready")
  })

  it.each(["tiny-embed", "tiny-chat"])("embeds the ids of tokens of %s as their text", async (model) => {
    const embed = async (input: unknown) => {
      const response = await post(service.url, "/v1/embeddings", { model, input })
      const body = await response.json() as {
        readonly data?: ReadonlyArray<{ readonly embedding: ReadonlyArray<number> }>
        readonly usage?: unknown
        readonly error?: { readonly message: string; readonly param: string }
      }
      return { vectors: body.data?.map(({ embedding }) => embedding), usage: body.usage, error: body.error }
    }
    const prompt = "How do I reset my password?"
    const { tokens } = await (await post(service.url, "/v1/tokenize", { model, prompt })).json() as {
      readonly tokens: ReadonlyArray<number>
    }
    const text = await embed(prompt)
    assert.deepStrictEqual(await embed(tokens), text)
    const { vectors = [] } = await embed([tokens, tokens])
    assert.lengthOf(vectors, 2)
    for (const vector of vectors) assert.isAbove(cosine(vector, text.vectors![0]!), 0.9999)
    const { error } = await embed([tokens, [1, 15_339]])
    assert.strictEqual(error?.param, "input[1]")
    assert.match(error!.message, /Expected token ids below \d+, the size of the model's own vocabulary, got 15339/)
  })
})

describe("the semantic cache with the embedding model of the package", () => {
  let service: Service

  beforeAll(async () => {
    service = await startService(`
storage: { type: memory }
limits: { default: false }
models:
  fake/chat:
    cache: { when: always, semantic: { embeddings: embedder, threshold: 0.9, timeout: 30 seconds } }
    deployments: [{ engine: fake }]
  embedder:
    deployments: [{ engine: onnx, folder: "builtin:tiny-embed" }]
`)
  }, 60_000)

  afterAll(() => service.stop())

  /** How the cache takes part in the second of two questions, that no others are compared with. */
  const second = async ([one, other]: readonly [string, string], system: string) => {
    const ask = async (content: string) => {
      const messages = [{ role: "system", content: system }, { role: "user", content }]
      const response = await post(service.url, "/v1/chat/completions", { model: "fake/chat", messages })
      assert.strictEqual(response.status, 200, await response.text())
      return response.headers.get("x-troupe-cache-tier") ?? response.headers.get("x-troupe-cache")
    }
    assert.strictEqual(await ask(one), "miss")
    return ask(other)
  }

  it("gives no question the answer of one with another answer", async () => {
    for (const [index, pair] of [...nearMisses, ...unseenNearMisses].entries()) {
      assert.strictEqual(await second(pair, `near ${index}`), "miss", pair.join(" / "))
    }
  }, 60_000)

  it("finds most questions in other words", async () => {
    const found = await Promise.all(paraphrases.map((pair, index) => second(pair, `same ${index}`)))
    assert.isAtLeast(found.filter((tier) => tier === "semantic").length, 11)
  }, 60_000)
})
