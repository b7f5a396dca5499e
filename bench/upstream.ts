/**
 * Process entry: a remote provider that answers at once, buffered or streamed, in OpenAI's dialect.
 *
 * **Details**
 *
 * It serves every gateway in the same way. It shares a core with the load, so it is cheap: sockets without an HTTP server,
 * and answers that are made once. An answer of the model `paced` is sent word by word; all others are sent at once, with one
 * chunk per word.
 */
import { once } from "node:events"
import type { AddressInfo, Socket } from "node:net"
import { createServer } from "node:net"
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

const responseOf = (status: string, body: string): Buffer =>
  Buffer.from(
    `HTTP/1.1 ${status}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
  )

const streamHead =
  "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream; charset=utf-8\r\ntransfer-encoding: chunked\r\n\r\n"

/** A chunk of the transfer. */
const chunk = (body: string): string => `${Buffer.byteLength(body).toString(16)}\r\n${body}\r\n`

const frame = (event: object): string =>
  chunk(`data: ${JSON.stringify({ ...head, object: "chat.completion.chunk", ...event })}\n\n`)

const delta = (delta: object, finish: string | null = null): string =>
  frame({ choices: [{ index: 0, delta, logprobs: null, finish_reason: finish }] })

/** The parts of a streamed answer as they are sent; the first has the head and the first word. */
const partsOf = (words: ReadonlyArray<string>): ReadonlyArray<Buffer> => {
  const [first = "", ...rest] = words
  return [
    streamHead + delta({ role: "assistant", content: "" }) + delta({ content: first }),
    ...rest.map((content) => delta({ content })),
    delta({}, "stop") + frame({ choices: [], usage }) + chunk("data: [DONE]\n\n") + chunk("")
  ].map((text) => Buffer.from(text))
}

const streamPaced = (socket: Socket, parts: ReadonlyArray<Buffer>, paceMs: number): void => {
  let next = 1
  const stop = () => {
    clearInterval(timer)
    socket.off("close", stop)
  }
  const timer = setInterval(() => {
    socket.write(parts[next++]!)
    if (next === parts.length) stop()
  }, paceMs)
  socket.write(parts[0]!)
  socket.on("close", stop)
}

const endOfHead = "\r\n\r\n"

/** Cuts requests with a `content-length`; text has one character a byte. */
const makeReader = (take: (head: string, body: string) => void) => {
  let text = ""
  return (piece: string): void => {
    text += piece
    for (;;) {
      const headEnd = text.indexOf(endOfHead)
      if (headEnd < 0) return
      const head = text.slice(0, headEnd)
      const end = headEnd + endOfHead.length + Number(/\r\ncontent-length: *(\d+)/i.exec(head)?.[1] ?? 0)
      if (text.length < end) return
      const body = text.slice(headEnd + endOfHead.length, end)
      text = text.slice(end)
      take(head, body)
    }
  }
}

const makeAnswer = ({ key, paceMs, words }: UpstreamQuestion) => {
  const buffered = responseOf("200 OK", bufferedOf(words))
  const parts = partsOf(words)
  const together = Buffer.concat(parts)
  const rejected = responseOf("401 Unauthorized", "{\"error\":{\"message\":\"No key\"}}")
  const isAllowed = new RegExp(`\\r\\nauthorization: *Bearer ${key}(?:\\r\\n|$)`, "i")
  return (socket: Socket, requestHead: string, body: string): void => {
    if (!isAllowed.test(requestHead)) {
      socket.write(rejected)
      return
    }
    const { model, stream } = JSON.parse(body) as Request
    if (stream !== true) socket.write(buffered)
    else if (model === "paced") streamPaced(socket, parts, paceMs)
    else socket.write(together)
  }
}

answerParent<UpstreamQuestion, UpstreamAnswer>(async (question) => {
  const answer = makeAnswer(question)
  const server = createServer({ noDelay: true }, (socket) => {
    const read = makeReader((head, body) => answer(socket, head, body))
    socket.setEncoding("latin1").on("data", (piece: string) => {
      try {
        read(piece)
      } catch (cause) {
        socket.destroy(cause as Error)
      }
    }).on("error", () => socket.destroy())
  })
  server.listen(0, "127.0.0.1", 4_096)
  await once(server, "listening")
  return { port: (server.address() as AddressInfo).port }
})
