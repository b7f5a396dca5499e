/** Answers of a provider that consist of reasoning and nothing else: they are complete, and no failure of the provider. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Provider } from "../../../src/domain/Deployment.ts"
import type { Event } from "../../../src/domain/Inference.ts"
import { engineAt, generation, json, outcome, served } from "./support.ts"

interface ProviderAnswer {
  readonly buffered: unknown
  readonly frames: ReadonlyArray<unknown>
}

const openAi = (message: object): ProviderAnswer => ({
  buffered: { choices: [{ index: 0, message: { role: "assistant", ...message }, finish_reason: "stop" }] },
  frames: [
    { choices: [{ index: 0, delta: { role: "assistant", ...message } }] },
    { choices: [{ index: 0, delta: {}, finish_reason: "stop" }] }
  ]
})

const anthropic = (block: object, begun: object, ...deltas: ReadonlyArray<object>): ProviderAnswer => ({
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

const gemini = {
  candidates: [{ content: { parts: [{ text: "Hm.", thought: true }] }, finishReason: "STOP" }]
}

const ollama = { message: { role: "assistant", content: "", thinking: "Hm." } }

const redacted = { type: "redacted_thinking", data: "aG0=" }

const answers: ReadonlyArray<readonly [Provider, name: string, ProviderAnswer]> = [
  ["openai", "reasoning_content", openAi({ content: "", reasoning_content: "Hm." })],
  ["openai", "reasoning", openAi({ content: null, reasoning: "Hm." })],
  ["openai", "encrypted reasoning", openAi({ reasoning_details: [{ type: "reasoning.encrypted", data: "aG0=" }] })],
  [
    "openai",
    "thinking in parts",
    openAi({ content: [{ type: "thinking", thinking: [{ type: "text", text: "Hm." }] }] })
  ],
  ["troupe", "reasoning_content", openAi({ content: "", reasoning_content: "Hm." })],
  [
    "anthropic",
    "thinking",
    anthropic(
      { type: "thinking", thinking: "Hm.", signature: "s" },
      { type: "thinking", thinking: "" },
      { type: "thinking_delta", thinking: "Hm." },
      { type: "signature_delta", signature: "s" }
    )
  ],
  ["anthropic", "redacted thinking", anthropic(redacted, redacted)],
  ["gemini", "thoughts", { buffered: gemini, frames: [gemini] }],
  ["ollama", "thinking", {
    buffered: { ...ollama, done: true, done_reason: "stop" },
    frames: [{ ...ollama, done: false }, { message: { content: "" }, done: true, done_reason: "stop" }]
  }]
]

const bodyOf = (provider: Provider, frames: ReadonlyArray<unknown>) =>
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

describe("an answer of reasoning alone is complete", () => {
  for (const [provider, name, { frames, buffered }] of answers) {
    for (const isBuffered of [false, true]) {
      it.effect(`${provider}, ${name}, ${isBuffered ? "buffered" : "streamed"}`, () =>
        Effect.gen(function*() {
          const play = isBuffered ? { headers: json, pieces: [JSON.stringify(buffered)] } : bodyOf(provider, frames)
          const { url } = yield* served(() => play)
          const engine = yield* engineAt(url, { provider, stream: !isBuffered })
          const { events, reason } = yield* outcome(engine, generation)
          assert.deepStrictEqual([finishOf(events), reason], ["stop", undefined])
        }))
    }
  }

  it.effect("and an answer without reasoning and content is not", () =>
    Effect.gen(function*() {
      const { url } = yield* served(() => bodyOf("openai", openAi({ content: "" }).frames))
      const { reason } = yield* outcome(yield* engineAt(url), generation)
      assert.deepInclude(reason, { _tag: "UpstreamFailed", kind: "empty" })
    }))
})
