/** The answer as a provider sent it, with values in place of their placeholders. */
import { assert, describe, it } from "@effect/vitest"
import type { Answer, Event } from "../../../src/domain/Inference.ts"
import { Redaction } from "../../../src/services/guard/Redaction.ts"
import { encodeOf, restoreAnswer, RestoredEvents } from "../../../src/services/inference/RestoredAnswer.ts"

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

describe("an answer that another deployment continues", () => {
  const restored = (texts: readonly [string, string]) => {
    const handoff: Event = { type: "handoff", deployment: "b#0" }
    const [first, second] = texts.map((text): Event => ({ type: "text", text, tokens: 1 }))
    const finish = { type: "finish", reason: "stop" } as unknown as Event
    const events = new RestoredEvents(redaction(), encodeOf({})).push([first!, handoff, second!, finish])
    assert.lengthOf(events.filter(({ type }) => type === "handoff"), 1)
    assert.strictEqual(events.at(-1)!.type, "finish")
    return events.map((event) => event.type === "text" ? event.text : "").join("")
  }

  it("has the value of a placeholder wherever it is cut", () => {
    const text = "I [VALUE_1] x"
    for (let at = 0; at <= text.length; at++) {
      assert.strictEqual(restored([text.slice(0, at), text.slice(at)]), `I ${value} x`)
    }
    assert.strictEqual(restored(["I [VAL", ""]), "I [VAL")
  })
})
