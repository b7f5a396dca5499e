/**
 * Decodes compressed bodies, which some gateways and proxies send although `identity` is requested: gzip, deflate,
 * brotli and zstd, piece by piece.
 *
 * **Details**
 *
 * The decoded bytes of a piece are available before the next piece arrives. Decoding stops beyond the bound: a body of
 * a few kilobytes can decode to gigabytes.
 */
import type { Pull } from "effect"
import { Cause, Data, Effect } from "effect"
import type { Transform } from "node:stream"
// A named import that Node 20 does not have would fail before `RequireNode` can report the required version.
import * as zlib from "node:zlib"
import { ownOf } from "../../dialects/shared/Json.ts"
import type { Connection } from "./Connection.ts"

/** The bytes do not have their content encoding. */
export class Undecodable extends Data.TaggedError("Undecodable")<{ readonly message: string }> {}

/** In RFC 9110, deflate has a zlib wrapper (RFC 1950); some servers leave it out. */
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
  /** Decodes a piece, to about the bound at most. */
  readonly write: (piece: Uint8Array) => Effect.Effect<Uint8Array, Undecodable>
  readonly end: Effect.Effect<Uint8Array, Undecodable>
  readonly close: () => void
}

const makeDecoder = (stream: Transform, encoding: string, most: number): Decoder => {
  let pieces: Array<Uint8Array> = []
  let bytes = 0
  let isBroken = false
  /** Completes the waiting call, since an error does not call the callback of a write. */
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

/** The connection with another reader of its body. */
export const withPull = (
  connection: Connection,
  pull: Connection["pull"],
  close = () => connection.close()
): Connection => ({
  head: connection.head,
  pull,
  isOver: () => connection.isOver(),
  detach: () => connection.detach(),
  pause: () => connection.pause(),
  resume: () => connection.resume(),
  close
})

/**
 * The connection with its body decoded; undefined for an unknown encoding.
 *
 * @param most maximum decoded bytes
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
  return withPull(connection, pull, () => {
    decoder?.close()
    connection.close()
  })
}
