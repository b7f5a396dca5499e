/** The syntax of forced calls, as published chat templates show it. */
import { assert, describe, it } from "@effect/vitest"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { makeMatcher, toolGrammar } from "../../../src/workers/grammar/JsonGrammar.ts"
import { makeToolCallReader } from "../../../src/workers/job/ToolCalls.ts"
import { makeChatTemplate } from "../../../src/workers/model/ChatTemplate.ts"

const chatTemplates = JSON.parse(
  readFileSync(fileURLToPath(new URL("../../fixtures/chatTemplates.json", import.meta.url)), "utf8")
) as ReadonlyArray<{ readonly name: string; readonly source: string }>

const syntaxOf = (name: string) => {
  const { source } = chatTemplates.find((one) => one.name === name)!
  const control = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "[TOOL_CALLS]",
    "<tool_call>",
    "</tool_call>",
    "<|END_OF_TURN_TOKEN|>"
  ]
  const template = makeChatTemplate({ name, source, bos: "<s>", eos: "</s>", control })
  if ("problem" in template) throw new Error(template.problem)
  return template.callSyntax
}

const tools = [{ name: "weather", parameters: { type: "object", properties: { city: { type: "string" } } } }]

const args = "{\"city\": \"Oslo\"}"

describe("a forced call", () => {
  it.each([
    ["Apertus-8B-Instruct", `<|tools_prefix|>[{"weather": ${args}}]<|tools_suffix|>`],
    ["Apriel-1.6-15b-Thinker-fixed", `<tool_calls>[{"name": "weather", "arguments": ${args}}]</tool_calls>`],
    [
      "CohereForAI-c4ai-command-r7b-12-2024-tool_use",
      `<|START_ACTION|>[\n    {"tool_call_id": "0", "tool_name": "weather", "parameters": ${args}}\n]<|END_ACTION|>`
    ],
    [
      "Kimi-K2-Instruct",
      `<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>${args}` +
      "<|tool_call_end|><|tool_calls_section_end|>"
    ],
    ["NVIDIA-Nemotron-Nano-v2", `<TOOLCALL>[{"name": "weather", "arguments": ${args}}]</TOOLCALL>`],
    ["Qwen-Qwen2.5-7B-Instruct", `<tool_call>\n{"name": "weather", "arguments": ${args}}\n</tool_call>`],
    [
      "deepseek-ai-DeepSeek-V3.1",
      `<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>${args}<｜tool▁call▁end｜><｜tool▁calls▁end｜>`
    ],
    ["meetkai-functionary-medium-v3.1", `<function=weather>${args}</function>`],
    ["meta-llama-Llama-3.1-8B-Instruct", `{"name": "weather", "parameters": ${args}}`],
    ["mistralai-Ministral-3-14B-Reasoning-2512", `[TOOL_CALLS]weather[ARGS]${args}`]
  ])("of %s is written as its template writes calls", (name, call) => {
    const matcher = makeMatcher(toolGrammar(tools, "required", syntaxOf(name)))
    matcher.push(call)
    assert.isTrue(matcher.isComplete() && !matcher.canContinue())
    const reader = makeToolCallReader(tools, String)
    const parts = [...reader.push(call), ...reader.flush()]
    assert.isTrue(parts.every(({ type }) => type === "tool_call"))
  })

  it.each(["Qwen3-Coder", "GLM-4.6", "google-gemma-4-31B-it", "microsoft-Phi-3.5-mini-instruct"])(
    "of %s is written in the common syntax, since its template shows no JSON arguments",
    (name) => {
      const matcher = makeMatcher(toolGrammar(tools, { name: "weather" }, syntaxOf(name)))
      matcher.push(`<tool_call>\n{"name": "weather", "arguments": ${args}}\n</tool_call>`)
      assert.isTrue(matcher.isComplete())
    }
  )
})
