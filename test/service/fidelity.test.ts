/** Requests reach a provider of the caller's dialect unchanged. */
import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { afterAll, beforeAll, describe, it } from "vitest"
import * as Bodies from "../support/Bodies.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import * as Numbers from "../support/Numbers.ts"
import { repetitions } from "../support/Repetitions.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"
import { wires } from "../support/Wires.ts"

type Fields = Readonly<Record<string, unknown>>

const json = { "content-type": "application/json" }

const isStreamed = (body: unknown): boolean => (body as Fields)["stream"] === true

/** As many vectors as inputs, and a provider's other fields. */
const embedded = ({ encoding_format: format, input }: Fields) => {
  const inputs = Array.isArray(input) && typeof input[0] !== "number" ? input : [input]
  const data = inputs.map((_, index) => ({
    object: "embedding",
    index,
    embedding: format === "base64" ? "AACAPw==" : [3]
  }))
  return {
    object: "list",
    data,
    model: "up",
    x_cost: Numbers.rawNumber("9007199254740993"),
    usage: { prompt_tokens: 2, total_tokens: 2 }
  }
}

let upstream: FaultServer
let service: Service
/** In front of the service. */
let front: Service

beforeAll(async () => {
  upstream = await startFaultServer((_, { body, path }) => {
    if (path.endsWith("/embeddings")) return { headers: json, pieces: [JSON.stringify(embedded(body as Fields))] }
    if (path.endsWith("/count_tokens")) return { headers: json, pieces: ["{\"input_tokens\":7}"] }
    const { headers, pieces, buffered } = wires[path.endsWith("/messages") ? "anthropic" : "openai"]
    return isStreamed(body) ? { headers, pieces } : { headers: json, pieces: [buffered] }
  })
  service = await startService(
    `
policies: { default: { retries: 0 } }
models:
  openai: { deployments: [{ provider: openai, model: up, baseUrl: "${upstream.url}" }] }
  azure: { deployments: [{ provider: azure-openai, model: up, baseUrl: "${upstream.url}", key: "\${K}" }] }
  padded: { deployments: [{ provider: azure-openai, model: up, baseUrl: "${upstream.url}", key: "\${K}", thoughts: reasoning_content }] }
  anthropic: { deployments: [{ provider: anthropic, model: up, baseUrl: "${upstream.url}", key: "\${K}" }] }
  shared: { deployments: [{ provider: openai, model: up, baseUrl: "${upstream.url}", batches: { size: 3, wait: 1 minute, waitIdle: true } }] }
  short: { deployments: [{ provider: openai, model: up, baseUrl: "${upstream.url}", maxTokens: 9 }] }
`,
    { K: "key" }
  )
  front = await startService(`
policies: { default: { retries: 0 } }
models:
  openai: { deployments: [{ provider: troupe, model: openai, baseUrl: "${service.url}/v1" }] }
`)
}, 60_000)

afterAll(async () => {
  await front.stop()
  await service.stop()
  await upstream.close()
})

const post = async (url: string, path: string, body: Fields, headers: Readonly<Record<string, string>> = {}) => {
  const response = await fetch(`${url}/v1/${path}`, {
    method: "POST",
    headers: { ...json, ...headers },
    body: JSON.stringify(body)
  })
  const answer = await response.text()
  assert.strictEqual(response.status, 200, `${answer} for ${JSON.stringify(body)}`)
  return answer
}

/** The JSON that the provider received, with the texts of its numbers. */
const exactlySentBy = async (url: string, path: string, body: Fields): Promise<unknown> => {
  await post(url, path, body)
  return Numbers.exactly(upstream.seen.at(-1)!.text)
}

/** The JSON that the provider received. */
const sentBy = async (url: string, path: string, body: Fields): Promise<unknown> => {
  await post(url, path, body)
  return upstream.seen.at(-1)!.body
}

const usageAsked = ({ stream, stream_options: options }: Fields): Fields =>
  stream === true ? { stream_options: { ...options as Fields | undefined, include_usage: true } } : {}

/** Options that OpenAI's own API does not have are rejected for it and for Azure. */
const ofOpenAiItself = ({ min_p: _, repeat_penalty: __, top_k: ___, ...body }: Fields): Fields => body

/** They have no field for thoughts, unless the deployment's `thoughts` names one. */
const withoutThoughts = ({ messages, ...body }: Fields): Fields => ({
  ...body,
  messages: (messages as ReadonlyArray<Fields>).map(({ reasoning_content: _, ...message }) => message)
})

const asItCame = (body: Fields): Fields => body

const runs = { numRuns: repetitions(40, 150) }

const withNumbers = (bodies: fc.Arbitrary<Fields>) => fc.oneof(bodies, Numbers.inMessages(bodies))

describe("a request in the provider's own dialect arrives unchanged", () => {
  const ofAzure = Bodies.openAiChat.map(ofOpenAiItself)
  const chats: ReadonlyArray<
    readonly [
      name: string,
      url: () => string,
      model: string,
      bodies: typeof Bodies.openAiChat,
      accepted: (body: Fields) => Fields
    ]
  > = [
    ["openai", () => service.url, "openai", Bodies.openAiChat, asItCame],
    ["azure-openai, without thoughts", () => service.url, "azure", ofAzure, withoutThoughts],
    ["azure-openai with a field for thoughts", () => service.url, "padded", ofAzure, asItCame],
    ["openai through another Troupe", () => front.url, "openai", Bodies.openAiChat, asItCame]
  ]
  it.each(chats)("chat completions at %s", async (_, url, model, bodies, accepted) => {
    await fc.assert(
      fc.asyncProperty(fc.oneof(bodies, Numbers.inChats(bodies)), async (body) => {
        const sent = await exactlySentBy(url(), "chat/completions", { ...body, model })
        assert.deepStrictEqual(sent, Numbers.exactlyOf({ ...accepted(body), model: "up", ...usageAsked(body) }))
      }),
      runs
    )
  }, 60_000)

  it("messages without thoughts whose field is there for a host that needs it", async () => {
    for (const pad of ["", " "]) {
      const messages = [{ role: "assistant", content: "I look.", reasoning_content: pad }]
      const sent = await sentBy(service.url, "chat/completions", { model: "padded", messages }) as Fields
      assert.deepStrictEqual(sent["messages"], messages)
    }
  })

  it("messages at anthropic", async () => {
    await fc.assert(
      fc.asyncProperty(withNumbers(Bodies.anthropicMessages), async (body) => {
        const sent = await exactlySentBy(service.url, "messages", { ...body, model: "anthropic" })
        assert.deepStrictEqual(sent, Numbers.exactlyOf({ ...body, model: "up" }))
      }),
      runs
    )
  }, 60_000)

  it("token counts at anthropic, by its own endpoint", async () => {
    await fc.assert(
      fc.asyncProperty(withNumbers(Bodies.anthropicCount), async (body) => {
        const answer = await post(service.url, "messages/count_tokens", { ...body, model: "anthropic" })
        assert.deepStrictEqual<unknown>(JSON.parse(answer), { input_tokens: 7 })
        const { path, text } = upstream.seen.at(-1)!
        assert.strictEqual(path, "/v1/messages/count_tokens")
        assert.deepStrictEqual(Numbers.exactly(text), Numbers.exactlyOf({ ...body, model: "up" }))
      }),
      runs
    )
  }, 60_000)

  it("embeddings, tokens among their inputs, and their answers", async () => {
    for (const [url, served] of [[service.url, "up"], [front.url, "openai"]] as const) {
      await fc.assert(
        fc.asyncProperty(Bodies.openAiEmbedding, Numbers.value, async (given, value) => {
          const body = { ...given, x_numbers: value }
          const answer = await post(url, "embeddings", { ...body, model: "openai" })
          const { text } = upstream.seen.at(-1)!
          assert.deepStrictEqual(Numbers.exactly(text), Numbers.exactlyOf({ ...body, model: "up" }))
          assert.deepStrictEqual(Numbers.exactly(answer), Numbers.exactlyOf({ ...embedded(body), model: served }))
        }),
        { numRuns: repetitions(20, 60) }
      )
    }
  }, 60_000)

  it("embeddings share a request where the deployment has batches, except those with other fields", async () => {
    const before = upstream.seen.length
    const answers = await Promise.all([
      post(service.url, "embeddings", { model: "shared", input: "a" }),
      post(service.url, "embeddings", { model: "shared", input: ["b", "c"] }),
      post(service.url, "embeddings", { model: "shared", input: "d", encoding_format: "base64" }),
      post(service.url, "embeddings", { model: "shared", input: "e", user: "ada" })
    ])
    const sent = upstream.seen.slice(before).map(({ body }) => (body as Fields)["input"])
    assert.lengthOf(sent, 2)
    assert.sameMembers(sent.flat(), ["a", "b", "c", "d", "e"])
    assert.include(sent, "e")
    const embeddings = answers.map((answer) =>
      (JSON.parse(answer) as { data: ReadonlyArray<Fields> }).data.map(({ embedding }) => embedding)
    )
    assert.deepStrictEqual(embeddings, [[[1]], [[1], [1]], ["AACAPw=="], [[3]]])
  })

  it("in a large body, and beside options in headers", async () => {
    const value = Array.from({ length: 6000 }, (_, index) => Numbers.rawNumber(`90071992547409${index + 93_000}`))
    const body = { messages: [{ role: "user", content: "Hi" }], x_numbers: value, model: "openai" }
    await post(service.url, "chat/completions", body, { "x-troupe-retries": "1" })
    const { text } = upstream.seen.at(-1)!
    assert.strictEqual(text, JSON.stringify({ ...body, model: "up" }))
  })

  it("keys stay in their order", async () => {
    const body = { zeta: 1, messages: [{ content: "Hi", role: "user" }], model: "openai", alpha: 2, temperature: 1 }
    const sent = await sentBy(service.url, "chat/completions", body)
    assert.strictEqual(JSON.stringify(sent), JSON.stringify({ ...body, model: "up" }))
  })

  it("with the headers of the dialect", async () => {
    const headers = { "anthropic-beta": "one,two", "anthropic-version": "2023-01-01" }
    const body = { model: "anthropic", max_tokens: 5, messages: [{ role: "user", content: "Hi" }] }
    await post(service.url, "messages", body, headers)
    assert.include(upstream.seen.at(-1)!.headers, headers)
  })

  it("without Troupe's own fields", async () => {
    const own = { keep_alive: "5m", priority: "high", troupe: { retries: 0 } }
    const body = { model: "openai", messages: [{ role: "user", content: "Hi" }] }
    assert.deepStrictEqual(await sentBy(service.url, "chat/completions", { ...body, ...own }), { ...body, model: "up" })
  })
})

describe("what a deployment's configuration sets", () => {
  const messages = [{ role: "user", content: "Hi" }]

  it("limits an answer whose caller sets no limit, and no other", async () => {
    const sent = async (more: Fields) =>
      await sentBy(service.url, "chat/completions", { model: "short", messages, ...more })
    assert.deepStrictEqual(await sent({}), { model: "up", messages, max_tokens: 9 })
    assert.deepStrictEqual(await sent({ max_tokens: null }), { model: "up", messages, max_tokens: 9 })
    for (
      const more of [{ max_tokens: 20 }, { max_completion_tokens: 20 }, { max_tokens: 5, max_completion_tokens: 20 }]
    ) {
      assert.deepStrictEqual(await sent(more), { model: "up", messages, ...more })
    }
  })
})
