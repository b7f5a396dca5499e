/** UTF-8 in pieces becomes the text that the platform's decoder finds, up to the first bytes that are no text. */
import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Utf8Decoder } from "../../../src/layers/providers/Utf8Decoder.ts"

const bytes = fc.array(
  fc.oneof(
    fc.string({ unit: "binary", maxLength: 5 }).map((text) => Buffer.from(text)),
    fc.constantFrom(Buffer.from("\ufeff"), Buffer.from("é東\u{1f600}"), Buffer.from([0xe0, 0x80]), Buffer.from([0xff])),
    fc.uint8Array({ maxLength: 3 }).map((some) => Buffer.from(some))
  ),
  { maxLength: 8 }
).map((parts) => Buffer.concat(parts))

/** What the platform's decoder finds, and whether it fails. */
const expectedOf = (all: Uint8Array) => {
  const decoder = new TextDecoder("utf-8", { fatal: true })
  let text = ""
  try {
    for (const byte of all) text += decoder.decode(Uint8Array.of(byte), { stream: true })
    text += decoder.decode()
    return { text, isWhole: true }
  } catch {
    return { text, isWhole: false }
  }
}

describe("bytes of UTF-8", () => {
  it("become the same text wherever they are cut", () => {
    fc.assert(
      fc.property(bytes, fc.array(fc.integer({ min: 1, max: 7 }), { minLength: 1, maxLength: 4 }), (all, lengths) => {
        const decoder = new Utf8Decoder()
        let text = ""
        for (let from = 0, index = 0; from < all.length; index++) {
          const to = from + lengths[index % lengths.length]!
          text += decoder.decode(all.subarray(from, to))
          from = to
        }
        assert.deepStrictEqual({ text, isWhole: decoder.isComplete() && !decoder.isBroken() }, expectedOf(all))
      }),
      { numRuns: 3_000 }
    )
  })
})
