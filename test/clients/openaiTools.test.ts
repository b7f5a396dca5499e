/** The `openai` package's own loops with a real model: tools, schemas, log-probabilities. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { makeParseableResponseFormat } from "openai/lib/parser"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

let service: Service
let client: OpenAI
beforeAll(async () => {
  service = await startService()
  client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
}, 60_000)
afterAll(() => service.stop())

const conversation = (content: string) => [
  { role: "system" as const, content: "You are a helpful assistant." },
  { role: "user" as const, content }
]

const weatherTool = {
  name: "get_weather",
  description: "Get the weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
}

const addTool = {
  name: "add",
  description: "Add two numbers",
  parameters: {
    type: "object",
    properties: { a: { type: "number" }, b: { type: "number" } },
    required: ["a", "b"]
  }
}

const tools = [weatherTool, addTool].map((one) => ({ type: "function" as const, function: one }))

describe("tools", () => {
  const call = { model: "tiny-chat", messages: conversation("What is the weather in Paris?"), tools, temperature: 0 }

  it("are called, and their result becomes the answer", async () => {
    const { choices: [asked] } = await client.chat.completions.create(call)
    assert.strictEqual(asked!.finish_reason, "tool_calls")
    assert.isNull(asked!.message.content)
    const [toolCall] = asked!.message.tool_calls!
    assert.strictEqual(toolCall?.type, "function")
    if (toolCall?.type !== "function") return
    assert.strictEqual(toolCall.function.name, "get_weather")
    assert.deepStrictEqual(JSON.parse(toolCall.function.arguments), { city: "Paris" })
    const { choices: [answered] } = await client.chat.completions.create({
      ...call,
      messages: [...call.messages, asked!.message, { role: "tool", tool_call_id: toolCall.id, content: "sunny" }]
    })
    assert.strictEqual(answered!.message.content, "It is sunny in Paris.")
    assert.strictEqual(answered!.finish_reason, "stop")
  })

  it("are the same when streamed", async () => {
    const buffered = await client.chat.completions.create(call)
    const streamed = await client.chat.completions.stream(call).finalChatCompletion()
    const summaryOf = ({ choices: [choice] }: OpenAI.ChatCompletion) =>
      choice!.message.tool_calls!.map((one) =>
        one.type === "function" ? [one.function.name, one.function.arguments] : []
      )
    assert.deepStrictEqual(summaryOf(streamed), summaryOf(buffered))
  })

  it("are run by the package itself", async () => {
    for (const stream of [false, true] as const) {
      const cities: Array<string> = []
      const getWeather = ({ city }: { readonly city: string }) => {
        cities.push(city)
        return "sunny"
      }
      const parse = (text: string) => JSON.parse(text) as { readonly city: string }
      const run = {
        ...call,
        tools: [{ type: "function" as const, function: { ...weatherTool, function: getWeather, parse } }]
      }
      const runner = stream
        ? client.chat.completions.runTools({ ...run, stream })
        : client.chat.completions.runTools(run)
      assert.strictEqual(await runner.finalContent(), "It is sunny in Paris.")
      assert.deepStrictEqual(cities, ["Paris"])
    }
  })

  it("are not called if none is needed, or none may be called", async () => {
    const { choices: [none] } = await client.chat.completions.create({ ...call, tool_choice: "none" })
    assert.notProperty(none!.message, "tool_calls")
  })

  it("are called if the choice requires it", async () => {
    const { choices: [forced] } = await client.chat.completions.create({
      ...call,
      messages: conversation("What is 7 + 5?"),
      tool_choice: { type: "function", function: { name: "add" } }
    })
    const [toolCall] = forced!.message.tool_calls!
    assert.deepInclude(toolCall, { type: "function" })
    if (toolCall?.type !== "function") return
    assert.strictEqual(toolCall.function.name, "add")
    assert.hasAllKeys(JSON.parse(toolCall.function.arguments), ["a", "b"])
  })
})

describe("response_format", () => {
  const messages = conversation(
    "Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo."
  )
  const schema = {
    type: "object",
    properties: { name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } },
    required: ["name", "age", "city"],
    additionalProperties: false
  }

  it("json_schema constrains the answer to the schema for any prompt", async () => {
    const call = {
      model: "tiny-chat",
      temperature: 0,
      response_format: { type: "json_schema" as const, json_schema: { name: "person", schema, strict: true } }
    }
    const parse = (text: string) => JSON.parse(text) as object
    const parseable = makeParseableResponseFormat(call.response_format, parse)
    const person = await client.chat.completions.parse({ ...call, messages, response_format: parseable })
    assert.deepStrictEqual(person.choices[0]!.message.parsed, { name: "Ruby", age: 34, city: "Oslo" })
    const other = await client.chat.completions.create({ ...call, messages: conversation("Hello!"), max_tokens: 200 })
    const { content } = other.choices[0]!.message
    if (other.choices[0]!.finish_reason === "stop") {
      assert.hasAllKeys(JSON.parse(content!), ["name", "age", "city"])
    } else {
      assert.match(content!, /^\s*\{/)
    }
  })

  it("json_object gives an object", async () => {
    const { choices: [choice] } = await client.chat.completions.create({
      model: "tiny-chat",
      messages,
      temperature: 0,
      response_format: { type: "json_object" }
    })
    assert.isObject(JSON.parse(choice!.message.content!))
  })

  it("an unsupported schema is rejected by its path", async () => {
    const error = await client.chat.completions.create({
      model: "tiny-chat",
      messages,
      response_format: {
        type: "json_schema",
        json_schema: { name: "wrong", schema: { type: "object", properties: { name: { type: "texts" } } } }
      }
    }).then(() => assert.fail("answered"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.BadRequestError)
    assert.match(error.param ?? "", /^response_format\.json_schema\.schema\.properties\.name/)
  })
})

describe("logprobs", () => {
  it("of a greedy answer are those of the likeliest tokens, and contain its text", async () => {
    const { choices: [choice], usage } = await client.chat.completions.create({
      model: "tiny-chat",
      messages: conversation("What color is snow?"),
      temperature: 0,
      logprobs: true,
      top_logprobs: 5
    })
    const content = choice!.logprobs!.content!
    assert.strictEqual(content.length, usage?.completion_tokens)
    assert.strictEqual(Buffer.from(content.flatMap(({ bytes }) => bytes!)).toString("utf8"), "Snow is white.")
    for (const { logprob, token, top_logprobs } of content) {
      assert.strictEqual(top_logprobs.length, 5)
      assert.strictEqual(top_logprobs[0]?.token, token)
      assert.approximately(top_logprobs[0]!.logprob, logprob, 1e-5)
      assert.isAtMost(top_logprobs.reduce((sum, one) => sum + Math.exp(one.logprob), 0), 1 + 1e-5)
    }
  })
})

describe("embeddings", () => {
  it("are of unit length, the same alone and in a batch", async () => {
    const embed = async (input: string | Array<string>) =>
      (await client.embeddings.create({ model: "tiny-chat", input })).data.map(({ embedding }) => embedding)
    const [[fox, whale], [alone]] = await Promise.all([embed(["a red fox", "a blue whale"]), embed("a red fox")])
    for (const vector of [fox, whale, alone]) assert.approximately(Math.hypot(...vector!), 1, 1e-5)
    const dot = (one: ReadonlyArray<number>, two: ReadonlyArray<number>) =>
      one.reduce((sum, value, index) => sum + value * two[index]!, 0)
    assert.approximately(dot(fox!, alone!), 1, 1e-4)
    assert.isBelow(dot(fox!, whale!), 0.999)
  })

  it("a model without reranking rejects the request", async () => {
    const body = { model: "tiny-chat", query: "fox", documents: ["a red fox"] }
    const error = await client.post("/rerank", { body }).then(() => assert.fail("answered"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.BadRequestError)
    assert.strictEqual(error.param, "model")
    assert.match(error.message, /does not support reranking/)
  })
})

describe("tokenize", () => {
  it("counts a conversation like the chat's usage", async () => {
    const messages = conversation("What is 7 + 5?")
    const { count, tokens } = await client.post("/tokenize", { body: { model: "tiny-chat", messages } }) as {
      readonly count: number
      readonly tokens: ReadonlyArray<number>
    }
    assert.strictEqual(count, 27)
    assert.strictEqual(tokens.length, count)
  })
})
