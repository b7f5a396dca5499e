/**
 * A cheap client of streamed chat completions, since it shares the cores with the measured processes: it searches the
 * bytes for the first content, and parses only the usage at the end.
 */
import type { IncomingMessage } from "node:http"
import { Agent, request } from "node:http"
import type { Sample } from "./ClosedLoop.ts"

/** One streamed answer. */
export interface Streamed extends Sample {
  /** The prompt's cached tokens. */
  readonly cachedTokens: number
}

export interface StreamClient {
  /** Sends one request; rejects if the answer is incomplete. */
  readonly ask: (body: string) => Promise<Streamed>
  readonly close: () => void
}

const firstContent = "\"delta\":{\"content\":"
const dataPrefix = "data: "
const lastFrame = `${dataPrefix}[DONE]\n\n`

/** Ends with the answer's last byte. */
const read = (response: IncomingMessage, begun: number) =>
  new Promise<{ readonly body: string; readonly firstTokenMs: number }>((resolve, reject) => {
    const chunks: Array<Buffer> = []
    let firstTokenMs = Number.NaN
    response.on("data", (chunk: Buffer) => {
      chunks.push(chunk)
      if (Number.isNaN(firstTokenMs) && chunk.includes(firstContent)) firstTokenMs = performance.now() - begun
    }).on("end", () => resolve({ body: Buffer.concat(chunks).toString("utf8"), firstTokenMs })).on("error", reject)
  })

interface Usage {
  readonly completion_tokens: number
  readonly prompt_tokens_details: { readonly cached_tokens: number }
}

/** The usage in the frame before the last, by `include_usage`. */
const usageOf = (body: string): Usage => {
  const frame = body.slice(body.lastIndexOf(dataPrefix, body.length - lastFrame.length - 1) + dataPrefix.length)
  const { usage } = JSON.parse(frame.slice(0, frame.indexOf("\n"))) as { readonly usage: Usage }
  return usage
}

/** The text of all frames. */
const textOf = (body: string): string => {
  let text = ""
  for (const [, content] of body.matchAll(/"delta":\{"content":("(?:[^"\\]|\\.)*")\}/g)) {
    text += JSON.parse(content!) as string
  }
  return text
}

/** @param connections limit of open connections */
export const makeStreamClient = (port: number, connections: number): StreamClient => {
  const agent = new Agent({ keepAlive: true, maxSockets: connections })
  const headers = { "content-type": "application/json" }

  const post = (body: string): Promise<IncomingMessage> =>
    new Promise((resolve, reject) => {
      request({ agent, headers, host: "127.0.0.1", port, method: "POST", path: "/v1/chat/completions" }, resolve)
        .on("error", reject)
        .end(body)
    })

  return {
    async ask(body) {
      const begun = performance.now()
      const response = await post(body)
      const answer = await read(response, begun)
      if (response.statusCode !== 200 || !answer.body.endsWith(lastFrame)) {
        throw new Error(`The service answered ${response.statusCode}: ${answer.body.slice(-300)}`)
      }
      const usage = usageOf(answer.body)
      return {
        tokens: usage.completion_tokens,
        cachedTokens: usage.prompt_tokens_details.cached_tokens,
        firstTokenMs: answer.firstTokenMs,
        text: textOf(answer.body)
      }
    },
    close: () => agent.destroy()
  }
}
