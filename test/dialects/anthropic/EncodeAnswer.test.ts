import { assert, describe, it } from "@effect/vitest"
import { Result } from "effect"
import type { Envelope } from "../../../src/dialects/anthropic/EncodeAnswer.ts"
import * as EncodeAnswer from "../../../src/dialects/anthropic/EncodeAnswer.ts"
import type { Answer } from "../../../src/domain/Inference.ts"

const envelope: Envelope = { id: "req_1", model: "tiny-chat", parallelToolUse: true, thinking: true }

describe("EncodeAnswer", () => {
  const call = { id: "call_0", name: "add", arguments: "{\"a\":" }
  const answer: Answer = {
    text: "",
    toolCalls: [call],
    finishReason: "length",
    usage: { promptTokens: 9, completionTokens: 5, cachedTokens: 4 },
    deployment: "m#0",
    attempts: 1,
    decision: "d"
  }

  it("leaves out an incomplete call of an answer that reached its limit", () => {
    const { content, stop_reason } = Result.getOrThrow(EncodeAnswer.encodeAnswer(envelope, answer))
    assert.deepStrictEqual(content, [])
    assert.strictEqual(stop_reason, "max_tokens")
  })

  it.each(["{\"a\":", "[1]", "null", "7"])("fails if the arguments of a call are %s", (text) => {
    const wrong = { ...answer, finishReason: "tool_calls" as const, toolCalls: [{ ...call, arguments: text }] }
    const failed = EncodeAnswer.encodeAnswer(envelope, wrong)
    assert.isTrue(Result.isFailure(failed))
    if (Result.isFailure(failed)) assert.strictEqual(failed.failure.reason._tag, "EngineFailed")
  })
})
