/** Answers that continue on another deployment, over HTTP: first a faulty engine, then tiny-chat. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const file = new URL("../../models/tiny-chat-q8_0.gguf", import.meta.url).pathname

// A token of the fake engine is three bytes, so each of these is cut between two words.
const yaml = `
models:
  fake/cut:
    preload: false
    policy: goes-on
    fallbacks: [tiny-chat]
    deployments:
      - { engine: fake, reply: The capital of France is Rome., fault: { kind: error, afterTokens: 5 } }
  fake/stays:
    preload: false
    fallbacks: [tiny-chat]
    deployments:
      - { engine: fake, reply: The capital of France is Rome., fault: { kind: error, afterTokens: 5 } }
  fake/crash:
    preload: false
    policy: goes-on
    deployments:
      - { engine: fake, reply: one two three four, quality: 0.9, tokenDelayMs: 20, fault: { kind: abort, afterTokens: 3 } }
      - { engine: fake, reply: one two three four, quality: 0.8 }
  tiny-chat:
    deployments: [{ engine: llama, file: ${file} }]
policies:
  goes-on: { strategy: quality, retries: 0, continue: true }
`

let service: Service

beforeAll(async () => {
  service = await startService(yaml)
})

afterAll(() => service.stop())

const question = { role: "user", content: "What is the capital of Japan?" } as const

const ask = (model: string, headers: Record<string, string> = {}, more: object = {}) =>
  fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", ...headers },
    body: JSON.stringify({ model, messages: [question], temperature: 0, stream: true, ...more })
  })

interface Chunk {
  readonly choices: ReadonlyArray<{
    readonly delta: { readonly content?: string }
    readonly finish_reason: string | null
  }>
  readonly usage?: { readonly completion_tokens: number }
  readonly troupe?: { readonly handoff: { readonly deployment: string } }
}

const chunksOf = async (response: Response): Promise<ReadonlyArray<Chunk>> =>
  (await response.text()).split("\n\n").filter((frame) => frame.startsWith("data: {"))
    .map((frame) => JSON.parse(frame.slice("data: ".length)) as Chunk)

const contentOf = (chunks: ReadonlyArray<Chunk>): string =>
  chunks.map(({ choices }) => choices?.[0]?.delta.content ?? "").join("")

describe("a stream whose engine fails in the middle", () => {
  it("continues with the real model's text, after a chunk that announces the handoff", async () => {
    const response = await ask("fake/cut", {}, { stream_options: { include_usage: true } })
    const chunks = await chunksOf(response)
    assert.strictEqual(contentOf(chunks), "The capital of Japan is Tokyo.")
    const at = chunks.findIndex(({ troupe }) => troupe !== undefined)
    assert.deepStrictEqual(chunks[at]!.troupe, { handoff: { deployment: "tiny-chat#0" } })
    assert.deepStrictEqual(chunks[at]!.choices[0]!.delta, {})
    assert.strictEqual(contentOf(chunks.slice(0, at)), "The capital of ")
    assert.strictEqual(chunks.filter(({ troupe }) => troupe !== undefined).length, 1)
    assert.strictEqual(chunks.at(-2)!.choices[0]!.finish_reason, "stop")
    assert.isAbove(chunks.at(-1)!.usage!.completion_tokens, 5)
    // The headers describe the start of the answer.
    assert.strictEqual(response.headers.get("x-troupe-deployment"), "fake/cut#0")
    assert.strictEqual(response.headers.get("x-troupe-attempts"), "1")
  })

  it("continues if only the request enables it, by a header or its body", async () => {
    const ways: ReadonlyArray<readonly [headers: Record<string, string>, more: object]> = [
      [{ "x-troupe-continue": "true" }, {}],
      [{}, { troupe: { continue: true } }]
    ]
    for (const [headers, more] of ways) {
      const chunks = await chunksOf(await ask("fake/stays", headers, more))
      assert.strictEqual(contentOf(chunks), "The capital of Japan is Tokyo.")
    }
  })

  it("ends with the error if neither enables it, or the request disables it", async () => {
    for (const response of [await ask("fake/stays"), await ask("fake/cut", { "x-troupe-continue": "false" })]) {
      const text = await response.text()
      assert.include(text, "engine_failed")
      assert.notInclude(text, "[DONE]")
      assert.notInclude(text, "Tokyo")
    }
  })

  it("rejects a header value other than true and false", async () => {
    const response = await ask("fake/stays", { "x-troupe-continue": "perhaps" })
    assert.strictEqual(response.status, 400)
    assert.include(await response.text(), "\"param\":\"x-troupe-continue\"")
  })

  it("continues after a native abort of its engine", async () => {
    const chunks = await chunksOf(await ask("fake/crash"))
    assert.strictEqual(contentOf(chunks), "one two three four")
    assert.deepStrictEqual(chunks.flatMap(({ troupe }) => troupe === undefined ? [] : [troupe.handoff.deployment]), [
      "fake/crash#1"
    ])
  })

  it("continues a text completion after its prompt", async () => {
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const options = { prompt: "Q: What is the capital of Japan?\nA: ", max_tokens: 12, temperature: 0 }
    const models = new Set<string>()
    const textOf = async (model: string, more: object = {}) => {
      let text = ""
      for await (const part of await client.completions.create({ ...options, ...more, model, stream: true })) {
        text += part.choices[0]!.text
        models.add(part.model)
      }
      return text
    }
    const rest = await textOf("tiny-chat", { prompt: `${options.prompt}The capital of`, max_tokens: 7 })
    models.clear()
    assert.strictEqual(await textOf("fake/cut"), `The capital of${rest}`)
    assert.deepStrictEqual([...models], ["fake/cut", "tiny-chat"])
  })

  it("is compatible with OpenAI's own client", async () => {
    const client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
    const stream = client.chat.completions.stream({ model: "fake/cut", messages: [question], temperature: 0 })
    assert.strictEqual(await stream.finalContent(), "The capital of Japan is Tokyo.")
  })
})

describe("continue_final_message", () => {
  const begun = { role: "assistant", content: "The capital of Japan" } as const

  it("continues the assistant's last message", async () => {
    const response = await ask("tiny-chat", {}, {
      messages: [question, begun],
      continue_final_message: true,
      stream: false
    })
    const { choices } = await response.json() as {
      readonly choices: ReadonlyArray<{ readonly message: { readonly content: string } }>
    }
    assert.strictEqual(choices[0]!.message.content, " is Tokyo.")
  })

  it("is rejected without such a message, or with a format", async () => {
    const wrong = [
      { messages: [question] },
      { messages: [begun] },
      { messages: [question, { ...begun, content: "" }] },
      { messages: [question, begun], response_format: { type: "json_object" } }
    ]
    for (const more of wrong) {
      const response = await ask("tiny-chat", {}, { ...more, continue_final_message: true })
      assert.strictEqual(response.status, 400)
      assert.include(await response.text(), "\"param\":\"continue_final_message\"")
    }
  })
})
