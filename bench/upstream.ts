/**
 * Process entry: a remote provider that answers at once, buffered or streamed, in OpenAI's dialect.
 *
 * **Details**
 *
 * It serves every gateway in the same way, and is cheap, since it shares the cores with them. An answer of the model
 * `paced` is sent word by word; all others are sent at once, with one chunk per word.
 */
import { once } from "node:events"
import type { IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { answerParent } from "./Child.ts"

/** The answer to send. */
export interface UpstreamQuestion {
  /** One chunk each. */
  readonly words: ReadonlyArray<string>
  /** The required API key. */
  readonly key: string
  /** Between two words for the model `paced`, ms. */
  readonly paceMs: number
}

export interface UpstreamAnswer {
  readonly port: number
}

interface Request {
  readonly model: string
  readonly stream?: boolean
}

const usage = { prompt_tokens: 12, completion_tokens: 20, total_tokens: 32 }
const head = { id: "chatcmpl-bench", created: 1_700_000_000, model: "bench-1" }

const bufferedOf = (words: ReadonlyArray<string>): string =>
  JSON.stringify({
    ...head,
    object: "chat.completion",
    choices: [{
      index: 0,
      message: { role: "assistant", content: words.join(""), refusal: null },
      logprobs: null,
      finish_reason: "stop"
    }],
    usage
  })

const frame = (chunk: object): string =>
  `data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", ...chunk })}\n\n`

const delta = (delta: object, finish: string | null = null): string =>
  frame({ choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }] })

interface Frames {
  readonly first: string
  readonly words: ReadonlyArray<string>
  readonly last: ReadonlyArray<string>
}

const framesOf = (words: ReadonlyArray<string>): Frames => ({
  first: delta({ role: "assistant", content: "" }),
  words: words.map((content) => delta({ content })),
  last: [delta({}, "stop"), frame({ choices: [], usage }), "data: [DONE]\n\n"]
})

const streamPaced = (response: ServerResponse, { first, last, words }: Frames, paceMs: number): void => {
  let next = 1
  response.write(first + words[0])
  const timer = setInterval(() => {
    if (next < words.length) {
      response.write(words[next++]!)
      return
    }
    clearInterval(timer)
    response.end(last.join(""))
  }, paceMs)
  response.once("close", () => clearInterval(timer))
}

const bodyOf = async (request: IncomingMessage): Promise<Request> => {
  let text = ""
  request.setEncoding("utf8").on("data", (piece: string) => {
    text += piece
  })
  await once(request, "end")
  return JSON.parse(text) as Request
}

const makeAnswer = ({ key, paceMs, words }: UpstreamQuestion) => {
  const buffered = bufferedOf(words)
  const bufferedHeaders = { "content-type": "application/json", "content-length": Buffer.byteLength(buffered) }
  const frames = framesOf(words)
  const together = [frames.first, ...frames.words, ...frames.last]
  return async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const { model, stream } = await bodyOf(request)
    if (request.headers.authorization !== `Bearer ${key}`) {
      response.writeHead(401, { "content-type": "application/json" }).end("{\"error\":{\"message\":\"No key\"}}")
    } else if (stream !== true) {
      response.writeHead(200, bufferedHeaders).end(buffered)
    } else {
      response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" })
      if (model === "paced") return streamPaced(response, frames, paceMs)
      for (const one of together) response.write(one)
      response.end()
    }
  }
}

answerParent<UpstreamQuestion, UpstreamAnswer>(async (question) => {
  const answer = makeAnswer(question)
  const server = createServer({ keepAliveTimeout: 60_000 }, (request, response) => {
    void answer(request, response).catch((cause: Error) => response.destroy(cause))
  })
  server.listen(0, "127.0.0.1", 4_096)
  await once(server, "listening")
  return { port: (server.address() as AddressInfo).port }
})
