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

let upstream: FaultServer
let service: Service

beforeAll(async () => {
  upstream = await startFaultServer((_, { path }) => {
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
    const whole = await client().chat.completions.create(request)
    assert.strictEqual(whole.choices[0]!.message.refusal, "No.")
    const streamed = await client().chat.completions.stream(request).finalChatCompletion()
    assert.strictEqual(streamed.choices[0]!.message.refusal, "No.")
  })
})
