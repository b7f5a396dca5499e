/** The `ai` package with `@ai-sdk/openai-compatible`, which OpenCode uses: local and remote models, and embeddings. */
import { createOpenAICompatible } from "@ai-sdk/openai-compatible"
import { assert } from "@effect/vitest"
import { APICallError, cosineSimilarity, embed, embedMany, generateText, streamText } from "ai"
import { afterAll, beforeAll, describe, it } from "vitest"
import { abortTwice, answersOfTool, common, extraction, ruby, sunny } from "../support/AiSdkCalls.ts"
import type { ClientService } from "../support/ClientService.ts"
import { said, startClientService, thought } from "../support/ClientService.ts"

let service: ClientService
let troupe: ReturnType<typeof createOpenAICompatible>
beforeAll(async () => {
  service = await startClientService()
  troupe = createOpenAICompatible({
    name: "troupe",
    baseURL: `${service.url}/v1`,
    apiKey: "none",
    includeUsage: true,
    supportsStructuredOutputs: true
  })
}, 60_000)
afterAll(() => service.stop())

describe("@ai-sdk/openai-compatible", () => {
  it("generates a text with usage, and streams the same", async () => {
    const call = { ...common, model: troupe("tiny-chat"), prompt: "What color is snow?" }
    const { finishReason, text, usage } = await generateText(call)
    assert.include(text, "white")
    assert.strictEqual(finishReason, "stop")
    const stream = streamText(call)
    let streamed = ""
    for await (const piece of stream.textStream) streamed += piece
    assert.strictEqual(streamed, text)
    const { inputTokens, outputTokens } = await stream.usage
    assert.deepStrictEqual({ inputTokens, outputTokens }, {
      inputTokens: usage.inputTokens,
      outputTokens: usage.outputTokens
    })
  })

  it("runs tools in several steps, buffered and streamed", async () => {
    assert.deepStrictEqual(await answersOfTool(troupe("tiny-chat")), sunny)
  })

  it("generates an object, buffered and streamed", async () => {
    const call = { ...extraction, model: troupe("tiny-chat") }
    for (const output of [(await generateText(call)).output, await streamText(call).output]) {
      assert.deepStrictEqual(output, ruby)
    }
  })

  it("gets the reasoning of a model, buffered and streamed", async () => {
    const call = { model: troupe("thinker"), maxRetries: 0, prompt: "What color is snow?" }
    const buffered = await generateText(call)
    const stream = streamText({ ...call, providerOptions: { troupe: { reasoningEffort: "low" } } })
    for (const answer of [buffered, { reasoningText: await stream.reasoningText, text: await stream.text }]) {
      assert.deepInclude(answer, { reasoningText: thought, text: said })
    }
    assert.strictEqual(buffered.usage.outputTokenDetails.reasoningTokens, 3)
  })

  it("embeds one text and many", async () => {
    const model = troupe.embeddingModel("tiny-embed")
    const { embeddings } = await embedMany({
      model,
      values: ["How do I reset my password?", "I forgot my password.", "The moon is bright."]
    })
    const [question, alike, other] = embeddings as [Array<number>, Array<number>, Array<number>]
    assert.isAbove(cosineSimilarity(question, alike), cosineSimilarity(question, other))
    const { embedding } = await embed({ model, value: "I forgot my password." })
    assert.isAbove(cosineSimilarity(embedding, alike), 0.999)
  })

  it("stops the engine when a stream is aborted", async () => {
    for (const piece of await abortTwice(troupe("fake/slow"))) assert.isNotEmpty(piece)
  })

  it("gets errors with their status, and whether a retry helps", async () => {
    for (
      const [model, statusCode, isRetryable] of [
        ["no-such-model", 404, false],
        ["limited", 429, true],
        ["down", 502, true]
      ] as const
    ) {
      const error = await generateText({ ...common, model: troupe(model), prompt: "Hi" })
        .then(() => assert.fail("answered"), (cause: unknown) => cause as APICallError)
      assert.isTrue(APICallError.isInstance(error), model)
      assert.deepInclude(error, { statusCode, isRetryable })
      assert.isString((error.data as { readonly error: { readonly message: string } }).error.message)
    }
  })

  it("retries by itself what fails once", async () => {
    const from = service.provider.seen.length
    const { text } = await generateText({ ...common, model: troupe("shaky"), prompt: "Hi", maxRetries: 1 })
    assert.strictEqual(text, said)
    assert.strictEqual(service.provider.seen.length - from, 2)
  })
})
