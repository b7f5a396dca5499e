/**
 * Requests for an upgrade at Node's server: a WebSocket at one path starts one, every other is refused.
 *
 * **Details**
 *
 * Node gives such a request no response, and before 24.9 asks for every upgrade. A request for a WebSocket behind one that is
 * not answered yet waits: the connection belongs to the response of that one.
 */
import type { IncomingMessage } from "node:http"
import { ServerResponse } from "node:http"
import type { Socket } from "node:net"
import type { HttpProblem } from "./Dialect.ts"

/** The path of WebSocket connections. */
const socketPath = "/v1/responses"

const noUpgrade: HttpProblem = {
  status: 400,
  code: "upgrade_not_supported",
  message: `The only supported upgrade is a WebSocket at ${socketPath}. Send the request without Upgrade.`
}

/** Whether a request asks for a WebSocket where there is one. Another request for an upgrade is answered as it is. */
const isSocketRequest = ({ headers, method, url }: IncomingMessage): boolean =>
  method === "GET" && headers.upgrade?.toLowerCase() === "websocket" && url?.split("?", 1)[0] === socketPath

/** The response that a connection sends; undefined if it has sent all of them. */
const unfinished = (socket: Socket): ServerResponse | undefined =>
  (socket as { readonly _httpMessage?: ServerResponse | null })._httpMessage ?? undefined

/** Whether a request starts a WebSocket. */
export const startsSocket = (request: IncomingMessage): boolean =>
  isSocketRequest(request) && unfinished(request.socket) === undefined

/** A response on the socket of a request for an upgrade. */
const responseOn = (request: IncomingMessage, socket: Socket): ServerResponse => {
  const response = new ServerResponse(request)
  response.shouldKeepAlive = false
  response.assignSocket(socket)
  response.on("finish", () => socket.end())
  return response
}

const ignoreError = () => {}

export type Upgrade = [request: IncomingMessage, socket: Socket, head: Buffer]

/** What a server does with its requests. */
export interface Host {
  /** Starts this in its turn; false if too many requests arrive at once. */
  readonly offer: (start: () => void) => boolean
  /** Rejects in its turn, or not at all. */
  readonly offerRejection: (reject: () => void) => void
  /** Answers a request that no handler may have, and returns false. */
  readonly isAccepted: (request: IncomingMessage, response: ServerResponse) => boolean
  readonly reject: (request: IncomingMessage, response: ServerResponse, problem: HttpProblem) => void
  /** For requests that arrive in too large a number. */
  readonly overloaded: HttpProblem
  readonly upgrade: (...upgrade: Upgrade) => void
}

const begin = (host: Host, [request, socket, head]: Upgrade): void => {
  if (!socket.writable) return
  const earlier = unfinished(socket)
  if (earlier !== undefined) return void earlier.once("close", () => begin(host, [request, socket, head]))
  const response = responseOn(request, socket)
  if (!isSocketRequest(request)) return host.reject(request, response, noUpgrade)
  if (!host.isAccepted(request, response)) return
  response.detachSocket(socket)
  host.upgrade(request, socket, head)
}

/** Starts a WebSocket, or refuses the upgrade. */
export const handle = (host: Host, upgrade: Upgrade): void => {
  const [request, socket] = upgrade
  socket.on("error", ignoreError)
  if (host.offer(() => begin(host, upgrade))) return
  host.offerRejection(() => {
    if (!socket.writable) return
    if (unfinished(socket) === undefined) host.reject(request, responseOn(request, socket), host.overloaded)
    else socket.destroy()
  })
}
