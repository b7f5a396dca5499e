/**
 * A client of streamed chat completions that costs little, since it shares the cores with what it measures: it looks
 * for the first content in the bytes, and parses only the usage at the end.
 */
import type { IncomingMessage } from "node:http"
import { Agent, request } from "node:http"
import type { Sample } from "./ClosedLoop.ts"

export interface StreamClient {
  /** Asks once; rejects when the answer is not whole. */
  readonly ask: (body: string) => Promise<Sample>
  readonly close: () => void
}

const firstContent = "\"delta\":{\"content\":"
const lastFrame = "data: [DONE]\n\n"

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

const completionTokens = (body: string): number => {
  const [, counted] = /"completion_tokens":(\d+)/.exec(body.slice(body.lastIndexOf("\"usage\":"))) ?? []
  if (counted === undefined) throw new Error("The answer does not tell its usage")
  return Number(counted)
}

/** The text of all frames. */
const textOf = (body: string): string => {
  let text = ""
  for (const [, content] of body.matchAll(/"delta":\{"content":("(?:[^"\\]|\\.)*")\}/g)) {
    text += JSON.parse(content!) as string
  }
  return text
}

/** @param connections the most that are kept open */
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
      return {
        tokens: completionTokens(answer.body),
        firstTokenMs: answer.firstTokenMs,
        text: textOf(answer.body)
      }
    },
    close: () => agent.destroy()
  }
}
