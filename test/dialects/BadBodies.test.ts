/** The exact messages for invalid bodies, in each dialect. */
import { assert } from "@effect/vitest"
import { Result } from "effect"
import { describe, it } from "vitest"
import * as AnthropicDecodeRequest from "../../src/dialects/anthropic/DecodeRequest.ts"
import * as AnthropicEncodeError from "../../src/dialects/anthropic/EncodeError.ts"
import * as OllamaDecodeRequest from "../../src/dialects/ollama/DecodeRequest.ts"
import * as OllamaEncodeError from "../../src/dialects/ollama/EncodeError.ts"
import * as OllamaTasks from "../../src/dialects/ollama/Tasks.ts"
import * as OpenAiDecodeRequest from "../../src/dialects/openai/DecodeRequest.ts"
import * as OpenAiEncodeError from "../../src/dialects/openai/EncodeError.ts"
import * as FieldNames from "../../src/dialects/openai/FieldNames.ts"
import * as Tasks from "../../src/dialects/openai/Tasks.ts"
import * as Conversations from "../../src/dialects/responses/Conversations.ts"
import * as ResponsesDecodeRequest from "../../src/dialects/responses/DecodeRequest.ts"
import * as ResponsesEncodeAnswer from "../../src/dialects/responses/EncodeAnswer.ts"
import type { InvalidRequest } from "../../src/domain/InferenceError.ts"

const user = { role: "user", content: "Hi" }

const failureOf = (result: Result.Result<unknown, InvalidRequest>): InvalidRequest =>
  Result.getOrThrowWith(Result.flip(result), () => new Error("The body was accepted."))

const without = (body: object): object => JSON.parse(JSON.stringify(body)) as object

const openAi = (fields: object): string => {
  const failure = failureOf(OpenAiDecodeRequest.decode(without({ model: "m", messages: [user], ...fields })))
  return OpenAiEncodeError.fromReason(failure, FieldNames.chatErrors).body.error.message
}

const anthropic = (fields: object): string => {
  const failure = failureOf(
    AnthropicDecodeRequest.decode(without({ model: "m", max_tokens: 5, messages: [user], ...fields }))
  )
  return AnthropicEncodeError.fromReason(failure, "").body.error.message
}

const arrived = (json: unknown): OllamaDecodeRequest.Arrived => ({
  json,
  exact: json,
  caller: {},
  nameOf: (model) => model
})

const ollama = {
  chat: [OllamaDecodeRequest.decodeChat, OllamaEncodeError.chatErrors, { messages: [user] }],
  generate: [OllamaDecodeRequest.decodeGenerate, OllamaEncodeError.generateErrors, { prompt: "Hi" }],
  embed: [OllamaTasks.decodeEmbed, OllamaEncodeError.embedErrors, { input: "Hi" }],
  embeddings: [OllamaTasks.decodeEmbeddings, OllamaEncodeError.embeddingsErrors, { prompt: "Hi" }]
} as const

const ollamaMessage = (endpoint: keyof typeof ollama, fields: object): string => {
  const [decode, names, base] = ollama[endpoint]
  const failure = failureOf(decode(arrived(without({ model: "m", ...base, ...fields }))))
  return OllamaEncodeError.fromReason(failure, names).body.error
}

const responses = {
  create: [ResponsesDecodeRequest.decode, { model: "m", input: "Hi" }],
  count: [ResponsesDecodeRequest.decodeCount, { model: "m", input: "Hi" }],
  compact: [ResponsesDecodeRequest.decodeCompact, { model: "m", input: "Hi" }],
  conversation: [Conversations.decoderOf("create"), {}],
  items: [Conversations.decoderOf("addItems"), { items: [user] }],
  metadata: [Conversations.decoderOf("update"), { metadata: {} }]
} as const

const responsesMessage = (endpoint: keyof typeof responses, fields: object): string => {
  const [decode, base] = responses[endpoint]
  const failure = failureOf(decode(without({ ...base, ...fields })))
  return ResponsesEncodeAnswer.encodeError(failure).body.error.message
}

const text = (message: object) => ({ messages: [message] })
const named = (name: string) => ({ type: "function", function: { name } })

type Case = readonly [fields: object, message: string]

const shared: ReadonlyArray<Case> = [
  [{ model: undefined }, "model: `model` is required"],
  [{ model: "" }, "model: Expected a string that is not empty"],
  [{ model: 5 }, "model: Expected a string"],
  [{ messages: undefined }, "messages: `messages` is required"],
  [
    { messages: undefined, mesages: [user] },
    "messages: `messages` is required; mesages is unknown. Did you mean messages?"
  ],
  [{ messages: [] }, "messages: Expected at least one element"],
  [{ messages: "Hi" }, "messages: Expected an array"],
  [{ messages: ["Hi"] }, "messages[0]: Expected an object"],
  [text({ role: "user", content: [{ type: "text" }] }), "messages[0].content[0].text: `text` is required"],
  [{ stream: "yes" }, "stream: Expected a boolean"],
  [{ temperature: "hot" }, "temperature: Expected a number"],
  [{ top_p: 2 }, "top_p: Expected a number from 0 to 1, got 2"],
  [{ max_tokens: 0 }, "max_tokens: Expected a whole number from 1 to 1000000, got 0"],
  [{ max_tokens: 1.5 }, "max_tokens: Expected a whole number from 1 to 1000000, got 1.5"],
  [{ max_tokens: "9" }, "max_tokens: Expected a whole number from 1 to 1000000"],
  [{ keep_alive: "soon" }, "keep_alive: Expected a number of seconds or a duration, such as 5m or 1h30m"],
  [{ priority: "urgent" }, "priority: Expected one of \"low\", \"normal\", \"high\""],
  [{ troupe: { retries: -1 } }, "troupe.retries: Expected a whole number from 0 to 10, got -1"]
]

const ofOpenAi: ReadonlyArray<Case> = [
  [
    text({ role: "usr", content: "" }),
    "messages[0].role: Expected one of \"system\", \"developer\", \"user\", \"assistant\", \"tool\". " +
    "Did you mean \"user\"?"
  ],
  [text({}), "messages[0].role: `role` is required"],
  [
    text({ role: "user", contents: "Hi" }),
    "messages[0].content: Expected a string or an array of parts; contents is unknown. Did you mean content?"
  ],
  [
    text({ role: "x", content: "" }),
    "messages[0].role: Expected one of \"system\", \"developer\", \"user\", \"assistant\", \"tool\""
  ],
  [text({ role: "user" }), "messages[0].content: Expected a string or an array of parts"],
  [text({ role: "user", content: 5 }), "messages[0].content: Expected a string, an array or null"],
  [text({ role: "user", content: [5] }), "messages[0].content[0].type: Expected \"text\" or \"image_url\""],
  [
    text({ role: "user", content: [{ type: "image_url" }] }),
    "messages[0].content[0].image_url: `image_url` is required"
  ],
  [
    { messages: [user, { role: "tool", content: "x" }] },
    "messages[1].tool_call_id: `tool_call_id` is required in a message of role tool"
  ],
  [
    { messages: [user, { role: "tool", content: "x", tool_call_id: "q" }] },
    "messages[1].tool_call_id: No earlier assistant message has a tool call with this id"
  ],
  [{ temperature: 9 }, "temperature: Expected a number from 0 to 2, got 9"],
  [
    { temperature: 9, n: 0 },
    "temperature: Expected a number from 0 to 2, got 9; n: Expected a whole number from 1 to 128, got 0"
  ],
  [{ stop: [""] }, "stop[0]: Expected a string that is not empty"],
  [{ stop: 5 }, "stop: Expected a string or an array"],
  [{ stop: Array.from({ length: 17 }, () => "a") }, "stop: Expected at most 16 elements"],
  [{ logit_bias: { a: 1 } }, "logit_bias.a: Expected a token id"],
  [{ tools: [{}] }, "tools[0].type: `type` is required"],
  [{ tools: [{ type: "function" }] }, "tools[0].function: `function` is required"],
  [
    { tools: [named("a b")] },
    "tools[0].function.name: Expected 1 to 128 letters, digits, underscores, dots or hyphens"
  ],
  [{ tools: [named("a"), named("a")] }, "tools[1].function.name: Another tool has the same name"],
  [{ tool_choice: "maybe" }, "tool_choice: Expected one of \"none\", \"auto\", \"required\""],
  [{ tool_choice: "required" }, "tool_choice: Allowed only with tools"],
  [
    { tools: [named("a")], tool_choice: named("b") },
    "tool_choice.function.name: No tool in tools has this name"
  ],
  [
    { response_format: "json" },
    "response_format.type: Expected \"text\", \"json_object\" or \"json_schema\""
  ],
  [{ response_format: { type: "json_schema" } }, "response_format.json_schema: `json_schema` is required"],
  [{ stream_options: {} }, "stream_options: Allowed only with stream: true"],
  [{ top_logprobs: 5 }, "top_logprobs: Allowed only with logprobs: true"],
  [
    { continue_final_message: true },
    "continue_final_message: Allowed only if the last of several messages is a text of the assistant"
  ]
]

const ofAnthropic: ReadonlyArray<Case> = [
  [
    text({ role: "asistant", content: "" }),
    "messages[0].role: Expected one of \"user\", \"assistant\", \"system\". Did you mean \"assistant\"?"
  ],
  [{ max_tokens: undefined }, "max_tokens: `max_tokens` is required"],
  [text({ role: "tool", content: "" }), "messages[0].role: Expected one of \"user\", \"assistant\", \"system\""],
  [text({ role: "user" }), "messages[0].content: `content` is required"],
  [
    text({ role: "user", contents: "Hi" }),
    "messages[0].content: `content` is required; contents is unknown. Did you mean content?"
  ],
  [text({ role: "user", content: [] }), "messages[0].content: Expected at least one element"],
  [
    text({
      role: "user",
      content: [{ type: "image", source: { type: "base64", media_type: "image/bmp", data: "" } }]
    }),
    "messages[0].content[0].source.media_type: Expected one of \"image/png\", \"image/jpeg\", \"image/gif\", \"image/webp\""
  ],
  [
    text({ role: "user", content: [{ type: "tool_result", tool_use_id: "x" }] }),
    "messages[0].content[0].tool_use_id: No earlier assistant message has a tool_use block with this id"
  ],
  [
    text({ role: "user", content: [{ type: "tool_use", id: "x", name: "y", input: {} }] }),
    "messages[0].content[0].type: A message of role user may not have a block of type tool_use"
  ],
  [{ temperature: 2 }, "temperature: Expected a number from 0 to 1, got 2"],
  [{ stop_sequences: "x" }, "stop_sequences: Expected an array"],
  [{ system: 5 }, "system: Expected a string or an array"],
  [{ tools: [{ name: "a" }] }, "tools[0].input_schema: `input_schema` is required"],
  [
    { tools: [{ name: "a b", input_schema: {} }] },
    "tools[0].name: Expected 1 to 128 letters, digits, underscores, dots or hyphens"
  ],
  [{ tool_choice: { type: "tool" } }, "tool_choice.name: `name` is required"],
  [{ tool_choice: { type: "any" } }, "tool_choice: Allowed only with tools"],
  [{ tool_choice: "auto" }, "tool_choice.type: Expected \"auto\", \"any\", \"tool\" or \"none\""],
  [{ output_config: { format: { type: "json" } } }, "output_config.format.type: Expected \"json_schema\""],
  [{ metadata: { user_id: 5 } }, "metadata.user_id: Expected a string or null"]
]

const ofOllama: ReadonlyArray<readonly [endpoint: keyof typeof ollama, fields: object, message: string]> = [
  ["chat", { model: undefined }, "model: `model` is required"],
  ["chat", { messages: "Hi" }, "messages: Expected an array"],
  [
    "chat",
    text({ role: "usr", content: "" }),
    "messages[0].role: Expected one of \"system\", \"user\", \"assistant\", \"tool\". Did you mean \"user\"?"
  ],
  ["chat", text({ role: "user", content: 5 }), "messages[0].content: Expected a string or null"],
  [
    "chat",
    text({ role: "user", content: "", images: ["bm9uZQ=="] }),
    "messages[0].images[0]: Expected a PNG, JPEG, GIF or WebP image in base64"
  ],
  [
    "chat",
    { messages: [user, { role: "tool", content: "x", tool_name: "f" }] },
    "messages[1].tool_name: No call of this tool without a result is in the assistant's message before"
  ],
  [
    "chat",
    text({ role: "user", content: "", tool_calls: [{ function: { name: "f", arguments: {} } }] }),
    "messages[0].tool_calls: Only a message of role assistant may have tool_calls"
  ],
  [
    "chat",
    { messages: [user, { role: "assistant", content: "{" }], format: "json" },
    "messages[1]: A last message of the assistant is not allowed with format"
  ],
  ["chat", { tools: [named("a"), named("a")] }, "tools[1].function.name: Another tool has the same name"],
  ["chat", { options: { temperature: 9 } }, "options.temperature: Expected a number from 0 to 2, got 9"],
  ["chat", { options: { stop: [""] } }, "options.stop[0]: Expected a string that is not empty"],
  ["chat", { think: "hard" }, "think: Expected true, false, \"low\", \"medium\" or \"high\""],
  ["chat", { format: "yaml" }, "format: Expected \"json\" or a JSON Schema"],
  ["chat", { top_logprobs: 5 }, "top_logprobs: Allowed only with logprobs: true"],
  ["chat", { keep_alive: "soon" }, "keep_alive: Expected a number of seconds or a duration, such as 5m or 1h30m"],
  ["generate", { prompt: 5 }, "prompt: Expected a string"],
  ["generate", { images: ["x"] }, "images[0]: Expected a PNG, JPEG, GIF or WebP image in base64"],
  ["generate", { context: ["x"] }, "context[0]: Expected a number"],
  ["embed", { input: undefined }, "input: `input` is required"],
  ["embed", { input: undefined, prompt: "a" }, "input: `input` is required; prompt is unknown. Did you mean input?"],
  ["embed", { input: [5] }, "input[0]: Expected a string"],
  ["embeddings", { prompt: undefined }, "prompt: `prompt` is required"]
]

const input = (item: unknown) => ({ input: [item] })
const tool = (name: string) => ({ type: "function", name })
const allowed = (fields: object) => ({ tools: [tool("a")], tool_choice: { type: "allowed_tools", ...fields } })

const ofResponses: ReadonlyArray<readonly [endpoint: keyof typeof responses, fields: object, message: string]> = [
  ["create", { model: undefined }, "model: `model` is required"],
  ["create", { model: "" }, "model: Expected a string that is not empty"],
  ["create", { input: undefined }, "input: `input` is required"],
  ["create", { input: 5 }, "input: Expected a string or an array"],
  ["create", input(5), "input[0]: Expected an object"],
  [
    "create",
    input({ role: "usr", content: "" }),
    "input[0].role: Expected one of \"user\", \"assistant\", \"system\", \"developer\". Did you mean \"user\"?"
  ],
  ["create", input({ role: "user" }), "input[0].content: `content` is required"],
  ["create", input({ role: "user", content: 5 }), "input[0].content: Expected a string or an array"],
  [
    "create",
    input({ role: "user", content: [{ type: "input_text" }] }),
    "input[0].content[0].text: `text` is required"
  ],
  [
    "create",
    input({ type: "function_call", name: "f", arguments: "{}" }),
    "input[0].call_id: `call_id` is required"
  ],
  [
    "create",
    input({ type: "compaction", encrypted_content: "x" }),
    "input[0].encrypted_content: Expected the content of a compaction item of this service"
  ],
  ["create", { stream: "yes" }, "stream: Expected a boolean"],
  ["create", { temperature: 9 }, "temperature: Expected a number from 0 to 2, got 9"],
  ["create", { top_p: 2 }, "top_p: Expected a number from 0 to 1, got 2"],
  ["create", { max_output_tokens: 0 }, "max_output_tokens: Expected a whole number from 1 to 1000000, got 0"],
  ["create", { max_tokens: 5 }, "max_tokens: Unknown field. Did you mean max_output_tokens?"],
  ["create", { tools: [{ type: "function" }] }, "tools[0].name: `name` is required"],
  [
    "create",
    { tools: [tool("a b")] },
    "tools[0].name: Expected 1 to 128 letters, digits, underscores, dots or hyphens"
  ],
  ["create", { tools: [tool("a"), tool("a")] }, "tools[1].name: Another tool has the same name"],
  ["create", { tool_choice: "maybe" }, "tool_choice: Expected one of \"auto\", \"none\", \"required\""],
  ["create", { tool_choice: "required" }, "tool_choice: Allowed only with tools"],
  ["create", { tools: [tool("a")], tool_choice: tool("b") }, "tool_choice.name: No tool in tools has this name"],
  ["create", allowed({ tools: [] }), "tool_choice.tools: Expected at least one element"],
  [
    "create",
    allowed({ mode: "x", tools: [tool("a")] }),
    "tool_choice.mode: Expected one of \"auto\", \"required\""
  ],
  [
    "create",
    { text: { format: { type: "yaml" } } },
    "text.format.type: Expected \"text\", \"json_object\" or \"json_schema\""
  ],
  [
    "create",
    { text: { format: { type: "json_schema" } } },
    "text.format.name: `name` is required; text.format.schema: `schema` is required"
  ],
  ["create", { stream_options: {} }, "stream_options: Allowed only with stream: true"],
  ["create", { background: true, store: false }, "store: A response in the background is stored"],
  [
    "create",
    { conversation: "c", previous_response_id: "r" },
    "previous_response_id: Not allowed with conversation"
  ],
  ["create", { metadata: { a: 5 } }, "metadata.a: Expected a string"],
  ["create", { truncation: "x" }, "truncation: Expected one of \"auto\", \"disabled\""],
  ["create", { top_logprobs: 50 }, "top_logprobs: Expected a whole number from 0 to 20, got 50"],
  ["create", { max_tool_calls: 0 }, "max_tool_calls: Expected a whole number from 1 to 1000000, got 0"],
  [
    "create",
    { personality: "p" },
    "personality: Troupe has no personalities"
  ],
  ["create", { service_tier: 5 }, "service_tier: Expected a string"],
  ["count", { input: undefined }, "input: `input` is required"],
  ["count", { max_output_tokens: 5 }, "max_output_tokens: Unknown field"],
  ["compact", { model: 5 }, "model: Expected a string"],
  ["compact", { input: undefined }, "input: `input` is required"],
  ["conversation", { items: "Hi" }, "items: Expected an array"],
  ["items", { items: undefined }, "items: `items` is required"],
  ["items", { items: [{ type: "message", role: "user" }] }, "items[0].content: `content` is required"],
  ["metadata", { metadata: undefined }, "metadata: `metadata` is required"]
]

const tasks = {
  embeddings: [Tasks.decodeEmbedding, FieldNames.textErrors],
  rerank: [Tasks.decodeRerank, FieldNames.rerankErrors],
  classify: [Tasks.decodeClassify, FieldNames.textErrors],
  tokenize: [Tasks.decodeTokenize, FieldNames.tokenizeErrors]
} as const

const ofTasks: ReadonlyArray<readonly [task: keyof typeof tasks, fields: object, message: string]> = [
  ["embeddings", {}, "input: `input` is required"],
  ["embeddings", { prompt: "a" }, "input: `input` is required; prompt is unknown. Did you mean input?"],
  ["embeddings", { input: [] }, "input: Expected at least one element"],
  ["embeddings", { input: "a", dimensions: 0 }, "dimensions: Expected a whole number of at least 1, got 0"],
  ["embeddings", { input: "a", encoding_format: "x" }, "encoding_format: Expected one of \"float\", \"base64\""],
  ["rerank", { query: "q" }, "documents: `documents` is required"],
  ["rerank", { query: "q", documents: [5] }, "documents[0]: Expected a string or an object"],
  ["classify", { input: [1, 2] }, "input: Tokens are not supported. Send the text."],
  ["classify", { input: "a", labels: ["x"] }, "labels: No deployment of \"m\" accepts this field. Remove it."],
  ["tokenize", {}, "prompt: `prompt` or `messages` is required"],
  ["tokenize", { prompt: "a", messages: [user] }, "messages: Send either `prompt` or `messages`, not both"],
  ["tokenize", { prompt: "a", tools: [named("a")] }, "tools: Allowed only with messages"]
]

describe("the message for an invalid body", () => {
  for (const [fields, message] of [...shared, ...ofOpenAi]) {
    it(`of a chat completion: ${message}`, () => assert.strictEqual(openAi(fields), message))
  }

  for (const [fields, message] of [...shared, ...ofAnthropic]) {
    it(`of a message: ${message}`, () => assert.strictEqual(anthropic(fields), message))
  }

  for (const [endpoint, fields, message] of ofOllama) {
    it(`of Ollama's ${endpoint}: ${message}`, () => assert.strictEqual(ollamaMessage(endpoint, fields), message))
  }

  for (const [endpoint, fields, message] of ofResponses) {
    it(`of Responses, ${endpoint}: ${message}`, () => assert.strictEqual(responsesMessage(endpoint, fields), message))
  }

  for (const [task, fields, message] of ofTasks) {
    it(`of ${task}: ${message}`, () => {
      const [decode, names] = tasks[task]
      const failure = failureOf(decode({ model: "m", ...fields }))
      assert.strictEqual(OpenAiEncodeError.fromReason(failure, names).body.error.message, message)
    })
  }

  it("reports a body that is not an object", () => {
    for (const body of [[], "x", 5, null]) {
      assert.strictEqual(failureOf(OpenAiDecodeRequest.decode(body)).detail, "The body must be a JSON object")
      assert.strictEqual(failureOf(AnthropicDecodeRequest.decode(body)).detail, "The body must be a JSON object")
      for (const [decode] of Object.values(ollama)) {
        assert.strictEqual(failureOf(decode(arrived(body))).detail, "The body must be a JSON object")
      }
      for (const [decode] of Object.values(responses)) {
        assert.strictEqual(failureOf(decode(body)).detail, "The body must be a JSON object")
      }
    }
  })
})
