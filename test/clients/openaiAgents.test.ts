/** The `@openai/agents` package: its default, the Responses API, and chat completions. */
import { assert } from "@effect/vitest"
import { Agent, OpenAIProvider, Runner, tool } from "@openai/agents"
import OpenAI, { APIError } from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { ClientService } from "../support/ClientService.ts"
import { said, startClientService } from "../support/ClientService.ts"

let service: ClientService
beforeAll(async () => {
  service = await startClientService()
}, 60_000)
afterAll(() => service.stop())

const runnerOf = (useResponses: boolean, maxRetries = 0) =>
  new Runner({
    modelProvider: new OpenAIProvider({
      openAIClient: new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries }),
      useResponses
    }),
    tracingDisabled: true
  })

const instructions = "You are a helpful assistant."
const modelSettings = { temperature: 0 }

const schema = (properties: Record<string, object>) => ({
  type: "object" as const,
  properties,
  required: Object.keys(properties),
  additionalProperties: false as const
})

const helper = (model: string) => new Agent({ name: "Helper", instructions, model, modelSettings })

describe("@openai/agents", () => {
  for (const useResponses of [true, false]) {
    const api = useResponses ? "Responses" : "chat completions"

    it(`runs an agent, and streams the same, over ${api}`, async () => {
      const runner = runnerOf(useResponses)
      const { finalOutput } = await runner.run(helper("tiny-chat"), "What color is snow?")
      assert.include(finalOutput, "white")
      const stream = await runner.run(helper("tiny-chat"), "What color is snow?", { stream: true })
      let streamed = ""
      for await (const piece of stream.toTextStream()) streamed += piece
      await stream.completed
      assert.strictEqual(streamed, finalOutput)
    })

    it(`runs tools, buffered and streamed, over ${api}`, async () => {
      const cities: Array<string> = []
      const weather = tool({
        name: "get_weather",
        description: "Get the weather in a city",
        parameters: schema({ city: { type: "string" } }),
        strict: true,
        execute: (input) => {
          cities.push((input as { readonly city: string }).city)
          return "sunny"
        }
      })
      const agent = new Agent({ name: "Weather", instructions, model: "tiny-chat", modelSettings, tools: [weather] })
      const runner = runnerOf(useResponses)
      const { finalOutput } = await runner.run(agent, "What is the weather in Paris?")
      const stream = await runner.run(agent, "What is the weather in Paris?", { stream: true })
      await stream.completed
      assert.deepStrictEqual([finalOutput, stream.finalOutput], Array(2).fill("It is sunny in Paris."))
      assert.deepStrictEqual(cities, ["Paris", "Paris"])
    })

    it(`generates an object, over ${api}`, async () => {
      const agent = new Agent({
        name: "Reader",
        instructions,
        model: "tiny-chat",
        modelSettings,
        outputType: {
          type: "json_schema",
          name: "person",
          strict: true,
          schema: schema({ name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } })
        }
      })
      const { finalOutput } = await runnerOf(useResponses).run(
        agent,
        "Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo."
      )
      assert.deepStrictEqual(finalOutput, { name: "Ruby", age: 34, city: "Oslo" })
    })

    it(`gets errors with their status, over ${api}`, async () => {
      for (const [model, status] of [["no-such-model", 404], ["limited", 429], ["down", 502]] as const) {
        const error = await runnerOf(useResponses).run(helper(model), "Hi")
          .then(() => assert.fail("answered"), (cause: unknown) => cause)
        assert.instanceOf(error, APIError, model)
        assert.strictEqual(error.status, status)
      }
    })
  }

  it("continues a conversation by the id of the response", async () => {
    const runner = runnerOf(true)
    const first = await runner.run(helper("tiny-chat"), "My name is Ada.")
    const previousResponseId = first.lastResponseId!
    const second = await runner.run(helper("tiny-chat"), "What is my name?", { previousResponseId })
    const tokensOf = (result: typeof first) => result.rawResponses[0]!.usage.inputTokens
    assert.isAbove(tokensOf(second), tokensOf(first))
  })

  it("gets the reasoning of a model as an item, and sends it back", async () => {
    const runner = runnerOf(true)
    const first = await runner.run(helper("thinker"), "What color is snow?")
    assert.strictEqual(first.finalOutput, said)
    assert.include(first.newItems.map(({ type }) => type), "reasoning_item")
    const second = await runner.run(helper("thinker"), [...first.history, { role: "user", content: "Really?" }])
    assert.strictEqual(second.finalOutput, said)
  })

  it("stops the engine when a run is aborted", async () => {
    const first = async () => {
      const controller = new AbortController()
      const stream = await runnerOf(true).run(helper("fake/slow"), "Go", { stream: true, signal: controller.signal })
      for await (const piece of stream.toTextStream()) {
        controller.abort()
        return piece
      }
      return assert.fail("ended")
    }
    // The second one waits for the only slot.
    assert.isNotEmpty(await first())
    assert.isNotEmpty(await first())
  })

  it("retries by itself what fails once", async () => {
    const from = service.provider.seen.length
    const { finalOutput } = await runnerOf(true, 1).run(helper("shaky"), "Hi")
    assert.strictEqual(finalOutput, said)
    assert.strictEqual(service.provider.seen.length - from, 2)
  })
})
