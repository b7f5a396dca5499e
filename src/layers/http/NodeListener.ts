/**
 * A handler of web requests as a listener of Node's `http`, for servers whose handlers get Node's request and response.
 *
 * **Gotchas**
 *
 * The body must not have been read: a body parser in front of the listener leaves it nothing.
 */
import type { IncomingMessage, ServerResponse } from "node:http"
import { Readable } from "node:stream"
import type { ReadableStream as NodeStream } from "node:stream/web"
import * as OpenAiEncodeError from "../../dialects/openai/EncodeError.ts"
import { internalError } from "./EndpointFailure.ts"

type Handler = (request: Request) => Promise<Response>
type Next = (error?: unknown) => void

/** @param next of Express and Connect: it gets the error of a handler that fails before its response */
export type Listener = (request: IncomingMessage, response: ServerResponse, next?: Next) => void

/** Headers of an HTTP/2 request begin with a colon. */
const headersOf = ({ headers }: IncomingMessage): Headers => {
  const copy = new Headers()
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || name.startsWith(":")) continue
    for (const one of Array.isArray(value) ? value : [value]) copy.append(name, one)
  }
  return copy
}

const hasBody = ({ headers, method }: IncomingMessage): boolean =>
  method !== "GET" && method !== "HEAD" &&
  (headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) > 0)

/** The host is not trusted: it is only read for the headers of the request. */
const baseOf = ({ headers }: IncomingMessage): string =>
  URL.canParse(`http://${headers.host}`) ? `http://${headers.host}` : "http://localhost"

const requestOf = (message: IncomingMessage, signal: AbortSignal): Request => {
  const init = { method: message.method!, headers: headersOf(message), signal }
  const target = message.url!
  // Not relative to the base: a path may begin with two slashes.
  const url = target.startsWith("/") ? `${baseOf(message)}${target}` : target
  return hasBody(message)
    ? new Request(url, { ...init, body: Readable.toWeb(message) as ReadableStream, duplex: "half" })
    : new Request(url, init)
}

/** Resolves when the response takes more, or is closed. */
const drained = (response: ServerResponse): Promise<void> =>
  new Promise((resolve) => {
    const done = () => {
      response.off("drain", done).off("close", done)
      resolve()
    }
    response.on("drain", done).on("close", done)
  })

const write = async ({ body, headers, status }: Response, response: ServerResponse): Promise<void> => {
  response.writeHead(status, [...headers].flat())
  if (body !== null) {
    for await (const chunk of body as NodeStream<Uint8Array>) {
      if (response.destroyed) return
      if (!response.write(chunk)) await drained(response)
    }
  }
  response.end()
}

/** Tells the program of a handler that has failed; without a way to do so, the client gets no details. */
const fail = (response: ServerResponse, error: unknown, next: Next | undefined): void => {
  // A response that cannot be completed is cut, so that no reader takes it for a whole one.
  if (response.headersSent || response.destroyed) return void response.destroy()
  if (next !== undefined) return next(error)
  response.writeHead(500, { "content-type": "application/json" })
  const { code, message, status } = internalError
  response.end(JSON.stringify(OpenAiEncodeError.make(message, { status, type: "server_error", code }).body))
}

const answer = async (handler: Handler, message: IncomingMessage, response: ServerResponse, next: Next | undefined) => {
  const left = new AbortController()
  response.on("close", () => left.abort())
  try {
    await write(await handler(requestOf(message, left.signal)), response)
  } catch (error) {
    fail(response, error, next)
  }
}

/** Listens with a handler; a client that disconnects aborts the request's signal. */
export const make = (handler: Handler): Listener => (message, response, next) =>
  void answer(handler, message, response, next)
