import { assert, describe, it } from "@effect/vitest"
import type { GenerateJob } from "../../../src/domain/Job.ts"
import type { Thoughts } from "../../../src/workers/job/ThoughtSyntax.ts"
import { callGrammarOf, type CompileCall } from "../../../src/workers/llama/LlamaCallGrammar.ts"
import { commonSyntax } from "../../../src/workers/model/TemplateCalls.ts"

const job: GenerateJob = {
  kind: "generate",
  messages: [],
  sampling: { temperature: 0, topP: 1, seed: 1 },
  stop: [],
  window: 1,
  tools: [{ name: "f", parameters: { type: "object", properties: { a: { type: "integer" } } } }]
}

/** Stands for a compiled grammar. */
const grammar = {} as Awaited<ReturnType<CompileCall>>

/** What changes after each of these tokens. */
const changesOf = async (tokens: ReadonlyArray<string>, thoughts?: Thoughts, changed: Partial<GenerateJob> = {}) => {
  const calls = callGrammarOf({ ...job, ...changed }, commonSyntax, async () => grammar, thoughts)!
  const changes: Array<string> = []
  for (const token of tokens) {
    const change = await calls.push(token)
    changes.push(change === grammar ? "begins" : change === undefined ? "" : "ends")
  }
  return changes
}

const pair = { start: "<think>", end: "</think>" }
const call = ["<tool_call>", "\n{\"name\": \"", "f", "\", \"arguments\": {}", "}\n", "</tool_call>"]
const callChanges = ["begins", "", "", "", "", "ends"]

describe("the grammar of calls", () => {
  it("applies from the marker of a call to its end, for each call", async () => {
    assert.deepStrictEqual(await changesOf(["Well", ...call, "\n", ...call]), ["", ...callChanges, "", ...callChanges])
    assert.deepStrictEqual(await changesOf(["<tool", "_call>"]), ["", "begins"])
    assert.deepStrictEqual(await changesOf(["<tool_call>\n"]), [""])
  })

  it("leaves thoughts free", async () => {
    const within: Thoughts = { style: { type: "pair", pair }, begins: "within" }
    const before: Thoughts = { style: { type: "pair", pair }, begins: "before" }
    const thought = ["I use <tool_call>", "</think>"]
    assert.deepStrictEqual(await changesOf([...thought, ...call], within), ["", "", ...callChanges])
    assert.deepStrictEqual(await changesOf(["<think>", ...thought, ...call], before), ["", "", "", ...callChanges])
    assert.deepStrictEqual(await changesOf(["<th", "ink>", ...thought, ...call], before), [
      "",
      "",
      "",
      "",
      ...callChanges
    ])
    assert.deepStrictEqual(await changesOf(["I think.", ...call], before), ["", ...callChanges])
  })

  it("is left out where a schema has none, and where the caller decides the form of the answer", async () => {
    const tools = [{ name: "f", parameters: { type: "object", properties: { a: { contains: {} } } } }]
    assert.deepStrictEqual(await changesOf(call, undefined, { tools }), ["", "", "", "", "", ""])
    const compile = async () => grammar
    assert.isUndefined(callGrammarOf({ ...job, toolChoice: "required" }, commonSyntax, compile, undefined))
    assert.isUndefined(callGrammarOf({ ...job, tools: [] }, commonSyntax, compile, undefined))
    assert.isUndefined(callGrammarOf({ ...job, format: { type: "json_object" } }, commonSyntax, compile, undefined))
    assert.isUndefined(callGrammarOf(job, undefined, compile, undefined))
    assert.isUndefined(callGrammarOf(job, { before: "{\"name\": \"", between: "", after: "" }, compile, undefined))
  })
})
