import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import type { KnownTool, Part } from "../../../src/workers/job/ToolCalls.ts"
import { makeToolCallReader } from "../../../src/workers/job/ToolCalls.ts"
import { markers } from "../../../src/workers/job/ToolCallSyntax.ts"
import { repetitions } from "../../support/Repetitions.ts"

/** All parts joined. */
const sum = (parts: ReadonlyArray<Part>) => {
  const calls: Array<{ id: string; name: string; arguments: string }> = []
  let text = ""
  for (const part of parts) {
    if (part.type === "text") text += part.text
    else if (part.id === undefined) calls[part.index]!.arguments += part.arguments
    else {
      assert.strictEqual(part.index, calls.length)
      calls.push({ id: part.id, name: part.name!, arguments: part.arguments })
    }
  }
  return { text, calls: calls.map(({ arguments: args, id, name }) => [id, name, args]) }
}

const read = (
  pieces: ReadonlyArray<string>,
  tools: ReadonlyArray<KnownTool> = [{ name: "add" }, { name: "get_time" }]
) => {
  const reader = makeToolCallReader(tools, (index) => `call_${index}`)
  return [...pieces.flatMap((piece) => reader.push(piece)), ...reader.flush()]
}

const add = "{\"a\": 1, \"b\": {\"c\": \"}\\\"\"}}"
const call = `{"name": "add", "arguments": ${add}}`
const added = (index: number): Array<string> => [`call_${index}`, "add", add]

const examples: ReadonlyArray<[why: string, answer: string, text: string, calls: Array<Array<string>>]> = [
  ["Hermes", `<tool_call>\n${call}\n</tool_call>`, "", [added(0)]],
  [
    "Hermes, two, after text",
    `Let me see.\n<tool_call>${call}</tool_call>\n<tool_call>\n${call}\n</tool_call>\n`,
    "Let me see.",
    [
      added(0),
      added(1)
    ]
  ],
  ["Hermes, without its end", `<tool_call>\n${call}`, "", [added(0)]],
  ["Hermes, with a bracket too few", `<tool_call>${call.slice(0, -1)}</tool_call> and on`, "and on", [added(0)]],
  ["text after a call", `<tool_call>${call}</tool_call>\n\nDone.`, "Done.", [added(0)]],
  ["a name that is no tool, marked", "<tool_call>{\"name\":\"x\",\"arguments\":{}}</tool_call>", "", [[
    "call_0",
    "x",
    "{}"
  ]]],
  ["arguments first", `<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>`, "", [[
    "call_0",
    "add",
    "{\"a\":1}"
  ]]],
  ["arguments as a string", `<tool_call>{"name":"add","arguments":"{\\"a\\":1}"}</tool_call>`, "", [[
    "call_0",
    "add",
    "{\"a\":1}"
  ]]],
  ["no arguments", `<tool_call>{"name": "get_time"}</tool_call>`, "", [["call_0", "get_time", "{}"]]],
  [
    "other fields",
    `<tool_call>{"type": "function", "name": "add", "arguments": ${add}, "id": {"x": "}"}}</tool_call>`,
    "",
    [
      added(0)
    ]
  ],
  ["Llama 3", ` {"name": "add", "parameters": ${add}}`, "", [added(0)]],
  ["Llama 3, two", `{"type": "function", "name": "add", "parameters": ${add}}; ${call}`, "", [added(0), added(1)]],
  ["Llama 3, marked", `<|python_tag|>${call}; ${call}`, "", [added(0), added(1)]],
  ["Mistral", `[TOOL_CALLS] [${call}, ${call}]`, "", [added(0), added(1)]],
  [
    "JSON that is not a call of a tool",
    "{\"name\": \"Ruby\", \"parameters\": {}}",
    "{\"name\": \"Ruby\", \"parameters\": {}}",
    []
  ],
  ["JSON after text", `I say ${call}`, `I say ${call}`, []],
  ["a marker and no call", " a <tool_call> b </tool_call> ", " a <tool_call> b </tool_call> ", []],
  ["a marker and no call, then one", `<tool_call>{x}<tool_call>${call}`, "<tool_call>{x}", [added(0)]],
  ["code after a marker", "<|python_tag|>print(1)", "<|python_tag|>print(1)", []],
  ["an answer that ends before it is one", "ok <tool_call>\n{\"name\": \"ad", "ok <tool_call>\n{\"name\": \"ad", []],
  ["an answer that ends in the arguments", "<tool_call>{\"name\": \"add\", \"arguments\": {\"a", "", [[
    "call_0",
    "add",
    "{\"a"
  ]]],
  ["white space only", " \n ", " \n ", []]
]

const oslo = "{\"city\": \"Oslo\"}"
const code = "if a < b:\n    print(\"</x>\")"

/** The tools whose calls the models' syntaxes have. */
const tools: ReadonlyArray<KnownTool> = [
  { name: "weather" },
  { name: "now" },
  {
    name: "run",
    parameters: {
      type: "object",
      properties: {
        code: { type: "string" },
        count: { type: ["integer", "null"] },
        deep: { anyOf: [{ type: "boolean" }, { type: "null" }] },
        list: { type: "array" },
        id: { type: "string" }
      }
    }
  }
]

const weather = (args: unknown = { city: "Oslo" }) => ["weather", args] as const
const ran = { code, count: 3, deep: true, list: ["a", 1], id: "007" }

/** Answers as models write them, with their calls and their text. */
const syntaxes: ReadonlyArray<
  readonly [family: string, answer: string, calls: ReadonlyArray<readonly [string, unknown]>, text?: string]
> = [
  ["Mistral 3", `Yes.[TOOL_CALLS]weather[ARGS]${oslo}[TOOL_CALLS]now[CALL_ID]123456789[ARGS]{}`, [
    weather(),
    ["now", {}]
  ], "Yes."],
  ["Llama 3, built-in", "<|python_tag|>run.call(code=\"print(')')\", count=3)", [["run", {
    code: "print(')')",
    count: 3
  }]]],
  ["Llama 4", "[weather(city=\"Oslo\"), run(list=[1, 'a', None], deep=True, code='''a\"b''')]", [
    weather(),
    ["run", { list: [1, "a", null], deep: true, code: "a\"b" }]
  ]],
  ["Llama 3.1, own function", `<function=weather>${oslo}</function> <function=now>{}</function>`, [weather(), [
    "now",
    {}
  ]]],
  ["Functionary 3.2", `>>>weather\n${oslo}>>>now\n{}`, [weather(), ["now", {}]]],
  ["Functionary 3.2, begun", `weather\n${oslo}`, [weather()]],
  ["Firefunction", ` functools[{"name": "weather", "arguments": ${oslo}}, {"name": "now", "arguments": {}}]`, [
    weather(),
    ["now", {}]
  ]],
  [
    "DeepSeek R1",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>weather\n```json\n" + oslo +
    "\n```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>now\n```json\n{}\n```<｜tool▁call▁end｜>" +
    "<｜tool▁calls▁end｜>",
    [weather(), ["now", {}]]
  ],
  [
    "DeepSeek V3.1",
    `I look.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>${oslo}<｜tool▁call▁end｜>` +
    "<｜tool▁call▁begin｜>now<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
    [weather(), ["now", {}]],
    "I look."
  ],
  [
    "DeepSeek V3.2",
    "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"run\">\n<｜DSML｜parameter name=\"code\" string=\"true\">1" +
    "</｜DSML｜parameter>\n<｜DSML｜parameter name=\"list\" string=\"false\">[1]</｜DSML｜parameter>\n</｜DSML｜invoke>\n" +
    "<｜DSML｜invoke name=\"now\">\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
    [["run", { code: "1", list: [1] }], ["now", {}]]
  ],
  [
    "Qwen3-Coder",
    `<tool_call>\n<function=run>\n<parameter=code>\n${code}\n</parameter>\n<parameter=count>\n3\n</parameter>\n` +
    "<parameter=deep>\nTrue\n</parameter>\n<parameter=list>\n[\"a\", 1]\n</parameter>\n<parameter=id>\n007\n" +
    "</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=now>\n</function>\n</tool_call>",
    [["run", ran], ["now", {}]]
  ],
  [
    "Qwen3-Coder, without its first marker",
    "<function=weather>\n<parameter=city>\nOslo\n</parameter>\n</function>\n</tool_call>",
    [weather()]
  ],
  ["an argument that contains its end", "<function=run><parameter=code></parameter>x</parameter></function>", [[
    "run",
    { code: "</parameter>x" }
  ]]],
  [
    "Seed-OSS",
    "<seed:tool_call>\n<function=weather>\n<parameter=city>Oslo</parameter>\n</function>\n</seed:tool_call>",
    [
      weather()
    ]
  ],
  [
    "GLM 4",
    "<tool_call>run\n<arg_key>id</arg_key>\n<arg_value>007</arg_value>\n<arg_key>count</arg_key>\n" +
    "<arg_value>3</arg_value>\n</tool_call>\n<tool_call>now\n</tool_call>",
    [["run", { id: "007", count: 3 }], ["now", {}]]
  ],
  [
    "Kimi K2",
    `<|tool_calls_section_begin|><|tool_call_begin|>functions.weather:0<|tool_call_argument_begin|>${oslo}` +
    "<|tool_call_end|><|tool_call_begin|>functions.now:1<|tool_call_argument_begin|>{}<|tool_call_end|>" +
    "<|tool_calls_section_end|>",
    [weather(), ["now", {}]]
  ],
  [
    "Kimi K3",
    "<|open|>tools<|sep|><|open|>call tool=\"run\" index=\"1\"<|sep|><|open|>argument key=\"count\" type=\"number\"" +
    "<|sep|>3<|close|>argument<|sep|><|open|>argument key=\"id\" type=\"string\"<|sep|>7<|close|>argument<|sep|>" +
    "<|close|>call<|sep|><|close|>tools<|sep|>",
    [["run", { count: 3, id: "7" }]]
  ],
  [
    "MiniMax M2",
    "<minimax:tool_call>\n<invoke name=\"run\">\n<parameter name=\"count\">3</parameter>\n<parameter name=\"id\">3" +
    "</parameter>\n</invoke>\n<invoke name=\"now\">\n</invoke>\n</minimax:tool_call>",
    [["run", { count: 3, id: "3" }], ["now", {}]]
  ],
  [
    "MiniMax M3",
    "]<]minimax[>[<tool_call>\n]<]minimax[>[<invoke name=\"weather\">]<]minimax[>[<city>Oslo]<]minimax[>[</city>" +
    "]<]minimax[>[</invoke>\n]<]minimax[>[<invoke name=\"now\">]<]minimax[>[</invoke>\n]<]minimax[>[</tool_call>",
    [weather(), ["now", {}]]
  ],
  [
    "MiniMax M1",
    `<tool_calls>\n{"name": "weather", "arguments": ${oslo}}\n{"name": "now", "arguments": {}}\n</tool_calls>`,
    [
      weather(),
      ["now", {}]
    ]
  ],
  ["Apriel", `<tool_calls>[{"name": "weather", "arguments": ${oslo}, "id": "1"}]</tool_calls>`, [weather()]],
  ["Hermes, a list", `<tool_call>[{"name": "weather", "arguments": ${oslo}}, {"name": "now"}]</tool_call>`, [
    weather(),
    ["now", {}]
  ]],
  ["Granite 3", `<|tool_call|>[{"name": "weather", "arguments": ${oslo}}]`, [weather()]],
  [
    "Phi 4 mini",
    `<|tool_call|>[{"type": "function", "function": {"name": "weather", "arguments": ${oslo}}}]<|/tool_call|>`,
    [
      weather()
    ]
  ],
  ["Nemotron 2", `<TOOLCALL>[{"name": "weather", "arguments": ${oslo}}, {"name": "now", "arguments": {}}]</TOOLCALL>`, [
    weather(),
    ["now", {}]
  ]],
  ["Apertus", `<|tools_prefix|>[{"weather": ${oslo}}, {"now": {}}]<|tools_suffix|>`, [weather(), ["now", {}]]],
  ["LFM 2", "Ok <|tool_call_start|>[weather(city='Oslo'), other.f(a={'b': 1})]<|tool_call_end|>", [
    weather(),
    ["other.f", { a: { b: 1 } }]
  ], "Ok"],
  [
    "Gemma 4",
    "<|tool_call>call:run{code:<|\"|>a\"}b<|\"|>,list:[<|\"|>x<|\"|>,{k:1.5e3}],deep:false}<tool_call|>" +
    "<|tool_call>call:now{}<tool_call|>",
    [["run", { code: "a\"}b", list: ["x", { k: 1500 }], deep: false }], ["now", {}]]
  ],
  [
    "Command R7B",
    "<|START_ACTION|>[\n    {\"tool_call_id\": \"0\", \"tool_name\": \"weather\", \"parameters\": " + oslo +
    "},\n    {\"tool_call_id\": \"1\", \"tool_name\": \"now\", \"parameters\": {}}\n]<|END_ACTION|>",
    [weather(), ["now", {}]]
  ],
  [
    "Command R+",
    "Action:\n```json\n[\n  {\n    \"tool_name\": \"weather\",\n    \"parameters\": " + oslo + "\n  }\n]```\n",
    [
      weather()
    ]
  ],
  [
    "Solar",
    `<|tool_calls|><|tool_call:begin|>a1<|tool_call:name|>weather<|tool_call:args|>${oslo}<|tool_call:end|>` +
    "<|tool_call:begin|>a2<|tool_call:name|>now<|tool_call:args|>{}<|tool_call:end|><|calls|>",
    [weather(), ["now", {}]]
  ],
  ["GigaChat 3", `Ok<|function_call|>{"name": "weather", "arguments": ${oslo}}`, [weather()], "Ok"],
  ["MiniCPM 5", "<function name=\"run\"><param name=\"code\"><![CDATA[a</param>b]]></param></function>", [[
    "run",
    { code: "a</param>b" }
  ]]],
  [
    "Hunyuan 3",
    "<tool_calls:opensource>\n<tool_call:opensource>weather<tool_sep:opensource>\n<arg_key:opensource>city" +
    "</arg_key:opensource>\n<arg_value:opensource>Oslo</arg_value:opensource>\n</tool_call:opensource>\n" +
    "</tool_calls:opensource>",
    [weather()]
  ],
  [
    "Muse",
    "<atem:function_calls>\n<atem:invoke name=\"weather\">\n<atem:parameter name=\"city\">Oslo</atem:parameter>\n" +
    "</atem:invoke>\n</atem:function_calls>",
    [weather()]
  ],
  ["a fence", "```json\n{\"name\": \"weather\", \"arguments\": " + oslo + "}\n```", [weather()]],
  ["a bare list", `[{"name": "weather", "arguments": ${oslo}}]`, [weather()]],
  ["a list of other things", "[1] weather(city=\"Oslo\")", [], "[1] weather(city=\"Oslo\")"],
  ["another function's call", "[f(a=1)] and <function=f>{}</function>", [], "[f(a=1)] and <function=f>{}</function>"],
  ["a fence with other JSON", "```json\n{\"a\": 1}\n```", [], "```json\n{\"a\": 1}\n```"],
  ["code", "<|python_tag|>weather.call(x)", [], "<|python_tag|>weather.call(x)"],
  ["a word that a tool's name begins with", "we are", [], "we are"]
]

/** Texts with many incomplete markers. */
const answers = fc.array(
  fc.oneof(
    fc.constantFrom(
      call,
      add,
      "<tool_call>",
      "</tool_call>",
      "<|python_tag|>",
      "[TOOL_CALLS]",
      "{\"name\": \"add\",",
      ..."\"name\" \"add\" \"arguments\" \"parameters\" \"type\" [ ] { } \" \\ ; , < t T :".split(" "),
      " ",
      "\n"
    ),
    fc.string({ maxLength: 3 })
  ),
  { maxLength: 12 }
).map((parts) => parts.join(""))

const cuts = fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1 })

const cut = (text: string, lengths: ReadonlyArray<number>) => {
  const pieces: Array<string> = []
  for (let at = 0, index = 0; at < text.length; index++) {
    const length = lengths[index % lengths.length]!
    pieces.push(text.slice(at, at + length))
    at += length
  }
  return pieces
}

describe("ToolCalls", () => {
  for (const [why, answer, text, calls] of examples) {
    it(`parses ${why}, split anywhere`, () => {
      for (let length = 1; length <= answer.length; length++) {
        assert.deepStrictEqual(sum(read(cut(answer, [length]))), { text, calls })
      }
    })
  }

  const rows = syntaxes.map(([family, answer, calls, text = ""]) => [family, answer, calls, text] as const)
  it.each(rows)("reads the calls of %s, cut at every place", (_, answer, calls, text) => {
    const cuts = [[answer], answer.split(""), ...Array.from(answer, (_, at) => [answer.slice(0, at), answer.slice(at)])]
    for (const pieces of cuts) {
      const found = sum(read(pieces, tools))
      const values = found.calls.map(([, name, args]) => [name, JSON.parse(args!)])
      assert.deepStrictEqual({ text: found.text.trim(), calls: values }, { text, calls: calls.map((one) => [...one]) })
    }
  })

  it.each([
    ["<tool_call><function=run><parameter=id>1</parameter>\n<parameter=code>rm", false, "{\"id\": \"1\""],
    ["<tool_call><function=run><parameter=id>1</parameter>", false, "{\"id\": \"1\"}"],
    ["<tool_call><function=run><parameter=id>1</parameter>", true, "{\"id\": \"1\""],
    ["<tool_call><function=run>", false, "{}"],
    ["<tool_call><function=run>", true, ""],
    ["<tool_call>{\"name\": \"run\", \"arguments\": {\"id\"", false, "{\"id\""]
  ])("completes no arguments that the answer does not have: %s, cut %s", (answer, isCut, args) => {
    for (const pieces of [[answer], answer.split("")]) {
      const reader = makeToolCallReader(tools, String)
      assert.deepStrictEqual(sum([...pieces.flatMap((piece) => reader.push(piece)), ...reader.flush(isCut)]).calls, [[
        "0",
        "run",
        args
      ]])
    }
  })

  it("gives the same result for every split of the answer, in all syntaxes", () => {
    const words = [...markers, "weather", "now", "run", oslo, ..."{ } [ ] ( ) \" = , > x ' :".split(" "), "\n", " "]
    const place = fc.nat(500)
    const changed = fc.tuple(fc.constantFrom(...syntaxes), place, place, fc.constantFrom("", ...words)).map(
      ([[, answer], from, to, word]) => answer.slice(0, from % answer.length) + word + answer.slice(to % answer.length)
    )
    const made = fc.array(fc.constantFrom(...words), { maxLength: 12 }).map((parts) => parts.join(""))
    fc.assert(
      fc.property(fc.oneof(made, changed), cuts, (answer, lengths) => {
        assert.deepStrictEqual(sum(read(cut(answer, lengths), tools)), sum(read([answer], tools)), answer)
      }),
      { numRuns: repetitions(1000, 30_000) }
    )
  })

  it("gives the same result for every split of the answer", () => {
    fc.assert(
      fc.property(answers, cuts, (answer, lengths) => {
        assert.deepStrictEqual(sum(read(cut(answer, lengths))), sum(read([answer])))
      }),
      { numRuns: 2000 }
    )
  })

  it("gives an answer without calls unchanged", () => {
    fc.assert(
      fc.property(answers, cuts, (answer, lengths) => {
        const { calls, text } = sum(read(cut(answer, lengths)))
        assert.strictEqual(calls.length === 0 ? text : answer, answer)
      }),
      { numRuns: 2000 }
    )
  })

  it("streams arguments, and sends ordinary text at once", () => {
    const reader = makeToolCallReader([{ name: "add" }], String)
    assert.deepStrictEqual(reader.push("Well"), [{ type: "text", text: "Well" }])
    assert.deepStrictEqual(reader.push("<tool_call>{\"name\": \"add\", \"arguments\": {\"a\""), [
      { type: "tool_call", index: 0, id: "0", name: "add", arguments: "" },
      { type: "tool_call", index: 0, arguments: "{\"a\"" }
    ])
    assert.deepStrictEqual(reader.push(": 1"), [{ type: "tool_call", index: 0, arguments: ": 1" }])
  })
})
