/** `n` of a model whose deployments support it in one call, with a fallback model. */
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { Fields } from "../support/Answers.ts"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const json = { "content-type": "application/json" }

const refused = {
  id: "c",
  object: "chat.completion",
  created: 1,
  model: "up",
  choices: [{ index: 0, message: { role: "assistant", content: null, refusal: "No." }, finish_reason: "stop" }],
  usage: { prompt_tokens: 1, completion_tokens: 1, total_tokens: 2 }
}
const message = {
  id: "msg_1",
  type: "message",
  role: "assistant",
  model: "up",
  content: [{ type: "text", text: "From Anthropic" }],
  stop_reason: "end_turn",
  stop_sequence: null,
  usage: { input_tokens: 3, output_tokens: 2 }
}

/** The beginning of a streamed answer, whose rest does not come. */
const begun = [
  { type: "message_start", message: { ...message, content: [], stop_reason: null } },
  { type: "content_block_start", index: 0, content_block: { type: "text", text: "" } },
  { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "From" } }
].map((event) => `event: ${event.type}\ndata: ${JSON.stringify(event)}\n\n`)

let upstream: FaultServer
let service: Service

beforeAll(async () => {
  upstream = await startFaultServer((_, { path }) => {
    if (path.startsWith("/streams/")) return { pieces: begun, gated: true }
    if (path.endsWith("/messages")) return { headers: json, pieces: [JSON.stringify(message)] }
    return path.startsWith("/refuses")
      ? { headers: json, pieces: [JSON.stringify(refused)] }
      : { status: 500, headers: json, pieces: ["{\"error\":{\"message\":\"down\"}}"] }
  })
  const openAi = (path: string) =>
    `[{ provider: openai, model: up, baseUrl: "${upstream.url}/${path}", stream: false }]`
  service = await startService(
    `
circuits: { failures: 1000 }
policies:
  default: { retries: 0 }
models:
  local-behind: { fallbacks: [fake/local], deployments: ${openAi("fails")} }
  anthropic-behind: { fallbacks: [anthropic], deployments: ${openAi("fails")} }
  content-behind: { contentFallbacks: [fake/local], deployments: ${openAi("refuses")} }
  refuses: { deployments: ${openAi("refuses")} }
  stream-behind: { fallbacks: [anthropic-stream], deployments: ${openAi("fails")} }
  anthropic-stream: { deployments: [{ provider: anthropic, model: up, baseUrl: "${upstream.url}/streams", key: "\${K}" }] }
  anthropic:
    deployments:
      - { provider: anthropic, model: up, baseUrl: "${upstream.url}", key: "\${K}", stream: false }
  fake/local: { preload: false, deployments: [{ engine: fake, reply: Here }] }
`,
    { K: "key" }
  )
}, 60_000)

afterAll(async () => {
  await service.stop()
  await upstream.close()
})

const messages = [{ role: "user" as const, content: "Hi" }]

describe("several choices of a model whose deployment fails", () => {
  const client = () => new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "none", maxRetries: 0 })
  const contentsOf = ({ choices }: OpenAI.ChatCompletion) =>
    choices.map(({ finish_reason, index, message }) => [index, message.content, finish_reason])

  it.each<[model: string, text: string]>([
    ["local-behind", "Here"],
    ["anthropic-behind", "From Anthropic"],
    ["content-behind", "Here"]
  ])("come from the fallback model: %s", async (model, text) => {
    const before = upstream.seen.length
    const expected = [0, 1, 2].map((index) => [index, text, "stop"])
    const request = { model, n: 3, messages }
    assert.deepStrictEqual(contentsOf(await client().chat.completions.create(request)), expected)
    assert.strictEqual((upstream.seen[before]!.body as Fields)["n"], 3)
    const streamed = await client().chat.completions.stream(request).finalChatCompletion()
    assert.deepStrictEqual(contentsOf(streamed), expected)
  })

  it("return the provider's error without a fallback", async () => {
    const request = { model: "refuses", n: 2, messages }
    const buffered = await client().chat.completions.create(request)
    assert.strictEqual(buffered.choices[0]!.message.refusal, "No.")
    const streamed = await client().chat.completions.stream(request).finalChatCompletion()
    assert.strictEqual(streamed.choices[0]!.message.refusal, "No.")
  })

  it.each([1, 2])("have the headers of the routing when a provider refuses them: n = %i", async (n) => {
    for (const stream of [false, true]) {
      const response = await fetch(`${service.url}/v1/chat/completions`, {
        method: "POST",
        headers: json,
        body: JSON.stringify({ model: "refuses", n, messages, stream })
      })
      assert.include(await response.text(), "No.")
      assert.strictEqual(response.headers.get("x-troupe-attempts"), "1", `stream: ${stream}`)
      assert.match(response.headers.get("x-troupe-decision") ?? "", /^dec-/, `stream: ${stream}`)
    }
  })

  it("are requested of a fallback model together, once its first answer begins, and end together", async () => {
    const first = upstream.seen.length
    const leaving = new AbortController()
    const response = await fetch(`${service.url}/v1/chat/completions`, {
      method: "POST",
      headers: json,
      body: JSON.stringify({ model: "stream-behind", n: 3, messages, stream: true }),
      signal: leaving.signal
    })
    assert.strictEqual(response.status, 200)
    // Each choice is requested of the model's own deployment first, which fails.
    const requests = Array.from({ length: 6 }, (_, index) => first + index)
    await Promise.all(requests.map(upstream.came))
    const choices = requests.filter((index) => upstream.seen[index]!.path.startsWith("/streams/"))
    assert.lengthOf(choices, 3)
    leaving.abort()
    await Promise.all(choices.map(upstream.left))
  })
})
