/**
 * The longest turn of the service's event loop, during the most expensive valid bodies, and while thousands of requests
 * arrive at once.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { connect } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { fileURLToPath } from "node:url"
import * as Config from "./Config.ts"
import type { Effort, Outcome, Row, Scenario } from "./Scenario.ts"
import type { Service } from "./Service.ts"
import { post, withService } from "./Service.ts"

const name = "stall"
const model = "fake/quick"
const targetMs = 200
const config = Config.make({ [model]: { engine: "fake", reply: "hi" } })
const probe = fileURLToPath(new URL("stallProbe.ts", import.meta.url))

const list = (element: string, count: number): string => Array.from({ length: count }, () => element).join(",")

const withContent = (content: string): string =>
  `{"model":"${model}","messages":[{"role":"user","content":${content}}]}`

const withField = (field: string): string => `${withContent("\"hi\"").slice(0, -1)},${field}}`

/** Near the limits of `JsonScan` and of the body's size. */
const bodies = {
  "many parts of a message": withContent(`[${list("{\"type\":\"text\",\"text\":\"\"}", 116_000)}]`),
  "many tools": withField(`"tools":[${list("{\"type\":\"function\",\"function\":{\"name\":\"a\"}}", 69_000)}]`),
  "many values of an unknown field": withField(`"x":[${list("{\"a\":1}", 174_000)}]`),
  "many unknown fields": withField(Array.from({ length: 500_000 }, (_, index) => `"f${index}":1`).join(",")),
  "deep nesting": withField(`"x":${"[".repeat(4_900_000)}`),
  "a long text": withContent(`"${"a".repeat(9_000_000)}"`)
}

const read = (path: string): Promise<number> =>
  new Promise((resolve, reject) => {
    let text = ""
    connect(path).setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk
    }).on("error", reject).on("close", () => resolve(Number(text)))
  })

/** Resolves when the service has answered and closed the connection. */
const arrive = (port: number, request: string): Promise<void> =>
  new Promise((resolve) => {
    const socket = connect(port, "127.0.0.1", () => socket.write(request))
    socket.on("error", () => resolve()).on("close", () => resolve()).resume()
  })

const row = (measure: string, troupe: number): Row => ({
  scenario: name,
  measure: `longest turn of the event loop: ${measure}`,
  unit: "ms",
  troupe,
  comparison: "none",
  target: { atMost: targetMs }
})

const measure = async ({ port }: Service, stalls: string, { rounds }: Effort): Promise<Outcome> => {
  await post(port, "/v1/chat/completions", withContent("\"hi\""))
  const rows: Array<Row> = []
  for (const [measured, body] of Object.entries(bodies)) {
    await read(stalls)
    const response = await fetch(`http://127.0.0.1:${port}/v1/chat/completions`, { method: "POST", body })
    await response.text()
    rows.push(row(measured, await read(stalls)))
  }
  const small = withContent("\"hi\"")
  const request = "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n" +
    `content-length: ${small.length}\r\n\r\n${small}`
  const arrivals = rounds > 1 ? 5_000 : 500
  await read(stalls)
  await Promise.all(Array.from({ length: arrivals }, () => arrive(port, request)))
  rows.push(row(`${arrivals} requests at once`, await read(stalls)))
  return { rows, notes: [], raw: { rows } }
}

export const stall: Scenario = {
  name,
  run: async (effort, nodeOptions) => {
    const folder = mkdtempSync(join(tmpdir(), "troupe-stall-"))
    const socket = join(folder, "stall.sock")
    try {
      return await withService(
        { config, nodeOptions: [...nodeOptions, "--import", probe], env: { STALL_SOCKET: socket } },
        (service) => measure(service, socket, effort)
      )
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
}
