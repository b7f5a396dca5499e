/** The thoughts that hosts need in conversations with calls of tools. */
import { Result } from "effect"
import { assert, describe, it } from "vitest"
import { openAi } from "../../../src/dialects/openai/Provider.ts"
import type { Message } from "../../../src/domain/Message.ts"
import { generationOf, targetOf } from "../../support/Dialects.ts"

const deepSeek = { baseUrl: "https://api.deepseek.com", model: "deepseek-v4-pro" }
const kimi = { baseUrl: "https://api.moonshot.ai/v1", model: "kimi-k2.6" }

const call = { id: "c1", type: "function", function: { name: "weather", arguments: "{}" } }
const result = { role: "tool", tool_call_id: "c1", content: "sunny" }
const question = { role: "user", content: "Q" }

type Options = Parameters<typeof targetOf>[1]
type Fields = Readonly<Record<string, unknown>>

const sentWith = (options: Options, generation: ReturnType<typeof generationOf>): ReadonlyArray<unknown> => {
  const { passThrough, request } = openAi.generate
  const target = targetOf("openai", options)
  const { source } = generation
  const sent = Result.getOrThrow(
    source === undefined
      ? request(generation, target, false)
      : passThrough!(generation, source, target, false, undefined)
  )
  return (sent.body as { readonly messages: ReadonlyArray<unknown> }).messages
}

const decoded = ({ role, tool_calls: calls }: Fields): Message => ({
  role: role as Message["role"],
  content: "",
  ...(calls === undefined ? {} : { toolCalls })
})

/** The caller's own messages, at a host. */
const toolCalls = [{ id: "c1", name: "weather", arguments: "{}" }]

const passed = (options: Options, ...messages: ReadonlyArray<Fields>): ReadonlyArray<unknown> => {
  const unknownFields = messages.flatMap((message, index) =>
    "reasoning_content" in message ? [{ path: ["messages", index, "reasoning_content"], optional: true }] : []
  )
  return sentWith(
    options,
    generationOf({
      messages: messages.map(decoded),
      source: { dialect: "openai", body: { model: "m", messages }, unknownFields }
    })
  )
}

describe("a call of another model, without thoughts", () => {
  const called = { role: "assistant", content: null, tool_calls: [call] }
  const said = { role: "assistant", content: "Sunny." }

  it.each([["DeepSeek", deepSeek], ["Moonshot", kimi], ["Kimi for coding", {
    ...kimi,
    baseUrl: "https://api.kimi.com/coding/v1"
  }]])(
    "has a space for them at %s, as the answer after it",
    (_, host) => {
      assert.deepStrictEqual(passed(host, question, called, result, said, question), [
        question,
        { ...called, reasoning_content: " " },
        result,
        { ...said, reasoning_content: " " },
        question
      ])
      const thought = { ...called, reasoning_content: "Hm." }
      const empty = { ...called, reasoning_content: "" }
      assert.deepStrictEqual(passed(host, question, thought, result, empty, result), [
        question,
        thought,
        result,
        { ...called, reasoning_content: " " },
        result
      ])
      const messages: ReadonlyArray<Message> = [
        { role: "user", content: "Q" },
        { role: "assistant", content: "", toolCalls },
        { role: "tool", content: "sunny", toolCallId: "c1" }
      ]
      assert.deepStrictEqual(sentWith(host, generationOf({ messages })), [
        question,
        { ...called, reasoning_content: " " },
        result
      ])
    }
  )

  it("stays as it is where nothing needs them", () => {
    const conversation = [question, called, result, said, question]
    for (
      const host of [
        { baseUrl: "https://host.example.com/v1", model: "kimi-k2.6" },
        { ...kimi, model: "moonshot-v1-8k" },
        { ...deepSeek, thoughts: "none" as const }
      ]
    ) assert.deepStrictEqual(passed(host, ...conversation), conversation)
    // Without calls, and where the model continues a text.
    assert.deepStrictEqual(passed(deepSeek, question, said, question), [question, said, question])
    assert.deepStrictEqual(passed(deepSeek, question, called, result, said).at(-1), said)
  })
})
