/**
 * Grammar rules for the JSON that is valid under a schema.
 *
 * **Details**
 *
 * Every text of the grammar is valid; not every valid JSON text is in the grammar. Properties have the order in which
 * they are declared, an object with declared properties has no others unless `additionalProperties` is a schema, and
 * numbers have a bounded number of digits. `docs/structured-output.md` has the complete list.
 *
 * Schemas that must hold together are kept as lists. A list that occurs again, as in a recursive schema, is one rule.
 */
import type { Mark } from "./AmbiguityBound.ts"
import { ambiguityOf, makeAmbiguityBound } from "./AmbiguityBound.ts"
import type { Budget } from "./Budget.ts"
import type { GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { text } from "./Grammar.ts"
import { distinctLists, listedValues, literals } from "./JsonLiterals.ts"
import { integers, multiples, numbers } from "./JsonNumbers.ts"
import type { ObjectNotation } from "./JsonObjects.ts"
import { jsonObjects, objectsOf } from "./JsonObjects.ts"
import type { Located } from "./JsonSchemaKeywords.ts"
import { refuseAt, within } from "./JsonSchemaKeywords.ts"
import { stringOf } from "./JsonStrings.ts"
import { anyNumber, anyString, anyValue, comma } from "./JsonValues.ts"
import type { ArrayPart, MergedSchema, TypeName } from "./MergedSchema.ts"
import { mergeSchemas } from "./MergedSchema.ts"
import { schemaAlternatives } from "./SchemaAlternatives.ts"
import type { Automaton } from "./TextAutomaton.ts"
import { accepts, complementOf, except, intersect, mostStates, ofLength } from "./TextAutomaton.ts"

/** Levels of nested values in a schema that is not recursive. */
const mostLevels = 64

export type ValueOf = (schemas: ReadonlyArray<Located>) => GrammarSymbol

export interface Writer {
  readonly builder: GrammarBuilder
  readonly valueOf: ValueOf
  readonly notation: ObjectNotation
  readonly namesOf: (schema: Located) => Automaton
  /** The values that schemas list; undefined if they do not list them, or some are objects or lists. */
  readonly listed: (schemas: ReadonlyArray<Located>) => ReadonlyArray<unknown> | undefined
  readonly budget: Budget
}

/** The texts of a schema; undefined for any. */
export const textsOf = (
  { budget }: Pick<Writer, "budget">,
  { length, path, texts }: MergedSchema
): Automaton | undefined => {
  const isFree = length.least === 0 && length.most === undefined
  if (isFree && texts.length === 0) return undefined
  if (Math.max(length.least, length.most ?? 0) >= mostStates) {
    return refuseAt(
      path,
      `requires strings of ${mostStates.toLocaleString("en")} characters or more; allow shorter ones`
    )
  }
  const [first, ...rest] = isFree ? texts : [...texts, ofLength(length.least, length.most)]
  return rest.reduce(
    (a, b) =>
      intersect(a, b, (steps) => budget.spend(steps, path)) ??
        refuseAt(path, "has too many constraints on one string; allow a shorter one"),
    first!
  )
}

const stringsOf = (writer: Writer, shape: MergedSchema): Sequence => {
  const texts = textsOf(writer, shape)
  return texts === undefined ? anyString(writer.builder) : stringOf(writer.builder, texts)
}

/** The names that a schema of names allows. */
const namesOf = (budget: Budget, document: Located) => (schema: Located): Automaton => {
  const refused = (shape: MergedSchema): Automaton => {
    if (!shape.types.has("string")) return complementOf(ofLength(0, undefined))
    const texts = textsOf({ budget }, shape) ?? ofLength(0, undefined)
    if (shape.values === undefined) return complementOf(texts)
    return except(shape.values.filter((value): value is string => typeof value === "string" && accepts(texts, value)))
  }
  const shapes = schemaAlternatives([schema], document, budget).map((parts) => mergeSchemas(parts, schema.path, budget))
  return complementOf(
    shapes.map(refused).reduce(
      (a, b) =>
        intersect(a, b, (steps) => budget.spend(steps, schema.path)) ??
          refuseAt(schema.path, "has too many alternatives; use fewer"),
      ofLength(0, undefined)
    )
  )
}

const isScalar = (value: unknown): boolean => typeof value !== "object" || value === null

const listedOf = (budget: Budget, document: Located): Writer["listed"] => (schemas) => {
  const asking = schemas.filter(({ schema }) => schema !== true)
  const lists = schemaAlternatives(asking, document, budget).map((parts) => {
    const shape = mergeSchemas(parts, document.path, budget)
    if (shape.values !== undefined) return listedValues({ ...shape, values: shape.values })
    return shape.types.size === 1 && shape.types.has("boolean") ? [true, false] : undefined
  })
  const values = lists.every(isDefined) ? lists.flat() : undefined
  return values?.every(isScalar) === true && asking.length > 0 ? values : undefined
}

const isDefined = <A>(value: A | undefined): value is A => value !== undefined

/** The schemas of the item at this index; undefined if there is none. */
const itemOf = (parts: ReadonlyArray<ArrayPart>, index: number): ReadonlyArray<Located> =>
  parts.map((part) => part.prefix[index] ?? part.items).filter(isDefined)

/** Lists without repetitions; undefined if repetitions cannot occur. */
const distinctOf = ({ builder, listed }: Writer, { arrays, items, path }: MergedSchema): Sequence | undefined => {
  if ((items.most ?? 2) <= 1) return undefined
  const isPlain = arrays.every(({ prefix }) => prefix.length === 0)
  const values = isPlain ? listed(itemOf(arrays, 0)) : undefined
  return (values && distinctLists(builder, values, items)) ??
    refuseAt(
      within(path, "uniqueItems"),
      "is not supported, except for up to 8 listed items; omit it, and check it in the answer"
    )
}

const listsOf = ({ builder, valueOf }: Writer, { arrays, items }: MergedSchema): Sequence => {
  const longest = Math.max(0, ...arrays.map((part) => part.prefix.length))
  const ends = arrays.filter((part) => !part.isOpen).map((part) => Math.max(part.prefix.length, items.least))
  const most = items.most === undefined && ends.length === 0 ? undefined : Math.min(...ends, items.most ?? Infinity)
  /** From this index on, every item has the same schema. */
  const last = most ?? Math.max(longest, items.least)
  let after: GrammarSymbol = text("]")
  if (most === undefined) {
    const { define, symbol } = builder.declare("items")
    define([[...comma(builder), valueOf(itemOf(arrays, longest)), symbol], [text("]")]])
    after = symbol
  }
  const first = [] as Array<Sequence>
  for (let index = last - 1; index >= 1; index--) {
    const item = [...comma(builder), valueOf(itemOf(arrays, index)), after]
    after = builder.rule("items", [item, ...(index >= items.least ? [[text("]")]] : [])])
  }
  if (most !== 0) first.push([valueOf(itemOf(arrays, 0)), after])
  if (items.least === 0) first.push([text("]")])
  return [text("["), builder.rule("first", first)]
}

const arraysOf = (writer: Writer, shape: MergedSchema): Sequence =>
  (shape.isUnique ? distinctOf(writer, shape) : undefined) ?? listsOf(writer, shape)

const integersOf = ({ builder }: Writer, { high, low, multiple, path }: MergedSchema): ReadonlyArray<Sequence> =>
  multiple === 1
    ? integers(builder, low, high)
    : multiples(builder, low, high, multiple) ??
      refuseAt(
        within(path, "multipleOf"),
        "needs bounds with at most 1,000 multiples between them; add minimum and maximum, or omit it"
      )

export const alternativesOf = (
  writer: Writer,
  shape: MergedSchema
): Readonly<Record<TypeName, () => ReadonlyArray<Sequence>>> => ({
  null: () => [[text("null")]],
  boolean: () => [[text("true")], [text("false")]],
  integer: () => integersOf(writer, shape),
  number: () =>
    shape.low === undefined && shape.high === undefined
      ? [anyNumber(writer.builder)]
      : numbers(writer.builder, shape.low, shape.high),
  string: () => [stringsOf(writer, shape)],
  array: () => shape.items.least > (shape.items.most ?? Infinity) ? [] : [arraysOf(writer, shape)],
  object: () => [objectsOf(writer, shape)]
})

const shapeAlternatives = (writer: Writer, shape: MergedSchema): ReadonlyArray<Sequence> => {
  if (shape.values !== undefined) return literals(writer, shape)
  const write = alternativesOf(writer, shape)
  return [...shape.types].filter((type) => type !== "integer" || !shape.types.has("number")).flatMap((type) =>
    write[type]()
  )
}

/** The property that distinguishes an object from other alternatives. */
const markOf = (shape: MergedSchema, document: Located, budget: Budget): Mark | undefined => {
  const { objects } = shape
  const name = objects.flatMap((part) => [...part.properties?.keys() ?? []])[0]
  if (name === undefined || !objects.some((part) => part.required.includes(name))) return undefined
  const declared = objects.map(({ properties }) => properties?.get(name)).filter(isDefined)
  const values = schemaAlternatives(declared, document, budget).map((parts) =>
    mergeSchemas(parts, shape.path, budget).values
  )
  return {
    name,
    values: values.every(isDefined) ? new Set(values.flat().map((value) => JSON.stringify(value))) : undefined
  }
}

const ambiguityOfShapes = (shapes: ReadonlyArray<MergedSchema>, document: Located, budget: Budget): number => {
  const open = shapes.filter(({ values }) => values === undefined)
  const objects = open.filter(({ types }) => types.has("object"))
  return ambiguityOf(
    objects.length < 2 ? [] : objects.map((shape) => markOf(shape, document, budget)),
    open.filter(({ types }) => types.has("array")).length
  )
}

/** The same number for the same schema. */
const makeNumbering = () => {
  const numbers = new Map<unknown, number>()
  return (schema: unknown): number => {
    const number = numbers.get(schema) ?? numbers.size
    numbers.set(schema, number)
    return number
  }
}

/** Writes the root of a document. */
export type WriteRoot = (
  writer: Writer,
  /** The shapes of the values that satisfy these schemas. */
  shapesOf: (schemas: ReadonlyArray<Located>) => ReadonlyArray<MergedSchema>,
  root: ReadonlyArray<Located>
) => GrammarSymbol

const writeJson: WriteRoot = ({ valueOf }, _, root) => valueOf(root)

/**
 * Writes the values that satisfy a document, to which its references point, and `more` schemas.
 *
 * @param writeRoot left out, the root is JSON like the values in it
 */
export const writeValue = (
  builder: GrammarBuilder,
  budget: Budget,
  document: Located,
  more: ReadonlyArray<Located> = [],
  writeRoot = writeJson
): GrammarSymbol => {
  const numberOf = makeNumbering()
  const known = new Map<string, GrammarSymbol>()
  const readings = makeAmbiguityBound()
  let level = 0

  const write = (schemas: ReadonlyArray<Located>, path: string): GrammarSymbol => {
    if (level >= mostLevels) refuseAt(path, `nests values more than ${mostLevels} levels deep; use fewer levels`)
    const { define, symbol } = builder.declare("value")
    known.set(keyOf(schemas), symbol)
    level++
    const shapes = schemaAlternatives(schemas, document, budget).map((parts) => mergeSchemas(parts, path, budget))
    define(shapes.flatMap((shape) => shapeAlternatives(writer, shape)))
    level--
    readings.leave(ambiguityOfShapes(shapes, document, budget))
    return symbol
  }

  const keyOf = (schemas: ReadonlyArray<Located>): string =>
    [...new Set(schemas.map(({ schema }) => numberOf(schema)))].sort((a, b) => a - b).join(" ")

  const valueOf: ValueOf = (schemas) => {
    const asking = schemas.filter(({ schema }) => schema !== true)
    const [first] = asking
    if (first === undefined) return anyValue(builder)
    const key = keyOf(asking)
    readings.enter(key, first)
    const found = known.get(key)
    if (found === undefined) return write(asking, first.path)
    readings.leave(1)
    return found
  }

  const writer: Writer = {
    builder,
    valueOf,
    notation: jsonObjects(builder, valueOf),
    namesOf: namesOf(budget, document),
    listed: listedOf(budget, document),
    budget
  }
  const shapesOf = (schemas: ReadonlyArray<Located>) =>
    schemaAlternatives(schemas, document, budget).map((parts) => mergeSchemas(parts, document.path, budget))
  const value = writeRoot(writer, shapesOf, [document, ...more])
  readings.check()
  return value
}
