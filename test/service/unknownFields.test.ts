/** Unknown fields, by dialect and topology: which are rejected, and which deployments get the request. */
import { assert } from "@effect/vitest"
import { afterAll, beforeAll, describe, it } from "vitest"
import type { FaultServer } from "../support/FaultServer.ts"
import { startFaultServer } from "../support/FaultServer.ts"
import type { Service } from "../support/Service.ts"
import { startService } from "../support/Service.ts"

const completion = JSON.stringify({
  choices: [{ index: 0, message: { role: "assistant", content: "remote" }, finish_reason: "stop" }],
  usage: { prompt_tokens: 1, completion_tokens: 1 }
})

let answer = completion
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
  mixed:
    deployments: [${remote}, ${elsewhere}]
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
  const text = await response.text()
  const json = (text.startsWith("{") ? JSON.parse(text) : {}) as Answer
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
  ["stopp", ["x"], "stop"],
  ["resoning_effort", "low", "reasoning_effort"],
  ["reasoning_effort", "vast"],
  ["prediction", { type: "content", content: "a" }],
  ["web_search_options", {}],
  ["top_a", 0.5],
  ["a_field_of_tomorrow", { deep: [1] }],
  ["topP", 1, "top_p"],
  ["maxTokens", 5, "max_tokens"],
  ["toolChoice", "none", "tool_choice"],
  ["format", "json"],
  ["assistantPrefix", "x"]
]

describe("an unknown field in OpenAI's dialect", () => {
  for (const [name, value, meant] of fields) {
    describe(name, () => {
      for (const model of ["fake/local", "fake/guarded", "anthropic-first"]) {
        it(`is rejected by name by ${model}, and nothing is sent`, async () => {
          const { json: { error }, sent, status } = await chat({ model, [name]: value })
          assert.deepStrictEqual([status, error?.type, error?.param], [400, "invalid_request_error", name])
          assert.lengthOf(sent, 0)
          if (meant === undefined) assert.notInclude(error?.message, "Did you mean")
          else assert.include(error?.message, `Did you mean ${meant}?`)
        })
      }

      it("reaches a model with remote deployments only unchanged", async () => {
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

  it("is rejected within a message, too", async () => {
    const messages = [{ role: "user", content: "A secret.", tool_call_idd: "x" }]
    const { json: { error }, sent, status } = await chat({ model: "fake/guarded", messages })
    assert.deepStrictEqual([status, error?.param, sent.length], [400, "messages[0].tool_call_idd", 0])
    assert.include(error?.message, "Did you mean tool_call_id?")
  })
})

/** Nested fields, with the path of the error and the end of its message. */
const nested: ReadonlyArray<readonly [body: object, path: string, message: RegExp]> = [
  [{ stream: true, stream_options: { include_usge: true } }, "stream_options.include_usge", /mean include_usage\?/],
  [{ stream: true, stream_options: { xyz: 1 } }, "stream_options.xyz", /Remove it/],
  [{ response_format: { type: "json_object", schemaa: {} } }, "response_format.schemaa", /Remove it/],
  [
    { response_format: { type: "json_schema", json_schema: { schemaa: {} } } },
    "response_format.json_schema.schemaa",
    /mean schema\?/
  ],
  [
    {
      tools: [{ type: "function", function: { name: "f" } }],
      tool_choice: { type: "function", function: { name: "f", foo: 1 } }
    },
    "tool_choice.function.foo",
    /Remove it/
  ],
  [{ response_format: { type: "json" } }, "response_format.type", /Expected "text", "json_object" or "json_schema"/],
  [{ response_format: { type: "jsonschema" } }, "response_format.type", /mean "json_schema"\?/],
  [
    { messages: [{ role: "user", content: [{ type: "txt", text: "A secret." }] }] },
    "messages[0].content[0].type",
    /Expected "text" or "image_url".*mean "text"\?/
  ],
  [{ messages: [{ role: "user", content: "A secret.", nme: "me" }] }, "messages[0].nme", /mean name\?/]
]

describe("a nested field or type in OpenAI's dialect", () => {
  it.each(nested)("is rejected by its path if it is invalid, and nothing is sent: %j", async (body, path, message) => {
    for (const model of ["fake/local", "fake/guarded", "anthropic-first"]) {
      const { json: { error }, sent, status } = await chat({ model, ...body })
      assert.deepStrictEqual([status, error?.param, sent.length], [400, path, 0])
      assert.match(error!.message, message)
    }
  })

  it.each(nested.filter(([, , message]) => message.source.includes("mean ")))(
    "does not select a deployment if it is misspelt: %j",
    async (body, path) => {
      const { json: { error }, sent, status } = await chat({ model: "mixed", ...body })
      assert.deepStrictEqual([status, error?.param, sent.length], [400, path, 0])
    }
  )

  it.each(nested.filter(([body]) => !("stream" in body)))(
    "reaches a model with remote deployments only unchanged: %j",
    async (body) => {
      const { sent } = await chat({ model: "remote", ...body })
      assert.deepInclude<object>(
        sent[0]?.body as object,
        JSON.parse(JSON.stringify(body).replace("\"stream\":true,", ""))
      )
    }
  )
})

describe("a misspelt documented field", () => {
  it("does not select a deployment", async () => {
    const { json: { error }, sent, status } = await chat({ model: "mixed", resoning_effort: "low" })
    assert.deepStrictEqual([status, error?.param, sent.length], [400, "resoning_effort", 0])
  })
})

describe("a nested field or type in Anthropic's dialect", () => {
  const block = (type: string) => ({ messages: [{ role: "user", content: [{ type, text: "A secret." }] }] })
  const image = { messages: [{ role: "user", content: [{ type: "image", source: { type: "base46", data: "" } }] }] }
  const cases: ReadonlyArray<readonly [body: object, message: string, isMisspelt: boolean]> = [
    [
      block("txt"),
      "messages[0].content[0].type: Expected \"text\", \"image\", \"tool_use\" or \"tool_result\", got \"txt\"",
      true
    ],
    [block("nonsense"), "messages[0].content[0].type: Expected", false],
    [
      image,
      "messages[0].content[0].source.type: Expected \"base64\" or \"url\", got \"base46\". Did you mean \"base64\"?",
      true
    ],
    [{ metadata: { user_idd: "x" } }, "metadata.user_idd: Unknown field. Did you mean user_id?", true]
  ]
  it.each(cases)("is rejected by its path if it is invalid: %j", async (body, message, isMisspelt) => {
    for (const path of ["/v1/messages", "/v1/messages/count_tokens"]) {
      if (path.endsWith("count_tokens") && "metadata" in body) continue
      for (const model of isMisspelt ? ["fake/local", "mixed"] : ["fake/local"]) {
        const fields = path.endsWith("count_tokens") ? { max_tokens: undefined } : {}
        const { json: { error }, sent, status } = await post(path, { model, ...fields, ...body })
        assert.deepStrictEqual([status, sent.length], [400, 0])
        assert.include(error?.message, message)
      }
    }
  })
})

const vectors = JSON.stringify({ data: [{ index: 0, embedding: [1] }], usage: { prompt_tokens: 1 } })

/** Bodies of other endpoints with the invalid field's path and the suggested name. */
type TaskCase = [path: string, body: object, field: string, meant?: string]
const tasks: Array<TaskCase> = [
  ["/v1/embeddings", { input: "A secret.", dimension: 3 }, "dimension", "dimensions"],
  ["/v1/embeddings", { input: "A secret.", encodingformat: "float" }, "encodingformat", "encoding_format"],
  ["/v1/embeddings", { input: "A secret.", priorty: "low" }, "priorty", "priority"],
  ["/v1/embeddings", { input: "A secret.", xyz: 1 }, "xyz"],
  ["/v1/embeddings", { inputs: ["A secret."] }, "inputs", "input"],
  ["/v1/rerank", { query: "q", docs: ["A secret."] }, "docs", "documents"],
  ["/v1/rerank", { query: "q", documents: ["A secret."], topn: 1 }, "topn", "top_n"],
  ["/v1/rerank", { query: "q", documents: [{ text: "A secret.", titel: "x" }] }, "documents[0].titel"],
  ["/v1/classify", { input: "A secret.", model_name: "x" }, "model_name"],
  ["/v1/tokenize", { prompt: "A secret.", add_special_token: true }, "add_special_token"],
  ["/v1/tokenize", { promt: "A secret." }, "promt", "prompt"],
  [
    "/v1/tokenize",
    { messages: [{ role: "user", content: "A secret.", tool_cals: [] }] },
    "messages[0].tool_cals",
    "tool_calls"
  ],
  ["/v1/messages/count_tokens", { messages: [{ role: "user", content: "A secret." }], sytem: "x" }, "sytem", "system"]
]

describe("a field unknown to every endpoint", () => {
  it.each<TaskCase>(tasks)("is rejected by %s: %j", async (...[path, body, field, meant]) => {
    const only = path === "/v1/messages/count_tokens" ? {} : { messages: undefined, max_tokens: undefined }
    const { json: { error }, sent, status } = await post(path, {
      model: "fake/local",
      ...only,
      ...body,
      max_tokens: undefined
    })
    assert.deepStrictEqual([status, sent.length], [400, 0])
    assert.include(`${error?.param} ${error?.message}`, field)
    if (meant === undefined) assert.notInclude(error?.message, "Did you mean")
    else assert.include(error?.message, `Did you mean ${meant}?`)
  })

  it("reaches a provider of embeddings unchanged", async () => {
    answer = vectors
    const { sent, status } = await post("/v1/embeddings", { model: "remote", messages: undefined, input: "a", xyz: 1 })
    assert.strictEqual(status, 200)
    assert.deepInclude<object>(sent[0]?.body as object, { input: "a", xyz: 1 })
  })
})

describe("an unknown field in Anthropic's dialect", () => {
  for (const [name, meant] of [["temprature", "temperature"], ["stop_sequence", "stop_sequences"]] as const) {
    it(`is rejected by name: ${name}`, async () => {
      for (const model of ["fake/local", "fake/guarded"]) {
        const { json: { error }, sent, status } = await post("/v1/messages", { model, [name]: 1 })
        assert.deepStrictEqual([status, error?.type, sent.length], [400, "invalid_request_error", 0])
        assert.include(error?.message, name)
        assert.include(error?.message, `Did you mean ${meant}?`)
      }
    })
  }
})

describe("a request without unknown fields", () => {
  it("is answered by the local model", async () => {
    const { json, sent, status } = await chat({ model: "fake/guarded" })
    assert.deepStrictEqual([status, json.choices?.[0]?.message.content, sent.length], [200, "local", 0])
  })
})
