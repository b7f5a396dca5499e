/**
 * Process entry: the cost of Node itself. A server that reads a request's body and answers with given bytes.
 */
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { answerParent } from "./Child.ts"

/** The one answer to give. */
export interface BareQuestion {
  readonly headers: Readonly<Record<string, string>>
  readonly body: string
}

export interface BareAnswer {
  readonly port: number
}

answerParent<BareQuestion, BareAnswer>(async ({ body, headers }) => {
  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk)).on("end", () => {
      Buffer.concat(chunks)
      response.writeHead(200, headers).end(body)
    })
  })
  server.listen(0, "127.0.0.1")
  await once(server, "listening")
  return { port: (server.address() as AddressInfo).port }
})
