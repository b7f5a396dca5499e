/**
 * Reads the body of a request as text, within limits of size, time and memory, and parses it.
 *
 * **Details**
 *
 * It reads Node's message directly: `HttpServerRequest.text` reads through a stream adapter, which costs more than reading
 * and parsing together. Requests that do not come from Node, as those of a web handler, are read through that adapter.
 * A body that has arrived with its headers is read at once, without listeners.
 */
import { Duration, Effect, Result } from "effect"
import type { HttpServerRequest } from "effect/http"
import { isUtf8 } from "node:buffer"
import type { IncomingMessage, ServerResponse } from "node:http"
import * as Defaults from "../../domain/Defaults.ts"
import * as ExactNumber from "../../domain/ExactNumber.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import * as JsonScan from "../../domain/JsonScan.ts"
import * as JsonText from "../../domain/JsonText.ts"
import type { ByteBudget, Hold } from "../../services/limits/RequestLimits.ts"
import { ArrivalPacer, RequestBytes } from "../../services/limits/RequestLimits.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { HttpProblem } from "./Dialect.ts"

/** The body could not be read. */
export interface BodyReadError {
  readonly _tag: "BodyReadError"
  readonly kind: "tooLarge" | "compressed" | "incomplete" | "notUtf8" | "timeout" | "overloaded"
}

const tooLarge: BodyReadError = { _tag: "BodyReadError", kind: "tooLarge" }
const compressed: BodyReadError = { _tag: "BodyReadError", kind: "compressed" }
const incomplete: BodyReadError = { _tag: "BodyReadError", kind: "incomplete" }
const notUtf8: BodyReadError = { _tag: "BodyReadError", kind: "notUtf8" }
const timeout: BodyReadError = { _tag: "BodyReadError", kind: "timeout" }
const overloaded: BodyReadError = { _tag: "BodyReadError", kind: "overloaded" }

export interface Limits {
  /** Of one body. */
  readonly maxBytes: number
  /** Between two pieces of a body. */
  readonly idleTimeout: Duration.Duration
  /** Of the bodies of all requests. */
  readonly budget: ByteBudget
}

export const limits = Effect.gen(function*() {
  const { server } = yield* Settings
  const budget = yield* RequestBytes
  const limits: Limits = {
    maxBytes: Math.min(server.maxBodyBytes, budget.limit),
    idleTimeout: server.bodyTimeout,
    budget
  }
  return limits
})

// The server does not read the rest of the body.
const close = { connection: "close" }

/** The errors that callers get, by kind. */
export const problemsOf = (
  { idleTimeout, maxBytes }: Limits
): Readonly<Record<BodyReadError["kind"], HttpProblem>> => ({
  tooLarge: {
    status: 413,
    code: "request_too_large",
    message: `The request body is larger than ${maxBytes} bytes. Shorten it.`,
    headers: close
  },
  timeout: {
    status: 408,
    code: "request_timeout",
    message: `No byte of the request body arrived for ${Duration.format(idleTimeout)}. Send the request again.`,
    headers: close
  },
  overloaded: {
    status: 503,
    code: "overloaded",
    message: "The requests in progress use all the memory that the service allows for requests. Try again later.",
    headers: { "retry-after": "1", ...close }
  },
  compressed: {
    status: 400,
    code: null,
    message: "The request body is compressed, which is not supported. Send it without content-encoding.",
    headers: close
  },
  incomplete: { status: 400, code: null, message: "The request body ended before it was complete. Send it again." },
  notUtf8: { status: 400, code: null, message: "The request body is not UTF-8. Encode the JSON as UTF-8." }
})

/** A body that is UTF-8 and within the limits of `JsonScan`. */
export interface Text {
  readonly text: string
  /** List elements and object fields, if it is JSON; 0 for a short text. */
  readonly values: number
  /** Whether it has a number that a double does not hold: see `ExactNumber`. */
  readonly isInexact: boolean
}

type Read = Effect.Effect<Text, BodyReadError | InvalidRequest>

/** Shorter texts cannot exceed a limit of `JsonScan`. */
const fewBytes = 2 * JsonScan.requestLimits.levels

/** The most that a parsed value takes of the heap, beside its text: a small object with its field, bytes. */
const bytesOfValue = 64

/** A body with more values, or with more text, is parsed and decoded in turns of the event loop. */
const manyValues = 5_000
const longText = 2 ** 20

export const isLarge = ({ text, values }: Text): boolean => values > manyValues || text.length > longText

/** One for the process, which has one event loop. */
const turns = new ArrivalPacer({
  ...Defaults.turns.largeBodies,
  now: () => performance.now(),
  nextTurn: (run) => setImmediate(run)
})

/** Waits until the event loop has time for a large body. */
export const nextTurn = Effect.callback<void>((resume) => {
  turns.offer(() => resume(Effect.void))
})

const excessive = ({ limit, most, offset }: JsonScan.Excess): InvalidRequest => {
  const what = {
    levels: `more than ${most} levels of nesting`,
    fields: `an object with more than ${most} fields`,
    values: `more than ${most} values`
  }
  return new InvalidRequest({ detail: `The body has ${what[limit]} (at byte ${offset}). Send less in one request.` })
}

/** JSON is UTF-8 (RFC 8259); decoding anything else would replace bytes by U+FFFD. */
const decode = (bytes: Buffer, hold: Hold): Read => {
  if (!isUtf8(bytes)) return Effect.fail(notUtf8)
  const counted = bytes.length <= fewBytes ? Result.succeed(0) : JsonScan.count(bytes, JsonScan.requestLimits)
  if (Result.isFailure(counted)) return Effect.fail(excessive(counted.failure))
  const text = bytes.toString()
  const isInexact = ExactNumber.isIn(text)
  const values = counted.success
  // An inexact text is parsed twice.
  return hold.take(values * bytesOfValue * (isInexact ? 2 : 1))
    ? Effect.succeed({ text, values, isInexact })
    : Effect.fail(overloaded)
}

/** Why a body is rejected before it is read. */
const rejectionOf = (message: IncomingMessage, { budget, maxBytes }: Limits): BodyReadError | undefined => {
  if ((message.headers["content-encoding"] ?? "identity") !== "identity") return compressed
  if (message.destroyed) return incomplete
  const announced = Number(message.headers["content-length"] ?? 0)
  if (announced > maxBytes) return tooLarge
  return announced > budget.left ? overloaded : undefined
}

/** A client that sent `Expect: 100-continue` waits for this before it sends the body (RFC 9110, 10.1.1). */
const sendContinue = (message: IncomingMessage, response: ServerResponse): void => {
  if (message.headers.expect !== undefined && !response.headersSent) response.writeContinue()
}

const ignoreError = () => {}

const noBytes = Buffer.alloc(0)

/** Whether all bytes have arrived. Those of a short body do with its headers, before the parser completes the message. */
const isWhole = (message: IncomingMessage): boolean =>
  message.complete ||
  message.readableLength > 0 && message.readableLength === Number(message.headers["content-length"])

/** Reads a body whose bytes have all arrived. */
const readWhole = (message: IncomingMessage, limits: Limits, hold: Hold): Read => {
  return ofBytes(message.read() as Buffer | null ?? noBytes, limits, hold)
}

/** Reads a body as it arrives. */
const readArriving = (message: IncomingMessage, response: ServerResponse, limits: Limits, hold: Hold): Read =>
  Effect.callback((resume) => {
    const chunks: Array<Buffer> = []
    let bytes = 0
    let isOver = false
    let isTimed = false
    const onData = (chunk: Buffer) => {
      bytes += chunk.length
      if (bytes > limits.maxBytes) return end(Effect.fail(tooLarge))
      if (!hold.take(chunk.length)) return end(Effect.fail(overloaded))
      chunks.push(chunk)
    }
    const onEnd = () => end(decode(chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks), hold))
    const onClose = () => end(Effect.fail(incomplete))
    const onIdle = () => end(Effect.fail(timeout))
    const ignore = () => {
      isOver = true
      message.off("data", onData).off("end", onEnd).off("close", onClose)
      if (isTimed) message.off("timeout", onIdle).socket.setTimeout(0)
      // Discards the rest of the body.
      message.resume()
    }
    const end = (result: Read) => {
      ignore()
      resume(result)
    }
    sendContinue(message, response)
    // After an error the message closes.
    message.on("data", onData).on("end", onEnd).on("close", onClose).on("error", ignoreError)
    // Most bodies arrive with their headers.
    queueMicrotask(() => {
      if (isOver || message.complete) return
      isTimed = true
      message.on("timeout", onIdle).socket.setTimeout(Duration.toMillis(limits.idleTimeout))
    })
    return Effect.sync(ignore)
  })

/**
 * Reads the body of a request of Node.
 *
 * @param hold of this request; it grows as the body arrives
 */
export const ofNode = (message: IncomingMessage, response: ServerResponse, limits: Limits, hold: Hold): Read => {
  const rejection = rejectionOf(message, limits)
  if (rejection !== undefined) return Effect.fail(rejection)
  return isWhole(message) ? readWhole(message, limits, hold) : readArriving(message, response, limits, hold)
}

/** Reads the body of a request that does not come from Node. */
export const ofWeb = (request: HttpServerRequest.HttpServerRequest, hold: Hold): Read =>
  request.arrayBuffer.pipe(
    Effect.mapError(({ reason }) => "reason" in reason && reason.reason === "BodyTooLarge" ? tooLarge : incomplete),
    Effect.flatMap((bytes) => hold.take(bytes.byteLength) ? decode(Buffer.from(bytes), hold) : Effect.fail(overloaded))
  )

/** A body that has arrived otherwise, as in a message of a WebSocket. */
export const ofBytes = (bytes: Buffer, { maxBytes }: Limits, hold: Hold): Read => {
  if (bytes.length > maxBytes) return Effect.fail(tooLarge)
  return hold.take(bytes.length) ? decode(bytes, hold) : Effect.fail(overloaded)
}

const byteOrderMark = "\ufeff"

/** Some editors write a byte order mark at the beginning of a text. */
const withoutMark = (text: string): string => text.startsWith(byteOrderMark) ? text.slice(1) : text

/** Parses a body as JSON. */
export const parse = (text: string): Result.Result<unknown, InvalidRequest> => {
  try {
    return Result.succeed(JSON.parse(withoutMark(text)) as unknown)
  } catch (cause) {
    const detail = `The body is not JSON: ${(cause as SyntaxError).message}`
    return Result.fail(new InvalidRequest({ detail }))
  }
}

/** The text of a body to pass on; undefined if it is written again in less time. */
export const passedText = (text: string): string | undefined =>
  text.length < JsonText.shortest ? undefined : withoutMark(text)

/** The JSON of a body with its inexact numbers; undefined if it has none. */
export const exactOf = ({ isInexact, text }: Text, json: unknown): unknown =>
  isInexact ? ExactNumber.parseInexact(withoutMark(text), json) : undefined
