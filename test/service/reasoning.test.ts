/** A provider's reasoning, and the end user's id, between callers and providers of every dialect. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import { Ollama } from "ollama"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

type Fields = Readonly<Record<string, unknown>>

interface ProviderAnswer {
  readonly buffered: Fields
  readonly frames: ReadonlyArray<Fields>
}

const usage = { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }

const openAi = (field: string): ProviderAnswer => ({
  buffered: {
    choices: [{ index: 0, message: { role: "assistant", content: "Hi", [field]: "Hm." }, finish_reason: "stop" }],
    usage
  },
  frames: [
    { choices: [{ index: 0, delta: { role: "assistant", content: "" } }] },
    { choices: [{ index: 0, delta: { [field]: "H" } }] },
    { choices: [{ index: 0, delta: { [field]: "m." } }] },
    { choices: [{ index: 0, delta: { content: "Hi" } }] },
    { choices: [{ index: 0, delta: {}, finish_reason: "stop" }], usage }
  ]
})

const message = { id: "m", type: "message", role: "assistant", model: "up", stop_sequence: null }
const block = (index: number, content_block: Fields, ...deltas: ReadonlyArray<Fields>): ReadonlyArray<Fields> => [
  { type: "content_block_start", index, content_block },
  ...deltas.map((delta) => ({ type: "content_block_delta", index, delta })),
  { type: "content_block_stop", index }
]

const anthropic: ProviderAnswer = {
  buffered: {
    ...message,
    content: [{ type: "thinking", thinking: "Hm.", signature: "s" }, { type: "text", text: "Hi" }],
    stop_reason: "end_turn",
    usage: { input_tokens: 3, output_tokens: 2 }
  },
  frames: [
    {
      type: "message_start",
      message: { ...message, content: [], stop_reason: null, usage: { input_tokens: 3, output_tokens: 1 } }
    },
    ...block(
      0,
      { type: "thinking", thinking: "", signature: "" },
      { type: "thinking_delta", thinking: "H" },
      { type: "thinking_delta", thinking: "m." },
      { type: "signature_delta", signature: "s" }
    ),
    ...block(1, { type: "text", text: "" }, { type: "text_delta", text: "Hi" }),
    { type: "message_delta", delta: { stop_reason: "end_turn", stop_sequence: null }, usage: { output_tokens: 2 } },
    { type: "message_stop" }
  ]
}

const geminiOf = (parts: ReadonlyArray<Fields>, finishReason?: string): Fields => ({
  candidates: [{ content: { role: "model", parts }, ...(finishReason === undefined ? {} : { finishReason }) }]
})
const thought = (text: string): Fields => ({ text, thought: true })

const gemini: ProviderAnswer = {
  buffered: geminiOf([thought("Hm."), { text: "Hi" }], "STOP"),
  frames: [geminiOf([thought("H")]), geminiOf([thought("m.")]), geminiOf([{ text: "Hi" }], "STOP")]
}

const line = (fields: Fields, done = false): Fields => ({ message: { role: "assistant", ...fields }, done })

const ollama: ProviderAnswer = {
  buffered: { ...line({ content: "Hi", thinking: "Hm." }, true), done_reason: "stop" },
  frames: [
    line({ content: "", thinking: "H" }),
    line({ content: "", thinking: "m." }),
    line({ content: "Hi" }),
    { ...line({ content: "" }, true), done_reason: "stop" }
  ]
}

const providers: Readonly<Record<string, readonly [provider: string, ProviderAnswer]>> = {
  "openai": ["openai", openAi("reasoning_content")],
  "openai-reasoning": ["openai", openAi("reasoning")],
  "troupe": ["troupe", openAi("reasoning_content")],
  "anthropic": ["anthropic", anthropic],
  "gemini": ["gemini", gemini],
  "ollama": ["ollama", ollama]
}

const names = Object.keys(providers)

/** The provider that answers; undefined for none. */
let answering: string | undefined
let upstream: FaultServer
let service: Service

const framing = (provider: string, path: string, frames: ReadonlyArray<Fields>) => {
  if (provider === "ollama") {
    return {
      headers: { "content-type": "application/x-ndjson" },
      pieces: frames.map((one) => `${JSON.stringify(one)}\n`)
    }
  }
  const end = path.endsWith("/chat/completions") ? ["data: [DONE]\n\n"] : []
  return {
    headers: { "content-type": "text/event-stream" },
    pieces: [...frames.map((frame) => `data: ${JSON.stringify(frame)}\n\n`), ...end]
  }
}

beforeAll(async () => {
  const json = { "content-type": "application/json" }
  upstream = await startFaultServer((_, { body, path }) => {
    if (path.startsWith("/broken")) return { status: 500, headers: json, pieces: ["{}"] }
    if (path.startsWith("/foreign") && JSON.stringify(body).includes("\"thinking\"")) {
      const message = "messages.1.content.0: Invalid `signature` in `thinking` block"
      const error = { type: "invalid_request_error", message }
      return { status: 400, headers: json, pieces: [JSON.stringify({ type: "error", error })] }
    }
    if (path.startsWith("/never")) {
      const error = {
        type: "invalid_request_error",
        message: "messages.1.content.0: Invalid `data` in `redacted_thinking` block"
      }
      return { status: 400, headers: json, pieces: [JSON.stringify({ type: "error", error })] }
    }
    if (answering === undefined) return { status: 500, headers: json, pieces: ["{\"error\":{\"message\":\"down\"}}"] }
    const [provider, { frames, buffered }] = providers[answering]!
    const isStreamed = (body as Fields)["stream"] === true || path.includes(":stream")
    return isStreamed ? framing(provider, path, frames) : { headers: json, pieces: [JSON.stringify(buffered)] }
  })
  const models = names.map((name) => `
  ${name}:
    fallbacks: [cached-responses]
    deployments: [{ provider: ${providers[name]![0]}, model: up, baseUrl: "${upstream.url}", key: "\${K}" }]`)
  service = await startService(
    `
circuits: { failures: 1000 }
policies: { default: { retries: 0 }, patient: { retries: 3 } }
models:${models.join("")}
  signed:
    policy: patient
    fallbacks: [another]
    deployments: [{ provider: anthropic, model: up, baseUrl: "${upstream.url}/broken", key: "\${K}" }]
  foreign:
    deployments: [{ provider: anthropic, model: up, baseUrl: "${upstream.url}/foreign", key: "\${K}" }]
  never:
    deployments: [{ provider: anthropic, model: up, baseUrl: "${upstream.url}/never", key: "\${K}" }]
  another:
    deployments: [{ provider: anthropic, model: up, baseUrl: "${upstream.url}/other", key: "\${K}" }]
  unsigned:
    deployments: [{ provider: openai, model: up, baseUrl: "${upstream.url}", key: "\${K}" }]
  fake/thinker:
    deployments: [{ engine: fake, reply: "<think>Hm. Hello?</think>Hi there", reasoning: { start: <think>, end: </think> } }]
  fake/plain:
    deployments: [{ engine: fake, reply: "<think>Hm.</think>Hi" }]
`,
    { K: "key" }
  )
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
})

interface Said {
  readonly thoughts: string
  readonly text: string
}

const messages = [{ role: "user" as const, content: "Hello!" }]

/** A provider of the caller's dialect has its own field name. */
const reasoningOf = (message: object): string => {
  const { reasoning = "", reasoning_content: content = reasoning } = message as Readonly<Record<string, string>>
  return content
}

const askOpenAi = async (model: string, stream: boolean, more: object = {}): Promise<Said> => {
  const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
  if (!stream) {
    const { choices } = await client.chat.completions.create({ model, messages, ...more })
    return { thoughts: reasoningOf(choices[0]!.message), text: choices[0]!.message.content ?? "" }
  }
  let thoughts = ""
  let text = ""
  for await (const { choices } of await client.chat.completions.create({ model, messages, stream, ...more })) {
    const delta = choices[0]?.delta ?? {}
    thoughts += reasoningOf(delta)
    text += delta.content ?? ""
  }
  return { thoughts, text }
}

const askAnthropic = async (model: string, stream: boolean, more: object = {}): Promise<Said> => {
  const client = new Anthropic({ baseURL: service.url, apiKey: "none", maxRetries: 0 })
  const body = { model, messages, max_tokens: 100, ...more }
  const { content } = stream ? await client.messages.stream(body).finalMessage() : await client.messages.create(body)
  return {
    thoughts: content.map((one) => one.type === "thinking" ? one.thinking : "").join(""),
    text: content.map((one) => one.type === "text" ? one.text : "").join("")
  }
}

const callers = { OpenAI: askOpenAi, Anthropic: askAnthropic }

describe("a provider's reasoning reaches the caller", () => {
  for (const [caller, ask] of Object.entries(callers)) {
    for (const name of names) {
      for (const stream of [false, true]) {
        it(`of ${caller}'s dialect from ${name}, ${stream ? "streamed" : "buffered"}`, async () => {
          answering = name
          const more = { temperature: 0.5 }
          assert.deepStrictEqual(await ask(name, stream, more), { thoughts: "Hm.", text: "Hi" })
        })
      }
    }
  }
})

describe("a cached answer with reasoning is returned", () => {
  for (const [caller, ask] of Object.entries(callers)) {
    for (const name of names) {
      for (const stream of [false, true]) {
        it(`completely or not at all, to ${caller}'s callers from ${name}, ${stream ? "streamed" : "buffered"}`, async () => {
          const more = { temperature: stream ? 0.25 : 0.75 }
          answering = name
          await ask(name, stream, more)
          answering = undefined
          const again = await ask(name, stream, more).catch((error: { readonly status: number }) => error.status)
          // A caller of OpenAI's dialect gets all of such an answer: its reasoning has no signature.
          if (caller === "OpenAI") assert.isObject(again)
          if (typeof again === "object") assert.deepStrictEqual(again, { thoughts: "Hm.", text: "Hi" })
          else assert.isAtLeast(again, 500)
        })
      }
    }
  }
})

describe("reasoning is omitted", () => {
  for (const stream of [false, true]) {
    it(`if a caller of Anthropic's dialect disables it, ${stream ? "streamed" : "buffered"}`, async () => {
      answering = "openai"
      const more = { thinking: { type: "disabled" } }
      assert.deepStrictEqual(await askAnthropic("openai", stream, more), { thoughts: "", text: "Hi" })
    })
  }
})

describe("the end user's id reaches the provider", () => {
  const sentLast = () => upstream.seen.at(-1)!.body as Fields

  it("as `metadata.user_id` from OpenAI's dialect", async () => {
    answering = "anthropic"
    await askOpenAi("anthropic", false, { user: "u1" })
    assert.deepStrictEqual(sentLast()["metadata"], { user_id: "u1" })
    await askOpenAi("anthropic", false, { user: "u1", safety_identifier: "s1" })
    assert.deepStrictEqual(sentLast()["metadata"], { user_id: "s1" })
    await askOpenAi("anthropic", false)
    assert.notProperty(sentLast(), "metadata")
  })

  it("as `user` from Anthropic's dialect", async () => {
    answering = "openai"
    await askAnthropic("openai", false, { metadata: { user_id: "u1" } })
    assert.strictEqual(sentLast()["user"], "u1")
    await askAnthropic("openai", false)
    assert.notProperty(sentLast(), "user")
  })

  it("unless it is longer than the provider accepts", async () => {
    answering = "openai"
    await askAnthropic("openai", false, { metadata: { user_id: "u".repeat(65) } })
    assert.notProperty(sentLast(), "user")
    answering = "anthropic"
    await askOpenAi("anthropic", false, { user: "u".repeat(257) })
    assert.notProperty(sentLast(), "metadata")
  })
})

const askResponses = async (model: string, stream: boolean, more: object = {}): Promise<Said> => {
  const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
  const body = { model, input: "Hello!", ...more }
  let thoughts = ""
  if (stream) {
    for await (const event of await client.responses.create({ ...body, stream })) {
      if (event.type === "response.reasoning_text.delta") thoughts += event.delta
    }
  }
  const { output, output_text: text } = await client.responses.create(body)
  const said = output.flatMap((item) => item.type === "reasoning" ? item.content ?? [] : []).map(({ text }) => text)
    .join("")
  return { thoughts: stream ? thoughts : said, text }
}

const askOllama = async (model: string, stream: boolean, more: object = {}): Promise<Said> => {
  const client = new Ollama({ host: service.url })
  const body = { model, messages, ...more }
  if (!stream) {
    const { message } = await client.chat({ ...body, stream })
    return { thoughts: message.thinking ?? "", text: message.content }
  }
  let thoughts = ""
  let text = ""
  for await (const { message } of await client.chat({ ...body, stream })) {
    thoughts += message.thinking ?? ""
    text += message.content
  }
  return { thoughts, text }
}

describe("the thoughts of a model on this machine", () => {
  const greedy = { temperature: 0 }
  const all = { ...callers, Responses: askResponses, Ollama: askOllama }
  const optionsOf = (caller: string) => caller === "Ollama" ? { options: greedy } : greedy

  for (const [caller, ask] of Object.entries(all)) {
    for (const stream of [false, true]) {
      const how = stream ? "streamed" : "buffered"
      it(`reach ${caller}'s callers apart from the text, ${how}`, async () => {
        assert.deepStrictEqual(
          await ask("fake/thinker", stream, optionsOf(caller)),
          { thoughts: "Hm. Hello?", text: "Hi there" }
        )
      })

      it(`are text where its markers are not known, to ${caller}'s callers, ${how}`, async () => {
        assert.deepStrictEqual(
          await ask("fake/plain", stream, optionsOf(caller)),
          { thoughts: "", text: "<think>Hm.</think>Hi" }
        )
      })
    }
  }

  it("are counted in the usage of every dialect", async () => {
    const openAi = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const { usage } = await openAi.chat.completions.create({ model: "fake/thinker", messages, ...greedy })
    const counted = usage!.completion_tokens_details!.reasoning_tokens!
    assert.isAbove(counted, 2)
    assert.isBelow(counted, usage!.completion_tokens)
    const { usage: ofResponse } = await openAi.responses.create({ model: "fake/thinker", input: "Hello!", ...greedy })
    assert.strictEqual(ofResponse!.output_tokens_details.reasoning_tokens, counted)
  })

  it("end with `length` where the limit is within them", async () => {
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const { choices: [choice] } = await client.chat.completions.create({
      model: "fake/thinker",
      messages,
      max_completion_tokens: 4,
      ...greedy
    })
    assert.strictEqual(choice!.finish_reason, "length")
    assert.strictEqual(choice!.message.content ?? "", "")
    assert.strictEqual(reasoningOf(choice!.message), "Hm. H")
  })
})

describe("signed reasoning of an earlier answer", () => {
  // Of no answer that has passed through the service: its maker is not known.
  const signed = { type: "thinking", thinking: "Hm.", signature: "of another service" }
  const redacted = { type: "redacted_thinking", data: "x" }
  const use = { type: "tool_use", id: "t", name: "f", input: {} }
  const conversation = [
    { role: "user", content: "Hello!" },
    { role: "assistant", content: [signed, redacted, { type: "text", text: "I look." }, use] },
    { role: "user", content: [{ type: "tool_result", tool_use_id: "t", content: "1" }] }
  ]
  const ask = async (model: string, status = 200) => {
    const sent = upstream.seen.length
    const response = await fetch(`${service.url}/v1/messages`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({
        model,
        max_tokens: 3000,
        thinking: { type: "enabled", budget_tokens: 2000 },
        tools: [{ name: "f", input_schema: { type: "object" } }],
        messages: conversation
      })
    })
    assert.strictEqual(response.status, status, await response.text())
    const decision = await fetch(`${service.admin}/admin/decisions/${response.headers.get("x-troupe-decision")}`)
    const { attempts } = await decision.json() as { readonly attempts: ReadonlyArray<Fields> }
    return { bodies: upstream.seen.slice(sent).map(({ body }) => body as Fields), attempts }
  }

  it("goes to the provider that made it, and to no other that takes over, which the decision record says", async () => {
    answering = "anthropic"
    const { attempts, bodies } = await ask("signed")
    const [first, last] = [bodies[0]!, bodies.at(-1)!]
    assert.deepStrictEqual(first["messages"], conversation)
    assert.deepStrictEqual(first["thinking"], { type: "enabled", budget_tokens: 2000 })
    assert.deepStrictEqual(last["messages"], [
      conversation[0],
      { role: "assistant", content: [{ type: "text", text: "I look." }, use] },
      conversation[2]
    ])
    // Without thoughts before the call, it must not think.
    assert.notProperty(last, "thinking")
    assert.notProperty(attempts[0], "reasoningDropped")
    assert.propertyVal(attempts.at(-1), "reasoningDropped", true)
  })

  it("is left out in a second attempt where the host cannot read it, which the decision record says", async () => {
    answering = "anthropic"
    const { attempts, bodies } = await ask("foreign")
    assert.deepStrictEqual(bodies[0]!["messages"], conversation)
    assert.deepStrictEqual(bodies[1]!["messages"], [
      conversation[0],
      { role: "assistant", content: [{ type: "text", text: "I look." }, use] },
      conversation[2]
    ])
    assert.deepStrictEqual(attempts.map(({ reasoningDropped }) => reasoningDropped), [undefined, true])
    // Once: a host that says so of a request without it gets no third one.
    assert.lengthOf((await ask("never", 400)).attempts, 2)
  })

  it("goes to a provider of another dialect as text alone, which the decision record says", async () => {
    answering = "openai"
    const { attempts, bodies } = await ask("unsigned")
    assert.deepStrictEqual((bodies[0]!["messages"] as ReadonlyArray<Fields>)[1], {
      role: "assistant",
      content: "I look.",
      reasoning_content: "Hm.",
      tool_calls: [{ id: "t", type: "function", function: { name: "f", arguments: "{}" } }]
    })
    assert.propertyVal(attempts[0], "reasoningDropped", true)
  })
})

describe("the effort that a response echoes", () => {
  it.each([
    ["fake/thinker", "high"],
    ["fake/plain", "none"],
    ["unsigned", "high"]
  ])("of %s is %s", async (model, expected) => {
    answering = "openai"
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const body = { model, input: "Hello!", reasoning: { effort: "high" } } as const
    assert.strictEqual((await client.responses.create(body)).reasoning?.effort, expected)
    const efforts: Array<unknown> = []
    for await (const event of await client.responses.create({ ...body, stream: true })) {
      if (event.type === "response.completed") efforts.push(event.response.reasoning?.effort)
    }
    assert.deepStrictEqual(efforts, [expected])
    const { reasoning } = await client.responses.create({ model, input: "Hello!" })
    assert.isNull(reasoning?.effort)
  })
})
