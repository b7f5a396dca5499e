/**
 * A request's body as text, up to a bound, straight from Node's message.
 *
 * **Details**
 *
 * `HttpServerRequest.text` reads by a stream's adapter, which cost more than the rest of reading and parsing together; it is
 * for requests that come otherwise, as from a web handler.
 */
import { Effect, Predicate } from "effect"
import type { HttpServerRequest } from "effect/http"
import { isUtf8 } from "node:buffer"
import { IncomingMessage } from "node:http"

/** There is no text. */
export interface Unread {
  readonly _tag: "Unread"
  readonly why: "too-large" | "encoded" | "unreadable" | "notUtf8"
}

const tooLarge: Unread = { _tag: "Unread", why: "too-large" }
const encoded: Unread = { _tag: "Unread", why: "encoded" }
const unreadable: Unread = { _tag: "Unread", why: "unreadable" }
const notUtf8: Unread = { _tag: "Unread", why: "notUtf8" }

/** JSON is UTF-8 (RFC 8259); decoding anything else would put U+FFFD where there was something. */
const decode = (bytes: Buffer): Effect.Effect<string, Unread> =>
  isUtf8(bytes) ? Effect.succeed(bytes.toString()) : Effect.fail(notUtf8)

const fromMessage = (message: IncomingMessage, maxBytes: number): Effect.Effect<string, Unread> =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let bytes = 0
    const onData = (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > maxBytes) return end(Effect.fail(tooLarge))
      chunks.push(chunk)
    }
    const onEnd = () => end(decode(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)))
    const onBroken = () => end(Effect.fail(unreadable))
    const ignore = () => {
      message.off("data", onData).off("end", onEnd).off("error", onBroken).off("close", onBroken)
      // What still comes is not kept; an error of it is nobody's.
      message.on("error", () => {})
      message.resume()
    }
    const end = (result: Effect.Effect<string, Unread>) => {
      ignore()
      resume(result)
    }
    if ((message.headers["content-encoding"] ?? "identity") !== "identity") return resume(Effect.fail(encoded))
    if (message.destroyed) return resume(Effect.fail(unreadable))
    if (Number(message.headers["content-length"] ?? 0) > maxBytes) return resume(Effect.fail(tooLarge))
    message.on("data", onData).on("end", onEnd).on("error", onBroken).on("close", onBroken)
    return Effect.sync(ignore)
  })

/** @param maxBytes of what is sent */
export const text = (
  request: HttpServerRequest.HttpServerRequest,
  maxBytes: number
): Effect.Effect<string, Unread> =>
  request.source instanceof IncomingMessage
    ? fromMessage(request.source, maxBytes)
    : request.arrayBuffer.pipe(
      Effect.mapError(({ reason }) => Predicate.isTagged(reason.cause, "MaxBytesError") ? tooLarge : unreadable),
      Effect.flatMap((bytes) => decode(Buffer.from(bytes)))
    )
