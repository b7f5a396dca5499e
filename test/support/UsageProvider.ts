/** A local provider of several dialects, whose answers report cached, written and reasoning tokens. */
import { once } from "node:events"
import type { ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

const openAiUsage = {
  prompt_tokens: 1000,
  completion_tokens: 200,
  total_tokens: 1200,
  prompt_tokens_details: { cached_tokens: 400 },
  completion_tokens_details: { reasoning_tokens: 50 }
}

const anthropicUsage = {
  input_tokens: 500,
  cache_read_input_tokens: 400,
  cache_creation_input_tokens: 100,
  cache_creation: { ephemeral_5m_input_tokens: 60, ephemeral_1h_input_tokens: 40 },
  output_tokens: 200,
  output_tokens_details: { thinking_tokens: 50 }
}

const event = (data: object, name?: string): string =>
  `${name === undefined ? "" : `event: ${name}\n`}data: ${JSON.stringify(data)}\n\n`

const openAi = (n = 1) => {
  const base = { id: "c", created: 1, model: "m" }
  const indexes = Array.from({ length: n }, (_, index) => index)
  return {
    buffered: {
      ...base,
      object: "chat.completion",
      choices: indexes.map((index) => ({
        index,
        message: { role: "assistant", content: "Hi" },
        finish_reason: "stop"
      })),
      usage: openAiUsage
    },
    streamed: [
      event({
        ...base,
        object: "chat.completion.chunk",
        choices: indexes.map((index) => ({ index, delta: { role: "assistant", content: "Hi" } }))
      }),
      event({
        ...base,
        object: "chat.completion.chunk",
        choices: indexes.map((index) => ({ index, delta: {}, finish_reason: "stop" }))
      }),
      event({ ...base, object: "chat.completion.chunk", choices: [], usage: openAiUsage }),
      "data: [DONE]\n\n"
    ].join("")
  }
}

const anthropic = () => {
  const message = { id: "msg", type: "message", role: "assistant", model: "m" }
  const { output_tokens, output_tokens_details, ...input } = anthropicUsage
  return {
    buffered: {
      ...message,
      content: [{ type: "text", text: "Hi" }],
      stop_reason: "end_turn",
      stop_sequence: null,
      usage: anthropicUsage
    },
    streamed: [
      event({ type: "message_start", message: { ...message, content: [], usage: { ...input, output_tokens: 1 } } }),
      event({ type: "content_block_start", index: 0, content_block: { type: "text", text: "" } }),
      event({ type: "content_block_delta", index: 0, delta: { type: "text_delta", text: "Hi" } }),
      event({ type: "content_block_stop", index: 0 }),
      event({
        type: "message_delta",
        delta: { stop_reason: "end_turn", stop_sequence: null },
        usage: { output_tokens, output_tokens_details }
      }),
      event({ type: "message_stop" })
    ].join("")
  }
}

const gemini = () => {
  const answer = {
    candidates: [{ content: { role: "model", parts: [{ text: "Hi" }] }, finishReason: "STOP" }],
    usageMetadata: {
      promptTokenCount: 1000,
      cachedContentTokenCount: 400,
      candidatesTokenCount: 150,
      thoughtsTokenCount: 50
    }
  }
  return { buffered: answer, streamed: event(answer) }
}

const answerTo = (path: string, body: { readonly n?: number; readonly input?: unknown }) => {
  if (path.includes("/messages")) return anthropic()
  if (path.includes("Content")) return gemini()
  return openAi(body.n)
}

const embeddings = {
  object: "list",
  model: "m",
  data: [{ object: "embedding", index: 0, embedding: [1, 0] }],
  usage: { prompt_tokens: 1000, total_tokens: 1000 }
}

const json = (response: ServerResponse, body: unknown, status = 200) =>
  void response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))

export interface UsageProvider {
  readonly url: string
  /** Requests so far. */
  readonly count: () => number
  readonly close: () => void
}

/** Starts the provider. A request whose body contains "break" gets 500. */
export const startUsageProvider = async (): Promise<UsageProvider> => {
  let count = 0
  const server = createServer((request, response) => {
    let text = ""
    request.setEncoding("utf8").on("data", (piece: string) => {
      text += piece
    })
    request.on("end", () => {
      count++
      const path = request.url!
      if (text.includes("break")) return json(response, { error: { message: "broken" } }, 500)
      if (path.includes("/embeddings")) return json(response, embeddings)
      const body = JSON.parse(text) as { readonly n?: number; readonly stream?: boolean }
      const { buffered, streamed } = answerTo(path, body)
      if (body.stream !== true && !path.includes("stream")) return json(response, buffered)
      response.writeHead(200, { "content-type": "text/event-stream" }).end(streamed)
    })
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    count: () => count,
    close: () => {
      server.close()
      server.closeAllConnections()
    }
  }
}
