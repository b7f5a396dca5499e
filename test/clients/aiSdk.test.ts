/** The `ai` package with `@ai-sdk/openai`, whose default is the Responses API, and a real model. */
import { createOpenAI } from "@ai-sdk/openai"
import { assert } from "@effect/vitest"
import { APICallError, generateText, streamText } from "ai"
import { afterAll, beforeAll, describe, it } from "vitest"
import { answersOfTool, common, extraction, ruby, sunny, weather } from "../support/AiSdkCalls.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

let service: Service
let openai: ReturnType<typeof createOpenAI>
beforeAll(async () => {
  service = await startService()
  openai = createOpenAI({ baseURL: `${service.url}/v1`, apiKey: "none" })
}, 60_000)
afterAll(() => service.stop())

const responseIdOf = (metadata: Awaited<ReturnType<typeof generateText>>["providerMetadata"]): string => {
  const { openai: { responseId } = {} } = metadata ?? {}
  return responseId as string
}

describe("the ai package", () => {
  it("generates a text, with usage and the id of the response", async () => {
    const { finishReason, providerMetadata, text, usage } = await generateText({
      ...common,
      model: openai("tiny-chat"),
      prompt: "What color is snow?"
    })
    assert.include(text, "white")
    assert.strictEqual(finishReason, "stop")
    assert.isAbove(usage.inputTokens ?? 0, 0)
    assert.match(responseIdOf(providerMetadata), /^resp_/)
  })

  it("streams the same text", async () => {
    const call = { ...common, model: openai("tiny-chat"), prompt: "What color is snow?" }
    const { text } = await generateText(call)
    let streamed = ""
    for await (const piece of streamText(call).textStream) streamed += piece
    assert.strictEqual(streamed, text)
  })

  it("runs tools in several steps, whose items it refers to", async () => {
    assert.deepStrictEqual(await answersOfTool(openai("tiny-chat")), sunny)
  })

  it("runs tools without stored responses", async () => {
    const cities: Array<string> = []
    const { text } = await generateText({
      ...weather(cities),
      model: openai("tiny-chat"),
      providerOptions: { openai: { store: false } }
    })
    assert.strictEqual(text, "It is sunny in Paris.")
  })

  it("continues a conversation by the id of the response", async () => {
    const model = openai("tiny-chat")
    const first = await generateText({ ...common, model, prompt: "My name is Ada." })
    const previousResponseId = responseIdOf(first.providerMetadata)
    const second = await generateText({
      ...common,
      model,
      prompt: "What is my name?",
      providerOptions: { openai: { previousResponseId } }
    })
    assert.isAbove(second.usage.inputTokens ?? 0, first.usage.inputTokens ?? 0)
  })

  it("generates an object", async () => {
    const { output } = await generateText({ ...extraction, model: openai("tiny-chat") })
    assert.deepStrictEqual(output, ruby)
  })

  it("gets errors with their status", async () => {
    const error = await generateText({ ...common, model: openai("no-such-model"), prompt: "Hi" })
      .then(() => assert.fail("answered"), (cause: unknown) => cause)
    assert.isTrue(APICallError.isInstance(error))
    assert.deepInclude(error, { statusCode: 404, isRetryable: false })
  })
})
