import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import { openAi } from "../../../src/dialects/openai/Provider.ts"
import { generation } from "../../layers/providers/support.ts"
import { targetOf } from "../../support/Dialects.ts"

const bodyWith = (message: object, choice: object = {}, more: object = {}) => ({
  id: "chatcmpl-1",
  object: "chat.completion",
  model: "upstream",
  choices: [{ index: 0, message: { role: "assistant", ...message }, finish_reason: "stop", ...choice }],
  usage: { prompt_tokens: 1, completion_tokens: 1 },
  ...more
})

interface Answer {
  readonly choices: ReadonlyArray<{
    readonly message: Readonly<Record<string, unknown>>
    readonly finish_reason: string
  }>
}

const nativeOf = (body: object, request: object = {}) => {
  const source = { dialect: "openai" as const, body: { model: "m", messages: [], ...request } }
  const events = Result.getOrThrow(openAi.generate.buffered(body, { ...generation, source }, targetOf("openai")))
  const [first] = events
  assert(first?.type === "native")
  return first
}

describe("a body of another API", () => {
  it("fails with the settings to check", () => {
    const found = openAi.generate.buffered({ models: [] }, generation, targetOf("openai"))
    assert.isTrue(Result.isFailure(found))
    if (Result.isFailure(found)) {
      assert.include(found.failure.message, "Check `provider` and `baseUrl` of the deployment.")
    }
  })
})

describe("a buffered answer for a caller of the same dialect", () => {
  const plain = {
    "text": bodyWith({ content: "Hi." }),
    "empty fields": bodyWith({ content: "Hi.", refusal: null, annotations: [], tool_calls: [], audio: null }),
    "the length as finish reason": bodyWith({ content: "Hi." }, { finish_reason: "length", logprobs: null })
  }
  for (const [name, body] of Object.entries(plain)) {
    it(`is passed on as the same object if it needs no change: ${name}`, () => {
      const { content, native } = nativeOf(body)
      assert.strictEqual(native.body, body)
      assert.deepStrictEqual([content, native.hasMore, native.form], [false, false, "buffered"])
    })
  }

  it("is repaired if it differs from the dialect", () => {
    const call = { id: "a", type: "function", function: { name: "f", arguments: "{}" } }
    const changed: ReadonlyArray<readonly [object, (body: Answer) => unknown, unknown]> = [
      [bodyWith({ content: "Hi.", tool_calls: null }), (body) => "tool_calls" in body.choices[0]!.message, false],
      [bodyWith({ content: "Hi.", function_call: null }), (body) => "function_call" in body.choices[0]!.message, false],
      [bodyWith({ content: [{ type: "text", text: "Hi." }] }), (body) => body.choices[0]!.message.content, "Hi."],
      [bodyWith({ content: "Hi." }, { finish_reason: "STOP" }), (body) => body.choices[0]!.finish_reason, "stop"],
      [bodyWith({ content: null, tool_calls: [call] }), (body) => body.choices[0]!.finish_reason, "tool_calls"],
      [
        bodyWith({ content: "Hi." }, {}, {
          choices: [0, 1].map((index) => ({ index, message: { content: "Hi." }, finish_reason: "stop" }))
        }),
        (body) => body.choices.length,
        1
      ]
    ]
    for (const [body, read, expected] of changed) {
      assert.deepStrictEqual(read(nativeOf(body).native.body as unknown as Answer), expected, JSON.stringify(body))
    }
  })

  it("reports content that no event contains: parts of reasoning and refusals", () => {
    const hasMore = (message: object) => nativeOf(bodyWith({ content: "Hi.", ...message })).native.hasMore
    assert.isTrue(hasMore({ reasoning_details: [{ type: "reasoning.encrypted", data: "x" }] }))
    assert.isTrue(hasMore({ reasoning: { summary: "So." } }))
    assert.isTrue(hasMore({ refusal: "No." }))
    for (const name of ["reasoning", "reasoning_content"]) assert.isFalse(hasMore({ [name]: "So." }))
    assert.isFalse(hasMore({}))
  })
})
