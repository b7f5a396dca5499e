/** The answer as a provider sent it, with values in place of their placeholders. */
import { assert, describe, it } from "@effect/vitest"
import type { Answer } from "../../../src/domain/Inference.ts"
import { Redaction } from "../../../src/services/guard/Redaction.ts"
import { encodeOf, restoreAnswer } from "../../../src/services/inference/RestoredAnswer.ts"

const value = "say \"hi\"\n"

const redaction = () => {
  const made = new Redaction()
  made.placeholderOf("VALUE", value)
  return made
}

const format = { type: "json_object" } as const

const json = "{\"a\":\"[VALUE_1]\"}"

describe("a provider's answer in a JSON format", () => {
  it.each(
    [
      ["openai", { choices: [{ message: { content: json, reasoning_content: "[VALUE_1]" } }] }, [
        { message: { content: JSON.stringify({ a: value }), reasoning_content: value } }
      ]],
      ["anthropic", { choices: [{ type: "text", text: json }, { type: "tool_use", input: { text: "[VALUE_1]" } }] }, [
        { type: "text", text: JSON.stringify({ a: value }) },
        { type: "tool_use", input: { text: value } }
      ]]
    ] as const
  )("has values as JSON in its text only: %s", (dialect, body, restored) => {
    const answer = { text: json, toolCalls: [], native: [{ dialect, form: "buffered", body, hasMore: false }] }
    const { native, text } = restoreAnswer(answer as unknown as Answer, redaction(), encodeOf({ format }))
    assert.deepStrictEqual(JSON.parse(text), { a: value })
    assert.deepStrictEqual(native![0]!.body, { choices: restored })
  })

  it("has values as text without a format", () => {
    const answer = { text: "[VALUE_1]", toolCalls: [] }
    assert.strictEqual(restoreAnswer(answer as unknown as Answer, redaction(), encodeOf({})).text, value)
  })
})
