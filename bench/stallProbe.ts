/**
 * Preloaded into a service (`--import`): measures the longest turn of its event loop, as CPU time of the main thread, and
 * gives it to whoever connects to the socket that `STALL_SOCKET` names; then it starts anew.
 *
 * **Details**
 *
 * CPU time and not time on the clock, since a busy machine makes every turn longer.
 */
import { createServer } from "node:net"

const socket = process.env["STALL_SOCKET"]

if (socket !== undefined && process.argv.includes("serve")) {
  let worst = 0
  let before = process.threadCpuUsage()
  const look = () => {
    const now = process.threadCpuUsage()
    worst = Math.max(worst, (now.user + now.system - before.user - before.system) / 1000)
    before = now
    setTimeout(look, 1).unref()
  }
  setTimeout(look, 1).unref()
  createServer((connection) => {
    connection.end(String(worst))
    worst = 0
  }).listen(socket).unref()
}
