import { assert, describe, it } from "@effect/vitest"
import type { Chunk, Message } from "../../src/ui/chat.ts"
import { applied, bodyOf, nextMessages, userMessage } from "../../src/ui/chat.ts"
import * as Format from "../../src/ui/format.ts"
import { parseEvent, splitBlocks } from "../../src/ui/stream.ts"

describe("figures of the dashboard", () => {
  it.each([
    [Format.duration(0), "0 ms"],
    [Format.duration(0.4), "0.4 ms"],
    [Format.duration(300_000), "5 min"],
    [Format.decimal(20), "20"],
    [Format.decimal(0.25), "0.25"],
    [Format.duration(999), "999 ms"],
    [Format.duration(1_234), "1.23 s"],
    [Format.duration(90_000), "1.50 min"],
    [Format.duration(undefined), "–"],
    [Format.ago(9_500, 10_000), "now"],
    [Format.ago(0, 89_000), "1 min ago"],
    [Format.ago(0, 7_200_000), "2 h ago"],
    [Format.bytes(1_536), "1.50 KiB"],
    [Format.bytes(0), "0 B"],
    [Format.usd(0.000_012_3), "$0.0000123"],
    [Format.shortUsd(0.000_012_3), "< $0.0001"],
    [Format.shortUsd(0.001_234), "$0.0012"],
    [Format.shortUsd(1.5), "$1.50"],
    [Format.exactUsd(0.000_012_3), "$0.0000123"],
    [Format.exactUsd(2), "$2"],
    [Format.usd(12), "$12.00"],
    [Format.cost(undefined), "no price known"],
    [Format.percent(0.005), "0.5 %"],
    [Format.percent(1), "100 %"]
  ])("%s", (text, expected) => assert.strictEqual(text, expected))
})

describe("a stream of events", () => {
  it("is divided into blocks, the last of which may be incomplete", () => {
    assert.deepStrictEqual(splitBlocks("data: 1\n\ndata: 2\r\n\r\nda"), [["data: 1", "data: 2"], "da"])
  })

  it("has events with several lines, and comments without one", () => {
    assert.deepStrictEqual(parseEvent("event: request\ndata: {\ndata: }"), { type: "request", data: "{\n}" })
    assert.isUndefined(parseEvent(": watching"))
  })
})

describe("a conversation of the playground", () => {
  const options = { system: "", temperature: "", maxTokens: "", effort: "", tools: "", key: "" }

  it("sends only what was chosen", () => {
    assert.deepStrictEqual(bodyOf("chat", [userMessage("Hi", ["data:x"])], { ...options, temperature: "0.5" }), {
      model: "chat",
      messages: [{
        role: "user",
        content: [{ type: "text", text: "Hi" }, { type: "image_url", image_url: { url: "data:x" } }]
      }],
      stream: true,
      stream_options: { include_usage: true },
      temperature: 0.5
    })
  })

  it("collects text, reasoning and the pieces of a tool call, and sends its result", () => {
    const begun: Message = { ...userMessage("", []), role: "assistant" }
    const chunks: ReadonlyArray<Chunk> = [
      { choices: [{ delta: { reasoning_content: "Hm." } }] },
      { choices: [{ delta: { tool_calls: [{ index: 0, id: "c1", function: { name: "weather", arguments: "{" } }] } }] },
      {
        choices: [{ delta: { tool_calls: [{ index: 0, function: { arguments: "}" } }] }, finish_reason: "tool_calls" }]
      },
      { choices: [], usage: { prompt_tokens: 3, completion_tokens: 5 } }
    ]
    const message = chunks.reduce<Message>((before, chunk, index) => applied(before, chunk, 10 + index), begun)
    assert.strictEqual(message.reasoning, "Hm.")
    assert.deepStrictEqual(message.calls, [{ id: "c1", name: "weather", arguments: "{}" }])
    assert.include(message.run, { firstTokenMs: 10, finish: "tool_calls", promptTokens: 3, completionTokens: 5 })
    assert.deepInclude(nextMessages([message], "sunny", [])[0], { role: "tool", callId: "c1", text: "sunny" })
  })
})
