/** The `@langchain/openai` package: chat completions and Responses, local and remote models, and embeddings. */
import { assert } from "@effect/vitest"
import { AIMessage, HumanMessage, SystemMessage, ToolMessage } from "@langchain/core/messages"
import { tool } from "@langchain/core/tools"
import type { ChatOpenAIFields } from "@langchain/openai"
import { ChatOpenAI, OpenAIEmbeddings } from "@langchain/openai"
import { APIError } from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { ClientService } from "../support/ClientService.ts"
import { said, startClientService } from "../support/ClientService.ts"

let service: ClientService
beforeAll(async () => {
  service = await startClientService()
}, 60_000)
afterAll(() => service.stop())

const chat = (model: string, more: ChatOpenAIFields = {}) =>
  new ChatOpenAI({
    model,
    temperature: 0,
    maxRetries: 0,
    apiKey: "none",
    configuration: { baseURL: `${service.url}/v1` },
    ...more
  })

const asked = (question: string) => [new SystemMessage("You are a helpful assistant."), new HumanMessage(question)]

/** The types of the package leave the usage out where the kind of message is not known. */
const usageOf = (message: object) =>
  (message as {
    readonly usage_metadata?: {
      readonly output_tokens: number
      readonly output_token_details?: { readonly reasoning?: number }
    }
  }).usage_metadata

const schema = (properties: Record<string, object>) => ({
  type: "object" as const,
  properties,
  required: Object.keys(properties),
  additionalProperties: false
})

describe("@langchain/openai", () => {
  for (const useResponsesApi of [false, true]) {
    const api = useResponsesApi ? "Responses" : "chat completions"

    it(`generates a text with usage, and streams the same, over ${api}`, async () => {
      const model = chat("tiny-chat", { useResponsesApi })
      const answer = await model.invoke(asked("What color is snow?"))
      const { text } = answer
      assert.include(text, "white")
      let streamed = ""
      let tokens = 0
      for await (const chunk of await model.stream(asked("What color is snow?"))) {
        streamed += chunk.text
        tokens = usageOf(chunk)?.output_tokens ?? tokens
      }
      assert.strictEqual(streamed, text)
      assert.strictEqual(tokens, usageOf(answer)?.output_tokens)
    })

    it(`calls tools, and takes their results, over ${api}`, async () => {
      const weather = tool(({ city }: { readonly city: string }) => `sunny in ${city}`, {
        name: "get_weather",
        description: "Get the weather in a city",
        schema: schema({ city: { type: "string" } })
      })
      const model = chat("tiny-chat", { useResponsesApi }).bindTools([weather])
      const messages = asked("What is the weather in Paris?")
      const first = await model.invoke(messages)
      const [call] = first.tool_calls ?? []
      assert.deepInclude(call, { name: "get_weather", args: { city: "Paris" } })
      const result = new ToolMessage({ tool_call_id: call!.id!, content: "sunny" })
      const { text } = await model.invoke([...messages, first, result])
      assert.strictEqual(text, "It is sunny in Paris.")
    })

    it(`generates an object, over ${api}`, async () => {
      const model = chat("tiny-chat", { useResponsesApi }).withStructuredOutput(
        schema({ name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } }),
        { name: "person", method: "jsonSchema", strict: true }
      )
      const prompt = "Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo."
      assert.deepStrictEqual(await model.invoke(asked(prompt)), { name: "Ruby", age: 34, city: "Oslo" })
    })
  }

  it("gets the reasoning of a model over Responses, and the text beside it over chat completions", async () => {
    const overResponses = await chat("thinker", { useResponsesApi: true }).invoke("What color is snow?")
    assert.strictEqual(overResponses.text, said)
    assert.strictEqual(usageOf(overResponses)?.output_token_details?.reasoning, 3)
    const overChat = await chat("thinker").invoke([
      new HumanMessage("Hello"),
      new AIMessage("Hi"),
      new HumanMessage("What color is snow?")
    ])
    assert.strictEqual(overChat.text, said)
  })

  it("embeds a text and documents", async () => {
    const embeddings = new OpenAIEmbeddings({
      model: "tiny-embed",
      apiKey: "none",
      configuration: { baseURL: `${service.url}/v1` }
    })
    const [first] = await embeddings.embedDocuments(["I forgot my password.", "The moon is bright."])
    const again = await embeddings.embedQuery("I forgot my password.")
    assert.strictEqual(first?.length, again.length)
    assert.isAbove(first!.reduce((sum, value, index) => sum + value * again[index]!, 0), 0.999)
  })

  it("stops the engine when a stream is aborted", async () => {
    const first = async () => {
      const controller = new AbortController()
      for await (const chunk of await chat("fake/slow").stream("Go", { signal: controller.signal })) {
        if (chunk.text === "") continue
        controller.abort()
        return chunk.text
      }
      return assert.fail("ended")
    }
    // The second one waits for the only slot.
    assert.isNotEmpty(await first())
    assert.isNotEmpty(await first())
  })

  it("gets errors with their status and code", async () => {
    for (
      const [model, status, code] of [
        ["no-such-model", 404, "model_not_found"],
        ["limited", 429, "rate_limit_exceeded"],
        ["down", 502, "upstream_failed"]
      ] as const
    ) {
      const error = await chat(model).invoke("Hi").then(() => assert.fail("answered"), (cause: unknown) => cause)
      assert.instanceOf(error, APIError, model)
      assert.deepInclude(error, { status, code })
    }
  })

  it("retries by itself what fails once", async () => {
    const from = service.provider.seen.length
    assert.strictEqual((await chat("shaky", { maxRetries: 1 }).invoke("Hi")).text, said)
    assert.strictEqual(service.provider.seen.length - from, 2)
  })
})
