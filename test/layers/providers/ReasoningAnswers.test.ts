/** Answers of reasoning alone, of every provider. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Provider } from "../../../src/domain/Deployment.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import { drivers, generation, json, outcome, served } from "./support.ts"

/** An answer of reasoning and nothing else. */
interface ProviderAnswer {
  readonly buffered: unknown
  readonly frames: ReadonlyArray<unknown>
}

const openAiAnswer = (message: object): ProviderAnswer => ({
  buffered: { choices: [{ index: 0, message: { role: "assistant", ...message }, finish_reason: "stop" }] },
  frames: [
    { choices: [{ index: 0, delta: { role: "assistant", ...message } }] },
    { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }
  ]
})

const anthropicAnswer = (block: object, begun: object, ...deltas: ReadonlyArray<object>): ProviderAnswer => ({
  buffered: { type: "message", content: [block], stop_reason: "end_turn" },
  frames: [
    { type: "message_start", message: {} },
    { type: "content_block_start", index: 0, content_block: begun },
    ...deltas.map((delta) => ({ type: "content_block_delta", index: 0, delta })),
    { type: "content_block_stop", index: 0 },
    { type: "message_delta", delta: { stop_reason: "end_turn" } },
    { type: "message_stop" }
  ]
})

const geminiAnswer = {
  candidates: [{ content: { parts: [{ text: "Hm.", thought: true }] }, finishReason: "STOP" }]
}

const ollamaAnswer = { message: { role: "assistant", content: "", thinking: "Hm." } }

const redacted = { type: "redacted_thinking", data: "aG0=" }

const reasoningAnswers: ReadonlyArray<readonly [Provider, name: string, ProviderAnswer]> = [
  ["openai", "reasoning_content", openAiAnswer({ content: "", reasoning_content: "Hm." })],
  ["openai", "reasoning", openAiAnswer({ content: null, reasoning: "Hm." })],
  [
    "openai",
    "encrypted reasoning",
    openAiAnswer({ reasoning_details: [{ type: "reasoning.encrypted", data: "aG0=" }] })
  ],
  [
    "openai",
    "thinking in parts",
    openAiAnswer({ content: [{ type: "thinking", thinking: [{ type: "text", text: "Hm." }] }] })
  ],
  ["troupe", "reasoning_content", openAiAnswer({ content: "", reasoning_content: "Hm." })],
  [
    "anthropic",
    "thinking",
    anthropicAnswer(
      { type: "thinking", thinking: "Hm.", signature: "s" },
      { type: "thinking", thinking: "" },
      { type: "thinking_delta", thinking: "Hm." },
      { type: "signature_delta", signature: "s" }
    )
  ],
  ["anthropic", "redacted thinking", anthropicAnswer(redacted, redacted)],
  ["gemini", "thoughts", { buffered: geminiAnswer, frames: [geminiAnswer] }],
  ["ollama", "thinking", {
    buffered: { ...ollamaAnswer, done: true, done_reason: "stop" },
    frames: [{ ...ollamaAnswer, done: false }, { message: { content: "" }, done: true, done_reason: "stop" }]
  }]
]

const streamOf = (provider: Provider, frames: ReadonlyArray<unknown>) =>
  provider === "ollama"
    ? {
      headers: { "content-type": "application/x-ndjson" },
      pieces: frames.map((frame) => `${JSON.stringify(frame)}\n`)
    }
    : { pieces: frames.map((frame) => `data: ${JSON.stringify(frame)}\n\n`) }

const finishOf = (events: ReadonlyArray<Event>): unknown => {
  const last = events.at(-1)
  return last?.type === "finish" ? last.reason : undefined
}

for (const [driver, engineAt] of drivers) {
  describe(`an answer of reasoning alone is complete${driver}`, () => {
    for (const [provider, name, answer] of reasoningAnswers) {
      for (const isBuffered of [false, true]) {
        it.effect(`${provider}, ${name}, ${isBuffered ? "buffered" : "streamed"}`, () =>
          Effect.gen(function*() {
            const play = isBuffered
              ? { headers: json, pieces: [JSON.stringify(answer.buffered)] }
              : streamOf(provider, answer.frames)
            const { url } = yield* served(() => play)
            const engine = yield* engineAt(url, { provider, stream: !isBuffered })
            const { events, reason } = yield* outcome(engine, generation)
            assert.deepStrictEqual([finishOf(events), reason], ["stop", undefined])
          }))
      }
    }

    it.effect("and an answer without reasoning and content is not", () =>
      Effect.gen(function*() {
        const { url } = yield* served(() => streamOf("openai", openAiAnswer({ content: "" }).frames))
        const { reason } = yield* outcome(yield* engineAt(url), generation)
        assert.deepInclude(reason, { _tag: "UpstreamFailed", kind: "empty" })
      }))
  })
}
