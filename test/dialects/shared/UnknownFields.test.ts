/** Which unknown fields a dialect does not have. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as Anthropic from "../../../src/dialects/anthropic/DecodeRequest.ts"
import * as Ollama from "../../../src/dialects/ollama/DecodeRequest.ts"
import * as OpenAi from "../../../src/dialects/openai/DecodeRequest.ts"
import { foreignFields } from "../../../src/dialects/shared/UnknownFields.ts"
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
      guided_regex: "a",
      top_a: 0.5,
      messages: [{ role: "user", content: [{ type: "video_url", video_url: { url: "http://a.example" } }] }]
    })
    assert.sameMembers(foreignFields(source).map(({ path }) => formatPath(path)), [
      "guided_regex",
      "top_a",
      "messages[0].content[0]"
    ])
  })
})
