/**
 * Process entry: a closed loop of the same request over kept-open connections, one at a time on each.
 *
 * **Details**
 *
 * Plain sockets, since this process shares the cores with what it loads: of an answer it reads only where it ends.
 */
import type { Socket } from "node:net"
import { connect } from "node:net"
import { answerParent } from "./Child.ts"

/** One round of load. */
export interface LoadQuestion {
  readonly port: number
  readonly path: string
  readonly body: string
  readonly connections: number
  /** No request begins later. */
  readonly milliseconds: number
}

export interface LoadAnswer {
  readonly requests: number
  readonly milliseconds: number
  /** Bytes of all answers, heads included. */
  readonly bytes: number
}

const endOfHead = "\r\n\r\n"
const endOfChunks = "0\r\n\r\n"

/** Tells of each piece of an answer whether it is the last. Throws unless the status is 200. */
const makeAnswerReader = () => {
  let text = ""
  let length = -1
  return (piece: string): boolean => {
    text += piece
    if (length < 0) {
      const head = text.indexOf(endOfHead)
      if (head < 0) return false
      if (!text.startsWith("HTTP/1.1 200 ")) throw new Error(`An answer was not 200: ${text.slice(0, 500)}`)
      const declared = /\r\ncontent-length: (\d+)/i.exec(text.slice(0, head))?.[1]
      length = declared === undefined ? Number.POSITIVE_INFINITY : head + endOfHead.length + Number(declared)
    }
    const whole = length === Number.POSITIVE_INFINITY ? text.endsWith(endOfChunks) : text.length >= length
    if (whole) {
      text = ""
      length = -1
    }
    return whole
  }
}

interface Count {
  requests: number
  bytes: number
}

/** Asks over one connection until the time is over. */
const drive = (port: number, request: string, until: number, count: Count): Promise<void> =>
  new Promise((resolve, reject) => {
    const socket: Socket = connect({ port, host: "127.0.0.1", noDelay: true })
    const isWhole = makeAnswerReader()
    const next = () => {
      if (performance.now() < until) socket.write(request)
      else socket.end(resolve)
    }
    // One character a byte.
    socket.setEncoding("latin1").on("connect", next).on("data", (piece: string) => {
      try {
        count.bytes += piece.length
        if (!isWhole(piece)) return
        count.requests++
        next()
      } catch (cause) {
        socket.destroy(cause as Error)
      }
    }).on("error", reject)
    socket.on("close", () => reject(new Error("A connection was closed before its answer was whole")))
  })

answerParent<LoadQuestion, LoadAnswer>(async ({ body, connections, milliseconds, path, port }) => {
  const request = [
    `POST ${path} HTTP/1.1`,
    `host: 127.0.0.1:${port}`,
    "content-type: application/json",
    `content-length: ${Buffer.byteLength(body)}`,
    "",
    body
  ].join("\r\n")
  const count: Count = { requests: 0, bytes: 0 }
  const begun = performance.now()
  await Promise.all(
    Array.from({ length: connections }, () => drive(port, request, begun + milliseconds, count))
  )
  return { ...count, milliseconds: performance.now() - begun }
})
