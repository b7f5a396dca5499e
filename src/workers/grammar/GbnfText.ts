/**
 * Parses a caller's grammar in llama.cpp's GBNF.
 *
 * **Details**
 *
 * The result has rules only: repetitions, options and groups become rules, so that every engine reads the same few
 * constructs and llama.cpp is never given the caller's own text. A problem is reported with its line and column.
 *
 * Supported is all of GBNF except references to tokens (`<think>`, `<[1000]>`).
 */
import { refuse } from "../../domain/Job.ts"
import type { CodeRange, Grammar, GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { chars, makeBuilder, text } from "./Grammar.ts"
import { anyCode } from "./JsonValues.ts"
import { complement, union } from "./TextAutomaton.ts"

/** Characters of a grammar: some milliseconds of work. */
export const longestGrammar = 50_000

/** Repetitions of one element, as in llama.cpp. */
const mostRepetitions = 2_000

/** Groups within each other. */
const deepestGroups = 100

interface Named {
  readonly symbol: GrammarSymbol
  readonly define: (alternatives: ReadonlyArray<Sequence>) => void
  isDefined: boolean
  /** Where the rule is first used. */
  readonly usedAt: number
}

interface Parser {
  readonly source: string
  at: number
  depth: number
  readonly path: string
  readonly builder: GrammarBuilder
  readonly rules: Map<string, Named>
}

const placeOf = (source: string, at: number): string => {
  const lines = source.slice(0, at).split("\n")
  return `line ${lines.length}, column ${lines.at(-1)!.length + 1}`
}

const fail = ({ at: now, path, source }: Parser, message: string, at = now): never =>
  refuse({ kind: "invalid_request", path, message: `has an error at ${placeOf(source, at)}: ${message}` })

const isAt = ({ at, source }: Parser, token: string): boolean => source.startsWith(token, at)

const take = (parser: Parser, token: string): boolean => {
  const found = isAt(parser, token)
  if (found) parser.at += token.length
  return found
}

const takeMatch = (parser: Parser, pattern: RegExp): RegExpExecArray | undefined => {
  pattern.lastIndex = parser.at
  const found = pattern.exec(parser.source) ?? undefined
  if (found !== undefined) parser.at += found[0].length
  return found
}

const blanks = /(?:[ \t]|#[^\n\r]*)*/y
const space = /(?:[ \t\n\r]|#[^\n\r]*)*/y
const word = /[A-Za-z0-9_-]+/y
const escape = /\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([nrt\\"[\]]))/y
const bounds = /\{[ \t]*(?=[\d,])(\d*)[ \t]*(,?)[ \t]*(\d*)[ \t]*\}/y

const letters: Readonly<Record<string, number>> = { n: 0x0a, r: 0x0d, t: 0x09 }

const isCharacter = (code: number): boolean => code <= 0x10ffff && (code < 0xd800 || code > 0xdfff)

const readEscape = (parser: Parser): number => {
  const begin = parser.at
  const found = takeMatch(parser, escape)
  if (found === undefined) {
    return fail(parser, "unknown escape; expected \\n, \\r, \\t, \\\\, \\\", \\[, \\], \\x, \\u or \\U.")
  }
  const [, two, four, eight, letter] = found
  if (letter !== undefined) return letters[letter] ?? letter.codePointAt(0)!
  const code = Number.parseInt(two ?? four ?? eight!, 16)
  return isCharacter(code) ? code : fail(parser, "the escape stands for no character.", begin)
}

/** One character of a text or a set. */
const readCode = (parser: Parser): number => {
  if (isAt(parser, "\\")) return readEscape(parser)
  const begin = parser.at
  const code = parser.source.codePointAt(begin)
  if (code === undefined) return fail(parser, "the grammar ends within a text or a set.")
  parser.at += code > 0xffff ? 2 : 1
  return isCharacter(code) ? code : fail(parser, "half of a surrogate pair is no character.", begin)
}

const readText = (parser: Parser): Sequence => {
  parser.at++
  let content = ""
  while (!take(parser, "\"")) content += String.fromCodePoint(readCode(parser))
  return content === "" ? [] : [text(content)]
}

const readRange = (parser: Parser): CodeRange => {
  const begin = parser.at
  const first = readCode(parser)
  if (!isAt(parser, "-") || isAt(parser, "-]")) return [first, first]
  parser.at++
  const last = readCode(parser)
  return first <= last ? [first, last] : fail(parser, "the range is in the wrong order.", begin)
}

const readSet = (parser: Parser): Sequence => {
  const begin = parser.at++
  const isNegated = take(parser, "^")
  const ranges: Array<CodeRange> = []
  while (!take(parser, "]")) ranges.push(readRange(parser))
  const all = isNegated ? complement(ranges) : union(ranges)
  return all.length === 0 ? fail(parser, "the set is empty.", begin) : [chars(...all)]
}

const namedOf = (parser: Parser, name: string, usedAt: number): Named => {
  const known = parser.rules.get(name)
  if (known !== undefined) return known
  const declared = parser.builder.declare(name.replaceAll("_", "-"))
  const named = { ...declared, isDefined: false, usedAt }
  parser.rules.set(name, named)
  return named
}

const readName = (parser: Parser): Sequence => {
  const begin = parser.at
  return [namedOf(parser, takeMatch(parser, word)![0], begin).symbol]
}

const readGroup = (parser: Parser): Sequence => {
  const begin = parser.at++
  if (parser.depth++ === deepestGroups) fail(parser, `groups are nested deeper than ${deepestGroups}.`, begin)
  takeMatch(parser, space)
  const alternatives = readAlternatives(parser, true)
  if (!take(parser, ")")) {
    fail(parser, isEnd(parser) ? "this group has no `)`." : "expected `)`.", isEnd(parser) ? begin : parser.at)
  }
  parser.depth--
  return [parser.builder.rule("group", alternatives)]
}

const isEnd = ({ at, source }: Parser): boolean => at >= source.length

const noTokens = "references to tokens (`<...>`) are not supported; write the text of the token."

/** The next element of a sequence; undefined where the sequence ends. */
const readElement = (parser: Parser): Sequence | undefined => {
  const next = parser.source[parser.at] ?? ""
  if (next === "\"") return readText(parser)
  if (next === "[") return readSet(parser)
  if (next === "(") return readGroup(parser)
  if (take(parser, ".")) return [chars(...anyCode)]
  if (next === "<" || next === "!") return fail(parser, noTokens)
  return /[\w-]/.test(next) ? readName(parser) : undefined
}

/** The least and the most repetitions of an element. */
type Bounds = readonly [least: number, most: number | undefined]

const operators: ReadonlyMap<string | undefined, Bounds> = new Map([
  ["*", [0, undefined]],
  ["+", [1, undefined]],
  ["?", [0, 1]]
])

const checkedBounds = (parser: Parser, begin: number, [least, most]: Bounds): Bounds => {
  if (most !== undefined && most < least) fail(parser, "the repetition is in the wrong order.", begin)
  if ((most ?? least) > mostRepetitions) fail(parser, `more than ${mostRepetitions} repetitions.`, begin)
  return [least, most]
}

const expectedBounds = "expected a repetition such as {2}, {2,} or {2,4}."

/** Those of the operator at the cursor; undefined if there is none. */
const readBounds = (parser: Parser): Bounds | undefined => {
  const begin = parser.at
  const operator = operators.get(parser.source[begin])
  if (operator !== undefined) {
    parser.at++
    return operator
  }
  if (!isAt(parser, "{")) return undefined
  const [, low = "", comma, high = ""] = takeMatch(parser, bounds) ?? fail(parser, expectedBounds)
  const least = Number(low)
  const most = high === "" ? undefined : Number(high)
  return checkedBounds(parser, begin, [least, comma === "" ? least : most])
}

/** An element that is repeated. */
const repeated = (
  { builder }: Parser,
  element: Sequence,
  least: number,
  most: number | undefined
): Sequence => {
  const required = Array.from({ length: least }, () => element).flat()
  if (most === undefined) {
    const { define, symbol } = builder.declare("repeat")
    define([[...element, symbol], []])
    return [...required, symbol]
  }
  let optional: Sequence = []
  for (let count = least; count < most; count++) optional = [builder.rule("option", [[...element, ...optional], []])]
  return [...required, ...optional]
}

const readSequence = (parser: Parser, isNested: boolean): Sequence => {
  const sequence: Array<GrammarSymbol> = []
  for (let element = readElement(parser); element !== undefined; element = readElement(parser)) {
    takeMatch(parser, isNested ? space : blanks)
    for (let times = readBounds(parser); times !== undefined; times = readBounds(parser)) {
      if (element.length === 0) fail(parser, "an empty text cannot be repeated.")
      element = repeated(parser, element, ...times)
      // Several operators in a row apply to the whole of what they follow.
      if (element.length > 1) element = [parser.builder.rule("group", [element])]
      takeMatch(parser, isNested ? space : blanks)
    }
    sequence.push(...element)
  }
  if (/[*+?{]/.test(parser.source[parser.at] ?? "")) fail(parser, "expected an element before the repetition.")
  return sequence
}

function readAlternatives(parser: Parser, isNested: boolean): ReadonlyArray<Sequence> {
  const alternatives = [readSequence(parser, isNested)]
  while (take(parser, "|")) {
    takeMatch(parser, space)
    alternatives.push(readSequence(parser, isNested))
  }
  return alternatives
}

const readRule = (parser: Parser): void => {
  const begin = parser.at
  const name = takeMatch(parser, word)?.[0] ?? fail(parser, "expected the name of a rule.")
  takeMatch(parser, blanks)
  if (!take(parser, "::=")) fail(parser, "expected `::=` after the name of a rule.")
  takeMatch(parser, space)
  const rule = namedOf(parser, name, begin)
  if (rule.isDefined) fail(parser, `the rule ${name} is defined twice.`, begin)
  rule.isDefined = true
  rule.define(readAlternatives(parser, false))
  if (!isEnd(parser) && !/[\n\r]/.test(parser.source[parser.at]!)) {
    fail(parser, "expected an element, `|`, or the end of the line.")
  }
  takeMatch(parser, space)
}

/**
 * The grammar of a text in GBNF; its ambiguity and recursion are not checked.
 *
 * @param path the field that an error names
 */
export const parseGbnf = (source: string, path: string): Grammar => {
  const refuseAt = (message: string): never => refuse({ kind: "invalid_request", path, message })
  if (source.length > longestGrammar) {
    refuseAt(`has more than ${longestGrammar.toLocaleString("en")} characters, which is the limit`)
  }
  const builder = makeBuilder(path)
  const parser: Parser = { source, at: 0, depth: 0, path, builder, rules: new Map() }
  takeMatch(parser, space)
  while (!isEnd(parser)) readRule(parser)
  for (const [name, { isDefined, usedAt }] of parser.rules) {
    if (!isDefined) fail(parser, `the rule ${name} is not defined.`, usedAt)
  }
  const root = parser.rules.get("root") ?? refuseAt("has no rule `root`, with which the answer begins")
  return builder.build([root.symbol]) ?? refuseAt("matches no text of finite length")
}
