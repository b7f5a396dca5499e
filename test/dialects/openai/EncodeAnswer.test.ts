import { assert, describe, it } from "@effect/vitest"
import type { Envelope } from "../../../src/dialects/openai/EncodeAnswer.ts"
import * as EncodeAnswer from "../../../src/dialects/openai/EncodeAnswer.ts"

const envelope: Envelope = {
  id: "chatcmpl-1",
  created: 1_700_000_000,
  model: "tiny-chat",
  includeUsage: false,
  parallelToolCalls: true
}

describe("buffered answers", () => {
  const answer = (text: string, completionTokens: number, finishReason: "stop" | "length" = "stop") => ({
    text,
    toolCalls: [],
    finishReason,
    usage: { promptTokens: 4, completionTokens, cachedTokens: completionTokens - 1 },
    deployment: "tiny-chat#0",
    attempts: 1,
    decision: "dec-1"
  })
  it("have the text, the finish reason and the usage", () => {
    assert.deepStrictEqual(EncodeAnswer.encodeAnswers(envelope, [answer("Hi", 2)]), {
      id: "chatcmpl-1",
      object: "chat.completion",
      created: 1_700_000_000,
      model: "tiny-chat",
      choices: [{
        index: 0,
        message: { role: "assistant", content: "Hi", refusal: null },
        logprobs: null,
        finish_reason: "stop"
      }],
      usage: {
        prompt_tokens: 4,
        completion_tokens: 2,
        total_tokens: 6,
        prompt_tokens_details: { cached_tokens: 1 }
      }
    })
  })

  it("have the tokens of the reasoning if a provider reports them", () => {
    const usage = { promptTokens: 4, completionTokens: 9, cachedTokens: 0 }
    const answer = {
      text: "x",
      toolCalls: [],
      finishReason: "stop",
      deployment: "x#0",
      attempts: 1,
      decision: "d"
    } as const
    const detailsOf = (...reasoning: ReadonlyArray<number | undefined>) =>
      EncodeAnswer.encodeAnswers(
        { id: "x", created: 1, model: "x", includeUsage: true, parallelToolCalls: true },
        reasoning.map((reasoningTokens) => ({ ...answer, usage: { ...usage, reasoningTokens } }))
      ).usage.completion_tokens_details
    assert.deepStrictEqual(detailsOf(7), { reasoning_tokens: 7 })
    assert.deepStrictEqual(detailsOf(7, 2), { reasoning_tokens: 9 })
    assert.deepStrictEqual(detailsOf(0), { reasoning_tokens: 0 })
    assert.isUndefined(detailsOf(undefined))
  })

  it("with several choices count the prompt once, its least cached tokens, and the tokens of every answer", () => {
    const { choices, usage } = EncodeAnswer.encodeAnswers(envelope, [answer("a", 2), answer("b", 3, "length")])
    assert.deepStrictEqual(usage, {
      prompt_tokens: 4,
      completion_tokens: 5,
      total_tokens: 9,
      prompt_tokens_details: { cached_tokens: 1 }
    })
    assert.deepStrictEqual(
      choices.map(({ finish_reason, index, message }) => [index, message.content, finish_reason]),
      [[0, "a", "stop"], [1, "b", "length"]]
    )
  })
})
