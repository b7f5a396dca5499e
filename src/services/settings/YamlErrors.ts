/**
 * Finds the line and column of a YAML syntax error: the parser reports the line for some errors only. Pure.
 *
 * **Details**
 *
 * The position is the end of the longest prefix that can be parsed; for a bracket or quote that is never closed, this is
 * where it was opened. Prefixes are tried from the longest, since a prefix that ends within a list of several lines cannot
 * be parsed either.
 */
import { Yaml } from "effect/encoding"

const parses = (text: string): boolean => {
  try {
    Yaml.parse(text)
    return true
  } catch {
    return false
  }
}

/** Limits of the search, whose time grows with the square of the length. */
const limits = { lines: 1_000, columns: 500 }

/** Length of the longest prefix that can be parsed. */
const parsable = (length: number, prefix: (count: number) => string): number => {
  let count = length
  while (count > 0 && !parses(prefix(count))) count--
  return count
}

/** The line, from 1; undefined where the search would take too long. */
const lineOf = (lines: ReadonlyArray<string>): number | undefined =>
  lines.length > limits.lines
    ? undefined
    : parsable(lines.length - 1, (count) => lines.slice(0, count).join("\n")) + 1

/** The column, from 1; undefined where the search would take too long. */
const columnOf = (lines: ReadonlyArray<string>, line: number): number | undefined => {
  const text = lines[line - 1] ?? ""
  if (text.length > limits.columns) return undefined
  const before = lines.slice(0, line - 1).map((each) => `${each}\n`).join("")
  return parsable(text.length, (count) => before + text.slice(0, count)) + 1
}

/** Quoted scalars and comments, and references outside of them, which have a group. */
const references = /(?<=[\s[{,:])(?:"(?:\\.|[^"\\])*"|'(?:''|[^'])*')|(?<=^|\s)#.*|(\$\{[A-Za-z_]\w*\})/gm

/** References that are tried. */
const mostReferences = 200

/**
 * Where a reference without quotes breaks a mapping or list in braces or brackets: its brace ends the collection.
 * Undefined if the text has another error.
 */
const unquotedReference = (text: string): string | undefined => {
  const found = Array.from(text.matchAll(references)).filter(([, reference]) => reference !== undefined)
  /** The text with quotes around the references from this one on. */
  const quotedFrom = (first: number): string =>
    found.slice(first).reduceRight(
      (quoted, { 0: reference, index }) =>
        `${quoted.slice(0, index)}"${reference}"${quoted.slice(index + reference.length)}`,
      text
    )
  if (found.length === 0 || found.length > mostReferences || !parses(quotedFrom(0))) return undefined
  const match = found.find((_, index) => !parses(quotedFrom(index + 1)))
  if (match === undefined) return undefined
  const before = text.slice(0, match.index).split("\n")
  return `${match[0]} needs quotes in braces and brackets: "${match[0]}" at line ${before.length}, ` +
    `column ${before.at(-1)!.length + 1}`
}

/** The parser's message with line and column, both from 1. */
export const describe = (text: string, message: string): string => {
  const unquoted = unquotedReference(text)
  if (unquoted !== undefined) return unquoted
  const lines = text.split(/\r?\n/)
  const [, reason = message, given, offset] = /^(.*) at (?:line (\d+)|flow offset (\d+))$/.exec(message) ?? []
  const line = given === undefined ? lineOf(lines) : Number(given)
  if (line === undefined) return message
  const column = columnOf(lines, line)
  if (column === undefined) return `${reason} at line ${line}`
  if (offset === undefined) return `${reason} at line ${line}, column ${column}`
  // The parser reports an offset from the bracket, which may end on a later line.
  const exact = column + Number(offset)
  return exact <= lines[line - 1]!.length
    ? `${reason} at line ${line}, column ${exact}`
    : `${reason} in the value that begins at line ${line}, column ${column}`
}
