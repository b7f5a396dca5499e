/** Which unknown fields a dialect does not have. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Anthropic from "../../../src/dialects/anthropic/DecodeRequest.ts"
import * as Ollama from "../../../src/dialects/ollama/DecodeRequest.ts"
import * as OpenAi from "../../../src/dialects/openai/DecodeRequest.ts"
import { foreignFields, refusedBy } from "../../../src/dialects/shared/UnknownFields.ts"
import { formatPath } from "../../../src/domain/Problem.ts"
import { requiredPaths } from "../../../src/domain/Source.ts"

type Body = Readonly<Record<string, unknown>>

const sources = {
  openai: (body: Body) =>
    Result.getOrThrow(OpenAi.decode({ model: "a", messages: [{ role: "user", content: "Hello" }], ...body }))
      .requests[0],
  anthropic: (body: Body) =>
    Result.getOrThrow(
      Anthropic.decode({ model: "a", max_tokens: 9, messages: [{ role: "user", content: "Hello" }], ...body })
    ).request,
  ollama: (body: Body) => {
    const json = { model: "a", prompt: "Hello", ...body }
    const call = Result.getOrThrow(Ollama.decodeGenerate({ json, exact: json, caller: {}, nameOf: (name) => name }))
    assert(call.type === "generation")
    return call.request
  }
}

const cases: ReadonlyArray<readonly [keyof typeof sources, Body]> = [
  ["openai", {
    audio: { voice: "alloy", format: "wav" },
    metadata: { team: "search" },
    modalities: ["text", "audio"],
    prediction: { type: "content", content: "a" },
    reasoning_effort: "low",
    service_tier: "flex",
    store: true,
    verbosity: "low",
    web_search_options: {}
  }],
  ["openai", { messages: [{ role: "user", content: [{ type: "file", file: { file_id: "f" } }] }] }],
  ["openai", { tools: [{ type: "custom", custom: { name: "f" } }] }],
  ["anthropic", {
    container: "c",
    context_management: { edits: [] },
    thinking: { type: "enabled", budget_tokens: 2_000 },
    output_config: { effort: "low" },
    tools: [{ type: "web_search_20250305", name: "web_search" }]
  }],
  ["anthropic", {
    messages: [{
      role: "user",
      content: [{ type: "document", source: { type: "text", media_type: "text/plain", data: "a" } }]
    }]
  }],
  ["ollama", { suffix: "b", raw: true, options: { mirostat: 2, repeat_last_n: 9 } }]
]

describe("unknown fields", () => {
  it.each(cases)("that %s documents are of the dialect: %j", (dialect, body) => {
    const { source } = sources[dialect](body)
    assert.isAbove(requiredPaths(source).length, 0)
    assert.deepStrictEqual(foreignFields(source), [])
  })

  it.each(Object.keys(sources) as ReadonlyArray<keyof typeof sources>)("of no API are not those of %s", (dialect) => {
    const { source } = sources[dialect]({ mood: "good", options: { mood: "good" } })
    const paths = foreignFields(source).map(({ path }) => formatPath(path))
    assert.sameMembers(paths, ["mood", dialect === "ollama" ? "options.mood" : "options"])
  })

  it("of other services that take the dialect are not the dialect's", () => {
    const { source } = sources.openai({
      prompt_logprobs: 1,
      top_a: 0.5,
      messages: [{ role: "user", content: [{ type: "video_url", video_url: { url: "http://a.example" } }] }]
    })
    assert.sameMembers(foreignFields(source).map(({ path }) => formatPath(path)), [
      "prompt_logprobs",
      "top_a",
      "messages[0].content[0]"
    ])
  })
})

const efforts = "one of \"none\", \"minimal\", \"low\", \"medium\", \"high\", \"xhigh\", \"max\""

/** A field whose value not every deployment accepts, and the values that it may have. */
const values: ReadonlyArray<readonly [keyof typeof sources, Body, path: string, expected: string]> = [
  ["openai", { reasoning_effort: "lots" }, "reasoning_effort", efforts],
  [
    "openai",
    { reasoning: { exclude: true } },
    "reasoning",
    "an object with effort, max_tokens or enabled, and without exclude: true"
  ],
  ["openai", { enable_thinking: "yes" }, "enable_thinking", "true or false"],
  ["openai", { repetition_penalty: 0 }, "repetition_penalty", "a number from 0.01 to 10"],
  ["openai", { functions: [{ name: "f" }] }, "functions", "[]"],
  ["anthropic", { output_config: { effort: "lots" } }, "output_config.effort", efforts],
  [
    "anthropic",
    { thinking: { type: "on" } },
    "thinking",
    "an object whose type is one of \"enabled\", \"adaptive\", \"disabled\""
  ],
  ["anthropic", { speed: "fast" }, "speed", "\"standard\""],
  ["ollama", { options: { mirostat: 2 } }, "options.mirostat", "0"]
]

describe("an error about a field that no deployment accepts", () => {
  it.each(values)("says which values it may have: %s, %j", (dialect, body, path, expected) => {
    const detail = `No deployment of "a" accepts this value. Expected ${expected}, or remove it.`
    assert.deepStrictEqual(refusedBy(sources[dialect](body).source!, "a"), { path, detail })
  })

  it("names the type of a part that a dialect has and no deployment accepts, such as a file", () => {
    const file = { type: "file", file: { filename: "a.pdf", file_data: "data:application/pdf;base64,JVBERi0=" } }
    const document = { type: "document", source: { type: "base64", media_type: "application/pdf", data: "JVBERi0=" } }
    const messagesOf = (part: Body): Body => ({ messages: [{ role: "user", content: [part] }] })
    for (const [dialect, part] of [["openai", file], ["anthropic", document]] as const) {
      const { detail, path } = refusedBy(sources[dialect](messagesOf(part)).source!, "a")
      assert.strictEqual(path, "messages[0].content[0]")
      assert.include(detail, `No deployment of "a" accepts this field. Its type is "${part.type}". Expected "text"`)
      assert.match(detail, /"image(?:_url)?".*, or remove it\.$/)
    }
  })

  it("is about the field where no value is accepted", () => {
    const { detail } = refusedBy(sources.openai({ prediction: { type: "content" } }).source!, "a")
    assert.strictEqual(detail, "No deployment of \"a\" accepts this field. Remove it.")
  })
})
