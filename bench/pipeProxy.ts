/** Process entry: a minimal Node proxy. It pipes requests to the upstream and answers back without reading them. */
import { once } from "node:events"
import { Agent, createServer, request as ask } from "node:http"
import type { AddressInfo } from "node:net"
import { answerParent } from "./Child.ts"

export interface PipeQuestion {
  readonly upstreamPort: number
  /** Shared with other processes; 0 for any free one. Default a free one of its own. */
  readonly sharedPort?: number
}

export interface PipeAnswer {
  readonly port: number
}

answerParent<PipeQuestion, PipeAnswer>(async ({ sharedPort, upstreamPort }) => {
  const agent = new Agent({ keepAlive: true })
  const server = createServer((request, response) => {
    const { headers, method, url } = request
    const asked = ask({ agent, host: "127.0.0.1", port: upstreamPort, method, path: url, headers }, (answer) => {
      response.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(response)
      answer.once("error", () => response.destroy())
    })
    asked.once("error", () => response.destroy())
    response.once("close", () => {
      if (!response.writableFinished) asked.destroy()
    })
    request.pipe(asked)
  })
  const isShared = sharedPort !== undefined
  server.listen({ port: sharedPort ?? 0, host: "127.0.0.1", backlog: 4_096, reusePort: isShared })
  await once(server, "listening")
  return { port: (server.address() as AddressInfo).port }
})
