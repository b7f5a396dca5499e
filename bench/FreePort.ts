/** A free port of the loopback interface, for programs that accept only a number. */
import { once } from "node:events"
import { createServer } from "node:net"
import type { AddressInfo } from "node:net"

export const freePort = async (): Promise<number> => {
  const server = createServer().listen(0)
  await once(server, "listening")
  const { port } = server.address() as AddressInfo
  server.close()
  await once(server, "close")
  return port
}
