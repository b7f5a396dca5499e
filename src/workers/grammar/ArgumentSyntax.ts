/**
 * How models write the arguments of a call other than as a JSON object, and the grammar rules of one argument.
 *
 * **Details**
 *
 * Each argument has texts around its name and its value, which may depend on the type of the value. A text is written without
 * quotation marks and escapes up to the text after it; other values are JSON.
 */
import type { CodeRange, GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { chars, text } from "./Grammar.ts"
import type { Automaton } from "./TextAutomaton.ts"
import { complement, intersect } from "./TextAutomaton.ts"

/** How one model writes arguments. */
export interface ArgumentSyntax {
  readonly open: string
  /** Before a name. */
  readonly begin: string
  /** From a name to its value, as the template has it for a text. */
  readonly between: string
  /** After a text. In it, `{key}` stands for the argument's name. */
  readonly end: string
  /** After a value that is no text; left out, `end`. */
  readonly valueEnd?: string
  /** From a name to a value that is no text; left out, `between` with another type in its attributes. */
  readonly valueBetween?: string
  readonly separator: string
  /** After the last argument. */
  readonly close: string
  /** Texts are JSON as well. */
  readonly hasJsonTexts?: true
}

/** A JSON type. */
export type ValueType = "array" | "boolean" | "integer" | "null" | "number" | "object" | "string"

export const typeOfValue = (value: unknown): ValueType => {
  if (value === null) return "null"
  if (Array.isArray(value)) return "array"
  return typeof value as "boolean" | "number" | "object" | "string"
}

const attributeOf = (type: ValueType): string => type === "integer" ? "number" : type

/** The text from a name to a value of this type. */
export const betweenOf = ({ between, valueBetween }: ArgumentSyntax, type: ValueType): string =>
  type === "string"
    ? between
    : valueBetween ?? between.replace("string=\"true\"", "string=\"false\"")
      .replace("type=\"string\"", `type="${attributeOf(type)}"`)

/** The text after a value of this type. */
export const endOf = ({ end, valueEnd = end }: ArgumentSyntax, type: ValueType, name: string): string =>
  (type === "string" ? end : valueEnd).replace("{key}", name)

/** The texts in which another does not occur. */
export const without = (word: string): Automaton => {
  const codes = Array.from(word, (char) => char.codePointAt(0)!)
  /** The longest beginning of the word that a text of `length` of its characters and this one ends with. */
  const after = (length: number, code: number): number => {
    const read = [...codes.slice(0, length), code]
    for (let size = Math.min(read.length, codes.length); size > 0; size--) {
      if (codes.slice(0, size).every((one, index) => one === read[read.length - size + index])) return size
    }
    return 0
  }
  const different = [...new Set(codes)]
  const others = complement(different.map((code): CodeRange => [code, code]))
  return codes.map((_, length) => ({
    accepts: true,
    edges: [
      ...different.map((code) => ({ ranges: [[code, code] as const], to: after(length, code) }))
        .filter(({ to }) => to < codes.length),
      { ranges: others, to: 0 }
    ]
  }))
}

/** A text without quotation marks, and what follows it, which it does not contain. */
export const plainText = (
  builder: GrammarBuilder,
  texts: Automaton | undefined,
  end: string,
  spend: (steps: number) => void
): Sequence | undefined => {
  const free = without(end.trim())
  const automaton = texts === undefined ? free : intersect(texts, free, spend)
  if (automaton === undefined) return undefined
  const states = automaton.map(() => builder.declare("text"))
  for (const [index, { accepts, edges }] of automaton.entries()) {
    states[index]!.define([
      ...edges.map(({ ranges, to }): Sequence => [chars(...ranges), states[to]!.symbol]),
      ...(accepts ? [[text(end)]] : [])
    ])
  }
  return [states[0]!.symbol]
}

/** A text or nothing: a grammar has no empty texts. */
export const optional = (some: string): ReadonlyArray<GrammarSymbol> => some === "" ? [] : [text(some)]
