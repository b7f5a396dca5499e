/** Fields that Troupe does not know, by dialect and topology: which are refused, and where a prompt is sent. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const answer = JSON.stringify({
  choices: [{ index: 0, message: { role: "assistant", content: "remote" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 1, completion_tokens: 1 }
})

let upstream: FaultServer
let service: Service

beforeAll(async () => {
  upstream = await startFaultServer(() => ({ headers: { "content-type": "application/json" }, pieces: [answer] }))
  const remote = `{ provider: openai, model: gpt, baseUrl: "${upstream.url}", stream: false }`
  const elsewhere = `{ provider: anthropic, model: claude, baseUrl: "${upstream.url}", stream: false }`
  service = await startService(`
models:
  fake/local:
    deployments: [{ engine: fake, reply: local }]
  fake/guarded:
    fallbacks: [remote]
    contextFallbacks: [remote]
    contentFallbacks: [remote]
    deployments: [{ engine: fake, reply: local }]
  anthropic-first:
    fallbacks: [remote]
    deployments: [${elsewhere}]
  remote:
    deployments: [${remote}]
`)
})
afterAll(async () => {
  await service.stop()
  await upstream.close()
})

interface Answer {
  readonly choices?: ReadonlyArray<{ readonly message: { readonly content: string } }>
  readonly error?: { readonly message: string; readonly param?: string | null; readonly type: string }
}

const post = async (path: string, body: object) => {
  const before = upstream.seen.length
  const response = await fetch(`${service.url}${path}`, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ messages: [{ role: "user", content: "A secret." }], max_tokens: 9, ...body })
  })
  const json = await response.json() as Answer
  return { status: response.status, json, sent: upstream.seen.slice(before) }
}

const chat = (body: object) => post("/v1/chat/completions", body)

/** A field with its probable meaning, if it is misspelt. */
const fields: ReadonlyArray<readonly [name: string, value: unknown, meant?: string]> = [
  ["temprature", 0.1, "temperature"],
  ["respone_format", { type: "json_object" }, "response_format"],
  ["tool_choise", "none", "tool_choice"],
  ["Temperature", 0, "temperature"],
  ["maxtokens", 5, "max_tokens"],
  ["reasoning_effort", "low"],
  ["web_search_options", {}],
  ["top_a", 0.5],
  ["a_field_of_tomorrow", { deep: [1] }]
]

describe("a field that Troupe does not know, in OpenAI's dialect,", () => {
  for (const [name, value, meant] of fields) {
    describe(name, () => {
      for (const model of ["fake/local", "fake/guarded", "anthropic-first"]) {
        it(`is refused by name by ${model}, and nothing is sent`, async () => {
          const { json: { error }, sent, status } = await chat({ model, [name]: value })
          assert.deepStrictEqual([status, error?.type, error?.param], [400, "invalid_request_error", name])
          assert.lengthOf(sent, 0)
          if (meant === undefined) assert.notInclude(error?.message, "Did you mean")
          else assert.include(error?.message, `Did you mean ${meant}?`)
        })
      }

      it("reaches a model that is remote alone as it is", async () => {
        const { json, sent, status } = await chat({ model: "remote", [name]: value })
        assert.deepStrictEqual([status, json.choices?.[0]?.message.content], [200, "remote"])
        assert.deepInclude<object>(sent[0]?.body as object, { [name]: value })
      })

      it(meant === undefined ? "goes to a fallback that the request names" : "goes to no fallback at all", async () => {
        const { json, sent, status } = await chat({
          model: "fake/guarded",
          [name]: value,
          troupe: { fallbacks: ["remote"] }
        })
        if (meant === undefined) {
          assert.deepStrictEqual([status, json.choices?.[0]?.message.content], [200, "remote"])
        } else assert.deepStrictEqual([status, json.error?.param, sent.length], [400, name, 0])
      })
    })
  }

  it("is refused within a message, too", async () => {
    const messages = [{ role: "user", content: "A secret.", tool_call_idd: "x" }]
    const { json: { error }, sent, status } = await chat({ model: "fake/guarded", messages })
    assert.deepStrictEqual([status, error?.param, sent.length], [400, "messages[0].tool_call_idd", 0])
    assert.include(error?.message, "Did you mean tool_call_id?")
  })
})

describe("a field that Troupe does not know, in Anthropic's dialect,", () => {
  for (const [name, meant] of [["temprature", "temperature"], ["stop_sequence", "stop_sequences"]] as const) {
    it(`is refused by name: ${name}`, async () => {
      for (const model of ["fake/local", "fake/guarded"]) {
        const { json: { error }, sent, status } = await post("/v1/messages", { model, [name]: 1 })
        assert.deepStrictEqual([status, error?.type, sent.length], [400, "invalid_request_error", 0])
        assert.include(error?.message, name)
        assert.include(error?.message, `Did you mean ${meant}?`)
      }
    })
  }
})

describe("no field", () => {
  it("leaves the local model to answer", async () => {
    const { json, sent, status } = await chat({ model: "fake/guarded" })
    assert.deepStrictEqual([status, json.choices?.[0]?.message.content, sent.length], [200, "local", 0])
  })
})
