/** Minimal HTTP client for load generators, which share the cores: it only finds the end of an answer. */

/** A request to a port of this machine. */
export interface Post {
  readonly port: number
  readonly path: string
  readonly body: string
  /** Besides `host`, `content-type` and `content-length`. */
  readonly headers?: Readonly<Record<string, string>>
}

/** The request as it is sent. */
export const textOf = ({ body, headers = {}, path, port }: Post): string =>
  [
    `POST ${path} HTTP/1.1`,
    `host: 127.0.0.1:${port}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    ...Object.entries(headers).map(([name, value]) => `${name}: ${value}`),
    "",
    body
  ].join("\r\n")

const endOfHead = "\r\n\r\n"
const endOfChunks = "0\r\n\r\n"

/** Reads the answers of one connection in order; text has one character per byte. */
export interface AnswerReader {
  /** Whether this piece is the last of its answer. Throws unless the status is 200. */
  readonly push: (piece: string) => boolean
  /** The received part of the answer, including its head and chunk sizes. */
  readonly text: () => string
  /** Discards the answer. */
  readonly next: () => void
}

export const makeReader = (): AnswerReader => {
  let text = ""
  let length = -1
  return {
    push: (piece) => {
      text += piece
      if (length < 0) {
        const head = text.indexOf(endOfHead)
        if (head < 0) return false
        if (!text.startsWith("HTTP/1.1 200 ")) throw new Error(`An answer was not 200: ${text.slice(0, 500)}`)
        const declared = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, head))?.[1]
        length = declared === undefined ? Number.POSITIVE_INFINITY : head + endOfHead.length + Number(declared)
      }
      return length === Number.POSITIVE_INFINITY ? text.endsWith(endOfChunks) : text.length >= length
    },
    text: () => text,
    next: () => {
      text = ""
      length = -1
    }
  }
}

/** The body of a chunked answer, with one character per byte. */
export const unchunked = (text: string): string => {
  let body = ""
  let at = text.indexOf(endOfHead) + endOfHead.length
  for (;;) {
    const begin = text.indexOf("\r\n", at) + 2
    const length = Number.parseInt(text.slice(at, begin), 16)
    if (!(length > 0)) return body
    body += text.slice(begin, begin + length)
    at = begin + length + 2
  }
}
