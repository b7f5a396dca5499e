/** The `openai` package's Responses client with a real model: streams, stored conversations, tools, schemas. */
import { assert } from "@effect/vitest"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import OpenAI from "openai"
import type { ResponseInputItem, ResponseStreamEvent } from "openai/resources/responses/responses"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const folder = mkdtempSync(join(tmpdir(), "troupe-responses-"))
const storage = `storage: { type: sqlite, folder: ${JSON.stringify(folder)} }\n`

let service: Service
let client: OpenAI
const start = async () => {
  service = await startService(storage)
  client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
}
beforeAll(start, 60_000)
afterAll(async () => {
  await service.stop()
  rmSync(folder, { recursive: true, force: true })
})

const model = "tiny-chat"
const weather = {
  type: "function" as const,
  name: "get_weather",
  description: "Get the weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] },
  strict: false
}

const eventsOf = async (stream: AsyncIterable<ResponseStreamEvent>): Promise<Array<ResponseStreamEvent>> => {
  const events: Array<ResponseStreamEvent> = []
  for await (const event of stream) events.push(event)
  return events
}

describe("create", () => {
  it("answers a text, and echoes the settings", async () => {
    const response = await client.responses.create({
      model,
      instructions: "You are a helpful assistant.",
      input: "What is the capital of Japan?",
      temperature: 0,
      metadata: { purpose: "test" }
    })
    assert.match(response.id, /^resp_[0-9a-z]{22}$/)
    assert.strictEqual(response.status, "completed")
    assert.include(response.output_text, "Tokyo")
    assert.strictEqual(response.temperature, 0)
    assert.strictEqual(response.top_p, 1)
    assert.deepInclude(response as object, { store: true, truncation: "disabled", parallel_tool_calls: true })
    assert.strictEqual(response.instructions, "You are a helpful assistant.")
    assert.deepStrictEqual(response.metadata, { purpose: "test" })
    assert.isAbove(response.usage!.input_tokens, 0)
    assert.strictEqual(response.usage!.total_tokens, response.usage!.input_tokens + response.usage!.output_tokens)
  })

  it("streams the same answer, with numbered events for every item and part", async () => {
    const body = { model, input: "What color is snow?", temperature: 0 }
    const buffered = await client.responses.create(body)
    const events = await eventsOf(await client.responses.create({ ...body, stream: true }))
    assert.deepStrictEqual(events.map((event) => event.sequence_number), events.map((_, index) => index))
    const types = events.map(({ type }) => type).filter((type, index, all) => type !== all[index - 1])
    assert.deepStrictEqual(types, [
      "response.created",
      "response.in_progress",
      "response.output_item.added",
      "response.content_part.added",
      "response.output_text.delta",
      "response.output_text.done",
      "response.content_part.done",
      "response.output_item.done",
      "response.completed"
    ])
    const final = await client.responses.stream(body).finalResponse()
    assert.strictEqual(final.output_text, buffered.output_text)
    assert.deepStrictEqual(final.usage?.output_tokens, buffered.usage?.output_tokens)
  })

  it("parses structured output", async () => {
    const schema = {
      type: "object",
      properties: { name: { type: "string" }, age: { type: "integer" }, city: { type: "string" } },
      required: ["name", "age", "city"],
      additionalProperties: false
    }
    const response = await client.responses.parse({
      model,
      temperature: 0,
      input: "Extract the name, age and city as JSON: Ruby is 34 years old and lives in Oslo.",
      instructions: "You are a helpful assistant.",
      text: { format: { type: "json_schema", name: "person", schema, strict: true } }
    })
    assert.deepStrictEqual(response.output_parsed, { name: "Ruby", age: 34, city: "Oslo" })
  })

  it("ends at max_output_tokens, and says so", async () => {
    const response = await client.responses.create({ model, input: "Hello!", max_output_tokens: 1, temperature: 0 })
    assert.strictEqual(response.status, "incomplete")
    assert.deepStrictEqual(response.incomplete_details, { reason: "max_output_tokens" })
  })

  it("returns log probabilities", async () => {
    const response = await client.responses.create({
      model,
      input: "What color is snow?",
      temperature: 0,
      include: ["message.output_text.logprobs"],
      top_logprobs: 2
    })
    const [message] = response.output
    const [part] = message?.type === "message" ? message.content : []
    const logprobs = part?.type === "output_text" ? part.logprobs! : []
    assert.strictEqual(logprobs.length, response.usage!.output_tokens)
    assert.strictEqual(logprobs[0]!.top_logprobs.length, 2)
  })

  it("leaves out the oldest turns of a conversation that is too long, where the request allows it", async () => {
    const turn = { role: "user" as const, content: "The quick brown fox jumps over the lazy dog. ".repeat(10) }
    const body = { model, input: [...Array.from({ length: 12 }, () => turn), { role: "user" as const, content: "Hi" }] }
    const error = await client.responses.create(body).then(() => assert.fail("answered"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.BadRequestError)
    assert.strictEqual(error.code, "context_length_exceeded")
    assert.strictEqual(error.param, "input")
    const response = await client.responses.create({ ...body, truncation: "auto", temperature: 0 })
    assert.strictEqual(response.status, "completed")
    const streamed = await client.responses.stream({ ...body, truncation: "auto", temperature: 0 }).finalResponse()
    assert.strictEqual(streamed.output_text, response.output_text)
  })

  it("stops when the client aborts", async () => {
    const stream = client.responses.stream({ model, input: "Tell me a story.", temperature: 0 })
    for await (const event of stream) {
      if (event.type === "response.output_text.delta") break
    }
    stream.abort()
    const response = await client.responses.create({ model, input: "Hello!", temperature: 0 })
    assert.strictEqual(response.status, "completed")
  })

  it("rejects a tool that it does not have by its name", async () => {
    const error = await client.responses.create({ model, input: "Hi", tools: [{ type: "web_search" }] })
      .then(() => assert.fail("answered"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.BadRequestError)
    assert.strictEqual(error.param, "tools[0].type")
    assert.include(error.message, "web_search")
  })
})

describe("tools", () => {
  const call = {
    model,
    instructions: "You are a helpful assistant.",
    tools: [weather],
    temperature: 0
  }

  it("are called, and their result becomes the answer", async () => {
    const input: Array<ResponseInputItem> = [{ role: "user", content: "What is the weather in Paris?" }]
    const asked = await client.responses.create({ ...call, input })
    const [item] = asked.output
    assert.strictEqual(item?.type, "function_call")
    if (item?.type !== "function_call") return
    assert.deepStrictEqual(JSON.parse(item.arguments), { city: "Paris" })
    const output = { type: "function_call_output" as const, call_id: item.call_id, output: "sunny" }
    const answered = await client.responses.create({ ...call, input: [...input, item, output] })
    assert.strictEqual(answered.output_text, "It is sunny in Paris.")
    const continued = await client.responses.create({ ...call, previous_response_id: asked.id, input: [output] })
    assert.strictEqual(continued.output_text, "It is sunny in Paris.")
  })

  it("are streamed", async () => {
    const stream = client.responses.stream({ ...call, input: "What is the weather in Paris?" })
    const events = await eventsOf(stream)
    const pieces = events.flatMap((event) =>
      event.type === "response.function_call_arguments.delta" ? [event.delta] : []
    )
    assert.deepStrictEqual(JSON.parse(pieces.join("")), { city: "Paris" })
    const done = events.find(({ type }) => type === "response.function_call_arguments.done")
    assert.deepInclude(done, { arguments: pieces.join("") })
    assert.strictEqual((await stream.finalResponse()).output[0]?.type, "function_call")
  })
})

describe("custom tools", () => {
  const code = {
    type: "custom" as const,
    name: "code",
    description: "Takes a code of three digits",
    format: { type: "grammar" as const, syntax: "regex" as const, definition: "[0-9]{3}" }
  }
  const call = { model, input: "Send a code.", tools: [code], tool_choice: { type: "custom" as const, name: "code" } }

  it("are called with a text that their grammar accepts, and get its result", async () => {
    const asked = await client.responses.create({ ...call, temperature: 0 })
    const [item] = asked.output
    if (item?.type !== "custom_tool_call") return assert.fail(JSON.stringify(item))
    assert.match(item.input, /^[0-9]{3}$/)
    const output = { type: "custom_tool_call_output" as const, call_id: item.call_id, output: "accepted" }
    const answered = await client.responses.create({
      model,
      tools: [code],
      tool_choice: "none",
      previous_response_id: asked.id,
      input: [output],
      temperature: 0
    })
    assert.strictEqual(answered.status, "completed")
    const { data } = await client.responses.inputItems.list(answered.id, { order: "asc" })
    assert.deepStrictEqual(data.map(({ type }) => type), ["message", "custom_tool_call", "custom_tool_call_output"])
  })

  it("are streamed", async () => {
    const events = await eventsOf(await client.responses.create({ ...call, temperature: 0, stream: true }))
    const pieces = events.flatMap((event) =>
      event.type === "response.custom_tool_call_input.delta" ? [event.delta] : []
    )
    const done = events.find((event) => event.type === "response.custom_tool_call_input.done")
    assert.deepInclude(done, { input: pieces.join("") })
    assert.match(pieces.join(""), /^[0-9]{3}$/)
  })
})

describe("files", () => {
  it("that are texts are parts of the prompt", async () => {
    const file_data = `data:text/plain;base64,${Buffer.from("What is the capital of Japan?").toString("base64")}`
    const content = [{ type: "input_file" as const, file_data }]
    const response = await client.responses.create({ model, input: [{ role: "user", content }], temperature: 0 })
    assert.include(response.output_text, "Tokyo")
  })
})

describe("stored responses", () => {
  it("are retrieved, listed and deleted", async () => {
    const created = await client.responses.create({ model, input: "What color is snow?", temperature: 0 })
    const retrieved = await client.responses.retrieve(created.id)
    assert.strictEqual(retrieved.output_text, created.output_text)
    const { data } = await client.responses.inputItems.list(created.id)
    assert.deepInclude(data[0], {
      type: "message",
      role: "user",
      content: [{ type: "input_text", text: "What color is snow?" }]
    })
    await client.responses.delete(created.id)
    const error = await client.responses.retrieve(created.id)
      .then(() => assert.fail("found"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.NotFoundError)
  })

  it("are not stored with store: false", async () => {
    const created = await client.responses.create({ model, input: "Hi", temperature: 0, store: false })
    const error = await client.responses.retrieve(created.id)
      .then(() => assert.fail("found"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.NotFoundError)
  })

  it("are those of another tenant for nobody else", async () => {
    const other = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "other", maxRetries: 0 })
    const created = await client.responses.create({ model, input: "Hi", temperature: 0 })
    for (
      const call of [
        () => other.responses.retrieve(created.id),
        () => other.responses.delete(created.id),
        () => other.responses.inputItems.list(created.id),
        () => other.responses.cancel(created.id)
      ]
    ) {
      const error = await Promise.resolve(call()).then(() => assert.fail("found"), (cause: unknown) => cause)
      assert.instanceOf(error, OpenAI.NotFoundError)
    }
    const error = await other.responses.create({ model, input: "Hi", previous_response_id: created.id })
      .then(() => assert.fail("answered"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.BadRequestError)
    assert.strictEqual(error.code, "previous_response_not_found")
  })

  it("are continued after a restart of the service", async () => {
    const first = await client.responses.create({ model, input: "My name is Ada.", temperature: 0 })
    const whole = await client.responses.create({
      model,
      input: [
        { role: "user", content: "My name is Ada." },
        { role: "assistant", content: first.output_text },
        { role: "user", content: "What is my name?" }
      ],
      temperature: 0
    })
    await service.stop()
    await start()
    const second = await client.responses.create({
      model,
      previous_response_id: first.id,
      input: "What is my name?",
      temperature: 0
    })
    assert.strictEqual(second.previous_response_id, first.id)
    assert.strictEqual(second.output_text, whole.output_text)
    assert.strictEqual(second.usage?.input_tokens, whole.usage?.input_tokens)
    const { data } = await client.responses.inputItems.list(second.id, { order: "asc" })
    assert.deepStrictEqual(data.map((item) => item.type === "message" ? item.role : item.type), [
      "user",
      "assistant",
      "user"
    ])
  }, 60_000)

  it("are generated in the background, and cancelled", async () => {
    const queued = await client.responses.create({
      model,
      input: "What color is snow?",
      temperature: 0,
      background: true
    })
    assert.strictEqual(queued.status, "queued")
    const done = await until(async () => {
      const response = await client.responses.retrieve(queued.id)
      return response.status === "completed" ? response : undefined
    })
    assert.include(done.output_text, "white")
    const error = await client.responses.cancel(
      (await client.responses.create({ model, input: "Hi", temperature: 0 })).id
    )
      .then(() => assert.fail("cancelled"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.BadRequestError)
    assert.strictEqual((await client.responses.cancel(queued.id)).status, "completed")
  })
})

describe("conversations", () => {
  it("keep the items of responses", async () => {
    const conversation = await client.conversations.create({
      items: [{ type: "message", role: "user", content: "My name is Ada." }],
      metadata: { topic: "names" }
    })
    await client.responses.create({ model, conversation: conversation.id, input: "What is my name?", temperature: 0 })
    const roles: Array<string> = []
    for await (const item of client.conversations.items.list(conversation.id, { order: "asc" })) {
      roles.push(item.type === "message" ? item.role : item.type)
    }
    assert.deepStrictEqual(roles, ["user", "user", "assistant"])
    assert.deepInclude(await client.conversations.retrieve(conversation.id), { metadata: { topic: "names" } })
    assert.isTrue((await client.conversations.delete(conversation.id)).deleted)
    const error = await client.conversations.retrieve(conversation.id)
      .then(() => assert.fail("found"), (cause: unknown) => cause)
    assert.instanceOf(error, OpenAI.NotFoundError)
  })
})

describe("prompts", () => {
  it("are counted", async () => {
    const body = { model, instructions: "Be brief.", input: "What color is snow?" }
    const { input_tokens } = await client.responses.inputTokens.count(body)
    const response = await client.responses.create({ ...body, temperature: 0 })
    assert.strictEqual(input_tokens, response.usage?.input_tokens)
  })

  it("are compacted", async () => {
    const compacted = await client.responses.compact({
      model,
      input: [
        { role: "user", content: "My name is Ada." },
        { role: "assistant", content: "Hello Ada!" }
      ]
    })
    assert.deepStrictEqual(compacted.output.map(({ type }) => type), ["message", "compaction"])
    const response = await client.responses.create({
      model,
      input: [...compacted.output as Array<ResponseInputItem>, { role: "user", content: "Hi" }],
      temperature: 0
    })
    assert.strictEqual(response.status, "completed")
  })
})
