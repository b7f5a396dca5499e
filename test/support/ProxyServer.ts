/** A local HTTP proxy: it forwards requests, opens tunnels, and records both. */
import { once } from "node:events"
import type { IncomingMessage } from "node:http"
import { createServer, request } from "node:http"
import type { AddressInfo } from "node:net"
import type { Duplex } from "node:stream"

export interface Asked {
  readonly method: string
  /** An absolute URL, or `host:port` of a tunnel. */
  readonly target: string
  readonly authorization: string | undefined
}

export interface ProxyServer {
  readonly url: string
  readonly asked: ReadonlyArray<Asked>
  /** The first bytes through each tunnel. */
  readonly tunnelled: ReadonlyArray<Buffer>
  readonly close: () => Promise<void>
}

/**
 * @param upstream the URL that every request is forwarded to, regardless of its host
 * @param refusal the status of every answer, instead of forwarding
 */
export const startProxyServer = async (upstream: string, refusal?: number): Promise<ProxyServer> => {
  const asked: Array<Asked> = []
  const tunnelled: Array<Buffer> = []
  const note = ({ headers, method = "", url = "" }: IncomingMessage) =>
    asked.push({ method, target: url, authorization: headers["proxy-authorization"] })
  const server = createServer((incoming, response) => {
    note(incoming)
    if (refusal !== undefined) return void response.writeHead(refusal).end()
    const { host: _, ...headers } = incoming.headers
    const { pathname, search } = new URL(incoming.url ?? "")
    const outgoing = request(upstream + pathname + search, { method: incoming.method ?? "GET", headers }, (answer) => {
      response.writeHead(answer.statusCode ?? 500, answer.headers)
      answer.pipe(response)
    })
    incoming.pipe(outgoing)
  })
  server.on("connect", (incoming: IncomingMessage, socket: Duplex) => {
    note(incoming)
    socket.on("error", () => {})
    if (refusal !== undefined) return void socket.end(`HTTP/1.1 ${refusal} No\r\n\r\n`)
    socket.write("HTTP/1.1 200 OK\r\n\r\n")
    // The bytes are TLS, and the host has no certificate.
    socket.once("data", (bytes: Buffer) => {
      tunnelled.push(bytes)
      socket.destroy()
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    asked,
    tunnelled,
    close: async () => {
      server.closeAllConnections()
      server.close()
      await once(server, "close")
    }
  }
}
