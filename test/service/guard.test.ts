/** The input policy of a service: what a provider, a webhook and the service's own outputs see of secrets. */
import Anthropic from "@anthropic-ai/sdk"
import { assert } from "@effect/vitest"
import OpenAI from "openai"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer, Play } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService, until } from "../support/Service.ts"

const email = "alice@example.com"
const card = "4111 1111 1111 1111"
/** In no rule: only outputs must not have them. */
const phrase = "the-quiet-phrase"
const callerKey = "caller-bearer-token-1234"
const providerKey = "provider-secret-5678"
const secrets = [email, card, phrase, callerKey, providerKey]

const chunk = (delta: object, finish_reason: string | null = null) =>
  `data: ${
    JSON.stringify({
      id: "c",
      object: "chat.completion.chunk",
      created: 1,
      model: "up",
      choices: [{ index: 0, delta, finish_reason }]
    })
  }\n\n`

const streamed: Play = {
  pieces: [
    chunk({ role: "assistant", content: "" }),
    chunk({ content: "Write to [EM" }),
    chunk({ content: "AIL_" }),
    chunk({ content: "1]." }),
    chunk({
      tool_calls: [{ index: 0, id: "t", type: "function", function: { name: "mail", arguments: "{\"to\":\"[EMA" } }]
    }),
    chunk({ tool_calls: [{ index: 0, function: { arguments: "IL_1]\"}" } }] }),
    chunk({}, "tool_calls"),
    "data: [DONE]\n\n"
  ]
}

const whole: Play = {
  headers: { "content-type": "application/json" },
  pieces: [JSON.stringify({
    id: "c",
    object: "chat.completion",
    created: 1,
    model: "up",
    system_fingerprint: "fp",
    choices: [{ index: 0, message: { role: "assistant", content: "Write to [EMAIL_1]." }, finish_reason: "stop" }],
    usage: { prompt_tokens: 3, completion_tokens: 2, total_tokens: 5 }
  })]
}

const failing: Play = {
  status: 500,
  headers: { "content-type": "application/json" },
  pieces: [JSON.stringify({ error: { message: `Cannot answer ${email} ${phrase} with ${providerKey}` } })]
}

let upstream: FaultServer
let webhook: FaultServer
let service: Service

beforeAll(async () => {
  upstream = await startFaultServer((_, { body }) => {
    const { model, stream } = body as { readonly model: string; readonly stream?: boolean }
    return model === "broken" ? failing : stream === true ? streamed : whole
  })
  webhook = await startFaultServer((_, { body }) => ({
    headers: { "content-type": "application/json" },
    pieces: [JSON.stringify({ action: JSON.stringify(body).includes("forbidden") ? "reject" : "allow" })]
  }))
  const remote = (model: string) =>
    `{ provider: openai, model: ${model}, baseUrl: "${upstream.url}", key: "\${PROVIDER_KEY}" }`
  service = await startService(
    `
logLevel: debug
guard:
  rules: { email: redact, card: reject }
  webhook: { url: "${webhook.url}/check" }
models:
  up: { deployments: [${remote("up")}] }
  broken: { deployments: [${remote("broken")}] }
`,
    { PROVIDER_KEY: providerKey }
  )
})
afterAll(async () => {
  await service.stop()
  await upstream.close()
  await webhook.close()
})

const openai = () => new OpenAI({ baseURL: `${service.url}/v1`, apiKey: callerKey, maxRetries: 0 })

const messages = [{ role: "user" as const, content: `Write to ${email}: ${phrase}` }]

const lastSent = () => upstream.seen.at(-1)!.text

describe("a redacted value", () => {
  it("reaches no provider of the caller's dialect, and is in the answer and its header", async () => {
    const { data, response } = await openai().chat.completions.create({ model: "up", messages, user: email })
      .withResponse()
    assert.strictEqual(data.choices[0]!.message.content, `Write to ${email}.`)
    assert.strictEqual(data.system_fingerprint, "fp")
    assert.strictEqual(response.headers.get("x-troupe-redacted"), "EMAIL")
    assert.notInclude(lastSent(), email)
    assert.include(lastSent(), "Write to [EMAIL_1]")
    assert.include(lastSent(), "\"user\":\"[EMAIL_1]\"")
  })

  it("reaches no provider in parts of a message that cut it, or in the arguments of a call", async () => {
    const { response } = await openai().chat.completions.create({
      model: "up",
      messages: [
        { role: "user", content: [{ type: "text", text: "Write to alice@" }, { type: "text", text: "example.com" }] },
        {
          role: "assistant",
          content: null,
          tool_calls: [{
            id: "t",
            type: "function",
            function: { name: "mail", arguments: "{\"to\":\"\\nalice\\u0040example.com\"}" }
          }]
        },
        { role: "tool", tool_call_id: "t", content: "{\"sent\":\"alice\\u0040example.com\"}" }
      ]
    }).withResponse()
    assert.strictEqual(response.headers.get("x-troupe-redacted"), "EMAIL")
    const { messages: [first, second, third] } = JSON.parse(lastSent())
    assert.deepStrictEqual(first.content, [{ type: "text", text: "Write to [EMAIL_1]" }])
    assert.deepStrictEqual(JSON.parse(second.tool_calls[0].function.arguments), { to: "\n[EMAIL_1]" })
    assert.strictEqual(third.content, "{\"sent\":\"[EMAIL_1]\"}")
  })

  it("is restored in a stream whose chunks cut the placeholder, in texts and in calls", async () => {
    const stream = await openai().chat.completions.create({ model: "up", messages, stream: true })
    let text = ""
    let call = ""
    for await (const { choices: [choice] } of stream) {
      text += choice?.delta.content ?? ""
      call += choice?.delta.tool_calls?.[0]?.function?.arguments ?? ""
    }
    assert.deepStrictEqual([text, call], [`Write to ${email}.`, JSON.stringify({ to: email })])
    assert.notInclude(lastSent(), email)
  })

  it("is restored for a caller of another dialect", async () => {
    const client = new Anthropic({ baseURL: service.url, apiKey: callerKey, maxRetries: 0 })
    const { content } = await client.messages.create({ model: "up", messages, max_tokens: 9 })
    assert.deepInclude(content[0], { type: "text", text: `Write to ${email}.` })
    assert.notInclude(lastSent(), email)
  })

  it("does not reach the webhook, whose verdict counts", async () => {
    await openai().chat.completions.create({ model: "up", messages })
    assert.deepInclude(webhook.seen.at(-1)!.body, {
      stage: "before",
      operation: "chat",
      model: "up",
      texts: [{ role: "user", text: `Write to [EMAIL_1]: ${phrase}` }]
    })
    const before = upstream.seen.length
    const error = await openai().chat.completions.create({
      model: "up",
      messages: [{ role: "user", content: "forbidden" }]
    }).then(() => undefined, (error: unknown) => error)
    assert.deepInclude(error, { status: 400, code: "content_policy_violation" })
    assert.lengthOf(upstream.seen, before)
  })
})

describe("a secret", () => {
  it("is in no log, metric, decision record or error", async () => {
    const errors: Array<string> = []
    const ask = (body: object) =>
      openai().chat.completions.create({ model: "up", messages, stop: [phrase], ...body }).then(
        () => undefined,
        (error: unknown) => errors.push(JSON.stringify(error) + String(error))
      )
    await ask({})
    await ask({ model: "broken" })
    await ask({ messages: [{ role: "user", content: card }] })
    await ask({ temperature: phrase })
    await ask({ stream: true })
    assert.lengthOf(errors, 3)
    const get = async (url: string) => (await fetch(url)).text()
    const metrics = await get(`${service.url}/metrics`)
    assert.match(metrics, /llm_security_events_total\{[^}]*rule="card"[^}]*\} 1/)
    const decisions = await get(`${service.admin}/admin/decisions`)
    assert.include(decisions, "broken")
    await until(() => /rule card/.exec(service.process.output().stdout + service.process.output().stderr)?.[0])
    const { stderr, stdout } = service.process.output()
    const found = Object.entries({ metrics, decisions, stderr, stdout }).flatMap(([name, output]) =>
      secrets.filter((secret) => output.includes(secret)).map((secret) => `${name}: ${secret}`)
    )
    assert.deepStrictEqual(found, [])
    // The provider's message is the caller's, without keys.
    for (const key of [callerKey, providerKey]) assert.notInclude(errors.join(""), key)
  })
})
