import { assert, describe, it } from "@effect/vitest"
import type { GenerateJob } from "../../../src/domain/Job.ts"
import type { Thoughts } from "../../../src/workers/job/ThoughtSyntax.ts"
import { callGrammarOf, channelSyntax } from "../../../src/workers/model/CallGrammar.ts"
import type { CallSyntax } from "../../../src/workers/model/TemplateCalls.ts"
import { commonSyntax } from "../../../src/workers/model/TemplateCalls.ts"

const job: GenerateJob = {
  kind: "generate",
  messages: [],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  stop: [],
  window: 1,
  tools: [{ name: "f", parameters: { type: "object", properties: { a: { type: "integer" } } } }]
}

/** What changes after each of these tokens. */
const changesOf = (
  tokens: ReadonlyArray<string>,
  thoughts?: Thoughts,
  changed: Partial<GenerateJob> = {},
  syntax: CallSyntax = commonSyntax
) => {
  const calls = callGrammarOf({ ...job, ...changed }, syntax, thoughts)!
  return tokens.map((token) => calls.push(token)?.type ?? "")
}

const pair = { start: "<think>", end: "</think>" }
const call = ["<tool_call>", "\n{\"name\": \"", "f", "\", \"arguments\": {}", "}\n", "</tool_call>"]
const callChanges = ["begins", "", "", "", "", "ends"]

describe("the grammar of calls", () => {
  it("applies from the marker of a call to its end, for each call", () => {
    assert.deepStrictEqual(changesOf(["Well", ...call, "\n", ...call]), ["", ...callChanges, "", ...callChanges])
    assert.deepStrictEqual(changesOf(["<tool", "_call>"]), ["", "begins"])
    assert.deepStrictEqual(changesOf(["<tool_call>\n", call[1]!.trimStart(), ...call.slice(2)]), callChanges)
    assert.deepStrictEqual(changesOf(["<tool_call>x", ...call.slice(1)]), ["", "", "", "", "", ""])
  })

  it("leaves thoughts free", () => {
    const within: Thoughts = { style: { type: "pair", pair }, begins: "within" }
    const before: Thoughts = { style: { type: "pair", pair }, begins: "before" }
    const thought = ["I use <tool_call>", "</think>"]
    assert.deepStrictEqual(changesOf([...thought, ...call], within), ["", "", ...callChanges])
    assert.deepStrictEqual(changesOf(["<think>", ...thought, ...call], before), ["", "", "", ...callChanges])
    assert.deepStrictEqual(changesOf(["<th", "ink>", ...thought, ...call], before), [
      "",
      "",
      "",
      "",
      ...callChanges
    ])
    assert.deepStrictEqual(changesOf(["I think.", ...call], before), ["", ...callChanges])
  })

  it("is left out where a schema has none, and where the caller decides the form of the answer", () => {
    const tools = [{ name: "f", parameters: { type: "object", properties: { a: { contains: {} } } } }]
    assert.deepStrictEqual(changesOf(call, undefined, { tools }), ["", "", "", "", "", ""])
    assert.isUndefined(callGrammarOf({ ...job, toolChoice: "required" }, commonSyntax, undefined))
    assert.isUndefined(callGrammarOf({ ...job, tools: [] }, commonSyntax, undefined))
    assert.isUndefined(callGrammarOf({ ...job, format: { type: "json_object" } }, commonSyntax, undefined))
    assert.isUndefined(callGrammarOf(job, undefined, undefined))
    assert.isUndefined(callGrammarOf(job, { before: "{\"name\": \"", between: "", after: "" }, undefined))
  })

  it("applies in channels from the recipient of a message to the end of its arguments", () => {
    const before: Thoughts = { style: { type: "channels" }, begins: "before" }
    const analysis = ["<|channel|>", "analysis", "<|message|>", "I write", " to=", "functions", ".f", "<|end|>"]
    const header = ["<|start|>", "assistant", "<|channel|>", "commentary", " to=", "functions"]
    const rest = [".f", " ", "<|constrain|>", "json", "<|message|>", "{\"a\"", ": 1", "}", "<|call|>"]
    const none = analysis.map(() => "")
    assert.deepStrictEqual(changesOf([...analysis, ...header, ...rest], before, {}, channelSyntax), [
      ...none,
      "",
      "",
      "",
      "",
      "",
      "begins",
      "",
      "",
      "",
      "",
      "",
      "",
      "",
      "ends",
      ""
    ])
    const first = ["<|start|>", "assistant", " to=", "functions", ".f", "<|channel|>", "commentary", " "]
    assert.deepStrictEqual(changesOf([...analysis, ...first, ...rest.slice(2)], before, {}, channelSyntax), [
      ...none,
      "",
      "",
      "",
      "begins",
      "",
      "",
      "",
      "",
      "",
      "",
      "",
      "",
      "",
      "ends",
      ""
    ])
  })
})
