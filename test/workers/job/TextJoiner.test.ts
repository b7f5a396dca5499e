import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { makeTextJoiner } from "../../../src/workers/job/TextJoiner.ts"

const replacement = "\uFFFD"

const decodeBytes = (tokens: ReadonlyArray<Uint8Array>): string => Buffer.concat(tokens).toString("utf8")

const bytesOf = (...values: ReadonlyArray<number>): Uint8Array => Uint8Array.from(values)

/** The result of each push, and last of flush. */
const join = (tokens: ReadonlyArray<Uint8Array>): { pushed: ReadonlyArray<string>; flushed: string } => {
  const joiner = makeTextJoiner<Uint8Array>(decodeBytes)
  return { pushed: tokens.map((token) => joiner.push(token)), flushed: joiner.flush() }
}

/** The bytes split into tokens of these lengths, repeatedly. */
const cut = (bytes: Uint8Array, lengths: ReadonlyArray<number>): ReadonlyArray<Uint8Array> => {
  const tokens: Array<Uint8Array> = []
  for (let at = 0, index = 0; at < bytes.length; index++) {
    const length = lengths[index % lengths.length]!
    tokens.push(bytes.subarray(at, at + length))
    at += length
  }
  return tokens
}

const family = "\u{1F468}\u200D\u{1F469}\u200D\u{1F467}"

const texts = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.string({ unit: "grapheme" }),
  fc.array(fc.constantFrom("a", "é", "e\u0301", "ß", "漢", "😀", family, "🇩🇪", "\uFEFF", replacement, "\0", "\n"))
    .map((parts) => parts.join(""))
).filter((text) => text.isWellFormed())

const lengths = fc.array(fc.integer({ min: 1, max: 6 }), { minLength: 1 })

const tokensOfText = fc.tuple(texts, lengths).map(([text, lengths]) => cut(Buffer.from(text), lengths))

/** Bytes that begin, continue or break a character. */
const byte = fc.oneof(
  fc.integer({ min: 0, max: 255 }),
  fc.constantFrom(0x41, 0x80, 0xbf, 0xc0, 0xc3, 0xe0, 0xe2, 0xed, 0xef, 0xf0, 0x9f, 0x98, 0xf4, 0xf5, 0xff)
)

/** Tokens of any bytes, empty ones among them. */
const tokensOfBytes = fc.array(fc.array(byte, { maxLength: 5 }).map((bytes) => Uint8Array.from(bytes)))

const tokens = fc.oneof(tokensOfText, tokensOfBytes)

describe("TextJoiner", () => {
  it("pushes and flush, joined, equal the decoding of all bytes at once", () => {
    fc.assert(fc.property(tokens, (tokens) => {
      const { flushed, pushed } = join(tokens)
      const whole = new TextDecoder("utf-8", { ignoreBOM: true }).decode(Buffer.concat(tokens))
      assert.strictEqual(pushed.join("") + flushed, whole)
    }))
  })

  it("never pushes text that a later token changes", () => {
    fc.assert(fc.property(tokens, tokensOfBytes, (tokens, later) => {
      const pushed = join(tokens).pushed.join("")
      assert.isTrue(decodeBytes([...tokens, ...later]).startsWith(pushed))
    }))
  })

  it("no piece ends with an incomplete character", () => {
    const whole = tokensOfText.filter((tokens) => !decodeBytes(tokens).includes(replacement))
    fc.assert(fc.property(whole, (tokens) => {
      const { flushed, pushed } = join(tokens)
      for (const piece of pushed) {
        assert.notInclude(piece, replacement)
        assert.isTrue(piece.isWellFormed())
      }
      assert.strictEqual(flushed, "")
    }))
  })

  it("pushes every character with the token that completes it", () => {
    const whole = tokensOfText.filter((tokens) => !decodeBytes(tokens).includes(replacement))
    fc.assert(fc.property(whole, (tokens) => {
      const decoder = new TextDecoder("utf-8", { ignoreBOM: true })
      assert.deepStrictEqual(join(tokens).pushed, tokens.map((token) => decoder.decode(token, { stream: true })))
    }))
  })

  it("holds an emoji back until its last byte", () => {
    const [first, second, third, fourth] = [...Buffer.from("😀")].map((value) => bytesOf(value))
    assert.deepStrictEqual(join([first!, second!, third!, fourth!]), { pushed: ["", "", "", "😀"], flushed: "" })
  })

  it("pushes the whole characters of a token that ends within one", () => {
    const euro = Buffer.from("€")
    assert.deepStrictEqual(
      join([Buffer.concat([Buffer.from("5 "), euro.subarray(0, 1)]), euro.subarray(1), Buffer.from("!")]),
      { pushed: ["5 ", "€", "!"], flushed: "" }
    )
  })

  it("does not wait for a combining mark", () => {
    assert.deepStrictEqual(join([Buffer.from("e"), Buffer.from("\u0301")]), {
      pushed: ["e", "\u0301"],
      flushed: ""
    })
  })

  it("flushes an incomplete character as one replacement character", () => {
    assert.deepStrictEqual(join([Buffer.from("a"), Buffer.from("😀").subarray(0, 3)]), {
      pushed: ["a", ""],
      flushed: replacement
    })
  })

  it("a byte that begins no character does not hold back what follows it", () => {
    assert.deepStrictEqual(join([bytesOf(0xff), Buffer.from("ab"), Buffer.from("c")]), {
      pushed: ["", `${replacement}ab`, "c"],
      flushed: ""
    })
  })

  it("a replacement character that was generated is pushed with the token after it", () => {
    assert.deepStrictEqual(join([Buffer.from(replacement), Buffer.from("a")]), {
      pushed: ["", `${replacement}a`],
      flushed: ""
    })
  })

  it("flushes only what it has not pushed", () => {
    assert.deepStrictEqual(join([bytesOf(0xff), bytesOf(0xf0), bytesOf(0x9f)]), {
      pushed: ["", replacement, ""],
      flushed: replacement
    })
  })

  it("flushes nothing twice", () => {
    const joiner = makeTextJoiner<Uint8Array>(decodeBytes)
    joiner.push(bytesOf(0xf0))
    assert.strictEqual(joiner.flush(), replacement)
    assert.strictEqual(joiner.flush(), "")
  })

  it("flushes nothing if nothing was pushed", () => {
    assert.strictEqual(makeTextJoiner<Uint8Array>(decodeBytes).flush(), "")
  })

  it("passes the previous tokens to the decoder, so that a leading space is kept within the text and not at its start", () => {
    const joiner = makeTextJoiner<string>((tokens, before) =>
      before.length === 0 ? tokens.join("").trimStart() : tokens.join("")
    )
    assert.deepStrictEqual([" Hello", " big", " world"].map(joiner.push), ["Hello", " big", " world"])
  })

  it("passes at most the four previous tokens to the decoder", () => {
    const seen: Array<ReadonlyArray<string>> = []
    const joiner = makeTextJoiner<string>((tokens, before) => {
      seen.push(before)
      return tokens.join("")
    })
    for (const token of ["a", "b", "c", "d", "e", "f"]) joiner.push(token)
    assert.deepStrictEqual(seen.at(-1), ["b", "c", "d", "e"])
  })
})
