/**
 * A provider in OpenAI's dialect, in the bench's own process, that fails as it is told.
 *
 * **Details**
 *
 * Each fault is one that providers have: an answer with an error, a rate limit, a reset connection, silence, a stream that
 * breaks off, and a body that is no JSON.
 */
import { once } from "node:events"
import type { ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

export const kinds = ["error", "overloaded", "limited", "reset", "silence", "cut", "garbage"] as const
export type Fault = typeof kinds[number]

const head = { id: "chatcmpl-fault", created: 1_700_000_000, model: "bench-1" }
const usage = { prompt_tokens: 4, completion_tokens: 4, total_tokens: 8 }

/** What each answer says. */
const words = ["All ", "is ", "well ", "here."]
export const text = words.join("")

const json = { "content-type": "application/json" }

const buffered = JSON.stringify({
  ...head,
  object: "chat.completion",
  choices: [{ index: 0, message: { role: "assistant", content: text }, finish_reason: "stop" }],
  usage
})

const frame = (fields: object): string =>
  `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", ...fields })}\n\n`

const delta = (content: string): string => frame({ choices: [{ index: 0, delta: { content }, finish_reason: null }] })

const end = `${frame({ choices: [{ index: 0, delta: {}, finish_reason: "stop" }] })}${
  frame({ choices: [], usage })
}data: [DONE]\n\n`

const answer = (response: ServerResponse, isStream: boolean): void => {
  if (isStream) {
    response.writeHead(200, { "content-type": "text/event-stream" }).end(words.map(delta).join("") + end)
  } else response.writeHead(200, json).end(buffered)
}

const cut = (response: ServerResponse, isStream: boolean): void => {
  if (isStream) {
    response.writeHead(200, { "content-type": "text/event-stream" }).write(delta(words[0]!) + delta(words[1]!))
  } else response.writeHead(200, { ...json, "content-length": buffered.length }).write(buffered.slice(0, 40))
  // The bytes before it arrive.
  setTimeout(() => response.destroy(), 20)
}

const fail = (status: number, headers: Readonly<Record<string, string>> = {}) => (response: ServerResponse): void =>
  void response.writeHead(status, { ...json, ...headers }).end("{\"error\":{\"message\":\"It fails.\"}}")

type Play = Readonly<Record<Fault, (response: ServerResponse, isStream: boolean) => void>>

const playOf = (retryAfterMs: number): Play => ({
  error: fail(500),
  overloaded: fail(503),
  limited: fail(429, { "retry-after": "1", "retry-after-ms": String(retryAfterMs) }),
  reset: (response) => void response.socket?.resetAndDestroy(),
  silence: () => {},
  cut,
  garbage: (response) => void response.writeHead(200, { "content-type": "text/html" }).end("<html>Bad gateway</html>")
})

export interface FaultyProvider {
  readonly url: string
  /** How it fails from now on; undefined, not at all. */
  set: (fault: Fault | undefined) => void
  /** Requests that it has failed. */
  readonly failed: () => number
  readonly close: () => void
}

/** @param retryAfterMs of its rate limit */
export const startFaultyProvider = async (retryAfterMs: number): Promise<FaultyProvider> => {
  const play = playOf(retryAfterMs)
  let fault: Fault | undefined
  let failed = 0
  const server = createServer((request, response) => {
    let body = ""
    request.setEncoding("utf8").on("data", (piece: string) => {
      body += piece
    })
    request.on("end", () => {
      const isStream = body.includes("\"stream\":true")
      if (fault === undefined) return answer(response, isStream)
      failed++
      play[fault](response, isStream)
    })
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/v1`,
    set: (next) => {
      fault = next
    },
    failed: () => failed,
    close: () => {
      server.closeAllConnections()
      server.close()
    }
  }
}
