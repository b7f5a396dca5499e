/** `cached-responses` with answers in the caller's dialect: only answers that can be stored completely are cached. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Fields } from "../support/Answers.ts"
import * as Answers from "../support/Answers.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const json = { "content-type": "application/json" }

/** The provider's answer; undefined for a failure. */
let answer: Fields | undefined
let upstream: FaultServer
let service: Service

const streamOf = (path: string, answer: Fields): ReadonlyArray<string> =>
  path.endsWith("/messages")
    ? Answers.anthropicEvents(answer).map((event) =>
      `event: ${String(event["type"])}\ndata: ${JSON.stringify(event)}\n\n`
    )
    : [...Answers.openAiChunks(answer).map((chunk) => `data: ${JSON.stringify(chunk)}\n\n`), "data: [DONE]\n\n"]

beforeAll(async () => {
  upstream = await startFaultServer((_, { body, path }) => {
    if (answer === undefined) return { status: 500, headers: json, pieces: ["{\"error\":{\"message\":\"down\"}}"] }
    return (body as Fields)["stream"] === true
      ? { headers: { "content-type": "text/event-stream" }, pieces: streamOf(path, answer) }
      : { headers: json, pieces: [JSON.stringify(answer)] }
  })
  service = await startService(
    `
circuits: { failures: 1000 }
policies:
  default: { retries: 0 }
models:
  openai:
    fallbacks: [cached-responses]
    deployments: [{ provider: openai, model: up, baseUrl: "${upstream.url}" }]
  anthropic:
    fallbacks: [cached-responses]
    deployments: [{ provider: anthropic, model: up, baseUrl: "${upstream.url}", key: "\${K}" }]
`,
    { K: "key" }
  )
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
})

const statusOf = async (work: Promise<unknown>): Promise<number> => {
  try {
    await work
    return 200
  } catch (error) {
    return (error as { readonly status: number }).status
  }
}

const call = { id: "c1", type: "function", function: { name: "f", arguments: "{}" } }
const custom = { id: "c1", type: "custom", custom: { name: "sql", input: "x" } }
const completion = (message: Fields, finish_reason = "stop"): Fields => ({
  id: "c",
  object: "chat.completion",
  created: 1,
  model: "up",
  choices: [{ index: 0, message: { role: "assistant", content: null, ...message }, logprobs: null, finish_reason }],
  usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
})

const thought = { type: "thinking", thinking: "Hm", signature: "s" }
const text = { type: "text", text: "Hello" }
const use = { type: "tool_use", id: "t", name: "f", input: {} }
const message = (content: ReadonlyArray<Fields>, stop_reason = "end_turn"): Fields => ({
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "up",
  content,
  stop_reason,
  stop_sequence: null,
  usage: { input_tokens: 3, output_tokens: 2 }
})

let requests = 0
/** Whether the answer to this request is cached; each call uses another request. */
const isKept = async (given: Fields, ask: (seed: string, stream: boolean) => Promise<unknown>, stream: boolean) => {
  const seed = `Request ${requests++}`
  answer = given
  assert.strictEqual(await statusOf(ask(seed, stream)), 200)
  answer = undefined
  return await statusOf(ask(seed, false)) === 200
}

describe("a cached answer in the caller's dialect", () => {
  const askOpenAi = (more: object) => async (seed: string, stream: boolean) => {
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const request = { model: "openai", messages: [{ role: "user", content: seed }], ...more }
    return stream
      ? client.chat.completions.stream(request as never).finalChatCompletion()
      : client.chat.completions.create(request as never)
  }
  const tools = (type: string) => ({ tools: [{ type, [type]: { name: type === "custom" ? "sql" : "f" } }] })
  const voice = { modalities: ["text", "audio"], audio: { voice: "x", format: "wav" } }

  it.each<[kept: string, content: string, message: Fields, reason: string, more: object]>([
    ["is kept", "text", { content: "Hello", annotations: [] }, "stop", {}],
    ["is kept", "a function call", { tool_calls: [call] }, "tool_calls", tools("function")],
    ["is not kept", "a custom call", { tool_calls: [custom] }, "tool_calls", tools("custom")],
    ["is not kept", "audio", { audio: { id: "a", data: "AA", transcript: "Hello" } }, "stop", voice],
    ["is kept", "reasoning", { content: "Hello", reasoning_content: "Hm" }, "stop", {}],
    [
      "is not kept",
      "parts of reasoning",
      {
        content: "Hello",
        reasoning_details: [{ type: "reasoning.encrypted", data: "x" }]
      },
      "stop",
      {}
    ],
    ["is not kept", "annotations", { content: "Hello", annotations: [{ type: "url_citation" }] }, "stop", {}]
  ])("%s with %s, of OpenAI's", async (kept, content, message, reason, more) => {
    assert.strictEqual(await isKept(completion(message, reason), askOpenAi(more), false), kept === "is kept")
    // The support file streams custom calls in one piece.
    if (content !== "a custom call") {
      assert.strictEqual(await isKept(completion(message, reason), askOpenAi(more), true), kept === "is kept")
    }
  })

  const askAnthropic = (more: object) => async (seed: string, stream: boolean) => {
    const client = new Anthropic({ baseURL: service.url, apiKey: "none", maxRetries: 0 })
    const request = { model: "anthropic", max_tokens: 4096, messages: [{ role: "user", content: seed }], ...more }
    return stream ? client.messages.stream(request as never).finalMessage() : client.messages.create(request as never)
  }
  const thinking = { thinking: { type: "enabled", budget_tokens: 1024 } }
  const search = [
    { type: "server_tool_use", id: "s", name: "web_search", input: {} },
    { type: "web_search_tool_result", tool_use_id: "s", content: [] }
  ]
  const uses = { tools: [{ name: "f", input_schema: { type: "object" } }] }

  it.each<[kept: string, content: string, blocks: ReadonlyArray<Fields>, reason: string, more: object]>([
    ["is kept", "text", [text], "end_turn", {}],
    ["is kept", "a call", [text, use], "tool_use", uses],
    ["is not kept", "thoughts and a call", [thought, use], "tool_use", { ...thinking, ...uses }],
    ["is not kept", "a server tool", [...search, text], "end_turn", {
      tools: [{ type: "web_search_20250305", name: "web_search" }]
    }]
  ])("%s with %s, of Anthropic's", async (kept, _, blocks, reason, more) => {
    for (const stream of [false, true]) {
      assert.strictEqual(await isKept(message(blocks, reason), askAnthropic(more), stream), kept === "is kept")
    }
  })
})
