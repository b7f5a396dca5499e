/** Given values as a grammar, and which of them fit a shape. */
import type { GrammarBuilder, GrammarSymbol, Sequence } from "./Grammar.ts"
import { text } from "./Grammar.ts"
import type { Bound } from "./JsonNumbers.ts"
import { isList, isRecord, refuseAt } from "./JsonSchemaKeywords.ts"
import type { Shape, TypeName } from "./JsonShape.ts"
import { colon, comma } from "./JsonText.ts"
import { accepts } from "./TextAutomaton.ts"

/** How many characters all of the texts begin with alike. */
const commonLength = (texts: ReadonlyArray<ReadonlyArray<string>>): number => {
  const [first, ...rest] = texts as [ReadonlyArray<string>, ...ReadonlyArray<ReadonlyArray<string>>]
  const differs = first.findIndex((char, index) => rest.some((one) => one[index] !== char))
  return differs < 0 ? first.length : differs
}

/** One of these texts; what begins alike is written once, so that a reader follows one way only. */
const oneOf = (builder: GrammarBuilder, texts: ReadonlyArray<ReadonlyArray<string>>): GrammarSymbol => {
  const groups = Map.groupBy(texts, (one) => one[0])
  return builder.rule(
    "literal",
    [...groups.values()].map((group): Sequence => {
      const length = commonLength(group)
      const common = text(group[0]!.slice(0, length).join(""))
      return group.length === 1 ? [common] : [common, oneOf(builder, group.map((one) => one.slice(length)))]
    })
  )
}

/** Lists with what stands between their entries. */
const joined = (builder: GrammarBuilder, entries: ReadonlyArray<Sequence>): Sequence =>
  entries.flatMap((entry, index) => index === 0 ? entry : [...comma(builder), ...entry])

/** A list or an object, whose layout is free where that of others is. */
const structure = (builder: GrammarBuilder, value: unknown): Sequence => {
  if (isList(value)) return [text("["), ...joined(builder, value.map((one) => structure(builder, one))), text("]")]
  if (!isRecord(value)) return [text(JSON.stringify(value))]
  const entries = Object.entries(value)
    .map(([key, one]) => [text(JSON.stringify(key)), ...colon(builder), ...structure(builder, one)])
  return [text("{"), ...joined(builder, entries), text("}")]
}

/** Any one of the values, as alternatives. */
export const literals = (builder: GrammarBuilder, values: ReadonlyArray<unknown>): ReadonlyArray<Sequence> => {
  const isStructure = (value: unknown): boolean => typeof value === "object" && value !== null
  const scalars = values.filter((value) => !isStructure(value)).map((value) => Array.from(JSON.stringify(value)))
  return [
    ...(scalars.length === 0 ? [] : [[oneOf(builder, scalars)]]),
    ...values.filter(isStructure).map((value) => structure(builder, value))
  ]
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

const fitsText = (value: string, { length, texts }: Shape): boolean => {
  const characters = Array.from(value).length
  return characters >= length.least && characters <= (length.most ?? Number.POSITIVE_INFINITY) &&
    texts.every((automaton) => accepts(automaton, value))
}

const isBare = ({ arrays, items, objects }: Shape): boolean =>
  items.least === 0 && items.most === undefined &&
  arrays.every((part) => part.items === undefined && part.prefix.length === 0) &&
  objects.every((part) => part.properties === undefined && part.additional === undefined && part.required.length === 0)

/** Whether a value that is listed may stand, whatever else is asked of it. */
export const fits = (value: unknown, shape: Shape): boolean => {
  const type = typeOf(value)
  if (!shape.types.has(type) && !(type === "integer" && shape.types.has("number"))) return false
  if (typeof value === "number") return isAbove(value, shape.low) && isBelow(value, shape.high)
  if (typeof value === "string") return fitsText(value, shape)
  if ((type === "array" || type === "object") && !isBare(shape)) {
    return refuseAt(shape.path, "lists arrays or objects beside keywords about their parts; leave these keywords out")
  }
  return true
}
