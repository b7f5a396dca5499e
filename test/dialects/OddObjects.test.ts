/** JSON whose objects have fields such as `toString`, which JavaScript calls to convert an object to a text or a number. */
import { Result } from "effect"
import { assert, describe, it } from "vitest"
import * as AnthropicRequest from "../../src/dialects/anthropic/DecodeRequest.ts"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import * as OllamaRequest from "../../src/dialects/ollama/DecodeRequest.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import * as OpenAiRequest from "../../src/dialects/openai/DecodeRequest.ts"
import { openAi } from "../../src/dialects/openai/Provider.ts"
import * as Conversations from "../../src/dialects/responses/Conversations.ts"
import * as ResponsesRequest from "../../src/dialects/responses/DecodeRequest.ts"
import type { Generation } from "../../src/domain/Generation.ts"

const odd = { toString: 1, valueOf: { inner: 2 } }
const messages = (content: unknown) => [{ role: "user", content }]

const decodeOllama = (json: unknown) =>
  OllamaRequest.decodeChat({ json, exact: json, caller: {}, nameOf: (model) => model })

const requests = {
  "a part of OpenAI's": [OpenAiRequest.decode, { model: "m", messages: messages([{ type: odd }]) }],
  "a tool of OpenAI's": [OpenAiRequest.decode, { model: "m", messages: messages("a"), tools: [{ type: odd }] }],
  "a block of Anthropic's": [
    AnthropicRequest.decode,
    { model: "m", max_tokens: 1, messages: messages([{ type: odd }]) }
  ],
  "an image of Anthropic's": [
    AnthropicRequest.decode,
    { model: "m", max_tokens: 1, messages: messages([{ type: "image", source: { type: odd } }]) }
  ],
  "a tool of Ollama's": [decodeOllama, { model: "m", messages: messages("a"), tools: [{ type: odd, function: odd }] }],
  "a call of Ollama's": [
    decodeOllama,
    { model: "m", messages: [{ role: "assistant", content: odd, tool_calls: [{ type: odd, function: odd }] }] }
  ],
  "Ollama's options": [decodeOllama, { model: "m", messages: messages("a"), options: { num_ctx: odd, seed: odd } }],
  "Anthropic's thinking": [
    AnthropicRequest.decode,
    { model: "m", max_tokens: 1, messages: messages("a"), thinking: { type: odd } }
  ],
  "an item of Responses'": [ResponsesRequest.decode, { model: "m", input: [{ type: odd, role: odd, content: odd }] }],
  "a part of Responses'": [ResponsesRequest.decode, { model: "m", input: messages([{ type: odd, text: odd }]) }],
  "a call of Responses'": [
    ResponsesRequest.decode,
    { model: "m", input: [{ type: "function_call", call_id: odd, name: odd, arguments: odd }] }
  ],
  "a result of Responses'": [
    ResponsesRequest.decode,
    { model: "m", input: [{ type: "function_call_output", call_id: "c", output: [{ type: odd }] }] }
  ],
  "a tool of Responses'": [
    ResponsesRequest.decode,
    { model: "m", input: "a", tools: [{ type: odd, name: odd, format: odd }], tool_choice: { type: odd, name: odd } }
  ],
  "Responses' settings": [
    ResponsesRequest.decode,
    {
      model: "m",
      input: "a",
      text: { format: { type: odd } },
      reasoning: { effort: odd },
      conversation: { id: odd },
      metadata: { a: odd },
      include: [odd]
    }
  ],
  "a counted prompt": [ResponsesRequest.decodeCount, { model: "m", input: [{ type: odd }] }],
  "a compacted prompt": [ResponsesRequest.decodeCompact, { model: odd, input: [{ type: "reasoning", summary: odd }] }],
  "an item of a conversation": [Conversations.decoderOf("addItems"), { items: [{ type: odd, id: odd, content: odd }] }]
} as const

describe("an object that is no text in place of a type", () => {
  for (const [name, [decode, body]] of Object.entries(requests)) {
    it(`does not throw in ${name}`, () => {
      assert.doesNotThrow(() => decode(body))
    })
  }
})

const target = { deployment: "a#0", model: "a" }

describe("an object that is no number in place of an index", () => {
  it("does not throw in an answer for a caller of OpenAI's dialect", () => {
    const generation: Generation = {
      messages: [{ role: "user", content: "a" }],
      maxTokens: undefined,
      stop: [],
      sampling: {},
      source: { dialect: "openai", body: { messages: [] } }
    }
    const options = { engine: "remote", provider: "openai", model: "m" } as const
    const delta = { content: "Hi", tool_calls: [{ index: odd, function: { name: "f", arguments: "{}" } }] }
    const choices = [{ index: odd, delta, message: delta, finish_reason: "stop" }]
    const decoder = openAi.generate.events(generation, { ...target, options })
    assert.doesNotThrow(() => decoder.push({ event: "message", data: JSON.stringify({ choices }) }))
    assert.doesNotThrow(() => openAi.generate.buffered({ choices }, generation, { ...target, options }))
  })

  it("does not throw in an answer for a caller of Anthropic's dialect", () => {
    const generation: Generation = {
      messages: [{ role: "user", content: "a" }],
      maxTokens: 1,
      stop: [],
      sampling: {},
      source: { dialect: "anthropic", body: { messages: [] } }
    }
    const options = { engine: "remote", provider: "anthropic", model: "m" } as const
    const decoder = anthropic.generate.events(generation, { ...target, options })
    const event = { type: "content_block_start", index: odd, content_block: { type: "text", text: "Hi" } }
    assert.isTrue(Result.isFailure(decoder.push({ event: event.type, data: JSON.stringify(event) })))
  })

  it("does not throw in an answer for a caller of Ollama's dialect", () => {
    const generation: Generation = {
      messages: [{ role: "user", content: "a" }],
      maxTokens: undefined,
      stop: [],
      sampling: {},
      source: { dialect: "ollama", body: { messages: [] } }
    }
    const options = { engine: "remote", provider: "ollama", model: "m" } as const
    const message = { content: odd, tool_calls: [{ id: odd, function: { name: "f", index: odd, arguments: odd } }] }
    const line = { message, done: true, done_reason: odd, logprobs: odd, eval_count: odd }
    const decoder = ollama.generate.events(generation, { ...target, options })
    assert.doesNotThrow(() => decoder.push({ event: "message", data: JSON.stringify(line) }))
    assert.doesNotThrow(() => ollama.generate.buffered(line, generation, { ...target, options }))
  })
})
