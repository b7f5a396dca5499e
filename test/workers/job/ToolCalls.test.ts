import { assert } from "@effect/vitest"
import * as fc from "fast-check"
import { describe, it } from "vitest"
import type { Part } from "../../../src/workers/job/ToolCalls.ts"
import { makeToolCallReader } from "../../../src/workers/job/ToolCalls.ts"

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

const read = (pieces: ReadonlyArray<string>) => {
  const reader = makeToolCallReader(["add", "get_time"], (index) => `call_${index}`)
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
    const reader = makeToolCallReader(["add"], String)
    assert.deepStrictEqual(reader.push("Well"), [{ type: "text", text: "Well" }])
    assert.deepStrictEqual(reader.push("<tool_call>{\"name\": \"add\", \"arguments\": {\"a\""), [
      { type: "tool_call", index: 0, id: "0", name: "add", arguments: "" },
      { type: "tool_call", index: 0, arguments: "{\"a\"" }
    ])
    assert.deepStrictEqual(reader.push(": 1"), [{ type: "tool_call", index: 0, arguments: ": 1" }])
  })
})
