/** GGUF headers, whole, cut short, and full of lies. */
import { assert } from "@effect/vitest"
import { Result } from "effect"
import * as fc from "fast-check"
import { readFileSync } from "node:fs"
import { fileURLToPath } from "node:url"
import { describe, it } from "vitest"
import * as Gguf from "../../../src/services/store/Gguf.ts"

const read = (name: string) =>
  new Uint8Array(readFileSync(fileURLToPath(new URL(`../../../models/${name}`, import.meta.url))))
const file = read("tiny-chat-q8_0.gguf")

const headerOf = (bytes: Uint8Array): Gguf.Header => Result.getOrThrow(Gguf.parse(bytes, { fileBytes: bytes.length }))

describe("parse", () => {
  for (const [name, type, bits] of [["tiny-chat-q8_0.gguf", "Q8_0", 8], ["tiny-chat-f16.gguf", "F16", 16]] as const) {
    it(`reads ${name} completely`, () => {
      const bytes = read(name)
      const header = headerOf(bytes)
      assert.strictEqual(Gguf.architectureOf(header), "llama")
      assert.strictEqual(Gguf.numberOf(header, "llama.block_count"), 6)
      assert.include(Gguf.textOf(header, "tokenizer.chat_template"), "<|im_start|>")
      assert.deepStrictEqual(header.metadata.get("tokenizer.ggml.tokens"), { skipped: 1024 })
      assert.strictEqual(header.weightsOffset + Gguf.weightsBytesOf(header), bytes.length)
      assert.strictEqual(Gguf.quantizationOf(header), type)
      assert.strictEqual(Gguf.dominantTypeOf(header)?.name, type)
      assert.strictEqual(Gguf.bitsOf(header), bits)
    })
  }

  it("requests more bytes until the header is complete, and none beyond it", () => {
    let size = 0
    for (;;) {
      const header = Gguf.parse(file.subarray(0, size))
      if (Result.isSuccess(header)) break
      assert.instanceOf(header.failure, Gguf.Truncated)
      assert.isAbove(header.failure.moreBytes, 0)
      size += header.failure.moreBytes
    }
    assert.isAtMost(size, headerOf(file).weightsOffset)
  })

  it("calls a file that ends in its header malformed when the file's size is known", () => {
    const header = Gguf.parse(file.subarray(0, 5000), { fileBytes: 5000 })
    assert.isTrue(Result.isFailure(header) && header.failure instanceof Gguf.Malformed)
  })

  it("names what is wrong and where", () => {
    const message = (change: (view: DataView) => void): string => {
      const bytes = file.slice()
      change(new DataView(bytes.buffer))
      const header = Gguf.parse(bytes)
      return Result.isFailure(header) ? header.failure.message : "no failure"
    }
    assert.strictEqual(
      message((view) => view.setUint8(0, 0)),
      "magic (byte 0): Expected the bytes \"GGUF\", with which a GGUF file begins"
    )
    assert.include(message((view) => view.setUint32(4, 99, true)), "version (byte 8): Expected GGUF version 2 or 3")
    assert.include(message((view) => view.setBigUint64(8, 2n ** 63n, true)), "counts (byte 16): Expected a count")
    assert.include(
      message((view) => view.setUint32(24 + 8 + 20, 77, true)),
      "metadata[0].value (byte 56): Expected a type"
    )
  })

  it("accepts random bytes without throwing, with and without a valid beginning", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 4096 }), fc.nat(2000), (noise, kept) => {
        assert.isTrue(Result.isFailure(Gguf.parse(noise)))
        const bytes = file.slice(0, 8000)
        bytes.set(noise.subarray(0, bytes.length - kept), kept)
        Gguf.parse(bytes)
      }),
      { numRuns: 500 }
    )
  })

  it("accepts any mutation of a real file without throwing, and returns numbers", () => {
    const mutation = fc.tuple(fc.nat(31_744), fc.constantFrom(0, 1, 0x7f, 0x80, 0xff))
    fc.assert(
      fc.property(
        fc.array(mutation, { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 0, max: 40_000 }),
        (changes, length) => {
          const bytes = file.slice(0, length)
          for (const [at, value] of changes) {
            if (at < length) bytes[at] = value
          }
          const header = Gguf.parse(bytes, { fileBytes: file.length })
          if (Result.isSuccess(header)) {
            assert.isTrue(Number.isFinite(Gguf.weightsBytesOf(header.success)))
            Gguf.bitsOf(header.success)
          } else assert.isNotEmpty(header.failure.message)
        }
      ),
      { numRuns: 1000 }
    )
  })
})
