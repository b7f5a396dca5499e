/** Tool calls of GGUF models in the syntaxes of their families, control tokens among them, through the real engine. */
import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import { isBrief } from "../support/Repetitions.ts"
import { answersOf } from "../support/ScriptedAnswers.ts"

const tools = [{
  name: "weather",
  description: "The weather.",
  parameters: { type: "object", properties: { city: { type: "string" }, days: { type: "integer" } } }
}]

/** The control tokens of a family, and what a model of it writes. */
const families: ReadonlyArray<readonly [family: string, control: ReadonlyArray<string>, answer: string]> = [
  [
    "Kimi K2",
    [
      "<|tool_calls_section_begin|>",
      "<|tool_call_begin|>",
      "<|tool_call_argument_begin|>",
      "<|tool_call_end|>",
      "<|tool_calls_section_end|>"
    ],
    "Yes.<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>" +
    "{\"city\": \"Oslo\", \"days\": 3}<|tool_call_end|><|tool_calls_section_end|>"
  ],
  [
    "Qwen3-Coder",
    ["<tool_call>", "</tool_call>"],
    "Yes.\n<tool_call>\n<function=weather>\n<parameter=city>\nOslo\n</parameter>\n<parameter=days>\n3\n</parameter>\n" +
    "</function>\n</tool_call>"
  ],
  [
    "Gemma 4",
    ["<|tool_call>", "<tool_call|>", "<|\"|>"],
    "Yes.<|tool_call>call:weather{city:<|\"|>Oslo<|\"|>,days:3}<tool_call|>"
  ],
  [
    "DeepSeek V3.2",
    ["｜DSML｜"],
    "Yes.\n\n<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"weather\">\n<｜DSML｜parameter name=\"city\" string=\"true\">" +
    "Oslo</｜DSML｜parameter>\n<｜DSML｜parameter name=\"days\" string=\"false\">3</｜DSML｜parameter>\n</｜DSML｜invoke>\n" +
    "</｜DSML｜function_calls>"
  ]
]

describe("a GGUF model", () => {
  it.each(isBrief ? families.slice(0, 1) : families)(
    "of %s calls tools in its own syntax",
    async (_, control, answer) => {
      const [called] = await answersOf({
        control: ["<|end|>", ...control],
        template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}{{ tools[0].function.name if tools }}",
        prompt: "Hi<|end|>weather",
        answer
      }, [{ tools }])
      assert.strictEqual(called!.text, "Yes.")
      assert.deepStrictEqual(called!.calls.map(([name, args]) => [name, JSON.parse(args)]), [[
        "weather",
        { city: "Oslo", days: 3 }
      ]])
      assert.strictEqual(called!.last.reason, "tool_calls")
    },
    60_000
  )

  it("is forced to call a tool in its own syntax", async () => {
    const call = "[TOOL_CALLS]weather[ARGS]{\"city\": \"Oslo\", \"days\": 3}"
    const [called] = await answersOf({
      control: ["<|end|>", "[TOOL_CALLS]", "[ARGS]"],
      template:
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}[TOOL_CALLS]{{ c.function.name }}" +
        "[ARGS]{{ c.function.arguments | tojson }}{% endfor %}<|end|>{% endfor %}{{ tools[0].function.name if tools }}",
      prompt: "Hi<|end|>weather",
      answer: call
    }, [{ tools, toolChoice: "required" }])
    assert.deepStrictEqual(called!.calls, [["weather", "{\"city\": \"Oslo\", \"days\": 3}"]])
    assert.strictEqual(called!.last.reason, "tool_calls")
  }, 60_000)

  const forced: ReadonlyArray<
    readonly [family: string, control: ReadonlyArray<string>, call: string, argument: string, end: string]
  > = [
    [
      "Qwen3-Coder",
      ["<tool_call>", "</tool_call>"],
      "<tool_call>\n<function=weather>\n",
      "<parameter=KEY>\nVALUE\n</parameter>\n",
      "</function>\n</tool_call>"
    ],
    [
      "Seed-OSS",
      ["<seed:tool_call>", "</seed:tool_call>"],
      "<seed:tool_call>\n<function=weather>\n",
      "<parameter=KEY>VALUE</parameter>\n",
      "</function>\n</seed:tool_call>"
    ],
    [
      "GLM",
      ["<tool_call>", "</tool_call>", "<arg_key>", "</arg_key>", "<arg_value>", "</arg_value>"],
      "<tool_call>weather\n",
      "<arg_key>KEY</arg_key>\n<arg_value>VALUE</arg_value>\n",
      "</tool_call>"
    ],
    [
      "MiniMax M2",
      ["<minimax:tool_call>", "</minimax:tool_call>"],
      "<minimax:tool_call>\n<invoke name=\"weather\">\n",
      "<parameter name=\"KEY\">VALUE</parameter>\n",
      "</invoke>\n</minimax:tool_call>"
    ],
    [
      "DeepSeek V3.2",
      ["｜DSML｜"],
      "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"weather\">\n",
      "<｜DSML｜parameter name=\"KEY\" string=\"true\">VALUE</｜DSML｜parameter>\n",
      "</｜DSML｜invoke>\n</｜DSML｜function_calls>"
    ]
  ]

  it.each(isBrief ? forced.slice(0, 1) : forced)(
    "of %s is forced to call, and corrected where it may, with arguments in its own syntax",
    async (_, control, call, argument, end) => {
      const arg = (key: string, value: string) => {
        const text = argument.replace("KEY", key).replace("VALUE", value)
        return key === "days" ? text.replace("string=\"true\"", "string=\"false\"") : text
      }
      const template = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}" +
        call.replace("weather", "{{ c.function.name }}") +
        `{% for k, v in c.function.arguments.items() %}${arg("{{ k }}", "{{ v }}")}{% endfor %}${end}{% endfor %}` +
        "<|end|>{% endfor %}{{ tools[0].function.name if tools }}"
      const script = { control: ["<|end|>", ...control], template, prompt: "Hi<|end|>weather" }
      const [called] = await answersOf(
        { ...script, answer: call + arg("city", "Oslo") + arg("days", "3") + end },
        [{ tools, toolChoice: "required" }]
      )
      assert.deepStrictEqual(called!.calls.map(([name, args]) => [name, JSON.parse(args)]), [[
        "weather",
        { city: "Oslo", days: 3 }
      ]])
      assert.strictEqual(called!.last.reason, "tool_calls")
      const listed = [{ ...tools[0]!, parameters: { type: "object", properties: { days: { enum: [3, 5] } } } }]
      const [corrected] = await answersOf(
        { ...script, answer: `So: ${call}${arg("days", "x")}${end}` },
        [{ tools: listed }]
      )
      assert.strictEqual(corrected!.text, "So:")
      assert.oneOf(corrected!.calls[0]![1], ["{\"days\": 3}", "{\"days\": 5}"])
    },
    60_000
  )

  it(
    "that may call writes arguments that fit the tool's schema, and free text around calls, by a template of its own for tools",
    async () => {
      const toolUse =
        "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls or [] %}<tool_call>{\"name\": \"" +
        "{{ c.function.name }}\", \"arguments\": {{ c.function.arguments | tojson }}}</tool_call>{% endfor %}<|end|>" +
        "{% endfor %}{{ tools[0].function.name if tools }}"
      const wrong = "So {x}: <tool_call>{\"name\": \"weather\", \"arguments\": {\"days\": x}}</tool_call>"
      const [called] = await answersOf({
        control: ["<|end|>", "<tool_call>", "</tool_call>"],
        template: "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}",
        toolUse,
        prompt: "Hi<|end|>weather",
        answer: wrong
      }, [{ tools: [{ ...tools[0]!, parameters: { type: "object", properties: { days: { enum: [3, 5] } } } }] }])
      assert.strictEqual(called!.text, "So {x}:")
      assert.match(called!.calls[0]![1], /^\{"days": [35]\}$/)
      assert.strictEqual(called!.last.reason, "tool_calls")
    },
    60_000
  )
})
