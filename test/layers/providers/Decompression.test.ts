/** Answers that come compressed. */
import { assert, describe, it } from "@effect/vitest"
import { Effect } from "effect"
import type { Transform } from "node:stream"
import * as zlib from "node:zlib"
import { engineAt, fixture, json, outcome, served, textOf } from "./support.ts"

const { stream: pieces } = fixture("openai").text
const said = "Grüße aus 東京 🎌"

interface Encoding {
  readonly compress: (data: Uint8Array) => Uint8Array
  /** A stream, and how it is made to hand out what it has. */
  readonly stream: () => Transform
  readonly flush: number
}

const { constants } = zlib
const encodings: Readonly<Record<string, Encoding>> = {
  gzip: { compress: zlib.gzipSync, stream: zlib.createGzip, flush: constants.Z_SYNC_FLUSH },
  "X-GZIP": { compress: zlib.gzipSync, stream: zlib.createGzip, flush: constants.Z_SYNC_FLUSH },
  deflate: { compress: zlib.deflateSync, stream: zlib.createDeflate, flush: constants.Z_SYNC_FLUSH },
  br: { compress: zlib.brotliCompressSync, stream: zlib.createBrotliCompress, flush: constants.BROTLI_OPERATION_FLUSH },
  zstd: { compress: zlib.zstdCompressSync, stream: zlib.createZstdCompress, flush: constants.ZSTD_e_flush }
}

/** Each piece compressed so that it can be read before the next. */
const compressed = ({ flush, stream }: Encoding, pieces: ReadonlyArray<string>) =>
  Effect.promise(async () => {
    const encoder = stream() as zlib.Gzip
    let written: Array<Uint8Array> = []
    encoder.on("data", (piece: Uint8Array) => written.push(piece))
    const parts: Array<Uint8Array> = []
    for (const piece of pieces) {
      encoder.write(piece)
      await new Promise<void>((resolve) => encoder.flush(flush, resolve))
      parts.push(Buffer.concat(written))
      written = []
    }
    return parts
  })

const buffered = Buffer.from(JSON.stringify({ choices: [{ message: { content: said }, finish_reason: "stop" }] }))

for (const [name, encoding] of Object.entries(encodings)) {
  describe(`an answer of the content encoding ${name}`, () => {
    const headers = { "content-encoding": name }

    it.live("is decoded, not streamed", () =>
      Effect.gen(function*() {
        const server = yield* served(() => ({
          headers: { ...json, ...headers },
          pieces: [encoding.compress(buffered)]
        }))
        const { events, reason } = yield* outcome(yield* engineAt(server.url, { stream: false }))
        assert.isUndefined(reason)
        assert.strictEqual(textOf(events), said)
      }))

    it.live("is decoded as it arrives, at any split of the bytes", () =>
      Effect.gen(function*() {
        const parts = yield* compressed(encoding, pieces)
        const server = yield* served(() => ({ headers, pieces: parts, bytesAtATime: 3 }))
        const { events, reason } = yield* outcome(yield* engineAt(server.url))
        assert.isUndefined(reason)
        assert.strictEqual(textOf(events), said)
      }))

    it.live("gives each event before the next is sent", () =>
      Effect.gen(function*() {
        const parts = yield* compressed(encoding, pieces)
        const server = yield* served(() => ({
          headers,
          pieces: parts.slice(0, 3),
          gated: true,
          fault: { kind: "cut", after: 3 }
        }))
        // The rest is never sent, so the first content comes from what is there.
        const { events } = yield* outcome(yield* engineAt(server.url), undefined, () => server.release())
        assert.isNotEmpty(textOf(events))
      }))

    it.live("is decoded in an error response", () =>
      Effect.gen(function*() {
        const body = Buffer.from(JSON.stringify({ error: { message: "No such field", param: "top_p" } }))
        const server = yield* served(() => ({
          status: 400,
          headers: { ...json, ...headers },
          pieces: [encoding.compress(body)]
        }))
        const { reason } = yield* outcome(yield* engineAt(server.url))
        assert.deepInclude(reason, { _tag: "InvalidRequest", path: "topP" })
      }))

    it.live("is limited by its decoded size", () =>
      Effect.gen(function*() {
        const bomb = encoding.compress(Buffer.alloc(64 * 2 ** 20))
        const server = yield* served(() => ({ headers: { ...json, ...headers }, pieces: [bomb] }))
        for (const stream of [true, false]) {
          const engine = yield* engineAt(server.url, { stream, maxResponseBytes: 2 ** 20 })
          assert.deepInclude((yield* outcome(engine)).reason, { _tag: "UpstreamFailed", kind: "too_large" })
        }
      }))

    it.live("fails if it is cut, or has another encoding", () =>
      Effect.gen(function*() {
        const body = encoding.compress(buffered)
        for (const bytes of [body.subarray(0, body.length - 12), Buffer.from("no such encoding")]) {
          const server = yield* served(() => ({ headers: { ...json, ...headers }, pieces: [bytes] }))
          const { reason } = yield* outcome(yield* engineAt(server.url, { stream: false }))
          assert.deepInclude(reason, { _tag: "UpstreamFailed", kind: "malformed" })
        }
      }))
  })
}

it.live("Deflate without its wrapper is decoded", () =>
  Effect.gen(function*() {
    const server = yield* served(() => ({
      headers: { ...json, "content-encoding": "deflate" },
      pieces: [zlib.deflateRawSync(buffered)]
    }))
    assert.strictEqual(textOf((yield* outcome(yield* engineAt(server.url, { stream: false }))).events), said)
  }))

it.live("An unknown content encoding is named, and of a refusal only the status counts", () =>
  Effect.gen(function*() {
    const server = yield* served((index) => ({
      status: index === 0 ? 200 : 400,
      headers: { ...json, "content-encoding": "compress, gzip" },
      pieces: ["\u0001\u0002"]
    }))
    const engine = yield* engineAt(server.url)
    assert.include((yield* outcome(engine)).reason!.message, "content encoding \"compress, gzip\"")
    assert.deepInclude((yield* outcome(engine)).reason, {
      _tag: "InvalidRequest",
      detail: "HTTP status 400."
    })
  }))
