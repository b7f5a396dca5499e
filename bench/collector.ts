/** Process entry: an OpenTelemetry collector that reads exports and keeps nothing but their number and size. */
import { once } from "node:events"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import { answerParent } from "./Child.ts"

export interface CollectorAnswer {
  readonly port: number
  /** Since the start. */
  readonly exports: number
  readonly bytes: number
}

const seen = { exports: 0, bytes: 0 }

const server = createServer((request, response) => {
  request.on("data", (piece: Buffer) => {
    seen.bytes += piece.length
  }).on("end", () => {
    seen.exports++
    response.writeHead(200, { "content-type": "application/json" }).end("{}")
  })
})

answerParent<null, CollectorAnswer>(async () => {
  if (!server.listening) {
    server.listen(0, "127.0.0.1")
    await once(server, "listening")
  }
  return { port: (server.address() as AddressInfo).port, ...seen }
})
