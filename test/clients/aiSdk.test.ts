/** The `ai` package with `@ai-sdk/openai`, whose default is the Responses API, and a real model. */
import { createOpenAI } from "@ai-sdk/openai"
import { assert } from "@effect/vitest"
import { APICallError, generateText, isStepCount, jsonSchema, Output, streamText, tool } from "ai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

let service: Service
let openai: ReturnType<typeof createOpenAI>
beforeAll(async () => {
  service = await startService()
  openai = createOpenAI({ baseURL: `${service.url}/v1`, apiKey: "none" })
}, 60_000)
afterAll(() => service.stop())

const common = { instructions: "You are a helpful assistant.", temperature: 0, maxRetries: 0 }

const responseIdOf = (metadata: Awaited<ReturnType<typeof generateText>>["providerMetadata"]): string => {
  const { openai: { responseId } = {} } = metadata ?? {}
  return responseId as string
}

const weather = (cities: Array<string>) => ({
  get_weather: tool({
    description: "Get the weather in a city",
    inputSchema: jsonSchema<{ readonly city: string }>({
      type: "object",
      properties: { city: { type: "string" } },
      required: ["city"],
      additionalProperties: false
    }),
    execute: ({ city }) => {
      cities.push(city)
      return "sunny"
    }
  })
})

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
    for (const stream of [false, true]) {
      const cities: Array<string> = []
      const call = {
        ...common,
        model: openai("tiny-chat"),
        prompt: "What is the weather in Paris?",
        tools: weather(cities),
        stopWhen: isStepCount(3)
      }
      const text = stream ? await streamText(call).text : (await generateText(call)).text
      assert.strictEqual(text, "It is sunny in Paris.")
      assert.deepStrictEqual(cities, ["Paris"])
    }
  })

  it("runs tools without stored responses", async () => {
    const cities: Array<string> = []
    const { text } = await generateText({
      ...common,
      model: openai("tiny-chat"),
      prompt: "What is the weather in Paris?",
      tools: weather(cities),
      stopWhen: isStepCount(3),
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
    const { output } = await generateText({
      ...common,
      model: openai("tiny-chat"),
      prompt: "Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo.",
      output: Output.object({
        schema: jsonSchema<{ readonly name: string; readonly age: number; readonly city: string }>({
          type: "object",
          properties: { name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } },
          required: ["name", "age", "city"],
          additionalProperties: false
        })
      })
    })
    assert.deepStrictEqual(output, { name: "Ruby", age: 34, city: "Oslo" })
  })

  it("gets errors with their status", async () => {
    const error = await generateText({ ...common, model: openai("no-such-model"), prompt: "Hi" })
      .then(() => assert.fail("answered"), (cause: unknown) => cause)
    assert.isTrue(APICallError.isInstance(error))
    assert.deepInclude(error, { statusCode: 404, isRetryable: false })
  })
})
