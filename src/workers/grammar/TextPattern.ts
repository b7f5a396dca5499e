/**
 * Parses an ECMAScript regular expression, the value of a schema's `pattern`.
 *
 * **Details**
 *
 * All regular constructs are supported: anchors, sets, escapes, groups, alternatives and quantifiers. A character is a
 * code point, as under the `u` flag, and `.` is any character except a line terminator. A lazy quantifier accepts the
 * same texts as a greedy one.
 */
import type { CodeRange } from "./Grammar.ts"
import { complement, union } from "./TextAutomaton.ts"

/** A node of a parsed pattern. */
export type PatternNode =
  | { readonly kind: "set"; readonly ranges: ReadonlyArray<CodeRange> }
  | { readonly kind: "sequence"; readonly nodes: ReadonlyArray<PatternNode> }
  | { readonly kind: "choice"; readonly nodes: ReadonlyArray<PatternNode> }
  | { readonly kind: "repeat"; readonly node: PatternNode; readonly least: number; readonly most: number | undefined }
  | { readonly kind: "start" }
  | { readonly kind: "end" }

const only = (code: number): ReadonlyArray<CodeRange> => [[code, code]]

const digit: ReadonlyArray<CodeRange> = [[0x30, 0x39]]
const word: ReadonlyArray<CodeRange> = [[0x30, 0x39], [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]]
const lineEnds: ReadonlyArray<CodeRange> = [[0x0a, 0x0a], [0x0d, 0x0d], [0x2028, 0x2029]]
/** WhiteSpace and LineTerminator of ECMA-262. */
const space: ReadonlyArray<CodeRange> = [
  [0x09, 0x0d],
  [0x20, 0x20],
  [0xa0, 0xa0],
  [0x1680, 0x1680],
  [0x2000, 0x200a],
  [0x2028, 0x2029],
  [0x202f, 0x202f],
  [0x205f, 0x205f],
  [0x3000, 0x3000],
  [0xfeff, 0xfeff]
]

const setEscapes: ReadonlyMap<string, ReadonlyArray<CodeRange>> = new Map(Object.entries({
  d: digit,
  D: complement(digit),
  w: word,
  W: complement(word),
  s: space,
  S: complement(space),
  t: only(0x09),
  n: only(0x0a),
  v: only(0x0b),
  f: only(0x0c),
  r: only(0x0d)
}))

const codeEscape = /^(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|0(?!\d))/
const quantifier = /^(?:([*+?])|\{(\d+)(?:(,)(\d*))?\})\??/
const group = /^\((?:\?:|\?<[A-Za-z_$][\w$]*>|(?!\?))/

/** Characters of a pattern; this also limits the depth of nested groups. */
const longestPattern = 1000

const isValid = (source: string, flags: string): boolean => {
  try {
    return new RegExp(source, flags) instanceof RegExp
  } catch {
    return false
  }
}

/** The position in a pattern. */
interface Cursor {
  readonly source: string
  at: number
  /** Called with the problem. */
  readonly refuse: (message: string) => never
}

const peek = ({ at, source }: Cursor): string | undefined => source[at]

const take = (cursor: Cursor, pattern: RegExp): RegExpExecArray | undefined => {
  const found = pattern.exec(cursor.source.slice(cursor.at)) ?? undefined
  if (found !== undefined) cursor.at += found[0].length
  return found
}

const takeCharacter = (cursor: Cursor): number => {
  const code = cursor.source.codePointAt(cursor.at)!
  cursor.at += String.fromCodePoint(code).length
  return code
}

const codeOf = (coded: RegExpExecArray): number => Number.parseInt(coded[1] ?? coded[2] ?? coded[3] ?? "0", 16)

const readEscape = (cursor: Cursor): ReadonlyArray<CodeRange> => {
  const letter = peek(cursor) ?? ""
  const known = setEscapes.get(letter)
  if (known !== undefined) {
    cursor.at++
    return known
  }
  const coded = take(cursor, codeEscape)
  if (coded === undefined) {
    return /[\dA-Za-z]/.test(letter)
      ? cursor.refuse(`has \\${letter}, which is not supported`)
      : only(takeCharacter(cursor))
  }
  const code = codeOf(coded)
  return code >= 0xd800 && code <= 0xdfff
    ? cursor.refuse("has half of a surrogate pair; write \\u{...} with the complete code point")
    : only(code)
}

const readSetItem = (cursor: Cursor): ReadonlyArray<CodeRange> => {
  if (peek(cursor) !== "\\") return only(takeCharacter(cursor))
  cursor.at++
  return take(cursor, /^b/) === undefined ? readEscape(cursor) : only(0x08)
}

/** Without the flag `u`, a range to a set of characters is valid: its hyphen is a character then. */
const readRangeEnd = (cursor: Cursor): number => {
  const [[first, last], ...more] = readSetItem(cursor) as [CodeRange, ...ReadonlyArray<CodeRange>]
  return first === last && more.length === 0
    ? last
    : cursor.refuse("has a range that ends in a set of characters, which is not supported; write \\- for a hyphen")
}

const readSet = (cursor: Cursor): PatternNode => {
  const isNegated = take(cursor, /^\^/) !== undefined
  const ranges: Array<CodeRange> = []
  while (take(cursor, /^\]/) === undefined) {
    const [[first, last], ...more] = readSetItem(cursor) as [CodeRange, ...ReadonlyArray<CodeRange>]
    const isRange = more.length === 0 && first === last && take(cursor, /^-(?!\])/) !== undefined
    ranges.push([first, isRange ? readRangeEnd(cursor) : last], ...more)
  }
  return { kind: "set", ranges: isNegated ? complement(ranges) : union(ranges) }
}

const readGroup = (cursor: Cursor): PatternNode => {
  if (take(cursor, group) === undefined) {
    cursor.refuse("has a group that looks ahead, looks behind or sets flags, which is not supported")
  }
  const node = readChoice(cursor)
  take(cursor, /^\)/)
  return node
}

const atoms: ReadonlyMap<string | undefined, (cursor: Cursor) => PatternNode> = new Map([
  ["[", readSet],
  ["^", (): PatternNode => ({ kind: "start" })],
  ["$", (): PatternNode => ({ kind: "end" })],
  [".", (): PatternNode => ({ kind: "set", ranges: complement(lineEnds) })],
  ["\\", (cursor: Cursor): PatternNode => ({ kind: "set", ranges: readEscape(cursor) })]
])

const readAtom = (cursor: Cursor): PatternNode => {
  if (peek(cursor) === "(") return readGroup(cursor)
  const read = atoms.get(peek(cursor))
  if (read === undefined) return { kind: "set", ranges: only(takeCharacter(cursor)) }
  cursor.at++
  return read(cursor)
}

const mostOf = (comma: string | undefined, least: string, most: string | undefined): number | undefined => {
  if (comma === undefined) return Number(least)
  return most === "" ? undefined : Number(most)
}

const readTerm = (cursor: Cursor): PatternNode => {
  const node = readAtom(cursor)
  const found = take(cursor, quantifier)
  if (found === undefined) return node
  const [, sign, least = "", comma, most] = found
  return sign === undefined
    ? { kind: "repeat", node, least: Number(least), most: mostOf(comma, least, most) }
    : { kind: "repeat", node, least: sign === "+" ? 1 : 0, most: sign === "?" ? 1 : undefined }
}

const readSequence = (cursor: Cursor): PatternNode => {
  const nodes: Array<PatternNode> = []
  while (!["|", ")", undefined].includes(peek(cursor))) nodes.push(readTerm(cursor))
  return { kind: "sequence", nodes }
}

function readChoice(cursor: Cursor): PatternNode {
  const nodes = [readSequence(cursor)]
  while (take(cursor, /^\|/) !== undefined) nodes.push(readSequence(cursor))
  return { kind: "choice", nodes }
}

/** @param refuse called with the problem */
export const readPattern = (source: string, refuse: (message: string) => never): PatternNode => {
  if (source.length > longestPattern) refuse(`has more than ${longestPattern} characters, which is the limit`)
  if (!isValid(source, "u") && !isValid(source, "")) refuse("is not a valid ECMAScript regular expression")
  return readChoice({ source, at: 0, refuse })
}
