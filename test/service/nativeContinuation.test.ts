/** Cut streams in the caller's dialect, with `continue`: only plain text is continued. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Fields } from "../support/Answers.ts"
import type { FaultServer, Seen } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const sse = { "content-type": "text/event-stream" }

const chunk = (delta: Fields, reason: string | null = null): Fields => ({
  id: "c",
  object: "chat.completion.chunk",
  created: 1,
  model: "up",
  choices: [{ index: 0, delta, finish_reason: reason }]
})
const messageStart: Fields = {
  type: "message_start",
  message: {
    id: "msg_1",
    type: "message",
    role: "assistant",
    model: "up",
    content: [],
    stop_reason: null,
    stop_sequence: null,
    usage: { input_tokens: 3, output_tokens: 1 }
  }
}
const start = (index: number, content_block: Fields): Fields => ({ type: "content_block_start", index, content_block })
const delta = (index: number, delta: Fields): Fields => ({ type: "content_block_delta", index, delta })
const stop = (index: number): Fields => ({ type: "content_block_stop", index })
const textBlock = (index: number, text: string) => [
  start(index, { type: "text", text: "" }),
  delta(index, { type: "text_delta", text })
]

const completionChunk = (text: string, reason: string | null = null): Fields => ({
  id: "c",
  object: "text_completion",
  created: 1,
  model: "up",
  choices: [{ text, index: 0, logprobs: null, finish_reason: reason }]
})

type Format = "openai" | "completions" | "anthropic"

const formatOf = (path: string): Format => {
  if (path.endsWith("/messages")) return "anthropic"
  return path.endsWith("/chat/completions") ? "openai" : "completions"
}

const rest: Readonly<Record<Format, ReadonlyArray<Fields>>> = {
  completions: [completionChunk(" world"), completionChunk("", "stop")],
  openai: [chunk({ role: "assistant", content: "" }), chunk({ content: " world" }), chunk({}, "stop")],
  anthropic: [
    messageStart,
    ...textBlock(0, " world"),
    stop(0),
    { type: "message_delta", delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 2 } },
    { type: "message_stop" }
  ]
}

const framesOf = (events: ReadonlyArray<Fields>): ReadonlyArray<string> =>
  events.map((event) =>
    ("type" in event ? `event: ${String(event["type"])}\n` : "") + `data: ${JSON.stringify(event)}\n\n`
  )

/** The events of the first deployment before its connection is cut. */
let cut: ReadonlyArray<Fields>
let upstream: FaultServer
let service: Service

beforeAll(async () => {
  upstream = await startFaultServer((_, { path }) =>
    path.startsWith("/first")
      ? { headers: sse, pieces: framesOf(cut), fault: { kind: "cut", after: cut.length } }
      : { headers: sse, pieces: framesOf(rest[formatOf(path)]) }
  )
  const openAi = `provider: openai, model: up`
  const anthropic = `provider: anthropic, model: claude-sonnet-4-5, key: "\${K}"`
  service = await startService(
    `
circuits: { failures: 1000 }
policies:
  default: { strategy: quality, retries: 0, continue: true }
models:
  openai:
    deployments:
      - { ${openAi}, baseUrl: "${upstream.url}/first", quality: 0.9 }
      - { ${openAi}, baseUrl: "${upstream.url}/second", quality: 0.1 }
  anthropic:
    deployments:
      - { ${anthropic}, baseUrl: "${upstream.url}/first", quality: 0.9 }
      - { ${anthropic}, baseUrl: "${upstream.url}/second", quality: 0.1 }
`,
    { K: "key" }
  )
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
})

/** The requests to the upstream while this runs. */
const seenIn = async (run: () => Promise<void>): Promise<ReadonlyArray<Seen>> => {
  const before = upstream.seen.length
  await run()
  return upstream.seen.slice(before)
}

const messages = [{ role: "user" as const, content: "Hi" }]

const messagesRequest = (more: object) => ({ model: "anthropic", max_tokens: 4096, messages, ...more })

const failureOf = async (work: Promise<unknown>): Promise<unknown> => {
  try {
    await work
  } catch (error) {
    return error
  }
  return assert.fail("Expected a failure")
}

describe("a cut chat completion in the caller's dialect", () => {
  const client = () => new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
  /** Adds the chunks to `found` as they arrive. */
  const read = async (more: object, found: Array<Fields>): Promise<void> => {
    const asked = { model: "openai", messages, stream: true as const, ...more }
    for await (const one of await client().chat.completions.create(asked)) found.push(one as unknown as Fields)
  }

  it.each<[content: string, more: object, said: ReadonlyArray<Fields>]>([
    ["thoughts", {}, [{ reasoning_content: "Hm" }]],
    ["thoughts and text", {}, [{ reasoning_content: "Hm" }, { content: "Hello" }]],
    ["thoughts in parts", {}, [{ content: "Hello" }, {
      content: [{ type: "thinking", thinking: [{ type: "text", text: "Hm" }] }]
    }]],
    ["a function call", { tools: [{ type: "function", function: { name: "f" } }] }, [
      { tool_calls: [{ index: 0, id: "c1", type: "function", function: { name: "f", arguments: "{" } }] }
    ]],
    ["a custom call", { tools: [{ type: "custom", custom: { name: "sql" } }] }, [
      { tool_calls: [{ index: 0, id: "c1", type: "custom", custom: { name: "sql", input: "" } }] },
      { tool_calls: [{ index: 0, custom: { input: "DROP TA" } }] }
    ]],
    ["audio", { modalities: ["text", "audio"], audio: { voice: "x", format: "wav" } }, [
      { audio: { id: "au", data: "AAAA" } },
      { audio: { transcript: "Hello" } }
    ]],
    ["annotations", {}, [{ content: "Hello" }, { annotations: [{ type: "url_citation", url_citation: {} }] }]],
    ["a refusal", {}, [{ content: "I " }, { refusal: "am sorry" }]]
  ])("ends with the error after %s, and keeps the content before it", async (_, more, said) => {
    cut = [chunk({ role: "assistant", content: "" }), ...said.map((delta) => chunk(delta))]
    const seen = await seenIn(async () => {
      const found: Array<Fields> = []
      const error = await failureOf(read(more, found))
      assert.instanceOf(error, OpenAI.APIError)
      assert.strictEqual(found.length, cut.length)
    })
    assert.strictEqual(seen.length, 1)
  })

  it("is continued after plain text", async () => {
    cut = [chunk({ role: "assistant", content: "" }), chunk({ content: "Hello" })]
    const seen = await seenIn(async () => {
      const found: Array<Fields> = []
      await read({}, found)
      const text = found.map(({ choices }) => (choices as [{ delta: { content?: string } }])[0].delta.content ?? "")
        .join("")
      assert.strictEqual(text, "Hello world")
    })
    assert.strictEqual(seen.length, 2)
  })
})

describe("a cut message in the caller's dialect", () => {
  const client = () => new Anthropic({ baseURL: service.url, apiKey: "none", maxRetries: 0 })
  const search = { tools: [{ type: "web_search_20250305", name: "web_search" }] }
  const thinking = { thinking: { type: "enabled", budget_tokens: 1024 } }
  const thought = [
    start(0, { type: "thinking", thinking: "", signature: "" }),
    delta(0, { type: "thinking_delta", thinking: "Hm" })
  ]

  it.each<[content: string, more: object, said: ReadonlyArray<Fields>]>([
    ["thoughts", thinking, thought],
    ["thoughts and text", thinking, [...thought, stop(0), ...textBlock(1, "Hello")]],
    ["redacted thoughts", thinking, [start(0, { type: "redacted_thinking", data: "x" })]],
    ["a call of the provider's tool", search, [
      start(0, { type: "server_tool_use", id: "s", name: "web_search", input: {} }),
      delta(0, { type: "input_json_delta", partial_json: "{\"q" })
    ]],
    ["a call", { tools: [{ name: "f", input_schema: { type: "object" } }] }, [
      start(0, { type: "tool_use", id: "t", name: "f", input: {} }),
      delta(0, { type: "input_json_delta", partial_json: "{\"q" })
    ]],
    ["citations", {}, [...textBlock(0, "Hello"), delta(0, { type: "citations_delta", citation: { type: "x" } })]]
  ])("ends with the error after %s, and starts once", async (_, more, said) => {
    cut = [messageStart, ...said]
    const seen = await seenIn(async () => {
      const types: Array<string> = []
      const stream = client().messages.stream(messagesRequest(more))
      stream.on("streamEvent", ({ type }) => types.push(type))
      assert.instanceOf(await failureOf(stream.finalMessage()), Anthropic.APIError)
      assert.deepStrictEqual(types, cut.map(({ type }) => String(type)))
    })
    assert.strictEqual(seen.length, 1)
  })

  it.each<[how: string, more: object, roles: ReadonlyArray<string>]>([
    ["as the beginning of the answer", {}, ["user", "assistant"]],
    ["by an instruction with thinking, if the provider does not accept a prefix", thinking, [
      "user",
      "assistant",
      "user"
    ]]
  ])("is continued after plain text, %s", async (_, more, roles) => {
    cut = [messageStart, ...textBlock(0, "Hello")]
    const seen = await seenIn(async () => {
      const stream = client().messages.stream(messagesRequest(more))
      assert.strictEqual(await stream.finalText(), "Hello world")
    })
    assert.strictEqual(seen.length, 2)
    const sent = (seen[1]!.body as Fields)["messages"] as ReadonlyArray<Fields>
    assert.deepStrictEqual<ReadonlyArray<unknown>>(sent.map(({ role }) => role), roles)
  })
})

describe("a text completion that is cut", () => {
  const client = () => new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })

  const streamed = async (more: Partial<OpenAI.CompletionCreateParamsStreaming> = {}) => {
    const stream = await client().completions.create({
      model: "openai",
      prompt: "Say:",
      max_tokens: 20,
      stream: true,
      ...more
    })
    const chunks: Array<OpenAI.Completion> = []
    for await (const part of stream) chunks.push(part)
    return chunks
  }

  it("goes on after the prompt and its text, with the tokens that are left", async () => {
    cut = [completionChunk("Hello"), completionChunk(" wide")]
    const seen = await seenIn(async () => {
      const chunks = await streamed()
      assert.strictEqual(chunks.map(({ choices }) => choices[0]!.text).join(""), "Hello wide world")
      assert.deepStrictEqual(
        chunks.flatMap((part) => "troupe" in part ? [part.troupe] : []),
        [{ handoff: { deployment: "openai#1" } }]
      )
      assert.strictEqual(chunks.at(-1)!.choices[0]!.finish_reason, "stop")
    })
    const [, second] = seen.map(({ body }) => body as Fields)
    assert.deepInclude(second, { prompt: "Say:Hello wide", max_tokens: 18 })
  })

  it("fails if it has a prompt of tokens or log-probabilities", async () => {
    cut = [completionChunk("Hello")]
    for (const more of [{ prompt: [1, 2, 3] }, { logprobs: 1 }]) {
      assert.instanceOf(await failureOf(streamed(more)), OpenAI.APIError)
    }
  })
})
