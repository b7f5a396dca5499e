/**
 * A local provider that sends recorded answers, with configurable faults, and records the behaviour of its clients.
 */
import { once } from "node:events"
import type { IncomingHttpHeaders, IncomingMessage, ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo, Socket } from "node:net"
import type { Writable } from "node:stream"

/** The fault after this number of pieces of the body, instead of the rest. */
export type Fault =
  /** No more bytes arrive. */
  | "stall"
  /** The connection ends before the body does. */
  | "cut"
  /** The connection is reset. */
  | "reset"
  /** The body ends normally. */
  | "end"
  /** The last piece is repeated, as fast as the client reads it. */
  | "flood"
  /** The last piece is repeated slowly. */
  | "trickle"

/** One answer. */
export interface Play {
  /** Default 200. */
  readonly status?: number
  /** Default those of an event stream. */
  readonly headers?: Readonly<Record<string, string>>
  readonly pieces: ReadonlyArray<string | Uint8Array>
  /** No bytes arrive, not even headers; or the connection is reset before them. */
  readonly silent?: "stall" | "reset"
  readonly fault?: { readonly kind: Fault; readonly after: number }
  /** Sends this number of bytes at a time, even if that splits pieces and characters. */
  readonly bytesAtATime?: number
  /** Before the headers and between two pieces, ms. */
  readonly delayMs?: number
  /** The pieces are the complete response, including status line and headers. */
  readonly raw?: boolean
  /** Waits for `release` before the fault, before the end, or before the piece of this number. */
  readonly gated?: boolean | number
}

/** A received request. */
export interface Seen {
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly body: unknown
  /** The body as it was sent. */
  readonly text: string
}

export interface FaultServer {
  readonly url: string
  readonly seen: ReadonlyArray<Seen>
  /** All connections since the start. */
  readonly connections: () => number
  /** Resolves when this connection has been closed. */
  readonly closed: (index: number) => Promise<void>
  /** Resolves when the client of this request has disconnected before the end of its answer. */
  readonly left: (index: number) => Promise<void>
  /** Resolves when the socket of this request has accepted no bytes for a while. */
  readonly blocked: (index: number) => Promise<void>
  /** Resolves when the request with this number has arrived. */
  readonly came: (index: number) => Promise<void>
  /** Releases gated requests: the one with this number, or all. */
  readonly release: (index?: number) => void
  readonly close: () => Promise<void>
}

/** Promises by number, which can be resolved by number. */
const makeMarks = () => {
  const marks = new Map<number, PromiseWithResolvers<void>>()
  return (index: number) => {
    const mark = marks.get(index) ?? Promise.withResolvers<void>()
    marks.set(index, mark)
    return mark
  }
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve))

const pause = (ms: number | undefined) =>
  ms === undefined ? turn() : new Promise<void>((resolve) => setTimeout(resolve, ms))

const bytesOf = (pieces: Play["pieces"]) => Buffer.concat(pieces.map((piece) => Buffer.from(piece)))

/** Each piece in its own write. */
const send = async (sink: Writable, pieces: Play["pieces"], { bytesAtATime, delayMs }: Play) => {
  const all = bytesOf(pieces)
  const parts = bytesAtATime === undefined
    ? pieces
    : Array.from(
      { length: Math.ceil(all.length / bytesAtATime) },
      (_, index) => all.subarray(index * bytesAtATime, (index + 1) * bytesAtATime)
    )
  for (const part of parts) {
    if (sink.destroyed) return
    sink.write(part)
    await pause(delayMs)
  }
}

/** Time without accepted bytes after which a reader counts as slow, ms. */
const blockedAfter = 100

const repeat = async (sink: Writable, piece: string | Uint8Array, wait: () => Promise<void>) => {
  while (!sink.destroyed) {
    if (!sink.write(piece)) {
      const timer = setTimeout(() => sink.emit("blocked"), blockedAfter)
      const either = new AbortController()
      const { signal } = either
      await Promise.race([once(sink, "drain", { signal }), once(sink, "close", { signal })])
      // The listeners of the other event stay otherwise.
      either.abort()
      clearTimeout(timer)
    }
    await wait()
  }
}

const faults: {
  readonly [Kind in Fault]: (sink: Writable, last: string | Uint8Array, socket: Socket) => unknown
} = {
  stall: () => {},
  cut: (sink) => sink.destroy(),
  reset: (_, __, socket) => socket.resetAndDestroy(),
  end: (sink) => sink.end(),
  flood: (sink, last) => repeat(sink, last, turn),
  trickle: (sink, last) => repeat(sink, last, () => pause(5))
}

/** The writer of the body, after the headers have been sent. */
const begin = (response: ServerResponse, socket: Socket, { headers, raw = false, status = 200 }: Play): Writable => {
  if (raw) return socket
  response.writeHead(status, { "content-type": "text/event-stream; charset=utf-8", ...headers })
  response.flushHeaders()
  return response
}

/** The number of pieces before the gate; undefined if there is none. */
const gateOf = ({ gated = false }: Play, pieces: number): number | undefined => {
  if (gated === false) return undefined
  return gated === true ? pieces : gated
}

const perform = async (response: ServerResponse, socket: Socket, play: Play, gate: Promise<void>) => {
  if (play.silent === "stall") return
  if (play.silent === "reset") return void socket.resetAndDestroy()
  const { delayMs, fault, pieces } = play
  if (delayMs !== undefined) await pause(delayMs)
  const sink = begin(response, socket, play)
  const sent = pieces.slice(0, fault?.after)
  const gated = gateOf(play, sent.length)
  await send(sink, sent.slice(0, gated), play)
  if (gated !== undefined) {
    await gate
    await send(sink, sent.slice(gated), play)
  }
  if (fault === undefined) return void sink.end()
  await faults[fault.kind](sink, pieces[fault.after] ?? pieces.at(-1) ?? "", socket)
}

const textOf = async (request: IncomingMessage): Promise<string> => {
  const pieces: Array<Buffer> = []
  for await (const piece of request) pieces.push(piece as Buffer)
  return Buffer.concat(pieces).toString()
}

/** @param playOf the answer to the request with this number, counted from 0 */
export const startFaultServer = async (
  playOf: (index: number, request: Seen) => Play | Promise<Play>
): Promise<FaultServer> => {
  const seen: Array<Seen> = []
  const left = makeMarks()
  const came = makeMarks()
  const blocked = makeMarks()
  const gates = makeMarks()
  const gate = Promise.withResolvers<void>()
  let connections = 0
  const server = createServer((request, response) => {
    const answer = async () => {
      const text = await textOf(request)
      const one = { path: request.url ?? "", headers: request.headers, body: JSON.parse(text) as unknown, text }
      const index = seen.push(one) - 1
      response.once("close", () => {
        if (!response.writableFinished) left(index).resolve()
      })
      response.once("blocked", blocked(index).resolve)
      came(index).resolve()
      const play = await playOf(index, one)
      await perform(response, request.socket, play, Promise.race([gate.promise, gates(index).promise]))
    }
    // A client that disconnects during its request is not an error of this server.
    answer().catch(() => response.destroy())
  })
  const closed = makeMarks()
  server.on("connection", (socket) => {
    socket.once("close", closed(connections++).resolve)
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    seen,
    connections: () => connections,
    closed: (index) => closed(index).promise,
    left: (index) => left(index).promise,
    blocked: (index) => blocked(index).promise,
    came: (index) => came(index).promise,
    release: (index) => (index === undefined ? gate : gates(index)).resolve(),
    close: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    }
  }
}
