/**
 * A request's body as text, up to a bound, straight from Node's message.
 *
 * **Details**
 *
 * `HttpServerRequest.text` reads by a stream's adapter, which cost more than the rest of reading and parsing together; it is
 * for requests that come otherwise, as from a web handler.
 */
import * as NodeHttpServerRequest from "@effect/platform-node/NodeHttpServerRequest"
import { Effect, Predicate, Result } from "effect"
import type { HttpServerRequest } from "effect/http"
import { isUtf8 } from "node:buffer"
import type { ServerResponse } from "node:http"
import { IncomingMessage } from "node:http"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import * as JsonScan from "../../domain/JsonScan.ts"
import type { ByteBudget, Hold } from "../../services/limits/ByteBudget.ts"

/** There is no text. */
export interface Unread {
  readonly _tag: "Unread"
  readonly why: "too-large" | "encoded" | "unreadable" | "notUtf8" | "late" | "full"
}

const tooLarge: Unread = { _tag: "Unread", why: "too-large" }
const encoded: Unread = { _tag: "Unread", why: "encoded" }
const unreadable: Unread = { _tag: "Unread", why: "unreadable" }
const notUtf8: Unread = { _tag: "Unread", why: "notUtf8" }
const late: Unread = { _tag: "Unread", why: "late" }
const full: Unread = { _tag: "Unread", why: "full" }

/** Of one body. */
export interface Limits {
  readonly maxBytes: number
  /** Between two pieces, ms. */
  readonly idleMs: number
  /** Of all requests. */
  readonly budget: ByteBudget
}

/** A body that is UTF-8 and not too much to parse. */
export interface Text {
  readonly text: string
  /** Elements of lists and fields of objects, if it is JSON; 0 where they are few. */
  readonly values: number
}

type Read = Effect.Effect<Text, Unread | InvalidRequest>

/** Shorter texts pass no limit of `JsonScan`. */
const fewBytes = 2 * JsonScan.requestLimits.levels

/** What a parsed value takes of the heap at most, beside its text: a small object with its field, bytes. */
const bytesOfValue = 64

const excessive = ({ limit, most, offset }: JsonScan.Excess): InvalidRequest => {
  const what = {
    levels: `more than ${most} objects and lists within each other`,
    fields: `an object with more than ${most} fields`,
    values: `more than ${most} values`
  }
  return new InvalidRequest({ detail: `The body has ${what[limit]} (at byte ${offset}). Send less in one request.` })
}

/** JSON is UTF-8 (RFC 8259); decoding anything else would put U+FFFD where there was something. */
const decode = (bytes: Buffer, hold: Hold): Read => {
  if (!isUtf8(bytes)) return Effect.fail(notUtf8)
  if (bytes.length <= fewBytes) return Effect.succeed({ text: bytes.toString(), values: 0 })
  const values = JsonScan.count(bytes, JsonScan.requestLimits)
  if (Result.isFailure(values)) return Effect.fail(excessive(values.failure))
  return hold.take(values.success * bytesOfValue)
    ? Effect.succeed({ text: bytes.toString(), values: values.success })
    : Effect.fail(full)
}

/** Why a body is not read at all. */
const refusal = (message: IncomingMessage, { budget, maxBytes }: Limits): Unread | undefined => {
  if ((message.headers["content-encoding"] ?? "identity") !== "identity") return encoded
  if (message.destroyed) return unreadable
  const announced = Number(message.headers["content-length"] ?? 0)
  if (announced > maxBytes) return tooLarge
  return announced > budget.left ? full : undefined
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
  limits: Limits,
  hold: Hold
): Read =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let bytes = 0
    const onData = (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > limits.maxBytes) return end(Effect.fail(tooLarge))
      if (!hold.take(chunk.length)) return end(Effect.fail(full))
      chunks.push(chunk)
    }
    const onEnd = () => end(decode(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks), hold))
    const onBroken = () => end(Effect.fail(unreadable))
    const onIdle = () => end(Effect.fail(late))
    const ignore = () => {
      message.off("data", onData).off("end", onEnd).off("error", onBroken).off("close", onBroken).off("timeout", onIdle)
      message.socket.setTimeout(0)
      // What still comes is not kept; an error of it is nobody's.
      message.on("error", () => {})
      message.resume()
    }
    const end = (result: Read) => {
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

/** @param hold of this request, which takes what the body has as it comes */
export const text = (request: HttpServerRequest.HttpServerRequest, limits: Limits, hold: Hold): Read =>
  request.source instanceof IncomingMessage
    ? fromMessage(request, request.source, limits, hold)
    : request.arrayBuffer.pipe(
      Effect.mapError(({ reason }) => Predicate.isTagged(reason.cause, "MaxBytesError") ? tooLarge : unreadable),
      Effect.flatMap((bytes) => hold.take(bytes.byteLength) ? decode(Buffer.from(bytes), hold) : Effect.fail(full))
    )
