/** The `openai` package against every capability of the fake engine. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const yaml = `
models:
  fake/any:
    deployments:
      - engine: fake
        contextSize: 100
        fault: { kind: error, trigger: broken }
  fake/caller:
    deployments:
      - engine: fake
        reply: >-
          Let me see.
          <tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>
          <tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>
`

let service: Service
let client: OpenAI
beforeAll(async () => {
  service = await startService(yaml)
  client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
}, 60_000)
afterAll(() => service.stop())

const question = (content: string) => [{ role: "user" as const, content }]

const refused = async (answer: Promise<unknown>) => {
  const error = await answer.then(() => assert.fail("answered"), (cause: unknown) => cause)
  assert.instanceOf(error, OpenAI.APIError)
  return error
}

const getWeather = {
  type: "function" as const,
  function: {
    name: "get_weather",
    description: "Get the weather in a city",
    parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
  }
}

describe("tools", () => {
  const call = {
    model: "fake/caller",
    messages: question("What is the weather?"),
    tools: [getWeather],
    temperature: 0
  }
  const argumentsOf = ({ tool_calls }: OpenAI.ChatCompletionMessage) =>
    tool_calls?.map((one) => one.type === "function" ? JSON.parse(one.function.arguments) as unknown : undefined)

  it("are called, each call with its own id, after the text", async () => {
    const { choices: [choice] } = await client.chat.completions.create(call)
    assert.strictEqual(choice!.finish_reason, "tool_calls")
    assert.strictEqual(choice!.message.content?.trim(), "Let me see.")
    assert.deepStrictEqual(argumentsOf(choice!.message), [{ city: "Paris" }, { city: "Oslo" }])
    assert.strictEqual(new Set(choice!.message.tool_calls?.map(({ id }) => id)).size, 2)
  })

  it("are the same when streamed", async () => {
    const buffered = await client.chat.completions.create(call)
    const streamed = await client.chat.completions.stream(call).finalChatCompletion()
    assert.deepInclude(streamed.choices[0], { finish_reason: "tool_calls" })
    assert.strictEqual(streamed.choices[0]?.message.content, buffered.choices[0]?.message.content)
    assert.deepStrictEqual(argumentsOf(streamed.choices[0]!.message), argumentsOf(buffered.choices[0]!.message))
  })

  it("are called once without parallel_tool_calls", async () => {
    const one = { ...call, parallel_tool_calls: false }
    const buffered = await client.chat.completions.create(one)
    const streamed = await client.chat.completions.stream(one).finalChatCompletion()
    for (const { choices } of [buffered, streamed]) {
      assert.deepStrictEqual(argumentsOf(choices[0]!.message), [{ city: "Paris" }])
    }
  })

  it("are called if the choice requires it, without other content", async () => {
    for (const tool_choice of ["required", { type: "function", function: { name: "get_weather" } }] as const) {
      const forced = { ...call, model: "fake/any", tool_choice }
      const buffered = await client.chat.completions.create(forced)
      const streamed = await client.chat.completions.stream(forced).finalChatCompletion()
      for (const { choices } of [buffered, streamed]) {
        assert.isNull(choices[0]!.message.content)
        assert.strictEqual(choices[0]!.finish_reason, "tool_calls")
        assert.deepStrictEqual(argumentsOf(choices[0]!.message), [{ fake: "fake: What is the weather?" }])
      }
    }
  })

  it("are not called with tool_choice none: the answer is text", async () => {
    const { choices: [choice] } = await client.chat.completions.create({ ...call, tool_choice: "none" })
    assert.strictEqual(choice!.finish_reason, "stop")
    assert.include(choice!.message.content, "<tool_call>")
    assert.notProperty(choice!.message, "tool_calls")
  })
})

describe("response_format", () => {
  it("json_object gives a JSON object, at any temperature", async () => {
    for (const temperature of [0, 1.5]) {
      const { choices } = await client.chat.completions.create({
        model: "fake/any",
        messages: question("one two three"),
        response_format: { type: "json_object" },
        temperature,
        seed: 3
      })
      const { fake } = JSON.parse(choices[0]!.message.content!) as { readonly fake: string }
      assert.sameMembers(fake.split(" "), ["fake:", "one", "two", "three"])
    }
  })

  it("an unsupported format is rejected by the dialect's field name", async () => {
    const { param, status } = await refused(client.chat.completions.create({
      model: "fake/any",
      messages: question("Hello!"),
      response_format: { type: "json_schema", json_schema: { name: "any", schema: { type: "object" } } }
    }))
    assert.deepStrictEqual({ param, status }, { param: "response_format.type", status: 400 })
  })
})

describe("logprobs", () => {
  const call = { model: "fake/any", messages: question("Grüße 🦊"), temperature: 0, logprobs: true }

  it("contain the bytes of the complete answer, buffered and streamed", async () => {
    const buffered = await client.chat.completions.create({ ...call, top_logprobs: 3 })
    const logprobs = buffered.choices[0]!.logprobs!.content!
    assert.strictEqual(logprobs.length, buffered.usage?.completion_tokens)
    const text = Buffer.from(logprobs.flatMap(({ bytes }) => bytes!)).toString("utf8")
    assert.strictEqual(text, buffered.choices[0]!.message.content)
    for (const { logprob, token, top_logprobs } of logprobs) {
      assert.isAtMost(logprob, 0)
      assert.strictEqual(top_logprobs.length, 3)
      assert.strictEqual(top_logprobs[0]?.token, token)
    }
    const streamed: typeof logprobs = []
    for await (const { choices } of await client.chat.completions.create({ ...call, top_logprobs: 3, stream: true })) {
      streamed.push(...choices[0]?.logprobs?.content ?? [])
    }
    assert.deepStrictEqual(streamed, logprobs)
  })

  it("contain no alternatives unless requested, and are null without logprobs", async () => {
    const { choices: [choice] } = await client.chat.completions.create(call)
    assert.isTrue(choice!.logprobs!.content!.every(({ top_logprobs }) => top_logprobs.length === 0))
    const { choices: [other] } = await client.chat.completions.create({ ...call, logprobs: false })
    assert.isNull(other!.logprobs)
  })
})

describe("embeddings", () => {
  const embed = (input: string | Array<string>, more: object = {}) =>
    client.embeddings.create({ model: "fake/any", input, ...more })
  const dot = (one: ReadonlyArray<number>, two: ReadonlyArray<number>) =>
    one.reduce((sum, value, index) => sum + value * two[index]!, 0)

  it("are the same in both encodings, of unit length, in the order of the input", async () => {
    const texts = ["the red fox", "a blue whale", "the red fox"]
    // The package requests base64 by default.
    const { data, usage } = await embed(texts)
    const floats = await embed(texts, { encoding_format: "float" })
    assert.deepStrictEqual(data, floats.data)
    assert.deepStrictEqual(data.map(({ index }) => index), [0, 1, 2])
    for (const { embedding } of data) assert.approximately(dot(embedding, embedding), 1, 1e-6)
    const [first, second, third] = data.map(({ embedding }) => embedding)
    assert.deepStrictEqual(first, third)
    assert.notDeepEqual(first, second)
    assert.deepStrictEqual(usage, { prompt_tokens: 12, total_tokens: 12 })
  })

  it("of a text that is too long or invalid fail by their field", async () => {
    const long = await refused(embed(["short", "word ".repeat(100)]))
    assert.deepInclude(long, { status: 400, code: "context_length_exceeded", param: "input" })
    assert.deepInclude(await refused(embed("broken")), { status: 500, code: "engine_failed" })
    const missing = await refused(client.embeddings.create({ model: "none", input: "a" }))
    assert.deepInclude(missing, { status: 404, code: "model_not_found" })
  })
})

describe("endpoints without a method in the package", () => {
  const post = (path: string, body: object): Promise<unknown> =>
    client.post(path, { body: { model: "fake/any", ...body } })

  it("rerank orders documents by the query", async () => {
    const answer = await post("/rerank", {
      query: "red fox",
      documents: ["a blue whale", { text: "a red fox" }, "a fox"],
      top_n: 2,
      return_documents: true
    })
    assert.deepInclude(answer, {
      results: [
        { index: 1, relevance_score: 1, document: { text: "a red fox" } },
        { index: 2, relevance_score: 0.5, document: { text: "a fox" } }
      ],
      meta: {
        api_version: { version: "1" },
        billed_units: { search_units: 1 },
        tokens: { input_tokens: 18, output_tokens: 0 }
      }
    })
  })

  it("rerank has Cohere's second version, whose errors have its shape", async () => {
    const call = async (path: string, body: object, method = "POST") => {
      const response = await fetch(service.url + path, {
        method,
        ...(method === "POST" ? { body: JSON.stringify(body) } : {})
      })
      return { status: response.status, json: await response.json() as Record<string, unknown> }
    }
    const asked = { model: "fake/any", query: "red fox", documents: ["a blue whale", "a red fox"], top_n: 1 }
    const { json, status } = await call("/v2/rerank", asked)
    assert.strictEqual(status, 200)
    assert.deepInclude(json, { results: [{ index: 1, relevance_score: 1 }] })
    assert.hasAllKeys(json, ["id", "results", "meta"])
    for (
      const [body, expected, method] of [
        [{ ...asked, model: "none" }, 404],
        [{ ...asked, documents: [] }, 400],
        [{ ...asked, documents: ["word ".repeat(100)] }, 400],
        [asked, 405, "GET"]
      ] as const
    ) {
      const refusal = await call("/v2/rerank", body, method)
      assert.strictEqual(refusal.status, expected)
      assert.hasAllKeys(refusal.json, ["id", "message", "doc_url"])
    }
    const older = await call("/v1/rerank", { ...asked, documents: [] })
    assert.hasAllKeys(older.json, ["error", "detail", "message"])
    assert.strictEqual(older.json["detail"], older.json["message"])
  })

  it("classify gives labels", async () => {
    const { data } = await post("/classify", { input: ["Is it?", "It is."] }) as {
      readonly data: ReadonlyArray<{ readonly prediction: string }>
    }
    assert.deepStrictEqual(data.map(({ prediction }) => prediction), ["fake/question", "fake/statement"])
  })

  it("tokenize counts like a chat's usage", async () => {
    const messages = [{ role: "system" as const, content: "Be kind." }, ...question("Hello!")]
    const { count, tokens } = await post("/tokenize", { messages }) as {
      readonly count: number
      readonly tokens: ReadonlyArray<number>
    }
    assert.strictEqual(tokens.length, count)
    const { usage } = await client.chat.completions.create({ model: "fake/any", messages })
    assert.strictEqual(usage?.prompt_tokens, count)
    assert.deepStrictEqual(await post("/tokenize", { prompt: "abcdef" }), { count: 2, tokens: [0x616263, 0x646566] })
  })
})
