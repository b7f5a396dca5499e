/**
 * Custom tools of the Responses dialect, whose input is a text: to a model, each is a function with one text, `input`. Pure.
 *
 * **Details**
 *
 * A grammar of the syntax `regex` becomes the `pattern` of that text, which constrains local models; one of the syntax `lark`
 * is a part of the description only.
 */
import { Schema } from "effect"
import type { Tool } from "../../domain/Inference.ts"
import { Tool as InferenceTool } from "../../domain/Inference.ts"
import type { Fields } from "../shared/Json.ts"
import { isObject, parse, textAt } from "../shared/Json.ts"

const nullable = <S extends Schema.Top>(schema: S) => Schema.optionalKey(Schema.NullOr(schema))

const mostGrammar = 100_000

const isPattern = (text: string): boolean => {
  try {
    return new RegExp(text, "u").source !== ""
  } catch {
    return false
  }
}

const patternProblem = (
  { definition, syntax }: { readonly definition: string; readonly syntax: string }
): string | undefined =>
  syntax === "regex" && !isPattern(definition) ? "Expected a regular expression of ECMAScript" : undefined

const Format = Schema.Union([
  Schema.Struct({ type: Schema.Literal("text") }),
  Schema.Struct({
    type: Schema.Literal("grammar"),
    syntax: Schema.Literals(["lark", "regex"]),
    definition: Schema.NonEmptyString.check(Schema.isMaxLength(mostGrammar))
  }).check(Schema.makeFilter(patternProblem))
])

export const CustomTool = Schema.Struct({
  type: Schema.Literal("custom"),
  name: InferenceTool.fields.name,
  description: nullable(Schema.String),
  format: nullable(Format)
})

type Grammar = { readonly syntax: string; readonly definition: string }

const grammarOf = ({ format }: Fields): Grammar | undefined =>
  isObject(format) && format["type"] === "grammar" ? format as unknown as Grammar : undefined

const inputOf = (grammar: Grammar | undefined): Fields => {
  if (grammar === undefined) return { type: "string", description: "The input of the tool, as text." }
  const { definition, syntax } = grammar
  if (syntax === "regex") return { type: "string", pattern: `^(?:${definition})$` }
  return { type: "string", description: `Text that this Lark grammar accepts:\n${definition}` }
}

/** The function that a custom tool is to a model. */
export const functionOf = (tool: Fields): Tool => ({
  name: tool["name"] as string,
  ...(typeof tool["description"] === "string" ? { description: tool["description"] } : {}),
  parameters: {
    type: "object",
    properties: { input: inputOf(grammarOf(tool)) },
    required: ["input"],
    additionalProperties: false
  }
})

/** A custom tool as a response has it. */
export const echoed = ({ description = null, format, name }: Fields): Fields => ({
  type: "custom",
  name,
  description,
  format: format ?? { type: "text" }
})

/** The names of the custom tools of a response. */
export const namesOf = (tools: ReadonlyArray<Fields>): ReadonlySet<unknown> =>
  new Set(tools.filter(({ type }) => type === "custom").map(({ name }) => name))

/** The arguments of the function for an input. */
export const argumentsOf = (input: string): string => JSON.stringify({ input })

const begin = /^\s*\{\s*"input"\s*:\s*"/

/** Characters of an escape that is not complete, at the end of a text: `\`, `\u00`, and the first half of a pair. */
const incomplete = /(?:\\u[dD][89abAB][0-9a-fA-F]{2}(?:\\(?:u[0-9a-fA-F]{0,3})?)?|\\(?:u[0-9a-fA-F]{0,3})?)$/

/** Where the text of a JSON string ends, from `from` on; undefined if it does not end. */
const endOf = (text: string, from: number): number | undefined => {
  for (let at = from; at < text.length; at++) {
    if (text[at] === "\\") at++
    else if (text[at] === "\"") return at
  }
  return undefined
}

/** Reads the input out of arguments that arrive in pieces. */
export class InputReader {
  #text = ""
  /** Where the text that was not read yet begins; undefined before the input. */
  #at: number | undefined
  #isOver = false
  /** Characters of the input until now. */
  #length = 0

  /** The piece of the input in a piece of the arguments. */
  push(piece: string): string {
    this.#text += piece
    this.#at ??= begin.exec(this.#text)?.[0].length
    if (this.#at === undefined || this.#isOver) return ""
    const end = endOf(this.#text, this.#at)
    this.#isOver = end !== undefined
    const raw = this.#text.slice(this.#at, end)
    const complete = this.#isOver ? raw : raw.slice(0, raw.length - (this.#lengthOfIncomplete(raw)))
    this.#at += complete.length
    const decoded = parse(`"${complete}"`)
    const input = typeof decoded === "string" ? decoded : ""
    this.#length += input.length
    return input
  }

  /** What the whole input has after the pieces of it. */
  restOf(input: string): string {
    return input.slice(this.#length)
  }

  /** An escaped backslash is no beginning of an escape. */
  #lengthOfIncomplete(raw: string): number {
    const found = incomplete.exec(raw)
    if (found === null) return 0
    const before = /\\*$/.exec(raw.slice(0, found.index))![0].length
    return before % 2 === 0 ? found[0].length : this.#lengthOfIncomplete(raw.slice(found.index + 1))
  }
}

/** The input in the arguments of a call, also if these are cut; what a model wrote otherwise stays as it is. */
export const inputIn = (text: string): string => {
  const whole = textAt(parse(text), "input")
  if (whole !== undefined) return whole
  return begin.test(text) ? new InputReader().push(text) : text
}
