/**
 * Groups of tokens by the characters of their text. Where a grammar allows any text of a group's characters, up to a length,
 * the tokens of the group need not be looked at one by one.
 *
 * **Details**
 *
 * A token belongs to the first group that has all its characters. The plain characters are all that a JSON string holds as
 * they are. Tokens with others, or with a part of a character, are in the last group.
 */
import type { CodeRange } from "./Grammar.ts"
import { beginPartial } from "./GrammarParses.ts"

const lower: CodeRange = [0x61, 0x7a]
const space: CodeRange = [0x20, 0x20]
const alphanumeric: ReadonlyArray<CodeRange> = [[0x30, 0x39], [0x41, 0x5a], lower]

/** The characters of each group but the last. */
export const groupCodes: ReadonlyArray<ReadonlyArray<CodeRange>> = [
  [lower],
  [space, lower],
  alphanumeric,
  [space, ...alphanumeric],
  [[0x20, 0x21], [0x23, 0x5b], [0x5d, 0x7f], [0x80, 0xd7ff], [0xe000, 0x10ffff]]
]

const plain = groupCodes.length - 1

/** The number of the group of all other tokens. */
export const otherGroup = groupCodes.length

/** A bit for each group that has an ASCII character. */
const groupsOfAscii = Uint8Array.from(
  { length: 0x80 },
  (_, code) =>
    groupCodes.reduce(
      (bits, codes, group) => codes.some(([first, last]) => first <= code && code <= last) ? bits | 1 << group : bits,
      0
    )
)

/** The state between characters; otherwise it has the number of missing bytes and the range of the next one. */
const between = 0

const invalid = -1

const missing = (count: number, first = 0x80, last = 0xbf): number => count * 65_536 + first * 256 + last

/** Second bytes after these first ones are fewer than others: longer forms of a character, surrogates, numbers beyond the last. */
const secondBytes = new Map([[0xe0, [0xa0, 0xbf]], [0xed, [0x80, 0x9f]], [0xf0, [0x90, 0xbf]], [0xf4, [0x80, 0x8f]]])

/** The state after a byte of a character that is not ASCII. */
const stepWide = (state: number, byte: number): number => {
  if (state === between) {
    const begun = beginPartial(byte)
    if (begun === undefined) return invalid
    const [first, last] = secondBytes.get(byte) ?? []
    return missing(begun.missing, first, last)
  }
  if (byte < ((state >> 8) & 0xff) || byte > (state & 0xff)) return invalid
  const count = (state >> 16) - 1
  return count === 0 ? between : missing(count)
}

/** The number of a token's group. */
export const groupOf = (bytes: Uint8Array): number => {
  let groups = (1 << otherGroup) - 1
  let state = between
  for (const byte of bytes) {
    if (byte < 0x80 && state === between) {
      groups &= groupsOfAscii[byte]!
    } else {
      groups &= 1 << plain
      state = stepWide(state, byte)
      if (state === invalid) return otherGroup
    }
    if (groups === 0) return otherGroup
  }
  return state === between ? 31 - Math.clz32(groups & -groups) : otherGroup
}

/** The number of characters in a part of some bytes. */
export const charactersIn = (bytes: Uint8Array, from: number, to: number): number => {
  let count = 0
  for (let at = from; at < to; at++) if ((bytes[at]! & 0xc0) !== 0x80) count++
  return count
}
