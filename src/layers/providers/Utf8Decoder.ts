/** Decodes UTF-8 in pieces that may be cut within a character. Faster than a streaming `TextDecoder`. */
import { isUtf8 } from "node:buffer"

/** The most bytes of a character. */
const mostOfCharacter = 4

const byteOrderMark = "\ufeff"

const noBytes = new Uint8Array()

/** Whether bytes are complete characters, but for the last one. */
const isBegun = (bytes: Uint8Array): boolean => lengthOf(bytes) !== undefined

/** The length of the complete characters; undefined if the bytes are not UTF-8. */
const lengthOf = (bytes: Uint8Array): number | undefined => {
  for (let missing = 0; missing < mostOfCharacter && missing <= bytes.length; missing++) {
    if (isUtf8(bytes.subarray(0, bytes.length - missing))) return bytes.length - missing
  }
  return undefined
}

/** The length of the longest beginning that is UTF-8. */
const longestOf = (bytes: Uint8Array): number => {
  let readable = 0
  let broken = bytes.length
  while (broken - readable > 1) {
    const middle = (readable + broken) >> 1
    if (isBegun(bytes.subarray(0, middle))) readable = middle
    else broken = middle
  }
  return lengthOf(bytes.subarray(0, readable))!
}

export class Utf8Decoder {
  #isBegun = false
  #isBroken = false
  /** The beginning of a character. */
  #rest: Uint8Array = noBytes

  /** The complete characters since the last call, up to bytes that are not UTF-8. */
  decode(piece: Uint8Array): string {
    if (this.#isBroken) return ""
    const bytes = this.#rest.length === 0 ? piece : Buffer.concat([this.#rest, piece])
    const length = lengthOf(bytes)
    this.#isBroken = length === undefined
    const end = length ?? longestOf(bytes)
    this.#rest = end === bytes.length ? noBytes : bytes.subarray(end)
    return this.#textOf(bytes, end)
  }

  isBroken(): boolean {
    return this.#isBroken
  }

  /** Whether the last character is complete. */
  isComplete(): boolean {
    return this.#rest.length === 0
  }

  /** A byte order mark at the beginning is no text. */
  #textOf(bytes: Uint8Array, length: number): string {
    const text = Buffer.from(bytes.buffer, bytes.byteOffset, length).toString()
    if (this.#isBegun || text === "") return text
    this.#isBegun = true
    return text.startsWith(byteOrderMark) ? text.slice(1) : text
  }
}
