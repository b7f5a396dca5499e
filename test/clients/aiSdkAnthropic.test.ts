/** The `ai` package with `@ai-sdk/anthropic`: local and remote models over Anthropic's Messages. */
import { createAnthropic } from "@ai-sdk/anthropic"
import { assert } from "@effect/vitest"
import { APICallError, generateText, streamText } from "ai"
import { afterAll, beforeAll, describe, it } from "vitest"
import { abortTwice, answersOfTool, common, extraction, ruby, sunny } from "../support/AiSdkCalls.ts"
import type { ClientService } from "../support/ClientService.ts"
import { said, startClientService, thought } from "../support/ClientService.ts"

let service: ClientService
let anthropic: ReturnType<typeof createAnthropic>
beforeAll(async () => {
  service = await startClientService()
  anthropic = createAnthropic({ baseURL: `${service.url}/v1`, apiKey: "none" })
}, 60_000)
afterAll(() => service.stop())

const bounded = { ...common, maxOutputTokens: 100 }

describe("@ai-sdk/anthropic", () => {
  it("generates a text with usage, and streams the same", async () => {
    const call = { ...bounded, model: anthropic("tiny-chat"), prompt: "What color is snow?" }
    const { finishReason, text, usage } = await generateText(call)
    assert.include(text, "white")
    assert.strictEqual(finishReason, "stop")
    assert.isAbove(usage.inputTokens ?? 0, 0)
    const stream = streamText(call)
    let streamed = ""
    for await (const piece of stream.textStream) streamed += piece
    assert.strictEqual(streamed, text)
    assert.strictEqual((await stream.usage).outputTokens, usage.outputTokens)
  })

  it("runs tools in several steps, buffered and streamed", async () => {
    assert.deepStrictEqual(await answersOfTool(anthropic("tiny-chat"), { maxOutputTokens: 100 }), sunny)
  })

  it("generates an object", async () => {
    const call = { ...extraction, model: anthropic("tiny-chat"), maxOutputTokens: 100 }
    const { output } = await generateText({
      ...call,
      providerOptions: { anthropic: { structuredOutputMode: "outputFormat" } }
    })
    assert.deepStrictEqual(output, ruby)
    // For models that it does not know, the package forces a tool whose arguments are the object.
    assert.hasAllKeys((await generateText(call)).output, ["name", "age", "city"])
  })

  it("gets the reasoning of a model, buffered and streamed, and sends it back", async () => {
    const call = {
      model: anthropic("thinker"),
      maxRetries: 0,
      maxOutputTokens: 2_048,
      providerOptions: { anthropic: { thinking: { type: "enabled" as const, budgetTokens: 1_024 } } },
      prompt: "What color is snow?"
    }
    const buffered = await generateText(call)
    const stream = streamText(call)
    for (const answer of [buffered, { reasoningText: await stream.reasoningText, text: await stream.text }]) {
      assert.deepInclude(answer, { reasoningText: thought, text: said })
    }
    const { prompt, ...rest } = call
    const next = await generateText({
      ...rest,
      messages: [
        { role: "user", content: prompt },
        ...buffered.response.messages,
        { role: "user", content: "Really?" }
      ]
    })
    assert.strictEqual(next.text, said)
  })

  it("stops the engine when a stream is aborted", async () => {
    for (const piece of await abortTwice(anthropic("fake/slow"))) assert.isNotEmpty(piece)
  })

  it("gets errors with their status, and whether a retry helps", async () => {
    const failure = (model: string, more: object = {}) =>
      generateText({ ...bounded, model: anthropic(model), prompt: "Hi", ...more })
        .then(() => assert.fail("answered"), (cause: unknown) => cause as APICallError)
    for (
      const [model, statusCode, isRetryable] of [
        ["no-such-model", 404, false],
        ["limited", 429, true],
        ["down", 500, true]
      ] as const
    ) {
      const error = await failure(model)
      assert.isTrue(APICallError.isInstance(error), model)
      assert.deepInclude(error, { statusCode, isRetryable })
      assert.strictEqual((error.data as { readonly type: string }).type, "error")
    }
    const long = await failure("tiny-chat", { prompt: "word ".repeat(2_000) })
    assert.deepInclude(long, { statusCode: 400, isRetryable: false })
  })

  it("retries by itself what fails once", async () => {
    const from = service.provider.seen.length
    const { text } = await generateText({ ...bounded, model: anthropic("shaky"), prompt: "Hi", maxRetries: 1 })
    assert.strictEqual(text, said)
    assert.strictEqual(service.provider.seen.length - from, 2)
  })
})
