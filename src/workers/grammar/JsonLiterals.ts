/** The grammar of listed values (`enum`, `const`), and the values that satisfy a schema's other constraints. */
import type { Budget } from "./Budget.ts"
import type { GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { text } from "./Grammar.ts"
import type { Bound } from "./JsonNumbers.ts"
import { isList, isRecord, refuseAt } from "./JsonSchemaKeywords.ts"
import { colon, comma } from "./JsonValues.ts"
import type { MergedSchema, TypeName } from "./MergedSchema.ts"
import { accepts } from "./TextAutomaton.ts"

/** Number of characters, from `from` on, that all texts share. */
const commonLength = (texts: ReadonlyArray<ReadonlyArray<string>>, from: number): number => {
  const [first, ...rest] = texts as [ReadonlyArray<string>, ...ReadonlyArray<ReadonlyArray<string>>]
  let at = from
  while (at < first.length && rest.every((one) => one[at] === first[at])) at++
  return at - from
}

/** Steps to compare a text at one position. */
const textWork = 10

/**
 * One of these texts, from `from` on. Common beginnings are written once, so that a parser has one path only.
 *
 * @param spend counts steps
 */
const oneOf = (
  builder: GrammarBuilder,
  spend: (steps: number) => void,
  texts: ReadonlyArray<ReadonlyArray<string>>,
  from = 0
): GrammarSymbol => {
  const groups = Map.groupBy(texts, (one) => one[from])
  return builder.rule(
    "literal",
    [...groups.values()].map((group): Sequence => {
      const to = group.length === 1 ? group[0]!.length : from + commonLength(group, from)
      spend(group.length * (to - from + 1) * textWork)
      const common = text(group[0]!.slice(from, to).join(""))
      return group.length === 1 ? [common] : [common, oneOf(builder, spend, group, to)]
    })
  )
}

/** The lists with a separator between their entries. */
const joined = (builder: GrammarBuilder, entries: ReadonlyArray<Sequence>): Sequence =>
  entries.flatMap((entry, index) => index === 0 ? entry : [...comma(builder), ...entry])

/** A list or an object, with the same optional spaces as other values. */
const structure = (builder: GrammarBuilder, value: unknown): Sequence => {
  if (isList(value)) return [text("["), ...joined(builder, value.map((one) => structure(builder, one))), text("]")]
  if (!isRecord(value)) return [text(JSON.stringify(value))]
  const entries = Object.entries(value)
    .map(([key, one]) => [text(JSON.stringify(key)), ...colon(builder), ...structure(builder, one)])
  return [text("{"), ...joined(builder, entries), text("}")]
}

const typeOf = (value: unknown): TypeName => {
  if (value === null) return "null"
  if (isList(value)) return "array"
  if (typeof value === "number") return Number.isInteger(value) ? "integer" : "number"
  return typeof value as TypeName
}

const isAbove = (value: number, low: Bound | undefined): boolean =>
  low === undefined || value > low.value || (value === low.value && !low.exclusive)

const isBelow = (value: number, high: Bound | undefined): boolean =>
  high === undefined || value < high.value || (value === high.value && !high.exclusive)

const fitsNumber = (value: number, { high, low, multiple }: MergedSchema): boolean =>
  isAbove(value, low) && isBelow(value, high) && (multiple === 1 || value % multiple === 0)

const fitsText = (value: string, { length, texts }: MergedSchema): boolean => {
  const characters = Array.from(value).length
  return characters >= length.least && characters <= (length.most ?? Number.POSITIVE_INFINITY) &&
    texts.every((automaton) => accepts(automaton, value))
}

const isBare = ({ arrays, items, objects, properties }: MergedSchema): boolean =>
  [items, properties].every(({ least, most }) => least === 0 && most === undefined) &&
  arrays.every((part) => part.items === undefined && part.prefix.length === 0) &&
  objects.every((part) =>
    part.properties === undefined && part.additional === undefined && part.required.length === 0 &&
    part.patterns.length === 0 && part.names === undefined
  )

/** Whether a listed value satisfies the other constraints. */
const fits = (value: unknown, shape: MergedSchema): boolean => {
  const type = typeOf(value)
  if (!shape.types.has(type) && !(type === "integer" && shape.types.has("number"))) return false
  if (typeof value === "number") return fitsNumber(value, shape)
  if (typeof value === "string") return fitsText(value, shape)
  if ((type === "array" || type === "object") && !isBare(shape)) {
    return refuseAt(
      shape.path,
      "combines listed arrays or objects with keywords about their parts; omit these keywords"
    )
  }
  return true
}

/** Items of a list without repetitions: each set of them is a rule. */
const mostDistinct = 8

/**
 * The lists of distinct values of these, with their brackets.
 *
 * @returns undefined if they are too many
 */
export const distinctLists = (
  builder: GrammarBuilder,
  values: ReadonlyArray<unknown>,
  { least, most = Number.POSITIVE_INFINITY }: MergedSchema["items"]
): Sequence | undefined => {
  const texts = [...new Set(values.map((value) => JSON.stringify(value)))]
  if (texts.length > mostDistinct) return undefined
  const known = new Map<number, GrammarSymbol>()
  const after = (taken: number, count: number): GrammarSymbol => {
    const found = known.get(taken)
    if (found !== undefined) return found
    const next = count >= most ?
      [] :
      texts.flatMap((one, index): ReadonlyArray<Sequence> =>
        (taken & (1 << index)) === 0
          ? [[...(count === 0 ? [] : comma(builder)), text(one), after(taken | (1 << index), count + 1)]]
          : []
      )
    const symbol = builder.rule("distinct", [...next, ...(count >= least ? [[text("]")]] : [])])
    known.set(taken, symbol)
    return symbol
  }
  return [text("["), after(0, 0)]
}

/** The listed values that satisfy the other constraints. */
export const listedValues = (
  shape: MergedSchema & { readonly values: ReadonlyArray<unknown> }
): ReadonlyArray<unknown> => shape.values.filter((value) => fits(value, shape))

/** The listed values that satisfy the constraints, as alternatives. */
export const literals = (
  { builder, budget }: { readonly builder: GrammarBuilder; readonly budget: Budget },
  shape: MergedSchema
): ReadonlyArray<Sequence> => {
  const spend = (steps: number) => budget.spend(steps, shape.path)
  const values = shape.values!.filter((value) => {
    if (typeof value === "string") spend(value.length * shape.texts.length)
    return fits(value, shape)
  })
  const isStructure = (value: unknown): boolean => typeof value === "object" && value !== null
  const scalars = values.filter((value) => !isStructure(value)).map((value) => Array.from(JSON.stringify(value)))
  return [
    ...(scalars.length === 0 ? [] : [[oneOf(builder, spend, scalars)]]),
    ...values.filter(isStructure).map((value) => structure(builder, value))
  ]
}
