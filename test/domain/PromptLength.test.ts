import { assert, describe, it } from "@effect/vitest"
import { estimateTokens, promptLengthOf } from "../../src/domain/RoutingRequest.ts"

describe("the estimate of a prompt's tokens", () => {
  it.each([
    ["", 0],
    ["Hello, world", 3],
    ["Grüße aus Köln", 4],
    ["你好世界", 4],
    ["こんにちは", 5],
    ["안녕하세요", 5],
    ["ＡＢ", 2],
    ["Hello 你好", 4]
  ])("follows the script: %s", (text, tokens) => {
    assert.strictEqual(estimateTokens(promptLengthOf(text)), tokens)
  })
})
