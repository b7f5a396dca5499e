/**
 * Errors that are answered before the router sees a request, in the dialect of its path.
 *
 * **Details**
 *
 * They are written straight to Node's response: what is refused here comes in floods, or has a target that no router takes.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import type { Trouble } from "../../dialects/shared/HttpProblem.ts"
import * as AnthropicHandler from "./AnthropicHandler.ts"
import type { Dialect } from "./Endpoint.ts"
import * as OpenAiHandler from "./OpenAiHandler.ts"

/** By the clients that use the path. */
export const dialectOf = (path: string): Dialect =>
  /^\/v1\/messages(?:[/?%]|$)/.test(path) ? AnthropicHandler.dialect : OpenAiHandler.dialect

/** What a refused request may still send before its connection is closed, bytes. */
const mostDiscarded = 256 * 1024

const discardBody = (request: IncomingMessage): void => {
  let bytes = 0
  request.on("error", () => {})
  request.on("data", (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes > mostDiscarded) request.socket.destroy()
  })
}

/** @param id of the answer */
export const send = (request: IncomingMessage, response: ServerResponse, trouble: Trouble, id: string): void => {
  const { body, headers, status } = dialectOf(request.url ?? "").failure(trouble, id)
  const text = JSON.stringify(body)
  response.writeHead(status, {
    ...headers,
    "content-type": "application/json",
    "content-length": Buffer.byteLength(text),
    "request-id": id,
    "x-request-id": id
  })
  response.end(text)
  discardBody(request)
}
