/**
 * Preloaded into a service (`--import`): measures the longest turn of its event loop, as CPU time of the main thread, and
 * sends it to each client of the socket in `STALL_SOCKET`; then it restarts the measurement.
 *
 * **Details**
 *
 * CPU time instead of wall-clock time, since every turn takes longer on a busy machine.
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
