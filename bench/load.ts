/**
 * Process entry: the same request over keep-alive connections, one at a time on each: in a closed loop, or at a steady
 * rate.
 *
 * **Details**
 *
 * Plain sockets, since this process shares the cores with the measured server: it only finds the end of each answer.
 */
import type { Socket } from "node:net"
import { connect } from "node:net"
import { answerParent } from "./Child.ts"
import type { Post } from "./RawHttp.ts"
import * as RawHttp from "./RawHttp.ts"
import type { Spread } from "./Statistics.ts"
import { spreadOf } from "./Statistics.ts"

/** One round of load. */
export interface LoadQuestion extends Post {
  readonly connections: number
  /** No request begins later. */
  readonly milliseconds: number
  /** No request of a connection begins after as many; default no limit. */
  readonly requests?: number
  /** The text that marks the first token. */
  readonly firstToken?: string
  /** Requests a second, evenly spaced over all connections; default as many as are answered. */
  readonly rate?: number
}

export interface LoadAnswer {
  readonly requests: number
  readonly milliseconds: number
  /** Bytes of all answers, heads included. */
  readonly bytes: number
  /** From a request to the end of its answer, ms. */
  readonly latency: Spread
  /** From a request to its first token, ms. */
  readonly firstToken?: Spread
}

interface Count {
  bytes: number
  /** ms each. */
  readonly latencies: Array<number>
  readonly firstTokens: Array<number>
}

/** One round on one connection. */
interface Drive {
  readonly question: LoadQuestion
  readonly request: string
  /** Of the round, ms. */
  readonly begun: number
  /** Of the connection, from 0. */
  readonly index: number
  readonly count: Count
}

/** Runs `send` when the connection's request of this number is due. */
const whenDue = ({ begun, index, question: { connections, rate } }: Drive, number: number, send: () => void): void => {
  if (rate === undefined) return send()
  const due = begun + (number * connections + index) * 1_000 / rate
  setTimeout(send, Math.max(0, due - performance.now()))
}

/** Sends requests over one connection until the end of the round. */
const drive = (round: Drive): Promise<void> =>
  new Promise((resolve, reject) => {
    const { begun: start, count, question: { firstToken, milliseconds, port, requests = Infinity }, request } = round
    const socket: Socket = connect({ port, host: "127.0.0.1", noDelay: true })
    const answer = RawHttp.makeReader()
    let begun = 0
    let number = 0
    let isAwaited = false
    const send = () => {
      begun = performance.now()
      isAwaited = firstToken !== undefined
      if (begun < start + milliseconds && number <= requests) socket.write(request)
      else socket.end(resolve)
    }
    const next = () => whenDue(round, number++, send)
    const take = (piece: string) => {
      count.bytes += piece.length
      const isWhole = answer.push(piece)
      if (isAwaited && answer.text().includes(firstToken!)) {
        isAwaited = false
        count.firstTokens.push(performance.now() - begun)
      }
      if (!isWhole) return
      if (isAwaited) throw new Error(`An answer has no first token: ${answer.text().slice(0, 2_000)}`)
      count.latencies.push(performance.now() - begun)
      answer.next()
      next()
    }
    // One character a byte.
    socket.setEncoding("latin1").on("connect", next).on("data", (piece: string) => {
      try {
        take(piece)
      } catch (cause) {
        socket.destroy(cause as Error)
      }
    }).on("error", reject)
    socket.on("close", () => reject(new Error("A connection was closed before the end of its answer")))
  })

answerParent<LoadQuestion, LoadAnswer>(async (question) => {
  const request = RawHttp.textOf(question)
  const count: Count = { bytes: 0, latencies: [], firstTokens: [] }
  const begun = performance.now()
  await Promise.all(
    Array.from({ length: question.connections }, (_, index) => drive({ question, request, begun, index, count }))
  )
  return {
    requests: count.latencies.length,
    milliseconds: performance.now() - begun,
    bytes: count.bytes,
    latency: spreadOf(count.latencies),
    ...(question.firstToken === undefined ? {} : { firstToken: spreadOf(count.firstTokens) })
  }
})
