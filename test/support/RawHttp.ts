/** HTTP over a raw socket, for requests that clients do not allow. */
import { connect } from "node:net"

/**
 * Sends the parts in order, each after the first once `until` matches the received text. Resolves with everything that
 * arrives until the service closes the connection.
 */
export const exchange = (
  url: string,
  parts: ReadonlyArray<string>,
  until: RegExp = /./
): Promise<string> =>
  new Promise((resolve, reject) => {
    const { hostname, port } = new URL(url)
    const socket = connect(Number(port), hostname.replace(/^\[|\]$/g, ""))
    let received = ""
    let sent = 0
    const send = () => {
      if (sent < parts.length) socket.write(parts[sent++]!)
    }
    socket.setEncoding("utf8").on("data", (text: string) => {
      received += text
      if (until.test(received)) send()
    })
    socket.on("error", reject).on("close", () => resolve(received))
    send()
  })

/** The head of a request whose connection closes afterwards. */
export const head = (method: string, path: string, headers: Readonly<Record<string, string | number>> = {}): string =>
  [
    `${method} ${path} HTTP/1.1`,
    ...Object.entries({ host: "localhost", connection: "close", ...headers }).map(
      ([name, value]) => `${name}: ${value}`
    )
  ].join("\r\n") + "\r\n\r\n"

/** The status of the last answer, and its JSON if it has a body. */
export const last = (received: string): { readonly status: number; readonly text: string; readonly json: unknown } => {
  const answer = received.slice(received.lastIndexOf("HTTP/1.1 "))
  const text = answer.slice(answer.indexOf("\r\n\r\n") + 4)
  let json: unknown
  try {
    json = JSON.parse(text)
  } catch {
    json = undefined
  }
  return { status: Number(answer.split(" ")[1]), text, json }
}
