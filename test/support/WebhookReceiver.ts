/** A receiver of webhooks for tests: keeps the calls that it gets. */
import { once } from "node:events"
import type { IncomingHttpHeaders } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { text } from "node:stream/consumers"

/** A call that was received. */
export interface Call {
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export interface WebhookReceiver {
  /** With a path that stands for a secret. */
  readonly url: string
  readonly calls: ReadonlyArray<Call>
  readonly close: () => Promise<void>
}

/** The secret in the path of the URL. */
export const pathSecret = "T0K3N"

/**
 * Starts a receiver.
 *
 * @param statuses of its first answers, `undefined` for none at all; later ones have 204
 */
export const startReceiver = async (...statuses: ReadonlyArray<number | undefined>): Promise<WebhookReceiver> => {
  const calls: Array<Call> = []
  const answers = [...statuses]
  const server = createServer((request, response) => {
    void text(request).then((body) => {
      calls.push({ headers: request.headers, body })
      const status = answers.length === 0 ? 204 : answers.shift()
      if (status !== undefined) response.writeHead(status, { location: "/elsewhere" }).end("an answer")
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}/${pathSecret}`,
    calls,
    close: async () => {
      if (!server.listening) return
      const closed = once(server, "close")
      server.close().closeAllConnections()
      await closed
    }
  }
}
