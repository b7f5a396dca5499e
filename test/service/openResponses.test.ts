/**
 * The compliance cases of Open Responses, restated for the embedded model; what it cannot do is answered by a provider.
 *
 * Source: https://github.com/openresponses/openresponses, `src/lib/compliance-tests.ts`, read 2026-11-30.
 */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Fields } from "../support/OpenResponses.ts"
import { check, checkEvents, eventsOf } from "../support/OpenResponses.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const tinyChat = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname

const completion = {
  choices: [{ index: 0, message: { role: "assistant", content: "A red heart." }, finish_reason: "stop" }],
  usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
}

let upstream: FaultServer
let service: Service
beforeAll(async () => {
  upstream = await startFaultServer(() => ({
    headers: { "content-type": "application/json" },
    pieces: [JSON.stringify(completion)]
  }))
  service = await startService(
    `
models:
  tiny-chat: { deployments: [{ engine: llama, file: ${JSON.stringify(tinyChat)} }] }
  seeing: { deployments: [{ provider: openai, model: up, baseUrl: "${upstream.url}" }] }
`
  )
}, 60_000)
afterAll(async () => {
  await service.stop()
  await upstream.close()
})

const model = "tiny-chat"
const user = (content: unknown) => ({ type: "message", role: "user", content })

const post = (body: Fields) =>
  fetch(`${service.url}/v1/responses`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ model, temperature: 0, ...body })
  })

/** A complete response that follows the schema. */
const create = async (body: Fields): Promise<Fields> => {
  const answer = await post(body)
  const text = await answer.text()
  assert.strictEqual(answer.status, 200, text)
  assert.strictEqual(answer.headers.get("content-type"), "application/json")
  const response = JSON.parse(text) as Fields
  check("response", response)
  assert.strictEqual(response["status"], "completed")
  assert.isNotEmpty(response["output"])
  return response
}

/** The events of a stream that follow the rules, and its last response. */
const stream = async (body: Fields) => {
  const answer = await post({ ...body, stream: true })
  assert.strictEqual(answer.status, 200)
  assert.match(answer.headers.get("content-type") ?? "", /^text\/event-stream/)
  const events = eventsOf(await answer.text())
  return { events, response: checkEvents(events) }
}

const textOf = ({ output }: Fields): string =>
  (output as ReadonlyArray<Fields>).flatMap(({ content }) => content as ReadonlyArray<Fields> ?? [])
    .map(({ text }) => text).join("")

const weather = {
  type: "function",
  name: "get_weather",
  description: "Get the weather in a city",
  parameters: { type: "object", properties: { city: { type: "string" } }, required: ["city"] }
}
const asked = [user("What is the weather in Paris?")]
const instructions = "You are a helpful assistant."

describe("Open Responses", () => {
  it("answers a message of the user", async () => {
    const response = await create({ input: [user("What is the capital of Japan?")] })
    assert.include(textOf(response), "Tokyo")
  })

  it("streams an answer", async () => {
    const { events, response } = await stream({ input: [user("What color is snow?")] })
    assert.strictEqual(response["status"], "completed")
    assert.isNotEmpty(events.filter(({ type }) => type === "response.output_text.delta"))
  })

  it("follows a message of the system", async () => {
    const pirate = { type: "message", role: "system", content: "You are a pirate." }
    assert.isNotEmpty(textOf(await create({ input: [pirate, user("Hello!")] })))
  })

  it("calls a function, and answers with its result", async () => {
    const called = await create({ instructions, input: asked, tools: [weather] })
    const [call] = called["output"] as ReadonlyArray<Fields>
    assert.deepInclude(call, { type: "function_call", name: "get_weather", status: "completed" })
    const output = { type: "function_call_output", call_id: call!["call_id"], output: "sunny" }
    const answered = await create({ instructions, input: [...asked, call, output], tools: [weather] })
    assert.include(textOf(answered), "sunny")
  })

  it("calls the function that tool_choice names", async () => {
    const tool_choice = { type: "function", name: "get_weather" }
    const response = await create({ instructions, input: asked, tools: [weather], tool_choice })
    assert.deepInclude((response["output"] as ReadonlyArray<Fields>)[0], { type: "function_call" })
    assert.deepStrictEqual(response["tool_choice"], tool_choice)
  })

  it("lets only allowed tools be called, with the mode auto by default", async () => {
    const other = { type: "function", name: "other" }
    const tool_choice = { type: "allowed_tools", tools: [{ type: "function", name: "get_weather" }] }
    const response = await create({ instructions, input: asked, tools: [weather, other], tool_choice })
    assert.deepInclude((response["output"] as ReadonlyArray<Fields>)[0], { name: "get_weather" })
    assert.lengthOf(response["tools"] as Array<unknown>, 2)
  })

  it("streams the call of a function", async () => {
    const { events } = await stream({ instructions, input: asked, tools: [weather] })
    const items = events.filter(({ item }) => (item as Fields | undefined)?.["type"] === "function_call")
    assert.deepStrictEqual(items.map(({ type }) => type), ["response.output_item.added", "response.output_item.done"])
    const types = events.map(({ type }) => type)
    assert.include(types, "response.function_call_arguments.delta")
    assert.include(types, "response.function_call_arguments.done")
  })

  it("answers about an image", async () => {
    const image = { type: "input_image", image_url: "data:image/png;base64,iVBORw0KGgo=" }
    const content = [{ type: "input_text", text: "What is this?" }, image]
    assert.include(textOf(await create({ model: "seeing", input: [user(content)] })), "heart")
    assert.include(upstream.seen.at(-1)!.text, "data:image/png;base64,iVBORw0KGgo=")
  })

  it("answers after a conversation", async () => {
    const response = await create({
      input: [
        user("My name is Ada."),
        { type: "message", role: "assistant", content: "Hello Ada!" },
        user("What is my name?")
      ]
    })
    assert.isNotEmpty(textOf(response))
  })

  it("continues a response by its id, with what was said before", async () => {
    const first = await create({ input: "My name is Ada." })
    const second = await create({ input: "What is my name?", previous_response_id: first["id"] })
    assert.strictEqual(second["previous_response_id"], first["id"])
    const alone = await create({ input: "What is my name?" })
    const tokensOf = ({ usage }: Fields) => (usage as { readonly input_tokens: number }).input_tokens
    assert.isAbove(tokensOf(second), tokensOf(alone))
  })

  it("says that a response is incomplete if its tokens are used up, also of its last item", async () => {
    const { response } = await stream({ input: "Tell me a story.", max_output_tokens: 1 })
    assert.strictEqual(response["status"], "incomplete")
    assert.deepInclude((response["output"] as ReadonlyArray<Fields>).at(-1), { status: "incomplete" })
  })

  it("fails with an error for a prompt that does not fit, unless it may be truncated", async () => {
    const turn = user("The quick brown fox jumps over the lazy dog. ".repeat(10))
    const input = [...Array.from({ length: 12 }, () => turn), user("Hi")]
    const refused = await post({ input, truncation: "disabled" })
    assert.strictEqual(refused.status, 400)
    await create({ input, truncation: "auto" })
  })

  it("echoes the settings that a request has, and the defaults of the others", async () => {
    const settings = {
      instructions,
      top_p: 0.5,
      presence_penalty: 0.5,
      frequency_penalty: 0.25,
      max_output_tokens: 64,
      max_tool_calls: 3,
      parallel_tool_calls: false,
      truncation: "auto",
      safety_identifier: "user-1",
      prompt_cache_key: "key-1",
      service_tier: "priority",
      metadata: { purpose: "test" },
      store: false,
      tools: [{ ...weather, strict: false }],
      tool_choice: "none"
    }
    const response = await create({ input: "What color is snow?", ...settings })
    assert.deepInclude(response, { ...settings, temperature: 0, background: false, top_logprobs: 0 })
    assert.deepInclude(await create({ input: "What color is snow?" }), {
      tools: [],
      tool_choice: "auto",
      top_p: 1,
      service_tier: "default",
      truncation: "disabled",
      max_output_tokens: null
    })
  })

  it("compacts a conversation", async () => {
    const answer = await fetch(`${service.url}/v1/responses/compact`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ model, input: [user("My name is Ada.")] })
    })
    const compacted = await answer.json() as Fields
    check("compaction", compacted)
    const types = (compacted["output"] as ReadonlyArray<Fields>).map(({ type }) => type)
    assert.deepStrictEqual(types, ["message", "compaction"])
  })
})
