/**
 * The thoughts of earlier answers, from callers of every dialect to providers of every kind: what a provider is sent of them.
 */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

type Fields = Readonly<Record<string, unknown>>

const thoughts = "I know Oslo"

/** Answers of the providers, with a call of a tool. */
const answers: Readonly<Record<string, Fields>> = {
  openai: {
    choices: [{ index: 0, message: { role: "assistant", content: "Hi", reasoning: thoughts }, finish_reason: "stop" }],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
  },
  anthropic: {
    id: "m",
    type: "message",
    role: "assistant",
    model: "up",
    content: [
      { type: "thinking", thinking: thoughts, signature: "s1" },
      { type: "redacted_thinking", data: "e1" },
      { type: "tool_use", id: "c1", name: "weather", input: { city: "Oslo" } }
    ],
    stop_reason: "tool_use",
    stop_sequence: null,
    usage: { input_tokens: 3, output_tokens: 2 }
  },
  gemini: { candidates: [{ content: { role: "model", parts: [{ text: "Hi" }] }, finishReason: "STOP" }] },
  ollama: { message: { role: "assistant", content: "Hi" }, done: true, done_reason: "stop" }
}

/** The deployments, and the answer of each one's provider. */
const providers = {
  compatible: ["openai", "provider: openai"],
  groq: ["openai", "provider: openai, thoughts: reasoning"],
  deepseek: ["openai", "provider: openai, thoughts: reasoning_content"],
  openai: ["openai", "provider: openai, thoughts: none"],
  troupe: ["openai", "provider: troupe"],
  claude: ["anthropic", "provider: anthropic", "claude-sonnet-4-5"],
  kimi: ["anthropic", "provider: anthropic", "kimi-k2"],
  gemini: ["gemini", "provider: gemini"],
  ollama: ["ollama", "provider: ollama"]
} as const

type Name = keyof typeof providers
const names = Object.keys(providers) as ReadonlyArray<Name>

let upstream: FaultServer
let service: Service

const kindOf = (path: string): string => {
  if (path.includes("/v1/messages")) return "anthropic"
  if (path.includes(":generateContent")) return "gemini"
  return path.includes("/api/chat") ? "ollama" : "openai"
}

beforeAll(async () => {
  upstream = await startFaultServer((_, { path }) => ({
    headers: { "content-type": "application/json" },
    pieces: [JSON.stringify(answers[kindOf(path)])]
  }))
  const models = names.map((name) => {
    const [, options, model = "up"] = providers[name]
    return `
  ${name}:
    deployments: [{ ${options}, model: ${model}, baseUrl: "${upstream.url}", key: "\${K}", stream: false }]`
  })
  models.push(`
  elsewhere:
    deployments: [{ provider: anthropic, model: claude-sonnet-4-5, baseUrl: "${upstream.url}/other", key: "\${K}" }]`)
  service = await startService(
    `
policies: { default: { retries: 0 } }
models:${models.join("")}
  fake/plain:
    deployments: [{ engine: fake }]
`,
    { K: "key" }
  )
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
})

const post = async (path: string, body: Fields): Promise<Fields> => {
  const response = await fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body)
  })
  const text = await response.text()
  assert.strictEqual(response.status, 200, text)
  return JSON.parse(text) as Fields
}

const input = { city: "Oslo" }
const openAiTool = { type: "function", function: { name: "weather", parameters: { type: "object" } } }

/** A conversation of OpenAI's dialect whose assistant has these fields beside its call. */
const openAiBody = (fields: Fields): Fields => ({
  tools: [openAiTool],
  messages: [
    { role: "user", content: "Weather in Oslo?" },
    {
      role: "assistant",
      content: null,
      ...fields,
      tool_calls: [{ id: "c1", type: "function", function: { name: "weather", arguments: JSON.stringify(input) } }]
    },
    { role: "tool", tool_call_id: "c1", content: "sunny" }
  ]
})

const anthropicBody = (...blocks: ReadonlyArray<Fields>): Fields => ({
  max_tokens: 100,
  tools: [{ name: "weather", input_schema: { type: "object" } }],
  messages: [
    { role: "user", content: "Weather in Oslo?" },
    { role: "assistant", content: [...blocks, { type: "tool_use", id: "c1", name: "weather", input }] },
    { role: "user", content: [{ type: "tool_result", tool_use_id: "c1", content: "sunny" }] }
  ]
})

const signed = { type: "thinking", thinking: thoughts, signature: "s1" }
const unsigned = { ...signed, signature: "" }

const responsesTool = { type: "function", name: "weather", parameters: { type: "object" }, strict: false }
const reasoningItem = { type: "reasoning", summary: [], content: [{ type: "reasoning_text", text: thoughts }] }
const call = { type: "function_call", call_id: "c1", name: "weather", arguments: JSON.stringify(input) }
const output = { type: "function_call_output", call_id: "c1", output: "sunny" }
const question = { role: "user", content: "Weather in Oslo?" }

/** Sends a conversation whose assistant has thought, in a caller's form. */
const callers = {
  "OpenAI's reasoning_content": (model: string) =>
    post("/v1/chat/completions", { model, ...openAiBody({ reasoning_content: thoughts }) }),
  "OpenAI's reasoning": (model: string) =>
    post("/v1/chat/completions", { model, ...openAiBody({ reasoning: thoughts }) }),
  "Anthropic's unsigned blocks": (model: string) => post("/v1/messages", { model, ...anthropicBody(unsigned) }),
  "Anthropic's signed blocks": (model: string) => post("/v1/messages", { model, ...anthropicBody(signed) }),
  "items of Responses": (model: string) =>
    post("/v1/responses", { model, tools: [responsesTool], input: [question, reasoningItem, call, output] }),
  "stored items of Responses": async (model: string) => {
    const { id } = await post("/v1/conversations", { items: [question, reasoningItem, call] })
    return post("/v1/responses", { model, tools: [responsesTool], conversation: id, input: [output] })
  },
  "Ollama's thinking": (model: string) =>
    post("/api/chat", {
      model,
      stream: false,
      tools: [openAiTool],
      messages: [
        question,
        {
          role: "assistant",
          content: "",
          thinking: thoughts,
          tool_calls: [{ function: { name: "weather", arguments: input } }]
        },
        { role: "tool", tool_name: "weather", content: "sunny" }
      ]
    })
} as const

type Caller = keyof typeof callers

/** The assistant's thoughts in the last request of a provider: its fields, or its blocks. */
const sentThoughts = (): Fields => {
  const { contents, messages = contents } = upstream.seen.at(-1)!.body as Readonly<
    Record<string, ReadonlyArray<Fields>>
  >
  const answer = messages!.find(({ role }) => role === "assistant" || role === "model")!
  const blocks = Array.isArray(answer["content"])
    ? (answer["content"] as ReadonlyArray<Fields>).filter(({ type }) => /thinking/.test(String(type)))
    : []
  const fields = ["reasoning_content", "reasoning", "reasoning_details", "thinking"].flatMap((name) =>
    answer[name] === undefined ? [] : [[name, answer[name]] as const]
  )
  return { ...Object.fromEntries(fields), ...(blocks.length === 0 ? {} : { blocks }) }
}

/** What a provider is sent of the thoughts of any caller. */
const expected: Readonly<Record<Name, Fields>> = {
  compatible: { reasoning_content: thoughts },
  groq: { reasoning: thoughts },
  deepseek: { reasoning_content: thoughts },
  openai: {},
  troupe: { reasoning_content: thoughts },
  claude: {},
  kimi: { blocks: [unsigned] },
  gemini: {},
  ollama: { thinking: thoughts }
}

/** What differs for a provider of the caller's own dialect, which is sent the caller's text. */
const own: Readonly<Record<string, { readonly [Provider in Name]?: Fields }>> = {
  "OpenAI's reasoning": { compatible: { reasoning: thoughts }, troupe: { reasoning: thoughts } },
  "Anthropic's signed blocks": { claude: { blocks: [signed] }, kimi: { blocks: [signed] } }
}

describe("thoughts of an earlier answer", () => {
  for (const caller of Object.keys(callers) as ReadonlyArray<Caller>) {
    for (const name of names) {
      it(`in ${caller} are for ${name} as it takes them`, async () => {
        const sent = upstream.seen.length
        await callers[caller](name)
        assert.strictEqual(upstream.seen.length, sent + 1)
        assert.deepStrictEqual(sentThoughts(), own[caller]?.[name] ?? expected[name])
      })
    }
  }
})

/** Asks Claude, and then a model with the answer and the result of its call, in a dialect without signatures. */
const rounds = {
  "OpenAI chat": async (model: string) => {
    const first = { tools: [openAiTool], messages: [question] }
    const { choices } = await post("/v1/chat/completions", { model: "claude", ...first })
    const { message } = (choices as ReadonlyArray<Fields>)[0]!
    const messages = [question, message, { role: "tool", tool_call_id: "c1", content: "sunny" }]
    await post("/v1/chat/completions", { model, ...first, messages })
  },
  "a stream of OpenAI chat": async (model: string) => {
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const details: Array<unknown> = []
    const stream = await client.chat.completions.create({
      model: "claude",
      stream: true,
      messages: [{ role: "user", content: "Weather in Oslo?" }]
    })
    for await (const { choices } of stream) {
      const { reasoning_details: some = [] } = (choices[0]?.delta ?? {}) as {
        readonly reasoning_details?: ReadonlyArray<unknown>
      }
      details.push(...some)
    }
    await post("/v1/chat/completions", { model, ...openAiBody({ reasoning_details: details }) })
  },
  Responses: async (model: string) => {
    const { output: items } = await post("/v1/responses", {
      model: "claude",
      tools: [responsesTool],
      input: [question]
    })
    await post("/v1/responses", {
      model,
      tools: [responsesTool],
      input: [question, ...items as ReadonlyArray<Fields>, output]
    })
  },
  "a stored response": async (model: string) => {
    const { id } = await post("/v1/responses", { model: "claude", tools: [responsesTool], input: [question] })
    await post("/v1/responses", { model, tools: [responsesTool], previous_response_id: id, input: [output] })
  },
  "a stream of Responses": async (model: string) => {
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const stream = client.responses.stream({ model: "claude", input: "Weather in Oslo?" })
    const { output: items } = await stream.finalResponse()
    await post("/v1/responses", {
      model,
      tools: [responsesTool],
      input: [question, ...items as ReadonlyArray<object>, output] as ReadonlyArray<Fields>
    })
  }
} as const

describe("signed reasoning in a dialect without signatures", () => {
  for (const [name, ask] of Object.entries(rounds)) {
    it(`goes back to its maker over ${name}, and to no other host and dialect`, async () => {
      await ask("claude")
      assert.deepStrictEqual(sentThoughts(), { blocks: [signed, { type: "redacted_thinking", data: "e1" }] })
      await ask("elsewhere")
      assert.deepStrictEqual(sentThoughts(), {})
      await ask("compatible")
      assert.deepStrictEqual(sentThoughts(), { reasoning_content: thoughts })
    })
  }
})

describe("the prompt of a model on this machine", () => {
  const counted = {
    openai: async (fields: Fields) =>
      (await post("/v1/chat/completions", { model: "fake/plain", ...openAiBody(fields) }))["usage"] as Fields,
    anthropic: async (...blocks: ReadonlyArray<Fields>) =>
      post("/v1/messages/count_tokens", { model: "fake/plain", ...anthropicBody(...blocks) })
  }

  it("has them, and its tokens are counted with them", async () => {
    const [plain, thinking] = await Promise.all([counted.openai({}), counted.openai({ reasoning_content: thoughts })])
    // A token of the fake engine has three bytes.
    const tokens = (thoughts.length + 1) / 3
    assert.strictEqual(Number(thinking["prompt_tokens"]) - Number(plain["prompt_tokens"]), tokens)
    const [without, signedCount] = await Promise.all([counted.anthropic(), counted.anthropic(signed)])
    assert.isAbove(Number(signedCount["input_tokens"]), Number(without["input_tokens"]))
  })
})
