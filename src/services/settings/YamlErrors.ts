/**
 * Where a text stops being YAML: the parser itself tells the line of some mistakes and of others nothing. Pure.
 *
 * **Details**
 *
 * The place is where the longest beginning that can be parsed ends; so of a bracket or a quote that is never closed it is
 * told where that is opened. Beginnings are tried from the end, since a list of several lines cannot be parsed in its
 * middle either.
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

/** Trying every beginning takes time by the square; longer texts are not configuration that somebody wrote. */
const most = { lines: 1_000, columns: 500 }

/** How many of them, from the first, can be parsed. */
const parsable = (length: number, beginning: (count: number) => string): number => {
  let count = length
  while (count > 0 && !parses(beginning(count))) count--
  return count
}

/** From 1; undefined where finding it would take too long. */
const lineOf = (lines: ReadonlyArray<string>): number | undefined =>
  lines.length > most.lines
    ? undefined
    : parsable(lines.length - 1, (count) => lines.slice(0, count).join("\n")) + 1

/** Likewise. */
const columnOf = (lines: ReadonlyArray<string>, line: number): number | undefined => {
  const text = lines[line - 1] ?? ""
  if (text.length > most.columns) return undefined
  const before = lines.slice(0, line - 1).map((each) => `${each}\n`).join("")
  return parsable(text.length, (count) => before + text.slice(0, count)) + 1
}

/** The parser's words with line and column, both from 1. */
export const describe = (text: string, message: string): string => {
  const lines = text.split(/\r?\n/)
  const [, words = message, told, offset] = /^(.*) at (?:line (\d+)|flow offset (\d+))$/.exec(message) ?? []
  const line = told === undefined ? lineOf(lines) : Number(told)
  if (line === undefined) return message
  const column = columnOf(lines, line)
  if (column === undefined) return `${words} at line ${line}`
  if (offset === undefined) return `${words} at line ${line}, column ${column}`
  // The parser tells how far behind the bracket, which may be lines further on.
  const exact = column + Number(offset)
  return exact <= lines[line - 1]!.length
    ? `${words} at line ${line}, column ${exact}`
    : `${words} in what begins at line ${line}, column ${column}`
}
