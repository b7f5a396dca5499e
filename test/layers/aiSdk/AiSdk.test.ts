/** `troupe/ai-sdk` with the `ai` package itself: on the embedded models, the fake engine and a provider's recorded answers. */
import { assert } from "@effect/vitest"
import { APICallError, embedMany, generateText, rerank, streamText, wrapLanguageModel } from "ai"
import { once } from "node:events"
import type { IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { Readable } from "node:stream"
import { afterAll, beforeAll, describe, it } from "vitest"
import { createTroupe, fallback } from "../../../src/ai-sdk.ts"
import { InferenceError, Troupe } from "../../../src/index.ts"
import { answersOfTool, extraction, ruby, sunny } from "../../support/AiSdkCalls.ts"
import { until } from "../../support/Service.ts"

/** Answers as an OpenAI-compatible provider with reasoning, and the bodies that it received. */
const bodies: Array<Record<string, unknown>> = []
const answer = {
  id: "chatcmpl-1",
  object: "chat.completion",
  created: 1,
  model: "thinker",
  choices: [{
    index: 0,
    message: { role: "assistant", content: "Four.", reasoning_content: "Two and two." },
    finish_reason: "stop"
  }],
  usage: {
    prompt_tokens: 10,
    completion_tokens: 8,
    total_tokens: 18,
    prompt_tokens_details: { cached_tokens: 4 },
    completion_tokens_details: { reasoning_tokens: 5 }
  }
}
const chunk = (delta: object, finish_reason: string | null = null) =>
  `data: ${
    JSON.stringify({
      id: "chatcmpl-1",
      object: "chat.completion.chunk",
      created: 1,
      model: "thinker",
      choices: [{ index: 0, delta, finish_reason }],
      ...(finish_reason === null ? {} : { usage: answer.usage })
    })
  }\n\n`
const answerRequest = async (request: IncomingMessage, response: ServerResponse) => {
  const text = await new Response(Readable.toWeb(request) as ReadableStream).text()
  const body = JSON.parse(text) as Record<string, unknown>
  bodies.push(body)
  if (body["stream"] !== true) {
    response.setHeader("content-type", "application/json")
    return response.end(JSON.stringify(answer))
  }
  response.setHeader("content-type", "text/event-stream")
  response.write(chunk({ role: "assistant", reasoning_content: "Two " }) + chunk({ reasoning_content: "and two." }))
  response.end(`${chunk({ content: "Four." })}${chunk({}, "stop")}data: [DONE]\n\n`)
}
const provider = createServer((request, response) => void answerRequest(request, response))

let troupe: Troupe.Troupe
let models: ReturnType<typeof createTroupe>
beforeAll(async () => {
  await once(provider.listen(0, "127.0.0.1"), "listening")
  const baseUrl = `http://127.0.0.1:${(provider.address() as AddressInfo).port}/v1`
  troupe = Troupe.start({
    config: {
      models: {
        "tiny-chat": { deployments: [{ engine: "llama", file: "builtin:tiny-chat", threads: 1 }] },
        "tiny-embed": { deployments: [{ engine: "onnx", folder: "builtin:tiny-embed", threads: 1 }] },
        "fake/priced": {
          deployments: [{ engine: "fake", reply: "Snow is white.", price: { input: 1_000_000, output: 2_000_000 } }]
        },
        "fake/broken": { deployments: [{ engine: "fake", fault: { kind: "error" } }] },
        "fake/cut": {
          deployments: [{ engine: "fake", reply: "Snow is white.", fault: { kind: "error", afterTokens: 2 } }]
        },
        "fake/slow": { deployments: [{ engine: "fake", tokenDelayMs: 20, reply: "word ".repeat(500) }] },
        "fake/second": { deployments: [{ engine: "fake", fault: { kind: "error" } }], fallbacks: ["fake/priced"] },
        thinker: {
          deployments: [{
            provider: "openai",
            model: "thinker",
            baseUrl,
            key: "test",
            reasoning: true,
            price: { input: 1, output: 10, cachedInput: 0.5 }
          }]
        }
      }
    }
  })
  models = createTroupe(troupe)
})
afterAll(async () => {
  await troupe.close()
  provider.close()
})

const common = { temperature: 0, maxRetries: 0 }

const thrown = (work: PromiseLike<unknown>): Promise<unknown> =>
  Promise.resolve(work).then(() => assert.fail("nothing was thrown"), (error: unknown) => error)

const metadataOf = (metadata: Awaited<ReturnType<typeof generateText>>["providerMetadata"]) => metadata!["troupe"]!

describe("a language model", () => {
  it("generates a text with usage, route and cost", async () => {
    const { finishReason, providerMetadata, response, text, usage } = await generateText({
      ...common,
      model: models("tiny-chat"),
      prompt: "What color is snow?"
    })
    assert.strictEqual(text, "Snow is white.")
    assert.strictEqual(finishReason, "stop")
    assert.isAbove(usage.inputTokens!, 0)
    assert.isAbove(usage.outputTokens!, 0)
    assert.strictEqual(response.modelId, "tiny-chat")
    const { attempts, costUsd, decision, deployment } = metadataOf(providerMetadata)
    assert.deepStrictEqual([deployment, attempts, costUsd], ["tiny-chat#0", 1, 0])
    assert.match(decision as string, /^dec-/)
    assert.strictEqual(response.id, decision)
  })

  it("streams the same text, with the same metadata", async () => {
    const result = streamText({ ...common, model: models("tiny-chat"), prompt: "What color is snow?" })
    let text = ""
    for await (const piece of result.textStream) text += piece
    assert.strictEqual(text, "Snow is white.")
    assert.strictEqual(await result.finishReason, "stop")
    assert.isAbove((await result.usage).outputTokens!, 0)
    assert.strictEqual(metadataOf(await result.providerMetadata)["deployment"], "tiny-chat#0")
    assert.strictEqual((await result.response).modelId, "tiny-chat")
  })

  it("runs tools in several steps", async () => {
    assert.deepStrictEqual(await answersOfTool(models("tiny-chat")), sunny)
  })

  it("generates an object, streamed and buffered", async () => {
    const call = { ...extraction, model: models("tiny-chat") }
    assert.deepStrictEqual((await generateText(call)).output, ruby)
    assert.deepStrictEqual(await streamText(call).output, ruby)
  })

  it("has reasoning apart from the text, passes its effort on, and computes the cost", async () => {
    const call = { ...common, model: models("thinker"), prompt: "2 + 2?", reasoning: "low" as const }
    const { providerMetadata, reasoningText, text, usage } = await generateText(call)
    assert.deepStrictEqual([reasoningText, text], ["Two and two.", "Four."])
    assert.strictEqual(bodies.at(-1)!["reasoning_effort"], "low")
    assert.strictEqual(usage.outputTokenDetails.reasoningTokens, 5)
    assert.strictEqual(usage.inputTokenDetails.cacheReadTokens, 4)
    // (6 + 4 * 0.5 + 8 * 10) / 1,000,000
    assert.strictEqual(metadataOf(providerMetadata)["costUsd"], 0.000088)
    const streamed = streamText(call)
    const types: Array<string> = []
    for await (const part of streamed.stream) types.push(part.type)
    assert.deepStrictEqual([await streamed.reasoningText, await streamed.text], ["Two and two.", "Four."])
    assert.includeMembers(types, ["reasoning-start", "reasoning-end", "text-start", "text-end"])
    assert.strictEqual(metadataOf(await streamed.providerMetadata)["costUsd"], 0.000088)
  })

  it("passes images on", async () => {
    const png = Buffer.from(
      "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=",
      "base64"
    )
    await generateText({
      ...common,
      model: models("thinker"),
      messages: [{
        role: "user",
        content: [{ type: "text", text: "What is this?" }, {
          type: "file",
          data: new Uint8Array(png),
          mediaType: "image"
        }]
      }]
    })
    const [{ content }] = bodies.at(-1)!["messages"] as [{ readonly content: ReadonlyArray<unknown> }]
    assert.deepStrictEqual(content[1], {
      type: "image_url",
      image_url: { url: `data:image/png;base64,${png.toString("base64")}` }
    })
    const pdf = await thrown(generateText({
      ...common,
      model: models("thinker"),
      messages: [{ role: "user", content: [{ type: "file", data: new Uint8Array(4), mediaType: "application/pdf" }] }]
    }))
    assert.match((pdf as Error).message, /application\/pdf.*not supported/)
  })

  it("has the price of the deployment that answered, which may be a fallback", async () => {
    const { providerMetadata, response, usage } = await generateText({
      ...common,
      model: models("fake/second"),
      prompt: "Hello!"
    })
    const { attempts, costUsd, deployment } = metadataOf(providerMetadata)
    assert.strictEqual(deployment, "fake/priced#0")
    assert.strictEqual(response.modelId, "fake/priced")
    assert.isAbove(attempts as number, 1)
    assert.strictEqual(costUsd, usage.inputTokens! + 2 * usage.outputTokens!)
  })

  it("takes options of the model and of one call, and rejects unknown ones by name", async () => {
    const model = models("fake/second", { route: { fallbacks: [] } })
    const failed = await thrown(generateText({ ...common, model, prompt: "Hello!" }))
    assert.isTrue(APICallError.isInstance(failed))
    const { text } = await generateText({
      ...common,
      model,
      prompt: "Hello!",
      providerOptions: { troupe: { route: { fallbacks: ["fake/priced"] } } }
    })
    assert.strictEqual(text, "Snow is white.")
    const wrong = await thrown(generateText({
      ...common,
      model,
      prompt: "Hello!",
      providerOptions: { troupe: { priorty: "low" } }
    }))
    assert.include((wrong as Error).message, "priorty: Unknown field. Did you mean priority?")
  })
})

describe("failures", () => {
  const failureOf = async (model: string, more = {}): Promise<APICallError> => {
    const error = await thrown(generateText({ ...common, model: models(model), prompt: "Hello!", ...more }))
    assert.isTrue(APICallError.isInstance(error), String(error))
    return error as APICallError
  }

  it("are APICallErrors with the status, the reason and the cause", async () => {
    const missing = await failureOf("no-such-model")
    assert.strictEqual(missing.statusCode, 404)
    assert.isFalse(missing.isRetryable)
    assert.include(missing.message, "no-such-model")
    assert.deepInclude(missing.data as object, { _tag: "ModelNotFound" })
    assert.instanceOf(missing.cause, InferenceError.InferenceError)
    const broken = await failureOf("fake/broken")
    assert.strictEqual(broken.statusCode, 500)
    assert.isTrue(broken.isRetryable)
    assert.match(broken.responseHeaders!["x-troupe-decision"]!, /^dec-/)
    const invalid = await failureOf("tiny-chat", { temperature: 9 })
    assert.strictEqual(invalid.statusCode, 400)
    assert.isFalse(invalid.isRetryable)
    assert.include(invalid.message, "temperature")
  })

  it("are retried by the AI SDK only where that can help", async () => {
    const attempts = async (model: string) => {
      let count = 0
      const counted = wrapLanguageModel({
        model: models(model),
        middleware: {
          specificationVersion: "v4",
          wrapGenerate: async ({ doGenerate }) => (count++, await doGenerate())
        }
      })
      await thrown(generateText({ model: counted, prompt: "Hello!", maxRetries: 1 }))
      return count
    }
    assert.strictEqual(await attempts("no-such-model"), 1)
    assert.strictEqual(await attempts("fake/broken"), 2)
  })

  it("before the first event reject the stream, later ones are parts of it", async () => {
    const start = await thrown(
      Promise.resolve(
        models("fake/broken").doStream({ prompt: [{ role: "user", content: [{ type: "text", text: "Hi" }] }] })
      )
    )
    assert.isTrue(APICallError.isInstance(start))
    const errors: Array<unknown> = []
    const result = streamText({
      ...common,
      model: models("fake/cut"),
      prompt: "Hello!",
      onError: ({ error }) => void errors.push(error)
    })
    let text = ""
    for await (const piece of result.textStream) text += piece
    assert.isTrue("Snow is white.".startsWith(text) && text !== "", text)
    assert.strictEqual(errors.length, 1)
    assert.isTrue(APICallError.isInstance(errors[0]))
  })

  it("of an aborted call are the signal's reason, and the engine stops", async () => {
    const before = await thrown(generateText({
      ...common,
      model: models("fake/slow"),
      prompt: "Hello!",
      abortSignal: AbortSignal.abort()
    }))
    assert.strictEqual((before as Error).name, "AbortError")
    const during = new AbortController()
    const { stream } = await models("fake/slow").doStream({
      prompt: [{ role: "user", content: [{ type: "text", text: "Hello!" }] }],
      abortSignal: during.signal
    })
    const ended = await thrown((async () => {
      for await (const part of stream) if (part.type === "text-delta") during.abort()
    })())
    assert.strictEqual((ended as Error).name, "AbortError")
    await untilIdle("fake/slow")
  })

  it("leaves a stream that is cancelled before it is read", async () => {
    const { stream } = await models("fake/slow").doStream({
      prompt: [{ role: "user", content: [{ type: "text", text: "Hello!" }] }]
    })
    await stream.cancel()
    assert.isTrue(await untilIdle("fake/slow"))
  })
})

/** Waits until no job of the model runs. */
const untilIdle = (name: string) =>
  until(async () => {
    const found = (await troupe.models()).find((model) => model.name === name)!
    return found.deployments.every(({ running }) => running === 0) || undefined
  })

describe("other models", () => {
  it("embed", async () => {
    const { embeddings, usage } = await embedMany({
      model: models.embeddingModel("tiny-embed"),
      values: ["How do I reset my password?", "I forgot my password.", "Snow is white."]
    })
    const [question, similar, other] = embeddings as [Array<number>, Array<number>, Array<number>]
    const dot = (one: Array<number>) => one.reduce((sum, value, index) => sum + value * question[index]!, 0)
    assert.isAbove(dot(similar), dot(other))
    assert.isAbove(usage.tokens, 0)
  })

  it("rerank", async () => {
    const { ranking } = await rerank({
      model: models.rerankingModel("fake/priced"),
      query: "snow",
      documents: ["rain", "snow", "sun"],
      topN: 2
    })
    assert.strictEqual(ranking.length, 2)
    assert.isAtLeast(ranking[0]!.score, ranking[1]!.score)
  })

  it("have no images", () => {
    assert.throws(() => models.imageModel("tiny-chat"), /tiny-chat/)
  })
})

describe("fallback", () => {
  const guarded = (model: string, options = {}) =>
    wrapLanguageModel({ model: models(model), middleware: fallback(models("tiny-chat"), options) })
  const prompt = "What color is snow?"

  it("answers with another model where the first one fails, buffered and streamed", async () => {
    for (const model of ["fake/broken", "no-such-model"]) {
      const call = { ...common, model: guarded(model), prompt }
      assert.strictEqual((await generateText(call)).text, "Snow is white.")
      assert.strictEqual(await streamText(call).text, "Snow is white.")
    }
  })

  it("leaves answers, mistakes of the request, and failures that `when` excludes", async () => {
    const { text } = await generateText({ ...common, model: guarded("thinker"), prompt })
    assert.strictEqual(text, "Four.")
    assert.strictEqual(await streamText({ ...common, model: guarded("thinker"), prompt }).text, "Four.")
    const invalid = await thrown(generateText({ ...common, model: guarded("fake/priced"), prompt, temperature: 9 }))
    assert.strictEqual((invalid as APICallError).statusCode, 400)
    const excluded = await thrown(
      generateText({ ...common, model: guarded("fake/broken", { when: () => false }), prompt })
    )
    assert.include((excluded as APICallError).message, "fake/broken")
  })

  it("does not answer a call that is aborted", async () => {
    const error = await thrown(generateText({
      ...common,
      model: guarded("fake/slow"),
      prompt,
      abortSignal: AbortSignal.abort()
    }))
    assert.strictEqual((error as Error).name, "AbortError")
  })

  it("answers where a stream fails with a part before its content", async () => {
    const failing = wrapLanguageModel({
      model: models("tiny-chat"),
      middleware: {
        specificationVersion: "v4",
        wrapStream: async () => ({
          stream: ReadableStream.from([
            { type: "stream-start" as const, warnings: [] },
            { type: "error" as const, error: new Error("overloaded") }
          ]) as never
        })
      }
    })
    const model = wrapLanguageModel({ model: failing, middleware: fallback(models("tiny-chat")) })
    assert.strictEqual(await streamText({ ...common, model, prompt }).text, "Snow is white.")
  })
})
