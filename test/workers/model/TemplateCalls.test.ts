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
    "<|END_OF_TURN_TOKEN|>",
    "<|tool_response>",
    "<｜hy_eos:opensource｜>"
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

  it("of a model whose template shows no calls is written in the common syntax", () => {
    const matcher = makeMatcher(toolGrammar(tools, { name: "weather" }, syntaxOf("microsoft-Phi-3.5-mini-instruct")))
    matcher.push(`<tool_call>\n{"name": "weather", "arguments": ${args}}\n</tool_call>`)
    assert.isTrue(matcher.isComplete())
  })
})

const parameters = {
  type: "object",
  properties: {
    city: { type: "string" },
    days: { type: "integer", minimum: 1 },
    unit: { $ref: "#/$defs/unit" },
    code: { type: "string", pattern: "^[0-9]{2}$" },
    at: { type: "object", properties: { hour: { type: "integer" }, exact: { type: "boolean" } } }
  },
  required: ["city"],
  $defs: { unit: { enum: ["C", "F", 1, null] } }
}
const weather = [{ name: "weather", parameters }]
const complete = { city: "Oslo <3, </p>", days: 3, unit: "F", code: "07", at: { hour: 1, exact: true } }

/** What families write before, in and after arguments. */
const tagged: ReadonlyArray<
  readonly [name: string, before: string, argument: (key: string, value: string) => string, after: string]
> = [
  [
    "Qwen3-Coder",
    "<tool_call>\n<function=weather>\n",
    (key, value) => `<parameter=${key}>\n${value}\n</parameter>\n`,
    "</function>\n</tool_call>"
  ],
  [
    "Qwen3.5-4B",
    "<tool_call>\n<function=weather>\n",
    (key, value) => `<parameter=${key}>\n${value}\n</parameter>\n`,
    "</function>\n</tool_call>"
  ],
  [
    "ByteDance-Seed-OSS",
    "<seed:tool_call>\n<function=weather>\n",
    (key, value) => `<parameter=${key}>${value}</parameter>\n`,
    "</function>\n</seed:tool_call>"
  ],
  [
    "GLM-4.6",
    "<tool_call>weather\n",
    (key, value) => `<arg_key>${key}</arg_key>\n<arg_value>${value}</arg_value>\n`,
    "</tool_call>"
  ],
  [
    "tencent-Hy3",
    "<tool_calls:opensource>\n<tool_call:opensource>weather<tool_sep:opensource>\n",
    (key, value) =>
      `<arg_key:opensource>${key}</arg_key:opensource>\n<arg_value:opensource>${value}</arg_value:opensource>\n`,
    "</tool_call:opensource>\n</tool_calls:opensource>"
  ],
  [
    "openbmb-MiniCPM5-1B",
    "<function name=\"weather\">",
    (key, value) => `<param name="${key}">${value}</param>`,
    "</function>"
  ]
]

type Arguments = Readonly<Record<string, unknown>>

const textOf = (value: unknown) => typeof value === "string" ? value : JSON.stringify(value)

/** Whether the grammar of a family accepts arguments that are written like this, and what is read from them. */
const writtenBy = (write: (args: Arguments) => string) => ({
  accepts: (args: Arguments, name: string) => {
    const matcher = makeMatcher(toolGrammar(weather, "required", syntaxOf(name)))
    matcher.push(write(args))
    return matcher.isComplete() && !matcher.canContinue()
  },
  reads: (args: Arguments) => {
    const reader = makeToolCallReader(weather, String)
    const parts = [...reader.push(write(args)), ...reader.flush()]
    assert.isTrue(parts.every(({ type }) => type === "tool_call"))
    return JSON.parse(parts.map((part) => part.type === "tool_call" ? part.arguments : "").join("")) as unknown
  }
})

const wrong = [
  { days: 3 },
  { city: "Oslo", days: "three" },
  { city: "Oslo", days: 0 },
  { city: "Oslo", unit: "K" },
  { city: "Oslo", code: "7" },
  { city: "Oslo", at: { hour: "one" } },
  { city: "Oslo", wind: "x" }
]

describe("a forced call with arguments one by one", () => {
  it.each(tagged)("of %s has those of the schema", (name, before, argument, after) => {
    const { accepts, reads } = writtenBy((args) =>
      before + Object.entries(args).map(([key, value]) => argument(key, textOf(value))).join("") + after
    )
    for (const args of [complete, { city: "" }, { city: "3", unit: null }, { city: "x", unit: 1 }]) {
      assert.isTrue(accepts(args, name), JSON.stringify(args))
      assert.deepStrictEqual(reads(args), args)
    }
    for (const args of wrong) assert.isFalse(accepts(args, name), JSON.stringify(args))
  })

  it("of Gemma 4 and LFM 2 has those of the schema", () => {
    const gemma = (value: unknown) => typeof value === "string" ? `<|"|>${value}<|"|>` : JSON.stringify(value)
    const families = [
      ["google-gemma-4-31B-it", "<|tool_call>call:weather{", ":", gemma, ",", "}<tool_call|>"],
      ["LFM2-8B-A1B", "<|tool_call_start|>[weather(", "=", JSON.stringify, ", ", ")]<|tool_call_end|>"]
    ] as const
    for (const [name, before, assign, write, separator, after] of families) {
      const { accepts, reads } = writtenBy((args) =>
        before + Object.entries(args).map(([key, value]) => key + assign + write(value)).join(separator) + after
      )
      assert.isTrue(accepts(complete, name))
      assert.deepStrictEqual(reads(complete), complete)
      for (const args of wrong) assert.isFalse(accepts(args, name), name + JSON.stringify(args))
    }
  })

  it("without parameters has none, or any where the schema has any", () => {
    const none = [{ name: "weather", parameters: { type: "object", properties: {}, additionalProperties: false } }]
    const fits = (tools: Parameters<typeof toolGrammar>[0], call: string) => {
      const matcher = makeMatcher(toolGrammar(tools, "required", syntaxOf("Qwen3-Coder")))
      matcher.push(call)
      return matcher.isComplete()
    }
    const empty = "<tool_call>\n<function=weather>\n</function>\n</tool_call>"
    const any = "<tool_call>\n<function=weather>\n<parameter=x1>\nany {\n</parameter>\n</function>\n</tool_call>"
    assert.isTrue(fits(none, empty))
    assert.isFalse(fits(none, any))
    assert.isTrue(fits([{ name: "weather" }], empty))
    assert.isTrue(fits([{ name: "weather" }], any))
  })
})
