/** The `@anthropic-ai/sdk` package against the started service: a real model, and deployments that fail. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const yaml = `
server: { maxBodyBytes: 20000 }
models:
  tiny-chat:
    deployments: [{ engine: llama, file: ${new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname} }]
  fake/chain:
    preload: false
    policy: in-order
    deployments:
      - { engine: fake, reply: the first answers, quality: 0.9, fault: { kind: error } }
      - { engine: fake, reply: the second crashes, quality: 0.8, fault: { kind: abort } }
      - { engine: fake, reply: the third answers, quality: 0.7 }
  fake/cut:
    preload: false
    deployments:
      - { engine: fake, reply: one two three four, fault: { kind: error, afterTokens: 3 } }
  fake/broken:
    preload: false
    deployments:
      - { engine: fake, fault: { kind: error } }
  fake/caller:
    preload: false
    deployments:
      - engine: fake
        reply: >-
          Let me see.
          <tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>
          <tool_call>{"name": "get_weather", "arguments": {"city": "Oslo"}}</tool_call>
  fake/slow:
    preload: false
    deployments:
      - { engine: fake, slots: 1, tokenDelayMs: 20, contextSize: 100000, reply: "${"word ".repeat(20_000)}" }
policies:
  in-order: { strategy: quality, retries: 0 }
`

let service: Service
let client: Anthropic
beforeAll(async () => {
  service = await startService(yaml)
  client = new Anthropic({ baseURL: service.url, apiKey: "none", maxRetries: 0 })
}, 60_000)
afterAll(() => service.stop())

const system = "You are a helpful assistant."
/** Greedy; the package's types no longer include the temperature. */
const greedy = { model: "tiny-chat", max_tokens: 100, temperature: 0, system }
const asked = (content: string) => ({ ...greedy, messages: [{ role: "user" as const, content }] })

const textOf = ({ content }: Anthropic.Message) => content.map((block) => block.type === "text" ? block.text : "")

const failure = (answer: PromiseLike<unknown>) => answer.then(() => assert.fail("answered"), (error: unknown) => error)

describe("messages.create", () => {
  it("answers with exact usage", async () => {
    const { data, request_id, response } = await client.messages.create(asked("What is 7 + 5?")).withResponse()
    const { id, usage, ...message } = data
    assert.deepStrictEqual<object>(message, {
      type: "message",
      role: "assistant",
      model: "tiny-chat",
      content: [{ type: "text", text: "7 + 5 = 12." }],
      container: null,
      diagnostics: null,
      stop_reason: "end_turn",
      stop_sequence: null,
      stop_details: null
    })
    assert.match(id, /^msg_\w{22}$/)
    assert.strictEqual(usage.output_tokens, 9)
    assert.strictEqual(usage.input_tokens + usage.cache_read_input_tokens!, 27)
    assert.match(request_id!, /^req_\w{22}$/)
    assert.strictEqual(response.headers.get("x-request-id"), request_id)
  })

  it("reports cached tokens separately", async () => {
    const call = asked(`${"a ".repeat(300)}What is 7 + 5?`)
    const [first, again] = [await client.messages.create(call), await client.messages.create(call)]
    assert.isAbove(again.usage.cache_read_input_tokens!, 100)
    const total = ({ usage }: Anthropic.Message) => usage.input_tokens + usage.cache_read_input_tokens!
    assert.strictEqual(total(again), total(first))
  })

  it("accepts system prompts and contents in blocks, with cache marks", async () => {
    const cache_control = { type: "ephemeral" as const }
    const answer = await client.messages.create({
      ...greedy,
      cache_control,
      system: [{ type: "text", text: system, cache_control }],
      messages: [{ role: "user", content: [{ type: "text", text: "What color is snow?", cache_control }] }]
    })
    assert.deepStrictEqual(textOf(answer), ["Snow is white."])
  })

  it("stops at max_tokens and before a stop sequence, and names it", async () => {
    const cut = await client.messages.create({ ...asked("Count to 7."), max_tokens: 4 })
    assert.strictEqual(cut.stop_reason, "max_tokens")
    assert.strictEqual(cut.usage.output_tokens, 4)
    const call = { ...asked("Count to 7."), stop_sequences: ["never said", " 5, 6"] }
    const stopped = await client.messages.create(call)
    const streamed = await client.messages.stream(call).finalMessage()
    for (const answer of [stopped, streamed]) {
      assert.deepInclude(answer, { stop_reason: "stop_sequence", stop_sequence: " 5, 6" })
      assert.deepStrictEqual(textOf(answer), ["1, 2, 3, 4,"])
    }
  })

  it("continues an assistant prefix, buffered and streamed", async () => {
    const begun = asked("What is the capital of Japan?")
    const call = { ...begun, messages: [...begun.messages, { role: "assistant" as const, content: "The capital of" }] }
    const buffered = await client.messages.create(call)
    for (const answer of [buffered, await client.messages.stream(call).finalMessage()]) {
      assert.deepStrictEqual(textOf(answer), [" Japan is Tokyo."])
      assert.strictEqual(answer.stop_reason, "end_turn")
    }
    const { input_tokens } = await client.messages.countTokens({ model: "tiny-chat", system, messages: call.messages })
    assert.strictEqual(input_tokens, buffered.usage.input_tokens + buffered.usage.cache_read_input_tokens!)
  })

  it("holds the answer to a schema", async () => {
    const schema = {
      type: "object" as const,
      properties: { name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } },
      required: ["name", "age", "city"],
      additionalProperties: false
    }
    const { parsed_output: person } = await client.messages.parse({
      ...asked("Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo."),
      output_config: { format: { type: "json_schema", schema } }
    })
    assert.deepStrictEqual(person, { name: "Ruby", age: 34, city: "Oslo" })
  })
})

describe("messages.stream", () => {
  it("gives the content of a buffered answer, in Anthropic's order of events", async () => {
    const stream = client.messages.stream(asked("Count to 7."))
    const types: Array<string> = []
    stream.on("streamEvent", ({ type }) => types.push(type))
    const message = await stream.finalMessage()
    assert.deepStrictEqual(types.filter((type, index) => type !== types[index - 1]), [
      "message_start",
      "content_block_start",
      "content_block_delta",
      "content_block_stop",
      "message_delta",
      "message_stop"
    ])
    const buffered = await client.messages.create(asked("Count to 7."))
    assert.deepStrictEqual(textOf(message), ["1, 2, 3, 4, 5, 6, 7."])
    const summaryOf = ({ content, stop_reason, usage }: Anthropic.Message) => ({
      content: content.map((block) => ({ ...block })),
      stop_reason,
      output: usage.output_tokens,
      input: usage.input_tokens + usage.cache_read_input_tokens!
    })
    assert.deepStrictEqual(summaryOf(message), summaryOf(buffered))
    assert.match(stream.request_id!, /^req_/)
  })

  it("releases the slot when the caller disconnects", async () => {
    const call = { ...asked("Hello"), model: "fake/slow", max_tokens: 50_000 }
    const stream = client.messages.stream(call)
    stream.on("text", () => stream.abort())
    assert.instanceOf(await failure(stream.finalMessage()), Anthropic.APIUserAbortError)
    // Its one slot is free again; the complete answer would take ten minutes.
    const running = async () => {
      const { deployments } = await (await fetch(`${service.admin}/admin/deployments`)).json() as {
        readonly deployments: ReadonlyArray<{ readonly model: string; readonly running: number }>
      }
      return deployments.find(({ model }) => model === "fake/slow")?.running
    }
    await until(async () => await running() === 0 ? true : undefined)
  })
})

const weather = {
  name: "get_weather",
  description: "Get the weather in a city",
  input_schema: { type: "object" as const, properties: { city: { type: "string" } }, required: ["city"] }
}

const add = {
  name: "add",
  description: "Add two numbers",
  input_schema: {
    type: "object" as const,
    properties: { a: { type: "number" }, b: { type: "number" } },
    required: ["a", "b"]
  }
}

const usesOf = ({ content }: Anthropic.Message) =>
  content.flatMap((block) => block.type === "tool_use" ? [{ name: block.name, input: block.input }] : [])

describe("tools", () => {
  const call = { ...asked("What is the weather in Paris?"), tools: [weather, add] }

  it("are used, and their result becomes the answer, buffered and streamed", async () => {
    for (const stream of [false, true]) {
      const ask = (params: Anthropic.MessageCreateParamsNonStreaming) =>
        stream ? client.messages.stream(params).finalMessage() : client.messages.create(params)
      const used = await ask(call)
      assert.strictEqual(used.stop_reason, "tool_use")
      const [block] = used.content
      assert.strictEqual(used.content.length, 1)
      if (block?.type !== "tool_use") assert.fail("no tool is used")
      assert.deepStrictEqual([block.name, block.input], ["get_weather", { city: "Paris" }])
      const answered = await ask({
        ...call,
        messages: [
          ...call.messages,
          { role: "assistant", content: used.content },
          { role: "user", content: [{ type: "tool_result", tool_use_id: block.id, content: "sunny" }] }
        ]
      })
      assert.deepStrictEqual(textOf(answered), ["It is sunny in Paris."])
      assert.strictEqual(answered.stop_reason, "end_turn")
    }
  })

  it("are run by the package itself", async () => {
    const cities: Array<unknown> = []
    const run = (input: unknown) => {
      cities.push(input)
      return "sunny"
    }
    const runner = client.beta.messages.toolRunner({
      ...call,
      tools: [{ ...weather, type: "custom", run, parse: (input: unknown) => input }]
    })
    const { content } = await runner.runUntilDone()
    assert.deepInclude(content[0], { type: "text", text: "It is sunny in Paris." })
    assert.deepStrictEqual(cities, [{ city: "Paris" }])
  })

  it("are not used if the choice forbids it, and used if the choice requires it", async () => {
    const none = await client.messages.create({ ...call, tool_choice: { type: "none" } })
    assert.deepStrictEqual(usesOf(none), [])
    const sum = { ...asked("What is 7 + 5?"), tools: [weather, add] }
    const forced = await client.messages.create({ ...sum, tool_choice: { type: "tool", name: "add" } })
    assert.deepStrictEqual(usesOf(forced).map(({ name }) => name), ["add"])
    assert.strictEqual(forced.stop_reason, "tool_use")
    const any = await client.messages.create({ ...sum, tool_choice: { type: "any" } })
    assert.strictEqual(usesOf(any).length, 1)
  })

  it("are several with a text, or one if parallel use is disabled", async () => {
    const several = { ...call, model: "fake/caller", tools: [weather] }
    const cities = [{ city: "Paris" }, { city: "Oslo" }].map((input) => ({ name: "get_weather", input }))
    const tool_choice = { type: "auto", disable_parallel_tool_use: true } as const
    for (
      const ask of [
        (params: Anthropic.MessageCreateParamsNonStreaming) => client.messages.create(params),
        (params: Anthropic.MessageCreateParamsNonStreaming) => client.messages.stream(params).finalMessage()
      ]
    ) {
      const both = await ask(several)
      assert.deepStrictEqual(both.content.map(({ type }) => type), ["text", "tool_use", "tool_use"])
      assert.strictEqual(textOf(both)[0]?.trim(), "Let me see.")
      assert.deepStrictEqual(usesOf(both), cities)
      assert.deepStrictEqual(usesOf(await ask({ ...several, tool_choice })), cities.slice(0, 1))
    }
  })
})

describe("messages.countTokens", () => {
  it("counts a prompt like the answer's usage, including tools", async () => {
    const calls: ReadonlyArray<Pick<Anthropic.MessageCountTokensParams, "messages" | "tools" | "tool_choice">> = [
      { messages: asked("What is 7 + 5?").messages },
      { messages: asked("Hello!").messages, tools: [weather] },
      { messages: asked("Hello!").messages, tools: [weather], tool_choice: { type: "none" } }
    ]
    for (const call of calls) {
      const prompt = { model: "tiny-chat", system, ...call }
      const { input_tokens } = await client.messages.countTokens(prompt)
      const { usage } = await client.messages.create({ ...greedy, ...prompt })
      assert.strictEqual(input_tokens, usage.input_tokens + usage.cache_read_input_tokens!)
    }
  })
})

describe("models", () => {
  it("are listed and found in Anthropic's format, and in OpenAI's for other clients", async () => {
    const ids: Array<string> = []
    for await (const model of client.models.list()) ids.push(model.id)
    assert.include(ids, "tiny-chat")
    assert.include(ids, "fake/chain")
    assert.deepInclude(await client.models.retrieve("tiny-chat"), {
      type: "model",
      display_name: "tiny-chat",
      max_input_tokens: 512
    })
    assert.instanceOf(await failure(client.models.retrieve("gone")), Anthropic.NotFoundError)
    const plain = await (await fetch(`${service.url}/v1/models`)).json() as { readonly object: string }
    assert.strictEqual(plain.object, "list")
  })
})

describe("errors", () => {
  it("are the package's own classes, buffered and streamed", async () => {
    for (const stream of [false, true] as const) {
      const refused = (params: object) => failure(client.messages.create({ ...asked("Hello!"), ...params, stream }))
      const missing = await refused({ model: "claude-9" })
      assert.instanceOf(missing, Anthropic.NotFoundError)
      assert.strictEqual(missing.type, "not_found_error")
      assert.match(missing.requestID!, /^req_/)
      const container = await refused({ container: "c" })
      assert.instanceOf(container, Anthropic.BadRequestError)
      assert.match(container.apiMessage!, /^container/)
      const overflow = await refused({ messages: [{ role: "user", content: "a ".repeat(700) }] })
      assert.instanceOf(overflow, Anthropic.BadRequestError)
      assert.match(overflow.apiMessage!, /^prompt is too long: \d+ tokens > 512 maximum$/)
      const large = await refused({ messages: [{ role: "user", content: "a".repeat(20_000) }] })
      assert.instanceOf(large, Anthropic.ContentTooLargeError)
      assert.match(large.requestID!, /^req_/)
      const picture = await refused({
        messages: [
          { role: "user", content: "Hello!" },
          { role: "user", content: [{ type: "image", source: { type: "url", url: "https://example.com/cat.png" } }] }
        ]
      })
      assert.instanceOf(picture, Anthropic.BadRequestError)
      assert.match(picture.apiMessage!, /^messages\[1\]\.content\[0\]/)
    }
  })
})

describe("deployments that fail", () => {
  const ask = (model: string) => client.messages.create({ ...asked("Hello"), model })
  const stream = (model: string) => client.messages.stream({ ...asked("Hello"), model })

  it("are replaced by the next before any content", async () => {
    assert.deepStrictEqual(textOf(await ask("fake/chain")), ["the third answers"])
    const { data, response } = await stream("fake/chain").withResponse()
    assert.deepStrictEqual(textOf(await data.finalMessage()), ["the third answers"])
    assert.strictEqual(response.headers.get("x-troupe-deployment"), "fake/chain#2")
    assert.isAbove(Number(response.headers.get("x-troupe-attempts")), 1)
  })

  it("are skipped if the request excludes them", async () => {
    const params = { ...asked("Hello"), model: "fake/chain", troupe: { deployments: ["fake/chain#2"] } }
    const { data, response } = await client.messages.create(params).withResponse()
    assert.deepStrictEqual(textOf(data), ["the third answers"])
    assert.strictEqual(response.headers.get("x-troupe-attempts"), "1")
    const excluded = { ...params, troupe: { deployments: ["gone"] } }
    const wrong = await failure(client.messages.create(excluded))
    assert.instanceOf(wrong, Anthropic.BadRequestError)
    assert.match(wrong.apiMessage!, /^troupe\.deployments\[0\]/)
  })

  it("in the middle of a stream end the stream with an error, and the package throws", async () => {
    const cut = stream("fake/cut")
    const types: Array<string> = []
    cut.on("streamEvent", ({ type }) => types.push(type))
    const error = await failure(cut.finalMessage())
    assert.instanceOf(error, Anthropic.APIError)
    assert.strictEqual(error.type, "api_error")
    assert.include(types, "content_block_delta")
    assert.notInclude(types, "message_delta")
    assert.notInclude(types, "message_stop")
    assert.instanceOf(await failure(ask("fake/cut")), Anthropic.InternalServerError)
  })

  it("have an open circuit after 5 consecutive failures, with Retry-After", async () => {
    for (let index = 0; index < 5; index++) {
      assert.instanceOf(await failure(ask("fake/broken")), Anthropic.InternalServerError)
    }
    const refused = await failure(ask("fake/broken"))
    assert.instanceOf(refused, Anthropic.OverloadedError)
    assert.strictEqual(refused.type, "overloaded_error")
    assert.isAbove(Number(refused.headers.get("retry-after")), 0)
  })
})
