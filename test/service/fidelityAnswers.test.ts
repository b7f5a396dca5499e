/** A provider's answer reaches callers of its dialect unchanged, except for the id and the model. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Fields } from "../support/Answers.ts"
import * as Answers from "../support/Answers.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import * as Numbers from "../support/Numbers.ts"
import { repetitions } from "../support/Repetitions.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const json = { "content-type": "application/json" }
const sse = { "content-type": "text/event-stream" }

const isStreamed = (body: unknown): boolean => (body as Fields)["stream"] === true

const openAiStream = (
  chunks: ReadonlyArray<Fields>
) => [...chunks.map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`), "data: [DONE]\n\n"]
const anthropicStream = (events: ReadonlyArray<Fields>) =>
  events.map((event) => `event: ${String(event["type"])}\ndata: ${JSON.stringify(event)}\n\n`)

let upstream: FaultServer
let service: Service
let front: Service
/** The provider's next answer. */
let answer: Fields

beforeAll(async () => {
  upstream = await startFaultServer((_, { body, path }) => {
    if (!isStreamed(body)) return { headers: json, pieces: [JSON.stringify(answer)] }
    return path.endsWith("/messages")
      ? { headers: sse, pieces: anthropicStream(Answers.anthropicEvents(answer)) }
      : { headers: sse, pieces: openAiStream(Answers.openAiChunks(answer)) }
  })
  const openAi = `provider: openai, model: up, baseUrl: "${upstream.url}"`
  const anthropic = `provider: anthropic, model: up, baseUrl: "${upstream.url}", key: "\${K}"`
  service = await startService(
    `
models:
  openai: { deployments: [{ ${openAi} }] }
  openai-buffered: { deployments: [{ ${openAi}, stream: false }] }
  openai-streamed: { deployments: [{ ${openAi}, stream: true }] }
  anthropic: { deployments: [{ ${anthropic} }] }
  anthropic-buffered: { deployments: [{ ${anthropic}, stream: false }] }
  anthropic-streamed: { deployments: [{ ${anthropic}, stream: true }] }
`,
    { K: "key" }
  )
  front = await startService(`
models:
  openai: { deployments: [{ provider: troupe, model: openai, baseUrl: "${service.url}/v1" }] }
  anthropic: { deployments: [{ provider: troupe, model: anthropic, baseUrl: "${service.url}/v1" }] }
`)
}, 60_000)

afterAll(async () => {
  await front.stop()
  await service.stop()
  await upstream.close()
})

const messages = [{ role: "user", content: "Hi" }]

const post = async (url: string, path: string, body: object): Promise<string> => {
  const response = await fetch(`${url}/v1/${path}`, { method: "POST", headers: json, body: JSON.stringify(body) })
  const text = await response.text()
  assert.strictEqual(response.status, 200, text)
  return text
}

/** The JSON of a text, with the texts of its numbers. */
const parsed = (text: string): Fields => Numbers.exactly(text) as Fields

const dataOf = (stream: string): ReadonlyArray<Fields> =>
  stream.split("\n").filter((line) => line.startsWith("data: {")).map((line) => parsed(line.slice(6)))

/** The JSON without Troupe's fields. */
const theirs = ({ id: _, model: __, ...body }: Fields): Fields => Numbers.exactlyOf(body) as Fields

const completions = fc.oneof(Answers.openAi, Numbers.inCompletions(Answers.openAi))
const answers = fc.oneof(Answers.anthropic, Numbers.inAnswers(Answers.anthropic))

const runs = { numRuns: repetitions(30, 100) }

describe("chat completions", () => {
  const places: ReadonlyArray<readonly [name: string, url: () => string, model: string]> = [
    ["of openai", () => service.url, "up"],
    ["of openai through another Troupe", () => front.url, "openai"]
  ]
  it.each(places)("%s arrive unchanged, buffered", async (_, url, model) => {
    await fc.assert(
      fc.asyncProperty(completions, async (given) => {
        answer = given
        const found = parsed(await post(url(), "chat/completions", { model: "openai", messages }))
        assert.strictEqual(found["model"], model)
        assert.deepStrictEqual(theirs(found), theirs(given))
      }),
      runs
    )
  }, 60_000)

  it.each(places)("%s arrive unchanged, streamed", async (_, url) => {
    const options = { stream: true, stream_options: { include_usage: true } }
    await fc.assert(
      fc.asyncProperty(completions, async (given) => {
        answer = given
        const found = await post(url(), "chat/completions", { model: "openai", messages, ...options })
        assert.deepStrictEqual(dataOf(found).map(theirs), Answers.openAiChunks(given).map(theirs))
        assert.isTrue(found.endsWith("data: [DONE]\n\n"))
      }),
      runs
    )
  }, 60_000)

  it("have no usage in a stream that does not request it", async () => {
    await fc.assert(
      fc.asyncProperty(completions, async (given) => {
        answer = given
        const found = await post(service.url, "chat/completions", { model: "openai", messages, stream: true })
        const expected = Answers.openAiChunks(given).slice(0, -1).map(({ usage: _, ...chunk }) => theirs(chunk))
        assert.deepStrictEqual(dataOf(found).map(theirs), expected)
      }),
      runs
    )
  }, 60_000)

  it("are assembled if only the provider streams", async () => {
    await fc.assert(
      fc.asyncProperty(completions, async (given) => {
        answer = given
        const found = await post(service.url, "chat/completions", { model: "openai-streamed", messages })
        assert.deepStrictEqual(theirs(parsed(found)), theirs(given))
      }),
      runs
    )
  }, 60_000)

  it("arrive in one chunk if only the caller streams, and the client accepts it", async () => {
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    await fc.assert(
      fc.asyncProperty(Answers.openAi, async (given) => {
        answer = given
        const stream = await client.chat.completions.create({
          model: "openai-buffered",
          messages: [{ role: "user", content: "Hi" }],
          stream: true,
          stream_options: { include_usage: true }
        })
        const chunks: Array<OpenAI.ChatCompletionChunk> = []
        for await (const chunk of stream) chunks.push(chunk)
        const [{ finish_reason, message }] = given["choices"] as [
          { readonly finish_reason: string; readonly message: Fields }
        ]
        assert.strictEqual(chunks[0]?.choices[0]?.delta.content, message["content"] as string)
        assert.strictEqual<unknown>(chunks[0]?.choices[0]?.finish_reason, finish_reason)
        assert.deepStrictEqual<unknown>(chunks.at(-1)?.usage, JSON.parse(JSON.stringify(given["usage"])))
      }),
      { numRuns: repetitions(10, 30) }
    )
  }, 60_000)
})

describe("several choices", () => {
  it("are one call of the provider, buffered and streamed", async () => {
    const choices = [0, 1, 2].map((index) => ({
      index,
      message: { role: "assistant", content: `Choice ${index}`, refusal: null },
      logprobs: null,
      finish_reason: index === 1 ? "length" : "stop"
    }))
    const usage = { prompt_tokens: 1, completion_tokens: 9, total_tokens: 10 }
    answer = { id: "c", object: "chat.completion", created: 1, model: "up", choices, usage }
    const before = upstream.seen.length
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const request = { model: "openai", n: 3, seed: 7, messages: [{ role: "user" as const, content: "Hi" }] }
    const buffered = await client.chat.completions.create(request)
    assert.deepStrictEqual<unknown>(buffered.choices, choices)
    assert.deepStrictEqual<unknown>(buffered.usage, usage)
    const streamed = await client.chat.completions.stream({ ...request, model: "openai-buffered" })
      .finalChatCompletion()
    const received = streamed.choices.map((
      { finish_reason, index, message }
    ) => [index, message.content, finish_reason])
    assert.deepStrictEqual(received, [[0, "Choice 0", "stop"], [1, "Choice 1", "length"], [2, "Choice 2", "stop"]])
    const sent = upstream.seen.slice(before).map(({ body }) => body as Fields)
    assert.deepStrictEqual(sent.map(({ n, seed }) => [n, seed]), [[3, 7], [3, 7]])
  })
})

describe("messages", () => {
  it("of anthropic arrive unchanged, buffered", async () => {
    await fc.assert(
      fc.asyncProperty(answers, async (given) => {
        answer = given
        const found = await post(service.url, "messages", { model: "anthropic", max_tokens: 5, messages })
        assert.deepStrictEqual(theirs(parsed(found)), theirs(given))
      }),
      runs
    )
  }, 60_000)

  const ownId = (event: Fields): Fields =>
    event["type"] === "message_start" ? { ...event, message: theirs(event["message"] as Fields) } : event

  it("of anthropic arrive unchanged, streamed", async () => {
    await fc.assert(
      fc.asyncProperty(answers, async (given) => {
        answer = given
        const found = await post(service.url, "messages", { model: "anthropic", max_tokens: 5, messages, stream: true })
        const expected = Answers.anthropicEvents(given).filter(({ type }) => type !== "ping")
        assert.deepStrictEqual(
          dataOf(found).filter(({ type }) => type !== "ping").map(ownId),
          (Numbers.exactlyOf(expected) as ReadonlyArray<Fields>).map(ownId)
        )
      }),
      runs
    )
  }, 60_000)

  it("are assembled if only the provider streams", async () => {
    await fc.assert(
      fc.asyncProperty(answers, async (given) => {
        answer = given
        const found = await post(service.url, "messages", { model: "anthropic-streamed", max_tokens: 5, messages })
        assert.deepStrictEqual(theirs(parsed(found)), theirs(given))
      }),
      runs
    )
  }, 60_000)

  it("give the client the same message, buffered and streamed", async () => {
    const client = new Anthropic({ baseURL: service.url, apiKey: "none", maxRetries: 0 })
    await fc.assert(
      fc.asyncProperty(Answers.anthropic, async (given) => {
        answer = given
        for (const model of ["anthropic", "anthropic-buffered"]) {
          const found = await client.messages.stream({
            model,
            max_tokens: 5,
            messages: [{ role: "user", content: "Hi" }]
          }).finalMessage()
          assert.strictEqual(found.model, "up")
          assert.deepStrictEqual<unknown>(
            JSON.parse(JSON.stringify(found.content)),
            JSON.parse(JSON.stringify(given["content"]))
          )
          assert.strictEqual<unknown>(found.stop_reason, given["stop_reason"])
        }
      }),
      { numRuns: repetitions(10, 30) }
    )
  }, 60_000)
})

describe("fields with a counterpart in the other dialect", () => {
  const tools = [{ type: "function", function: { name: "f", parameters: { type: "object" } } }]
  const ownTools = [{ name: "f", input_schema: { type: "object" } }]
  const toAnthropic = { model: "anthropic", messages }
  const toOpenAi = { model: "openai", max_tokens: 5, messages }

  const message = (more: Fields): Fields => ({
    id: "msg",
    type: "message",
    role: "assistant",
    model: "claude",
    content: [{ type: "text", text: "Hi" }],
    stop_reason: "end_turn",
    stop_sequence: null,
    usage: { input_tokens: 3, output_tokens: 2, cache_creation_input_tokens: 100, cache_read_input_tokens: 20 },
    ...more
  })
  const completion = (finish_reason: string): Fields => ({
    id: "c",
    object: "chat.completion",
    created: 1,
    model: "gpt",
    choices: [{
      index: 0,
      message: { role: "assistant", content: "Hi", refusal: null },
      logprobs: null,
      finish_reason
    }],
    usage: {
      prompt_tokens: 30,
      completion_tokens: 2,
      total_tokens: 32,
      prompt_tokens_details: { cached_tokens: 10, cache_write_tokens: 5 }
    }
  })

  type Sent = readonly [field: string, value: unknown]
  it.each<[name: string, path: string, asked: Fields, answered: Fields, sent: Sent]>([
    [
      "parallel_tool_calls at anthropic",
      "chat/completions",
      { ...toAnthropic, tools, parallel_tool_calls: false },
      message({}),
      ["tool_choice", { type: "auto", disable_parallel_tool_use: true }]
    ],
    [
      "disable_parallel_tool_use at openai",
      "messages",
      { ...toOpenAi, tools: ownTools, tool_choice: { type: "any", disable_parallel_tool_use: true } },
      completion("stop"),
      ["parallel_tool_calls", false]
    ],
    [
      "max_completion_tokens at anthropic",
      "chat/completions",
      { ...toAnthropic, max_completion_tokens: 77 },
      message({}),
      ["max_tokens", 77]
    ],
    ["a temperature of 1 at anthropic", "chat/completions", { ...toAnthropic, temperature: 1 }, message({}), [
      "temperature",
      1
    ]]
  ])("%s", async (_, path, asked, answered, [field, value]) => {
    answer = answered
    await post(service.url, path, asked)
    assert.deepStrictEqual((upstream.seen.at(-1)!.body as Fields)[field], value)
  })

  it("include every digit of the arguments of tools, in requests and in answers", async () => {
    const input = { id: Numbers.rawNumber("9007199254740993") }
    const text = "{\"id\":9007199254740993}"
    const call = { id: "call", type: "function", function: { name: "f", arguments: text } }
    const use = { type: "tool_use", id: "call", name: "f", input }
    const chat = {
      ...toAnthropic,
      tools,
      messages: [...messages, { role: "assistant", content: null, tool_calls: [call] }, {
        role: "tool",
        tool_call_id: "call",
        content: "1"
      }]
    }
    answer = message({ content: [use], stop_reason: "tool_use" })
    for (const stream of [false, true]) {
      const received = await post(service.url, "chat/completions", { ...chat, stream })
      assert.include(received, JSON.stringify(text))
      assert.include(upstream.seen.at(-1)!.text, `"input":${text}`)
    }
    const told = {
      ...toOpenAi,
      tools: ownTools,
      messages: [...messages, { role: "assistant", content: [use] }, {
        role: "user",
        content: [{ type: "tool_result", tool_use_id: "call", content: "1" }]
      }]
    }
    const answered = completion("tool_calls")
    const [choice] = answered["choices"] as readonly [Fields]
    answer = {
      ...answered,
      choices: [{ ...choice, message: { role: "assistant", content: null, tool_calls: [call] } }]
    }
    assert.include(await post(service.url, "messages", told), `"input":${text}`)
    assert.include(upstream.seen.at(-1)!.text, JSON.stringify(text))
  })

  it("include tokens read from and written to a cache", async () => {
    answer = message({})
    const chat = JSON.parse(await post(service.url, "chat/completions", toAnthropic)) as Fields
    assert.deepStrictEqual(chat["usage"], {
      prompt_tokens: 123,
      completion_tokens: 2,
      total_tokens: 125,
      prompt_tokens_details: { cached_tokens: 20, cache_write_tokens: 100 }
    })
    answer = completion("stop")
    const { usage } = JSON.parse(await post(service.url, "messages", toOpenAi)) as { readonly usage: Fields }
    assert.deepInclude(usage, { input_tokens: 15, cache_read_input_tokens: 10, cache_creation_input_tokens: 5 })
  })

  it("include text that a content filter cut off, with the reason", async () => {
    answer = message({ stop_reason: "refusal" })
    const chat = JSON.parse(await post(service.url, "chat/completions", toAnthropic)) as {
      readonly choices: readonly [{ readonly finish_reason: string; readonly message: Fields }]
    }
    assert.deepStrictEqual([chat.choices[0].message["content"], chat.choices[0].finish_reason], [
      "Hi",
      "content_filter"
    ])
    answer = completion("content_filter")
    const sent = JSON.parse(await post(service.url, "messages", toOpenAi)) as Fields
    assert.strictEqual(sent["stop_reason"], "refusal")
    assert.deepInclude((sent["content"] as ReadonlyArray<Fields>)[0]!, { text: "Hi" })
  })
})

describe("a stop sequence over another Troupe", () => {
  it.each([["END", "stop_sequence", "END"], ["other", "end_turn", null]])(
    "%s reaches the caller as %s",
    async (given, reason, stop) => {
      answer = {
        id: "msg_1",
        type: "message",
        role: "assistant",
        model: "up",
        content: [{ type: "text", text: "Hello" }],
        stop_reason: "stop_sequence",
        stop_sequence: given,
        usage: { input_tokens: 3, output_tokens: 2 }
      }
      const client = new Anthropic({ baseURL: front.url, apiKey: "none", maxRetries: 0 })
      const request = {
        model: "anthropic",
        max_tokens: 10,
        stop_sequences: ["END"],
        messages: [{ role: "user" as const, content: "Hi" }]
      }
      const buffered = await client.messages.create(request)
      const streamed = await client.messages.stream(request).finalMessage()
      for (const { stop_reason, stop_sequence } of [buffered, streamed]) {
        assert.deepStrictEqual<unknown>([stop_reason, stop_sequence], [reason, stop])
      }
    }
  )
})

describe("refusals", () => {
  it("of openai's model reach the caller with the same text, buffered and streamed", async () => {
    answer = {
      id: "c",
      object: "chat.completion",
      created: 1,
      model: "gpt",
      choices: [{
        index: 0,
        message: { role: "assistant", content: null, refusal: "I can't help with that." },
        logprobs: null,
        finish_reason: "stop"
      }],
      usage: { prompt_tokens: 1, completion_tokens: 7, total_tokens: 8 }
    }
    const buffered = await post(service.url, "chat/completions", { model: "openai", messages })
    assert.deepStrictEqual(theirs(parsed(buffered)), theirs(answer))
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const streamed = await client.chat.completions.stream({
      model: "openai",
      messages: [{ role: "user", content: "Hi" }]
    }).finalChatCompletion()
    assert.strictEqual(streamed.choices[0]?.message.refusal, "I can't help with that.")
  })

  it("of openai's model after reasoning end the stream as an answer", async () => {
    answer = {
      id: "c",
      object: "chat.completion",
      created: 1,
      model: "gpt",
      choices: [{
        index: 0,
        message: { role: "assistant", content: null, reasoning_content: "May I?", refusal: "No." },
        logprobs: null,
        finish_reason: "stop"
      }],
      usage: { prompt_tokens: 1, completion_tokens: 7, total_tokens: 8 }
    }
    const text = await post(service.url, "chat/completions", { model: "openai", messages, stream: true })
    const deltas = dataOf(text).flatMap(({ choices }) => choices as ReadonlyArray<Fields>)
    const textOf = (field: string) =>
      deltas.map(({ delta }) => (delta as Readonly<Record<string, string | null>>)[field] ?? "").join("")
    assert.deepStrictEqual([textOf("reasoning_content"), textOf("refusal")], ["May I?", "No."])
    assert.strictEqual(deltas.at(-1)?.["finish_reason"], "stop")
    assert.notInclude(text, "\"error\"")
    assert.match(text, /data: \[DONE\]\n\n$/)
  })

  it("of anthropic's model reach the caller with their details, buffered and streamed", async () => {
    answer = {
      id: "msg",
      type: "message",
      role: "assistant",
      model: "claude",
      content: [],
      stop_reason: "refusal",
      stop_sequence: null,
      stop_details: { type: "refusal", category: "bio", explanation: "No." },
      usage: { input_tokens: 4, output_tokens: 0, cache_creation_input_tokens: 3 }
    }
    const request = { model: "anthropic", max_tokens: 5, messages }
    assert.deepStrictEqual(theirs(parsed(await post(service.url, "messages", request))), theirs(answer))
    const streamed = dataOf(await post(service.url, "messages", { ...request, stream: true }))
    const expected = Answers.anthropicEvents(answer)
    assert.deepStrictEqual(streamed.at(-2), Numbers.exactlyOf(expected.at(-2)))
    assert.strictEqual(streamed.at(-1)?.["type"], "message_stop")
  })
})
