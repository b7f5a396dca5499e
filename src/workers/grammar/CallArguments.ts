/**
 * Grammar rules for the arguments of a call that are written one by one.
 *
 * **Details**
 *
 * Declared parameters have the order of the schema. A parameter that allows any text is free text up to its end marker; one
 * that allows texts of a pattern, or listed ones, is one of those. Other values are JSON.
 *
 * **Gotchas**
 *
 * A parameter that allows texts and other values may be any text: the reader of the answer decides by the schema what it is.
 */
import type { ArgumentSyntax, ValueType } from "./ArgumentSyntax.ts"
import { betweenOf, endOf, optional, plainText, typeOfValue, without } from "./ArgumentSyntax.ts"
import type { Budget } from "./Budget.ts"
import type { GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { chars, text } from "./Grammar.ts"
import { listedValues, literals } from "./JsonLiterals.ts"
import type { ObjectNotation } from "./JsonObjects.ts"
import { objectsOf } from "./JsonObjects.ts"
import type { Writer } from "./JsonSchemaGrammar.ts"
import { alternativesOf, textsOf, writeValue } from "./JsonSchemaGrammar.ts"
import type { Located } from "./JsonSchemaKeywords.ts"
import { refuseAt } from "./JsonSchemaKeywords.ts"
import type { MergedSchema } from "./MergedSchema.ts"
import type { Automaton } from "./TextAutomaton.ts"
import { accepts, intersect } from "./TextAutomaton.ts"

type ShapesOf = (schemas: ReadonlyArray<Located>) => ReadonlyArray<MergedSchema>

/** Names of parameters that no schema declares: words. */
const words: Automaton = [
  { accepts: false, edges: [{ ranges: [[0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]], to: 1 }] },
  { accepts: true, edges: [{ ranges: [[0x30, 0x39], [0x41, 0x5a], [0x5f, 0x5f], [0x61, 0x7a]], to: 1 }] }
]

/** The values of one argument, from the end of its name on. */
class ArgumentRules {
  readonly #writer: Writer
  readonly #syntax: ArgumentSyntax
  readonly #name: string

  constructor(writer: Writer, syntax: ArgumentSyntax, name: string) {
    this.#writer = writer
    this.#syntax = syntax
    this.#name = name
  }

  #around(type: ValueType, value: Sequence): Sequence {
    const between = betweenOf(this.#syntax, type)
    return [...optional(between), ...value, ...optional(endOf(this.#syntax, type, this.#name))]
  }

  #isPlain(type: ValueType): boolean {
    return type === "string" && this.#syntax.hasJsonTexts === undefined
  }

  /** A text without quotation marks; any, if none are given. */
  #text(texts: Automaton | undefined, path: string): Sequence {
    const { builder, budget } = this.#writer
    const end = endOf(this.#syntax, "string", this.#name)
    const found = plainText(builder, texts, end, (steps) => budget.spend(steps, path)) ??
      refuseAt(path, "has too many constraints on one string; allow a shorter one")
    return [...optional(betweenOf(this.#syntax, "string")), ...found]
  }

  #listed(shape: MergedSchema & { readonly values: ReadonlyArray<unknown> }): ReadonlyArray<Sequence> {
    const free = without(endOf(this.#syntax, "string", this.#name).trim())
    return listedValues(shape).flatMap((value): ReadonlyArray<Sequence> => {
      const type = typeOfValue(value)
      if (!this.#isPlain(type)) {
        return literals(this.#writer, { ...shape, values: [value] }).map((one) => this.#around(type, one))
      }
      return accepts(free, value as string) ? [this.#around(type, optional(value as string))] : []
    })
  }

  #ofShape(shape: MergedSchema): ReadonlyArray<Sequence> {
    const { values } = shape
    if (values !== undefined) return this.#listed({ ...shape, values })
    const write = alternativesOf(this.#writer, shape)
    const texts = this.#isPlain("string") && shape.types.has("string") ? textsOf(this.#writer, shape) : undefined
    return [...shape.types]
      .filter((type) => type !== "integer" || !shape.types.has("number"))
      .flatMap((type): ReadonlyArray<Sequence> =>
        this.#isPlain(type)
          ? [this.#text(texts, shape.path)]
          : write[type]().map((value) => this.#around(type, value))
      )
  }

  write(schemas: ReadonlyArray<Located>, shapesOf: ShapesOf): GrammarSymbol {
    const { builder, valueOf } = this.#writer
    const asking = schemas.filter(({ schema }) => schema !== true)
    if (asking.length > 0) return builder.rule("argument", shapesOf(asking).flatMap((shape) => this.#ofShape(shape)))
    return this.#isPlain("string")
      ? builder.rule("argument", [this.#text(undefined, "tools")])
      : builder.rule("argument", [this.#around("object", [valueOf([])])])
  }
}

/** A name that an automaton accepts. */
const nameOf = (builder: GrammarBuilder, names: Automaton, then: GrammarSymbol): GrammarSymbol => {
  const states = names.map(() => builder.declare("name"))
  for (const [index, { accepts, edges }] of names.entries()) {
    states[index]!.define([
      ...edges.map(({ ranges, to }): Sequence => [chars(...ranges), states[to]!.symbol]),
      ...(accepts ? [[then]] : [])
    ])
  }
  return states[0]!.symbol
}

/** The end of the arguments: without any, white space before them is also that after them. */
const closeOf = ({ close, open }: ArgumentSyntax, isEmpty: boolean): string =>
  isEmpty && open !== "" && open.trim() === "" && close.startsWith(open) ? close.slice(open.length) : close

/** Without a marker before it, a name that is no word is in quotation marks. */
const keyOf = ({ begin }: ArgumentSyntax, name: string): string =>
  begin === "" && !/^[\p{L}_$][\p{L}\d_$.-]*$/u.test(name) ? JSON.stringify(name) : name

const notationOf = (writer: Writer, syntax: ArgumentSyntax, shapesOf: ShapesOf): ObjectNotation => {
  const { builder, budget } = writer
  const valueOf = (name: string, schemas: ReadonlyArray<Located>) =>
    new ArgumentRules(writer, syntax, name).write(schemas, shapesOf)
  return {
    open: optional(syntax.open),
    close: (isEmpty) => optional(closeOf(syntax, isEmpty)),
    separator: optional(syntax.separator),
    member: (name, schemas) => [text(syntax.begin + keyOf(syntax, name)), valueOf(name, schemas)],
    other(names, schemas) {
      if (syntax.end.includes("{key}")) return undefined
      const named = names === undefined ? words : intersect(names, words, (steps) => budget.spend(steps, "tools"))
      return named && [...optional(syntax.begin), nameOf(builder, named, valueOf("", schemas))]
    }
  }
}

/** Writes the arguments that satisfy a document and `more` schemas. */
export const writeArguments = (
  builder: GrammarBuilder,
  budget: Budget,
  syntax: ArgumentSyntax,
  document: Located,
  more: ReadonlyArray<Located>
): GrammarSymbol =>
  writeValue(builder, budget, document, more, (writer, shapesOf, root) => {
    const notation = notationOf(writer, syntax, shapesOf)
    return builder.rule("arguments", shapesOf(root).map((shape) => objectsOf({ ...writer, notation }, shape)))
  })
