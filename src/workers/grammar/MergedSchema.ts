/**
 * Merges the parts of one alternative, all of which must hold: the common types, the tighter bounds, the automata that
 * must all accept, and the properties and items of all parts.
 */
import type { Budget } from "./Budget.ts"
import type { Bound } from "./JsonNumbers.ts"
import { isExact } from "./JsonNumbers.ts"
import type { Located } from "./JsonSchemaKeywords.ts"
import {
  isBoolean,
  isCount,
  isFilledList,
  isList,
  isNumber,
  isRecord,
  isString,
  partOf,
  readKeyword,
  refuseAt,
  typeOfKeyword,
  unsupported,
  within
} from "./JsonSchemaKeywords.ts"
import { formatPatterns } from "./JsonStrings.ts"
import type { Part } from "./SchemaAlternatives.ts"
import type { Excluded } from "./SchemaNegation.ts"
import { excluded } from "./SchemaNegation.ts"
import type { Automaton } from "./TextAutomaton.ts"
import { complementOf, except } from "./TextAutomaton.ts"

const typeNames = ["null", "boolean", "integer", "number", "string", "array", "object"] as const
export type TypeName = (typeof typeNames)[number]

/** The least and the most of a count; without `most`, unlimited. */
export interface Count {
  readonly least: number
  readonly most: number | undefined
}

/** The requirements of one part for objects. */
export interface ObjectPart {
  readonly properties: ReadonlyMap<string, Located> | undefined
  /** Schemas of the properties whose names a pattern accepts. */
  readonly patterns: ReadonlyArray<{ readonly names: Automaton; readonly schema: Located }>
  /** The schema of all names. */
  readonly names: Located | undefined
  readonly required: ReadonlyArray<string>
  readonly additional: Located | undefined
}

/** The requirements of one part for arrays. */
export interface ArrayPart {
  readonly prefix: ReadonlyArray<Located>
  readonly items: Located | undefined
  readonly isOpen: boolean
}

export interface MergedSchema {
  readonly path: string
  readonly types: ReadonlySet<TypeName>
  /** Undefined for any. */
  readonly values: ReadonlyArray<unknown> | undefined
  readonly low: Bound | undefined
  readonly high: Bound | undefined
  /** A divisor of the integers; 1 for any. */
  readonly multiple: number
  readonly length: Count
  readonly texts: ReadonlyArray<Automaton>
  readonly objects: ReadonlyArray<ObjectPart>
  readonly properties: Count
  readonly arrays: ReadonlyArray<ArrayPart>
  readonly items: Count
  readonly isUnique: boolean
}

const isTypeName = (value: unknown): value is TypeName => (typeNames as ReadonlyArray<unknown>).includes(value)

const isTypes = (value: unknown): value is TypeName | ReadonlyArray<TypeName> =>
  isTypeName(value) || (isFilledList(value) && value.every(isTypeName))

/** The types that a part allows; undefined for any. */
const typesOf = (part: Part): ReadonlySet<TypeName> | undefined => {
  const types = readKeyword(part, part.schema, "type", isTypes, `one of ${typeNames.join(", ")}, or a list of them`)
  if (types === undefined) return undefined
  // OpenAPI's way to add `null`.
  const nulls: ReadonlyArray<TypeName> = part.schema["nullable"] === true ? ["null"] : []
  return new Set([...typeof types === "string" ? [types] : types, ...nulls])
}

/** `number` includes `integer`; no other type includes another. */
const commonTypes = (a: ReadonlySet<TypeName>, b: ReadonlySet<TypeName>): ReadonlySet<TypeName> => {
  const common = new Set(typeNames.filter((type) => a.has(type) && b.has(type)))
  if (!common.has("number") && (a.has("number") || b.has("number")) && (a.has("integer") || b.has("integer"))) {
    common.add("integer")
  }
  return common
}

/** Whether an alternative has objects only, and their names if they can have no others. */
export const objectNamesOf = (
  parts: ReadonlyArray<Part>
): { readonly isObject: boolean; readonly names: ReadonlySet<string> | undefined } => {
  const types = allTypes(parts)
  const isObject = types.size === 1 && types.has("object")
  const isOpen = parts.some(({ schema }) =>
    schema["patternProperties"] !== undefined || isRecord(schema["additionalProperties"])
  )
  const isClosed = parts.some(({ schema }) =>
    schema["additionalProperties"] === false || schema["properties"] !== undefined || schema["required"] !== undefined
  )
  const names = parts.flatMap(({ schema: { properties, required } }) => [
    ...isRecord(properties) ? Object.keys(properties) : [],
    ...isNames(required) ? required : []
  ])
  return { isObject, names: isClosed && !isOpen ? new Set(names) : undefined }
}

/** If no part has `type`, the types that any part constrains; if there are none, all types. */
const allTypes = (parts: ReadonlyArray<Part>): ReadonlySet<TypeName> => {
  const named = parts.map(typesOf).filter((types) => types !== undefined)
  if (named.length > 0) return named.reduce(commonTypes)
  const spoken = parts.flatMap(({ schema }) => Object.keys(schema).map((keyword) => typeOfKeyword.get(keyword)))
    .filter(isTypeName)
  return new Set(spoken.length === 0 ? typeNames : spoken)
}

/** The same text for equal values. */
const canonical = (value: unknown): string =>
  JSON.stringify(
    value,
    (_, part: unknown) =>
      isRecord(part) ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => a < b ? -1 : 1)) : part
  )

/** Steps to read a listed value, and each character of its text. */
const valueWork = 4
const characterWork = 0.5

/** @param spend counts steps */
const valuesOf = (parts: ReadonlyArray<Part>, spend: (steps: number) => void): ReadonlyArray<unknown> | undefined => {
  const keyOf = (value: unknown): string => {
    const key = canonical(value)
    spend(valueWork + Math.ceil(key.length * characterWork))
    return key
  }
  const lists = parts.flatMap((part) => {
    const { schema } = part
    const listed = readKeyword(part, schema, "enum", isFilledList, "a list that is not empty")
    return [...(listed === undefined ? [] : [listed]), ...(Object.hasOwn(schema, "const") ? [[schema["const"]]] : [])]
  })
  if (lists.length === 0) return undefined
  const common = lists.slice(1).map((list) => new Set(list.map(keyOf)))
  const distinct = new Map(lists[0]!.map((value) => [keyOf(value), value]))
  return [...distinct].filter(([key]) => common.every((list) => list.has(key))).map(([, value]) => value)
}

const boundOf = (parts: ReadonlyArray<Part>, keyword: "minimum" | "maximum", exclusiveKeyword: string) => {
  const sign = keyword === "minimum" ? 1 : -1
  const bounds = parts.flatMap((part) =>
    [keyword, exclusiveKeyword].flatMap((keyword, index): ReadonlyArray<Bound> => {
      // A boolean, as in draft 4, says whether the bound itself is excluded.
      if (index === 1 && typeof part.schema[keyword] === "boolean") return []
      const value = readKeyword(part, part.schema, keyword, isNumber, "a number")
      const exclusive = index === 1 || part.schema[exclusiveKeyword] === true
      return value === undefined ? [] : [{ value, exclusive }]
    })
  )
  return bounds.sort((a, b) => (b.value - a.value) * sign || Number(b.exclusive) - Number(a.exclusive))[0]
}

const checkExact = (parts: ReadonlyArray<Part>): void => {
  for (const part of parts) {
    for (const keyword of ["minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"]) {
      const value = part.schema[keyword]
      if (isNumber(value) && !isExact({ value, exclusive: false })) {
        refuseAt(
          within(part.path, keyword),
          "has more than 15 digits, which is the limit for a number's bound; round it"
        )
      }
    }
  }
}

const countOf = (parts: ReadonlyArray<Part>, leastKeyword: string, mostKeyword: string): Count => {
  const read = (keyword: string): ReadonlyArray<number> =>
    parts.map((part) => readKeyword(part, part.schema, keyword, isCount, "a whole number, 0 or more"))
      .filter((count) => count !== undefined)
  const most = read(mostKeyword)
  return { least: Math.max(0, ...read(leastKeyword)), most: most.length === 0 ? undefined : Math.min(...most) }
}

const textsOf = (part: Part, budget: Budget): ReadonlyArray<Automaton> => {
  const pattern = readKeyword(part, part.schema, "pattern", isString, "a text")
  const format = readKeyword(part, part.schema, "format", isString, "a text")
  const formatPattern = formatPatterns.get(format ?? "")
  const excludedTexts = (part.schema as { readonly [excluded]?: Excluded })[excluded]
  return [
    ...(excludedTexts === undefined
      ? []
      : "words" in excludedTexts
      ? [except(excludedTexts.words)]
      : [complementOf(budget.automatonOf(excludedTexts.pattern, part.path))]),
    ...(pattern === undefined ? [] : [budget.automatonOf(pattern, within(part.path, "pattern"))]),
    ...(formatPattern === undefined ? [] : [budget.automatonOf(formatPattern, within(part.path, "format"))])
  ]
}

const isNames = (value: unknown): value is ReadonlyArray<string> => isList(value) && value.every(isString)

const objectPartOf = (part: Part, budget: Budget): ObjectPart => {
  const { schema } = part
  const properties = readKeyword(part, schema, "properties", isRecord, "an object of schemas")
  const patterns = readKeyword(part, schema, "patternProperties", isRecord, "an object of schemas") ?? {}
  return {
    properties: properties === undefined
      ? undefined
      : new Map(Object.entries(properties).map(([name, one]) => [name, partOf(part, one, "properties", name)])),
    patterns: Object.entries(patterns).map(([pattern, one]) => {
      const schema = partOf(part, one, "patternProperties", pattern)
      return { names: budget.automatonOf(pattern, schema.path), schema }
    }),
    names: Object.hasOwn(schema, "propertyNames")
      ? partOf(part, schema["propertyNames"], "propertyNames")
      : undefined,
    required: readKeyword(part, schema, "required", isNames, "a list of names") ?? [],
    additional: Object.hasOwn(schema, "additionalProperties")
      ? partOf(part, schema["additionalProperties"], "additionalProperties")
      : undefined
  }
}

/** The items at the beginning, and the others: `prefixItems` with `items`, or a list in `items` with `additionalItems`. */
const itemKeywords = ({ schema }: Part): { readonly prefix: string; readonly items: string } =>
  isList(schema["items"]) ? { prefix: "items", items: "additionalItems" } : { prefix: "prefixItems", items: "items" }

const arrayPartOf = (part: Part): ArrayPart => {
  const { schema } = part
  const keywords = itemKeywords(part)
  const prefix = readKeyword(part, schema, keywords.prefix, isList, "a list of schemas") ?? []
  const items = Object.hasOwn(schema, keywords.items) ? partOf(part, schema[keywords.items], keywords.items) : undefined
  return {
    prefix: prefix.map((one, index) => partOf(part, one, keywords.prefix, index)),
    items,
    isOpen: prefix.length === 0 || (items !== undefined && items.schema !== true)
  }
}

/** The divisors of numbers, which are whole numbers. */
const divisorsOf = (parts: ReadonlyArray<Part>): ReadonlyArray<number> =>
  parts.flatMap((part) => {
    const divisor = readKeyword(part, part.schema, "multipleOf", isNumber, "a number above 0")
    if (divisor === undefined) return []
    return Number.isSafeInteger(divisor) && divisor > 0
      ? [divisor]
      : unsupported(part, "multipleOf", "is supported as a whole number only")
  })

const greatestDivisor = (a: number, b: number): number => b === 0 ? a : greatestDivisor(b, a % b)

/** Whether no item of a list may occur twice. */
const isUnique = (parts: ReadonlyArray<Part>): boolean =>
  parts.some((part) => readKeyword(part, part.schema, "uniqueItems", isBoolean, "true or false") === true)

/** Steps to read a part's keywords, and each value that they list. */
const partWork = 100
const entryWork = 20

const entriesOf = ({ schema: { items, patternProperties, prefixItems, properties, required } }: Part): number =>
  [prefixItems, items, required].reduce<number>((sum, list) => sum + (isList(list) ? list.length : 0), 0) +
  [properties, patternProperties].reduce<number>((sum, map) => sum + (isRecord(map) ? Object.keys(map).length : 0), 0)

/** Merges one alternative. A contradiction can exclude every value. */
export const mergeSchemas = (parts: ReadonlyArray<Part>, path: string, budget: Budget): MergedSchema => {
  const spend = (steps: number) => budget.spend(steps, path)
  for (const part of parts) spend(partWork + entriesOf(part) * entryWork)
  const types = new Set(allTypes(parts))
  const divisors = divisorsOf(parts)
  if (divisors.length > 0 && types.delete("number")) types.add("integer")
  if (types.has("number")) checkExact(parts)
  return {
    path,
    types,
    values: valuesOf(parts, spend),
    low: boundOf(parts, "minimum", "exclusiveMinimum"),
    high: boundOf(parts, "maximum", "exclusiveMaximum"),
    multiple: divisors.reduce((a, b) => (a * b) / greatestDivisor(a, b), 1),
    length: countOf(parts, "minLength", "maxLength"),
    texts: parts.flatMap((part) => textsOf(part, budget)),
    objects: parts.map((part) => objectPartOf(part, budget)),
    properties: countOf(parts, "minProperties", "maxProperties"),
    arrays: parts.map(arrayPartOf),
    items: countOf(parts, "minItems", "maxItems"),
    isUnique: isUnique(parts)
  }
}
