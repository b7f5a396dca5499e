/**
 * Sets values in JSON with comments and trailing commas, as editors write it: comments, order and layout of the rest stay.
 *
 * **Details**
 *
 * Objects are merged member by member; any other value replaces the one before it.
 */
import type { Node, ParseError } from "jsonc-parser"
import { parseTree, printParseErrorCode, stripComments } from "jsonc-parser"
import type { Json, JsonObject } from "./AgentSettings.ts"

/** As `CommaExpected` in words. */
const problemOf = (source: string, { error, offset }: ParseError): SyntaxError => {
  const line = source.slice(0, offset).split("\n").length
  const words = printParseErrorCode(error).replaceAll(/\B[A-Z]/g, (letter) => ` ${letter}`).toLowerCase()
  return new SyntaxError(`line ${line}: ${words}`)
}

/** Where values are in a text. Throws a `SyntaxError` for what is no JSON object. */
const read = (source: string): Node => {
  const errors: Array<ParseError> = []
  const node = parseTree(source, errors, { allowTrailingComma: true })
  const [first] = errors
  if (first !== undefined) throw problemOf(source, first)
  if (node?.type !== "object") throw new SyntaxError("expected an object")
  return node
}

const endOf = ({ length, offset }: Node): number => offset + length

interface Edit {
  readonly at: number
  readonly removed: number
  readonly text: string
}

const isObject = (value: Json): value is JsonObject => typeof value === "object" && !Array.isArray(value)

const indentAt = (source: string, at: number): string =>
  /^[ \t]*/.exec(source.slice(source.lastIndexOf("\n", at - 1) + 1))![0]

const written = (value: Json, indent: string): string => JSON.stringify(value, null, 2).replaceAll("\n", `\n${indent}`)

const added = (source: string, node: Node, values: ReadonlyArray<readonly [string, Json]>): ReadonlyArray<Edit> => {
  const outer = indentAt(source, node.offset)
  const last = node.children!.at(-1)
  const isOnItsLine = last !== undefined && source.slice(node.offset, last.offset).includes("\n")
  const indent = isOnItsLine ? indentAt(source, last.offset) : `${outer}  `
  const lines = values.map(([name, value]) => `\n${indent}${JSON.stringify(name)}: ${written(value, indent)}`)
  const close = endOf(node) - 1
  // After the last member, with the comma and the comments that follow.
  const tail = source.slice(0, close).trimEnd().length
  const end = source.slice(tail, close).includes("\n") ? "" : `\n${outer}`
  const insertion = { at: tail, removed: 0, text: lines.join(",") + end }
  return last === undefined || stripComments(source.slice(endOf(last), close)).includes(",")
    ? [insertion]
    : [{ at: endOf(last), removed: 0, text: "," }, insertion]
}

const editsOf = (source: string, node: Node, values: JsonObject): ReadonlyArray<Edit> => {
  const missing: Array<readonly [string, Json]> = []
  const edits: Array<Edit> = []
  for (const [name, value] of Object.entries(values)) {
    // The last one of a repeated name is the one that parsers take.
    const found = node.children!.findLast(({ children }) => children![0]!.value === name)?.children![1]
    if (found === undefined) missing.push([name, value])
    else if (found.type === "object" && isObject(value)) edits.push(...editsOf(source, found, value))
    else edits.push({ at: found.offset, removed: found.length, text: written(value, indentAt(source, found.offset)) })
  }
  return missing.length === 0 ? edits : [...edits, ...added(source, node, missing)]
}

/**
 * The text with these values.
 *
 * @param source JSON; an empty text is an empty object
 * @throws `SyntaxError` if the text is no JSON object
 */
export const merge = (source: string, values: JsonObject): string => {
  if (source.trim() === "") return `${JSON.stringify(values, null, 2)}\n`
  if (source.startsWith("\uFEFF")) return `\uFEFF${merge(source.slice(1), values)}`
  // From the end, so that positions before an edit stay; of two at one position the comma comes first.
  const edits = editsOf(source, read(source), values).map((edit, index) => ({ ...edit, index }))
    .toSorted((one, other) => other.at - one.at || other.index - one.index)
  return edits.reduce(
    (text, { at, removed, text: insertion }) => text.slice(0, at) + insertion + text.slice(at + removed),
    source
  )
}
