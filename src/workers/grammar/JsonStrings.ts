/** JSON strings whose text an automaton accepts, and the supported `format`s. */
import type { CodeRange, GrammarBuilder, Sequence } from "./Grammar.ts"
import { chars, text } from "./Grammar.ts"
import { anyCharacter, anyCode, plainCodes } from "./JsonValues.ts"
import type { Automaton, Edge } from "./TextAutomaton.ts"
import { common, union } from "./TextAutomaton.ts"

/** The letter after a backslash, and the character that it encodes. */
const shortEscapes: ReadonlyArray<readonly [string, number]> = [
  ["\"", 0x22],
  ["\\", 0x5c],
  ["b", 0x08],
  ["f", 0x0c],
  ["n", 0x0a],
  ["r", 0x0d],
  ["t", 0x09]
]

const has = (ranges: ReadonlyArray<CodeRange>, code: number): boolean =>
  ranges.some(([first, last]) => first <= code && code <= last)

const isAny = (ranges: ReadonlyArray<CodeRange>): boolean =>
  ranges.length === anyCode.length &&
  ranges.every(([first, last], index) => first === anyCode[index]![0] && last === anyCode[index]![1])

/** Control characters without a short escape, by the last digit of their code, for example `\u000b`. */
const controlsOf = (ranges: ReadonlyArray<CodeRange>): ReadonlyArray<Sequence> =>
  [0x00, 0x10].flatMap((from): ReadonlyArray<Sequence> => {
    const digits = Array.from({ length: 16 }, (_, digit) => digit)
      .filter((digit) => has(ranges, from + digit) && shortEscapes.every(([, code]) => code !== from + digit))
      .map((digit) => digit.toString(16))
      .flatMap((digit) => [digit.charCodeAt(0), digit.toUpperCase().charCodeAt(0)])
      .map((code): CodeRange => [code, code])
    return digits.length === 0 ? [] : [[text(`\\u00${from === 0 ? "0" : "1"}`), chars(...union(digits))]]
  })

/** One character of the set, in one spelling. */
const characterOf = (builder: GrammarBuilder, ranges: ReadonlyArray<CodeRange>): ReadonlyArray<Sequence> => {
  if (isAny(ranges)) return [[anyCharacter(builder)]]
  const plain = common(ranges, plainCodes)
  const escapes = shortEscapes.filter(([, code]) => has(ranges, code))
    .map(([letter]): CodeRange => [letter.charCodeAt(0), letter.charCodeAt(0)])
  return [
    ...(plain.length === 0 ? [] : [[chars(...plain)]]),
    ...(escapes.length === 0 ? [] : [[text("\\"), chars(...escapes)]]),
    ...controlsOf(ranges)
  ]
}

/** A string, with its quotes. */
export const stringOf = (builder: GrammarBuilder, automaton: Automaton): Sequence => {
  const states = automaton.map(() => builder.declare("text"))
  const follow = ({ ranges, to }: Edge): ReadonlyArray<Sequence> =>
    characterOf(builder, ranges).map((character) => [...character, states[to]!.symbol])
  for (const [index, { accepts, edges }] of automaton.entries()) {
    states[index]!.define([...edges.flatMap(follow), ...(accepts ? [[text("\"")]] : [])])
  }
  return [text("\""), states[0]!.symbol]
}

const year = "\\d{4}"
const leapYear = "(?:\\d\\d(?:0[48]|[2468][048]|[13579][26])|(?:[02468][048]|[13579][26])00)"
const date = `(?:${year}-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12]\\d|3[01])|(?:0[469]|11)-(?:0[1-9]|[12]\\d|30)|` +
  `02-(?:0[1-9]|1\\d|2[0-8]))|${leapYear}-02-29)`
const time = "(?:[01]\\d|2[0-3]):[0-5]\\d:[0-5]\\d(?:\\.\\d{1,9})?(?:Z|[+-](?:[01]\\d|2[0-3]):[0-5]\\d)"

const byte = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)"
const label = "[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
const hostname = `${label}(?:\\.${label}){0,3}`
const atom = "[A-Za-z0-9_+-]+"
const part = "[A-Za-z0-9]+(?:-+[A-Za-z0-9]+)*"
const pathCharacters = "(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*"
const authority = `//${part}(?:\\.${part})*(?::[1-9]\\d{0,3})?`

/**
 * The enforced `format`s, as patterns: RFC 3339 without leap seconds, RFC 9562, and the usual ones of the addresses of RFC 5321,
 * 1123, 2673 and 3986: in ASCII, without quotation marks, user names and IP literals.
 */
export const formatPatterns: ReadonlyMap<string, string> = new Map([
  ["date", `^${date}$`],
  ["time", `^${time}$`],
  ["date-time", `^${date}T${time}$`],
  ["uuid", "^[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"],
  ["email", `^${atom}(?:\\.${atom})*@${part}(?:\\.${part})+$`],
  ["hostname", `^${hostname}$`],
  ["ipv4", `^${byte}(?:\\.${byte}){3}$`],
  [
    "uri",
    `^[A-Za-z][A-Za-z0-9+.-]*:(?:${authority}(?:/${pathCharacters})?|[A-Za-z0-9]${pathCharacters})(?:#${pathCharacters})?$`
  ]
])
