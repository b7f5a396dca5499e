/**
 * A request's body as text, up to a bound, straight from Node's message.
 *
 * **Details**
 *
 * `HttpServerRequest.text` reads by a stream's adapter, which cost more than the rest of reading and parsing together; it is
 * for requests that come otherwise, as from a web handler.
 */
import { NodeHttpServerRequest } from "@effect/platform-node"
import { Effect, Predicate } from "effect"
import type { HttpServerRequest } from "effect/http"
import { isUtf8 } from "node:buffer"
import type { ServerResponse } from "node:http"
import { IncomingMessage } from "node:http"

/** There is no text. */
export interface Unread {
  readonly _tag: "Unread"
  readonly why: "too-large" | "encoded" | "unreadable" | "notUtf8" | "late"
}

const tooLarge: Unread = { _tag: "Unread", why: "too-large" }
const encoded: Unread = { _tag: "Unread", why: "encoded" }
const unreadable: Unread = { _tag: "Unread", why: "unreadable" }
const notUtf8: Unread = { _tag: "Unread", why: "notUtf8" }
const late: Unread = { _tag: "Unread", why: "late" }

/** Of one body. */
export interface Limits {
  readonly maxBytes: number
  /** Between two pieces, ms. */
  readonly idleMs: number
}

/** JSON is UTF-8 (RFC 8259); decoding anything else would put U+FFFD where there was something. */
const decode = (bytes: Buffer): Effect.Effect<string, Unread> =>
  isUtf8(bytes) ? Effect.succeed(bytes.toString()) : Effect.fail(notUtf8)

/** Why a body is not read at all. */
const refusal = (message: IncomingMessage, { maxBytes }: Limits): Unread | undefined => {
  if ((message.headers["content-encoding"] ?? "identity") !== "identity") return encoded
  if (message.destroyed) return unreadable
  return Number(message.headers["content-length"] ?? 0) > maxBytes ? tooLarge : undefined
}

/** A client that announced its body waits for this before it sends any (RFC 9110, 10.1.1). */
const sendContinue = (request: HttpServerRequest.HttpServerRequest, message: IncomingMessage): void => {
  if (message.headers.expect === undefined) return
  const response = NodeHttpServerRequest.toServerResponse(request) as ServerResponse
  if (!response.headersSent) response.writeContinue()
}

const fromMessage = (
  request: HttpServerRequest.HttpServerRequest,
  message: IncomingMessage,
  limits: Limits
): Effect.Effect<string, Unread> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let bytes = 0
    const onData = (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > limits.maxBytes) return end(Effect.fail(tooLarge))
      chunks.push(chunk)
    }
    const onEnd = () => end(decode(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)))
    const onBroken = () => end(Effect.fail(unreadable))
    const onIdle = () => end(Effect.fail(late))
    const ignore = () => {
      message.off("data", onData).off("end", onEnd).off("error", onBroken).off("close", onBroken).off("timeout", onIdle)
      message.socket.setTimeout(0)
      // What still comes is not kept; an error of it is nobody's.
      message.on("error", () => {})
      message.resume()
    }
    const end = (result: Effect.Effect<string, Unread>) => {
      ignore()
      resume(result)
    }
    const refused = refusal(message, limits)
    if (refused !== undefined) return resume(Effect.fail(refused))
    sendContinue(request, message)
    message.socket.setTimeout(limits.idleMs)
    message.on("data", onData).on("end", onEnd).on("error", onBroken).on("close", onBroken).on("timeout", onIdle)
    return Effect.sync(ignore)
  })

/** The body, of at most `maxBytes` as they are sent. */
export const text = (
  request: HttpServerRequest.HttpServerRequest,
  limits: Limits
): Effect.Effect<string, Unread> =>
  request.source instanceof IncomingMessage
    ? fromMessage(request, request.source, limits)
    : request.arrayBuffer.pipe(
      Effect.mapError(({ reason }) => Predicate.isTagged(reason.cause, "MaxBytesError") ? tooLarge : unreadable),
      Effect.flatMap((bytes) => decode(Buffer.from(bytes)))
    )
