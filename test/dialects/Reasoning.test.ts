/** How much a model reasons: from the fields of every dialect of callers to those of every provider. */
import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import * as AnthropicRequest from "../../src/dialects/anthropic/DecodeRequest.ts"
import { anthropic } from "../../src/dialects/anthropic/Provider.ts"
import { gemini } from "../../src/dialects/gemini/Provider.ts"
import * as OllamaRequest from "../../src/dialects/ollama/DecodeRequest.ts"
import { ollama } from "../../src/dialects/ollama/Provider.ts"
import * as OpenAiRequest from "../../src/dialects/openai/DecodeRequest.ts"
import { azureOpenAi, openAi } from "../../src/dialects/openai/Provider.ts"
import * as ResponsesRequest from "../../src/dialects/responses/DecodeRequest.ts"
import { troupe } from "../../src/dialects/troupe/Provider.ts"
import type { Generation } from "../../src/domain/Generation.ts"
import type { Message } from "../../src/domain/Message.ts"
import type { Reasoning } from "../../src/domain/Reasoning.ts"
import type { RemoteDeployment } from "../../src/domain/RemoteDeployment.ts"
import { requiredPaths, type Source } from "../../src/domain/Source.ts"
import { generation } from "../layers/providers/support.ts"

type Fields = Readonly<Record<string, unknown>>

const messages = [{ role: "user", content: "Hello" }]
const nameOf = (name: string) => name

const decoders = {
  openai: (body: Fields) => Result.getOrThrow(OpenAiRequest.decode({ model: "m", messages, ...body })).requests[0],
  responses: (body: Fields) =>
    Result.getOrThrow(ResponsesRequest.decode({ model: "m", input: "Hello", ...body })).request,
  anthropic: (body: Fields) =>
    Result.getOrThrow(AnthropicRequest.decode({ model: "m", messages, max_tokens: 20_000, ...body })).request,
  ollama: (body: Fields) => {
    const json = { model: "m", messages, ...body }
    const call = Result.getOrThrow(OllamaRequest.decodeChat({ json, exact: json, caller: {}, nameOf }))
    if (call.type !== "generation") throw new Error("no generation")
    return call.request
  }
} satisfies Readonly<
  Record<string, (body: Fields) => { readonly reasoning?: Reasoning | undefined; readonly source?: Source | undefined }>
>

const effort = (effort: string) => ({ effort }) as Reasoning

/** A body, and what it asks for. */
const asked: ReadonlyArray<readonly [keyof typeof decoders, Fields, Reasoning | undefined]> = [
  ["openai", {}, undefined],
  ["openai", { reasoning_effort: null }, undefined],
  ["openai", { reasoning_effort: "none" }, effort("none")],
  ["openai", { reasoning_effort: "minimal" }, effort("minimal")],
  ["openai", { reasoning_effort: "xhigh" }, effort("xhigh")],
  ["openai", { reasoning: { effort: "high" } }, effort("high")],
  ["openai", { reasoning: { max_tokens: 2000 } }, { budget: 2000 }],
  ["openai", { reasoning: { enabled: true } }, effort("auto")],
  ["openai", { reasoning: { enabled: false, effort: "high" } }, effort("none")],
  ["openai", { thinking: { type: "enabled", budget_tokens: 3000 } }, { budget: 3000 }],
  ["openai", { thinking: { type: "disabled" } }, effort("none")],
  ["openai", { chat_template_kwargs: { enable_thinking: false } }, effort("none")],
  ["openai", { chat_template_kwargs: { thinking: true } }, effort("auto")],
  ["openai", { chat_template_kwargs: { enable_thinking: true, thinking_budget: 512 } }, { budget: 512 }],
  ["openai", { chat_template_kwargs: { reasoning_effort: "low" } }, effort("low")],
  ["openai", { enable_thinking: true }, effort("auto")],
  ["openai", { reasoning_effort: "low", chat_template_kwargs: { enable_thinking: true } }, effort("low")],
  ["responses", {}, undefined],
  ["responses", { reasoning: {} }, undefined],
  ["responses", { reasoning: { effort: "medium", summary: "auto" } }, effort("medium")],
  ["responses", { reasoning: { effort: "none" } }, effort("none")],
  ["anthropic", {}, undefined],
  ["anthropic", { thinking: { type: "enabled", budget_tokens: 4096 } }, { budget: 4096 }],
  ["anthropic", { thinking: { type: "adaptive" } }, effort("auto")],
  ["anthropic", { thinking: { type: "adaptive" }, output_config: { effort: "max" } }, effort("max")],
  ["anthropic", { thinking: { type: "disabled" }, output_config: { effort: "max" } }, effort("none")],
  ["anthropic", { output_config: { effort: "low" } }, effort("low")],
  ["ollama", {}, undefined],
  ["ollama", { think: true }, effort("auto")],
  ["ollama", { think: false }, effort("none")],
  ["ollama", { think: "high" }, effort("high")]
]

describe("a caller", () => {
  it.each(asked)("of %s with %j asks for %j", (dialect, body, expected) => {
    const { reasoning, source } = decoders[dialect](body)
    assert.deepStrictEqual(reasoning, expected)
    assert.deepStrictEqual(requiredPaths(source), [])
  })

  it.each<readonly [Fields]>([
    [{ reasoning_effort: "vast" }],
    [{ reasoning_effort: 5 }],
    [{ reasoning: { exclude: true, effort: "low" } }],
    [{ thinking: { type: "vast" } }],
    [{ chat_template_kwargs: { enable_thinking: false, voice: "soft" } }],
    [{ enable_thinking: "yes" }],
    [{ repetition_penalty: 0 }]
  ])("of openai needs a deployment of the dialect for %j", (body) => {
    const { reasoning, source } = decoders.openai(body)
    assert.isUndefined(reasoning)
    assert.deepStrictEqual(requiredPaths(source), Object.keys(body))
  })

  it("may name the penalty of repetition as vLLM does", () => {
    assert.strictEqual(decoders.openai({ repetition_penalty: 1.2 }).repeatPenalty, 1.2)
    assert.strictEqual(decoders.openai({ repetition_penalty: 1.2, repeat_penalty: 1.5 }).repeatPenalty, 1.5)
  })
})

const dialects = { openai: openAi, "azure-openai": azureOpenAi, anthropic, gemini, ollama, troupe } as const

/** The fields of reasoning in the body that a provider is sent. */
const sentTo = (
  provider: keyof typeof dialects,
  model: string,
  given: Partial<Generation>,
  options: Partial<RemoteDeployment> = {}
): Fields => {
  const target = {
    deployment: "d",
    model: "m",
    options: { engine: "remote", provider, model, baseUrl: "https://host.example", ...options } as RemoteDeployment
  }
  const call = Result.getOrThrow(
    dialects[provider].generate.request({ ...generation, sampling: {}, ...given }, target, false)
  )
  const { generationConfig, max_tokens, output_config, reasoning, reasoning_effort, think, thinking } = JSON.parse(
    JSON.stringify(call.body)
  ) as Fields
  const { thinkingConfig } = (generationConfig ?? {}) as Fields
  const named = { max_tokens, output_config, reasoning, reasoning_effort, think, thinking, thinkingConfig }
  return Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined))
}

const opus4 = "claude-opus-4-1"
const opus46 = "claude-opus-4-6"
const opus47 = "claude-opus-4-7"
const enabled = (budget_tokens: number, max_tokens: number) => ({
  thinking: { type: "enabled", budget_tokens },
  max_tokens
})
const adaptive = (effort?: string) => ({
  thinking: { type: "adaptive" },
  max_tokens: 4096,
  ...(effort === undefined ? {} : { output_config: { effort } })
})
const budgeted = (thinkingBudget: number, includeThoughts = true) => ({
  thinkingConfig: { thinkingBudget, includeThoughts }
})
const leveled = (thinkingLevel: string, includeThoughts = true) => ({
  thinkingConfig: { thinkingLevel, includeThoughts }
})
const unthinking = { max_tokens: 4096 }

type Row = readonly [keyof typeof dialects, model: string, Reasoning, Fields]

const sent: ReadonlyArray<Row> = [
  ["openai", "gpt-4.1", effort("high"), {}],
  ["openai", "gpt-5", effort("none"), { reasoning_effort: "minimal" }],
  ["openai", "gpt-5-mini", effort("xhigh"), { reasoning_effort: "high" }],
  ["openai", "gpt-5.1", effort("minimal"), { reasoning_effort: "low" }],
  ["openai", "gpt-5.4", effort("max"), { reasoning_effort: "xhigh" }],
  ["openai", "gpt-5.4", effort("none"), { reasoning_effort: "none" }],
  ["openai", "gpt-5-pro", effort("low"), { reasoning_effort: "high" }],
  ["openai", "gpt-5-chat-latest", effort("low"), {}],
  ["openai", "o3-mini", { budget: 8000 }, { reasoning_effort: "medium" }],
  ["openai", "o3", effort("auto"), {}],
  ["openai", "openai/gpt-oss-120b", effort("none"), { reasoning_effort: "low" }],
  ["azure-openai", "gpt-5", effort("medium"), { reasoning_effort: "medium" }],
  ["troupe", "any", effort("medium"), { reasoning_effort: "medium" }],
  ["troupe", "any", effort("auto"), { reasoning: { enabled: true } }],
  ["troupe", "any", { budget: 700 }, { reasoning: { max_tokens: 700 } }],
  ["anthropic", "claude-3-5-haiku-latest", effort("high"), unthinking],
  ["anthropic", "another-model", effort("high"), unthinking],
  ["anthropic", opus4, effort("none"), unthinking],
  ["anthropic", opus4, effort("auto"), enabled(8192, 12_288)],
  ["anthropic", opus4, effort("low"), enabled(1024, 5120)],
  ["anthropic", opus4, { budget: 100 }, enabled(1024, 5120)],
  ["anthropic", opus46, effort("auto"), adaptive()],
  ["anthropic", opus46, effort("minimal"), adaptive("low")],
  ["anthropic", opus46, effort("xhigh"), adaptive("max")],
  ["anthropic", opus47, effort("xhigh"), adaptive("xhigh")],
  ["anthropic", opus47, { budget: 2000 }, adaptive("medium")],
  ["anthropic", opus46, effort("none"), { ...unthinking, thinking: { type: "disabled" } }],
  ["gemini", "gemini-2.0-flash", effort("high"), {}],
  ["gemini", "gemini-2.5-flash", effort("none"), budgeted(0, false)],
  ["gemini", "gemini-2.5-flash", effort("auto"), budgeted(-1)],
  ["gemini", "gemini-2.5-flash", effort("max"), budgeted(24_576)],
  ["gemini", "gemini-2.5-flash-lite", { budget: 5 }, budgeted(512)],
  ["gemini", "gemini-2.5-pro", effort("none"), budgeted(128, false)],
  ["gemini", "gemini-3-pro-preview", effort("medium"), leveled("high")],
  ["gemini", "gemini-3-flash", effort("none"), leveled("minimal", false)],
  ["gemini", "gemini-3-flash", effort("auto"), { thinkingConfig: { includeThoughts: true } }],
  ["ollama", "llama3.2", effort("high"), {}],
  ["ollama", "llama3.2", effort("none"), { think: false }],
  ["ollama", "qwen3:4b", effort("high"), { think: true }],
  ["ollama", "qwen3:4b", { budget: 0 }, { think: false }],
  ["ollama", "gpt-oss:20b", effort("xhigh"), { think: "high" }],
  ["ollama", "gpt-oss:20b", effort("none"), { think: "low" }]
]

describe("a provider", () => {
  it.each(sent)("%s with %s gets %j as %j", (provider, model, reasoning, expected) => {
    assert.deepStrictEqual(sentTo(provider, model, { reasoning, maxTokens: undefined }), expected)
  })

  it("gets nothing where the caller asks for nothing", () => {
    for (const [provider, model] of sent) {
      const { max_tokens: _, ...fields } = sentTo(provider, model, {})
      assert.deepStrictEqual(fields, {}, model)
    }
  })

  it("gets it, or does not, as the deployment's `reasoning` says", () => {
    const high = { reasoning: effort("high") }
    assert.deepStrictEqual(sentTo("openai", "custom", high, { reasoning: true }), { reasoning_effort: "high" })
    assert.deepStrictEqual(sentTo("openai", "o3", high, { reasoning: false }), {})
    assert.deepStrictEqual(sentTo("ollama", "custom", high, { reasoning: true }), { think: true })
    assert.property(sentTo("anthropic", "custom", high, { reasoning: true }), "thinking")
    assert.notProperty(sentTo("anthropic", opus4, high, { reasoning: false }), "thinking")
    assert.property(sentTo("gemini", "custom", high, { reasoning: true }), "thinkingConfig")
    assert.deepStrictEqual(sentTo("gemini", "gemini-2.5-pro", high, { reasoning: false }), {})
  })
})

describe("Anthropic's thinking", () => {
  const high = { reasoning: effort("high") }

  it("has half of a limit at most, and is left out where that is too little", () => {
    assert.deepStrictEqual(sentTo("anthropic", opus4, { ...high, maxTokens: 4000 }), enabled(2000, 4000))
    assert.deepStrictEqual(sentTo("anthropic", opus4, { ...high, maxTokens: 2000 }), { max_tokens: 2000 })
  })

  it("is beside the format of the answer", () => {
    const format = { type: "json_schema", schema: { type: "object", additionalProperties: false } } as const
    const { output_config } = sentTo("anthropic", opus46, { ...high, format })
    assert.deepInclude<object>(output_config as object, { effort: "high" })
    assert.property(output_config, "format")
  })

  const tools = [{ name: "f" }]
  it.each<readonly [string, Partial<Generation>]>([
    ["a temperature", { sampling: { temperature: 0 } }],
    ["top_k", { sampling: { topK: 5 } }],
    ["a low top_p", { sampling: { topP: 0.5 } }],
    ["a forced call", { tools, toolChoice: "required" }],
    ["an assistant prefix", { assistantPrefix: "The" }],
    ["a result whose call has no signed thoughts", {
      tools,
      messages: [
        ...generation.messages,
        { role: "assistant", content: "", toolCalls: [{ id: "a", name: "f", arguments: "{}" }] },
        { role: "tool", toolCallId: "a", content: "1" }
      ]
    }]
  ])("is left out with %s, which the API rejects with it", (_, given) => {
    assert.notProperty(sentTo("anthropic", opus4, { ...high, ...given }), "thinking")
  })

  it("stays with a result whose call has signed thoughts", () => {
    const reasoning = [{ type: "thinking" as const, thinking: "Hm.", signature: "s" }]
    const call: Message = {
      role: "assistant",
      content: "",
      reasoning,
      toolCalls: [{ id: "a", name: "f", arguments: "{}" }]
    }
    const messages: ReadonlyArray<Message> = [...generation.messages, call, {
      role: "tool",
      toolCallId: "a",
      content: "1"
    }]
    assert.property(sentTo("anthropic", opus4, { ...high, tools, messages }), "thinking")
    const foreign = { ...call, reasoning: reasoning.map((one) => ({ ...one, maker: "another" })) }
    assert.notProperty(
      sentTo("anthropic", opus4, { ...high, tools, messages: messages.map((one) => one === call ? foreign : one) }),
      "thinking"
    )
  })
})
