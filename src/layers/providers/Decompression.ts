/**
 * Decodes bodies that come compressed although `identity` is asked for, as some gateways and proxies send them: gzip,
 * deflate, brotli and zstd, piece by piece.
 *
 * **Details**
 *
 * What a piece decodes to is available before the next piece comes. Decoding stops once more than the bound was decoded:
 * a body of a few kilobytes may stand for gigabytes.
 */
import type { Pull } from "effect"
import { Cause, Data, Effect } from "effect"
import type { Transform } from "node:stream"
// A named import that Node 20 does not have would fail before `RequireNode` can say which Node is needed.
import * as zlib from "node:zlib"
import { ownOf } from "../../dialects/shared/Json.ts"
import type { Connection } from "./Connection.ts"

/** The bytes are not what their content encoding says. */
export class Undecodable extends Data.TaggedError("Undecodable")<{ readonly message: string }> {}

/** RFC 9110 means deflate in a zlib wrapper (RFC 1950), and some servers leave it out. */
const inflate = ([first = 0, second = 0]: Uint8Array): Transform =>
  first % 16 === 8 && (first * 256 + second) % 31 === 0 ? zlib.createInflate() : zlib.createInflateRaw()

/** By content encoding; the first piece of the body is given. */
const decoders: Readonly<Record<string, (first: Uint8Array) => Transform>> = {
  gzip: () => zlib.createGunzip(),
  "x-gzip": () => zlib.createGunzip(),
  deflate: inflate,
  br: () => zlib.createBrotliDecompress(),
  zstd: () => zlib.createZstdDecompress()
}

interface Decoder {
  /** Decodes a piece: all that it completes, at most about the bound. */
  readonly write: (piece: Uint8Array) => Effect.Effect<Uint8Array, Undecodable>
  readonly end: Effect.Effect<Uint8Array, Undecodable>
  readonly close: () => void
}

const makeDecoder = (stream: Transform, encoding: string, most: number): Decoder => {
  let pieces: Array<Uint8Array> = []
  let bytes = 0
  let isBroken = false
  /** Goes on with the call that waits: an error does not call back what was written. */
  let settle = () => {}

  stream.on("data", (piece: Uint8Array) => {
    pieces.push(piece)
    bytes += piece.length
    if (bytes > most) stream.destroy()
  })
  stream.on("error", () => {
    isBroken = true
    settle()
  })
  stream.on("close", () => settle())
  stream.on("end", () => settle())

  const taken = Effect.suspend((): Effect.Effect<Uint8Array, Undecodable> => {
    if (isBroken && bytes <= most) return Effect.fail(new Undecodable({ message: `no ${encoding}` }))
    const decoded = Buffer.concat(pieces)
    pieces = []
    return Effect.succeed(decoded)
  })
  const run = (begin: (done: () => void) => void) =>
    Effect.callback<Uint8Array, Undecodable>((resume) => {
      settle = () => resume(taken)
      if (isBroken || stream.destroyed) return settle()
      begin(() => settle())
    })
  return {
    write: (piece) => run((done) => stream.write(piece, done)),
    end: run(() => stream.end()),
    close: () => stream.destroy()
  }
}

const nameOf = (contentEncoding: string | undefined): string => contentEncoding?.trim().toLowerCase() || "identity"

/** Whether a body of this content encoding can be read. */
export const isKnown = (contentEncoding: string | undefined): boolean =>
  nameOf(contentEncoding) === "identity" || Object.hasOwn(decoders, nameOf(contentEncoding))

/**
 * The connection with its body decoded; undefined for an encoding that is not known.
 *
 * @param most bytes that are decoded
 */
export const decoded = (
  connection: Connection,
  contentEncoding: string | undefined,
  most: number
): Connection | undefined => {
  const encoding = nameOf(contentEncoding)
  if (encoding === "identity") return connection
  const start = ownOf(decoders, encoding)
  if (start === undefined) return undefined
  let decoder: Decoder | undefined
  let isOver = false

  const next = (bytes: Uint8Array): Pull.Pull<Uint8Array, Error> => {
    if (bytes.length > 0) return Effect.succeed(bytes)
    return isOver ? Cause.done() : pull
  }
  const end = Effect.suspend(() => {
    isOver = true
    return decoder === undefined ? Effect.succeed(new Uint8Array()) : decoder.end
  })
  const pull: Connection["pull"] = Effect.suspend(() =>
    isOver ? Cause.done() : Effect.matchEffect(connection.pull, {
      onSuccess: (piece) => {
        decoder ??= makeDecoder(start(piece), encoding, most)
        return Effect.flatMap(decoder.write(piece), next)
      },
      onFailure: (error): Pull.Pull<Uint8Array, Error> =>
        Cause.isDone(error) ? Effect.flatMap(end, next) : Effect.fail(error)
    })
  )
  return {
    ...connection,
    pull,
    close: () => {
      decoder?.close()
      connection.close()
    }
  }
}
