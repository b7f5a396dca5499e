/** The order of the frames of one batch, in both dialects of callers. */
import { assert } from "@effect/vitest"
import { describe, it } from "vitest"
import * as AnthropicEncodeStream from "../../../src/dialects/anthropic/EncodeStream.ts"
import * as OpenAiEncodeStream from "../../../src/dialects/openai/EncodeStream.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import type { Dialect } from "../../../src/domain/ProviderKind.ts"

const own = (text: string): Event => ({ type: "text", text, tokens: 1 })
const native = (dialect: Dialect, body: Readonly<Record<string, unknown>>): Event => ({
  type: "native",
  native: { dialect, form: "chunk", body, hasMore: false },
  content: true,
  tokens: 0
})

describe("frames of one batch of events", () => {
  it.each<
    [dialect: Dialect, encode: (events: ReadonlyArray<Event>) => string, body: Readonly<Record<string, unknown>>]
  >([
    [
      "openai",
      (events) =>
        OpenAiEncodeStream.makeFrameEncoder({
          id: "i",
          created: 1,
          model: "m",
          includeUsage: false,
          parallelToolCalls: true
        })
          .events(0, events),
      { choices: [{ index: 0, delta: { content: "later" }, finish_reason: null }] }
    ],
    [
      "anthropic",
      AnthropicEncodeStream.makeFrameEncoder({ id: "i", model: "m", parallelToolUse: true, thinking: true }).events,
      { type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "later" } }
    ]
  ])("keep their order if the provider's own frames follow others: %s", (dialect, encode, body) => {
    const frames = encode([own("ear"), own("lier"), native(dialect, body)])
    assert.isAbove(frames.indexOf("later"), frames.indexOf("earlier"), frames)
    assert.isAbove(frames.indexOf("earlier"), 0)
  })
})
