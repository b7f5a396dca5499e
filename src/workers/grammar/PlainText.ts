/**
 * Plain characters: all that a JSON string holds as they are. A string of any length can have whole subtrees of a vocabulary.
 *
 * **Details**
 *
 * The state between the bytes of plain text is a number: `startOfText` between characters, otherwise the missing bytes and the
 * range of the next one; negative after a byte that is not plain.
 */
import type { CodeRange } from "./Grammar.ts"
import { beginPartial } from "./GrammarParses.ts"

/** All plain characters. */
export const plainCodes: ReadonlyArray<CodeRange> = [
  [0x20, 0x21],
  [0x23, 0x5b],
  [0x5d, 0x7f],
  [0x80, 0xd7ff],
  [0xe000, 0x10ffff]
]

/** Stands for any number of characters, or for others than plain ones. */
export const mostHeight = 255

export const startOfText = 0

const notPlain = -1

const missing = (count: number, first = 0x80, last = 0xbf): number => count * 65_536 + first * 256 + last

/** Second bytes after these first ones are fewer than others: longer forms of a character, surrogates, numbers beyond the last. */
const secondBytes = new Map([[0xe0, [0xa0, 0xbf]], [0xed, [0x80, 0x9f]], [0xf0, [0x90, 0xbf]], [0xf4, [0x80, 0x8f]]])

const isPlainByte = (byte: number): boolean => byte >= 0x20 && byte !== 0x22 && byte !== 0x5c

const beginning = (byte: number): number => {
  if (byte < 0x80) return isPlainByte(byte) ? startOfText : notPlain
  const begun = beginPartial(byte)
  if (begun === undefined) return notPlain
  const [first, last] = secondBytes.get(byte) ?? []
  return missing(begun.missing, first, last)
}

/** The state after a byte of UTF-8. */
export const stepPlain = (state: number, byte: number): number => {
  if (state < 0) return notPlain
  if (state === startOfText) return beginning(byte)
  if (byte < ((state >> 8) & 0xff) || byte > (state & 0xff)) return notPlain
  const count = (state >> 16) - 1
  return count === 0 ? startOfText : missing(count)
}
