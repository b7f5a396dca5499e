/**
 * Reads an ECMAScript regular expression, as a schema's `pattern` has it.
 *
 * **Details**
 *
 * All that is regular is read: anchors, sets, escapes, groups, alternatives and quantifiers. A character is a code
 * point, as under the `u` flag, and `.` is any but a line's end. Whether a quantifier is lazy makes no difference to
 * which texts fit.
 */
import type { CodeRange } from "./Grammar.ts"
import { complement, union } from "./TextAutomaton.ts"

/** What a pattern is made of. */
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

const setEscapes: Readonly<Record<string, ReadonlyArray<CodeRange>>> = {
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
}

const codeEscape = /^(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|0(?!\d))/
const quantifier = /^(?:([*+?])|\{(\d+)(?:(,)(\d*))?\})\??/
const group = /^\((?:\?:|\?<[A-Za-z_$][\w$]*>|(?!\?))/

/** Characters of a pattern, which also bounds how deep its groups nest. */
const longestPattern = 1000

const isValid = (source: string, flags: string): boolean => {
  try {
    return new RegExp(source, flags) instanceof RegExp
  } catch {
    return false
  }
}

/**
 * @param refuse is told what is not supported
 */
export const readPattern = (source: string, refuse: (message: string) => never): PatternNode => {
  if (source.length > longestPattern) refuse(`has more than ${longestPattern} characters, which is the limit`)
  if (!isValid(source, "u") && !isValid(source, "")) refuse("is not a regular expression of ECMAScript")
  let at = 0

  const take = (pattern: RegExp): RegExpExecArray | undefined => {
    const found = pattern.exec(source.slice(at)) ?? undefined
    if (found !== undefined) at += found[0].length
    return found
  }

  const takeCharacter = (): number => {
    const code = source.codePointAt(at)!
    at += String.fromCodePoint(code).length
    return code
  }

  const readEscape = (): ReadonlyArray<CodeRange> => {
    const known = setEscapes[source[at] ?? ""]
    if (known !== undefined) {
      at++
      return known
    }
    const coded = take(codeEscape)
    if (coded !== undefined) {
      const code = Number.parseInt(coded[1] ?? coded[2] ?? coded[3] ?? "0", 16)
      if (code >= 0xd800 && code <= 0xdfff) refuse("has half a character; write \\u{...} with its whole code point")
      return only(code)
    }
    if (/^[\dA-Za-z]/.test(source.slice(at))) refuse(`has \\${source[at]}, which is not supported`)
    return only(takeCharacter())
  }

  const readSetItem = (): ReadonlyArray<CodeRange> => {
    if (source[at] !== "\\") return only(takeCharacter())
    at++
    return take(/^b/) === undefined ? readEscape() : only(0x08)
  }

  const readSet = (): PatternNode => {
    const isNegated = take(/^\^/) !== undefined
    const ranges: Array<CodeRange> = []
    while (take(/^\]/) === undefined) {
      const first = readSetItem()
      const isRange = first.length === 1 && first[0]![0] === first[0]![1] && take(/^-(?!\])/) !== undefined
      const last = isRange ? readSetItem() : first
      ranges.push(...(isRange ? [[first[0]![0], last.at(-1)![1]] as const] : first))
    }
    return { kind: "set", ranges: isNegated ? complement(ranges) : union(ranges) }
  }

  const readGroup = (): PatternNode => {
    if (take(group) === undefined) {
      refuse("has a group that looks ahead, looks behind or sets flags, which is not supported")
    }
    const node = readChoice()
    take(/^\)/)
    return node
  }

  const readAtom = (): PatternNode => {
    if (source[at] === "(") return readGroup()
    if (take(/^\[/) !== undefined) return readSet()
    if (take(/^\^/) !== undefined) return { kind: "start" }
    if (take(/^\$/) !== undefined) return { kind: "end" }
    if (take(/^\./) !== undefined) return { kind: "set", ranges: complement(lineEnds) }
    if (take(/^\\/) !== undefined) return { kind: "set", ranges: readEscape() }
    return { kind: "set", ranges: only(takeCharacter()) }
  }

  const readTerm = (): PatternNode => {
    const node = readAtom()
    const found = take(quantifier)
    if (found === undefined) return node
    const [, sign, least, comma, most] = found
    if (sign !== undefined) {
      return { kind: "repeat", node, least: sign === "+" ? 1 : 0, most: sign === "?" ? 1 : undefined }
    }
    const count = Number(least)
    return {
      kind: "repeat",
      node,
      least: count,
      most: comma === undefined ? count : most === "" ? undefined : Number(most)
    }
  }

  const readSequence = (): PatternNode => {
    const nodes: Array<PatternNode> = []
    while (at < source.length && source[at] !== "|" && source[at] !== ")") nodes.push(readTerm())
    return { kind: "sequence", nodes }
  }

  function readChoice(): PatternNode {
    const nodes = [readSequence()]
    while (take(/^\|/) !== undefined) nodes.push(readSequence())
    return { kind: "choice", nodes }
  }

  return readChoice()
}
