/** One answer, "Grüße aus 東京 🎌", in the wire format of each dialect. */
import type { Wire } from "./Faults.ts"
import { overloaded } from "./Faults.ts"

/** Dialects whose streams have another framing. */
export type Dialect = "openai" | "anthropic" | "gemini" | "ollama"

const begun = "Grüße "
const rest = "aus 東京 🎌"
const text = begun + rest

const sse = (data: string) => `data: ${data}\n\n`
const events = { "content-type": "text/event-stream; charset=utf-8" }

const chunk = (delta: object, finish_reason: string | null = null) =>
  sse(JSON.stringify({ id: "c", object: "chat.completion.chunk", choices: [{ index: 0, delta, finish_reason }] }))

const openai: Wire = {
  headers: events,
  pieces: [
    chunk({ role: "assistant", content: "" }),
    chunk({ content: begun }),
    chunk({ content: rest }),
    chunk({}, "stop"),
    sse("{\"choices\":[],\"usage\":{\"prompt_tokens\":19,\"completion_tokens\":10,\"total_tokens\":29}}"),
    sse("[DONE]")
  ],
  before: 1,
  begun,
  text,
  buffered: JSON.stringify({
    choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" }],
    usage: { prompt_tokens: 19, completion_tokens: 10, total_tokens: 29 }
  }),
  frame: sse,
  error: sse("{\"error\":{\"message\":\"The server had an error\",\"type\":\"server_error\"}}")
}

const named = (data: { readonly type: string; readonly [name: string]: unknown }) =>
  `event: ${data.type}\n${sse(JSON.stringify(data))}`
const piece = (text: string) => named({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text } })
const usage = { input_tokens: 25, output_tokens: 15 }

const anthropic: Wire = {
  headers: events,
  pieces: [
    named({ type: "message_start", message: { type: "message", content: [], usage } }) +
    named({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } }),
    piece(begun),
    piece(rest),
    named({ type: "content_block_stop", index: 0 }),
    named({ type: "message_delta", delta: { stop_reason: "end_turn" }, usage: { output_tokens: 15 } }),
    named({ type: "message_stop" })
  ],
  before: 1,
  begun,
  text,
  buffered: JSON.stringify({ type: "message", content: [{ type: "text", text }], stop_reason: "end_turn", usage }),
  frame: sse,
  error: named({ type: "error", error: { type: "overloaded_error", message: "Overloaded" } }),
  refusal: overloaded
}

const candidate = (text: string, more: object = {}) => ({
  candidates: [{ content: { parts: [{ text }], role: "model" }, index: 0, ...more }]
})

const gemini: Wire = {
  headers: events,
  pieces: [
    sse(JSON.stringify({ usageMetadata: { promptTokenCount: 8 } })),
    sse(JSON.stringify(candidate(begun))),
    sse(JSON.stringify(candidate(rest, { finishReason: "STOP" })))
  ],
  before: 1,
  begun,
  text,
  buffered: JSON.stringify(candidate(text, { finishReason: "STOP" })),
  frame: sse,
  error: sse("{\"error\":{\"code\":503,\"message\":\"The model is overloaded.\",\"status\":\"UNAVAILABLE\"}}")
}

const line = (data: object) => `${JSON.stringify(data)}\n`
const said = (content: string, done = false) => ({
  model: "m",
  message: { role: "assistant", content },
  done,
  ...(done ? { done_reason: "stop", prompt_eval_count: 26, eval_count: 9 } : {})
})

const ollama: Wire = {
  headers: { "content-type": "application/x-ndjson" },
  pieces: [line(said("")), line(said(begun)), line(said(rest)), line(said("", true))],
  before: 1,
  begun,
  text,
  buffered: JSON.stringify(said(text, true)),
  frame: (data) => `${data}\n`,
  error: line({ error: "an error was encountered while running the model" })
}

/** By dialect. */
export const wires: Readonly<Record<Dialect, Wire>> = { openai, anthropic, gemini, ollama }

/** The answer of the fallback. */
export const otherText = "Zweite Antwort"
export const otherPieces: ReadonlyArray<string> = [chunk({ content: otherText }), chunk({}, "stop"), sse("[DONE]")]
export const otherBuffered = openai.buffered.replace(text, otherText)
