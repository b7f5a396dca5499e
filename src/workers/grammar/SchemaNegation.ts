/**
 * Schemas that hold where another does not: for `not`, `if`, dependencies and overlapping alternatives of `oneOf`. Pure.
 *
 * **Details**
 *
 * A value does not satisfy a schema if one of its keywords fails. Each keyword has a schema that holds only where it fails. A
 * keyword without such a schema is left out, so that fewer values are allowed, never others; a schema of such keywords only
 * is refused.
 */
import type { SchemaObject } from "./JsonSchemaKeywords.ts"
import { isList, isNumber, isRecord, isString } from "./JsonSchemaKeywords.ts"

/** Texts that a schema does not allow: a key that no caller can write. */
export const excluded = Symbol("excluded texts")

/** Texts to exclude: those of a pattern, or these. */
export type Excluded = { readonly pattern: string } | { readonly words: ReadonlyArray<string> }

/** A schema whose texts exclude these. */
export const excluding = (texts: Excluded): SchemaObject => ({ type: "string", [excluded]: texts })

const allTypes = ["null", "boolean", "number", "string", "array", "object"] as const

const typeOf = (value: unknown): string => {
  if (value === null) return "null"
  return isList(value) ? "array" : typeof value
}

const exceptTypes = (types: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  // Numbers that are no integers have no schema.
  const named = new Set(types.map((type) => type === "integer" ? "number" : type))
  const left = allTypes.filter((type) => !named.has(type))
  return left.length === 0 ? [] : [{ type: left }]
}

const exceptValues = (values: ReadonlyArray<unknown>): ReadonlyArray<unknown> => {
  const words = values.filter(isString)
  const numbers = values.filter(isNumber)
  const booleans = [true, false].filter((one) => !values.includes(one))
  return [
    ...exceptTypes(["string", "boolean", ...values.map(typeOf)]),
    excluding({ words }),
    ...(numbers.length === 0 ? [] : [
      { type: "number", exclusiveMaximum: Math.min(...numbers) },
      { type: "number", exclusiveMinimum: Math.max(...numbers) }
    ]),
    ...(booleans.length === 0 ? [] : [{ type: "boolean", enum: booleans }])
  ]
}

type Fails = (value: unknown, schema: SchemaObject) => ReadonlyArray<unknown>

const ofNumber = (is: (value: unknown) => boolean, make: (value: number) => unknown): Fails => (value) =>
  isNumber(value) && is(value) ? [make(value)] : []

const isPositive = (value: unknown): boolean => isNumber(value) && value > 0
const always = () => true

const notAll = (schemas: unknown): ReadonlyArray<unknown> => isList(schemas) ? schemas.map((not) => ({ not })) : []

/** Where each keyword fails, as alternatives. */
const failures: Readonly<Record<string, Fails>> = {
  type: (value, { nullable }) => exceptTypes([value, nullable === true ? "null" : []].flat()),
  const: (value) => exceptValues([value]),
  enum: (value) => isList(value) ? exceptValues(value) : [],
  not: (value) => [value],
  allOf: notAll,
  anyOf: (value) => [{ allOf: notAll(value) }],
  required: (value) =>
    isList(value) ? value.map((name) => ({ type: "object", propertyNames: excluding({ words: [String(name)] }) })) : [],
  properties: (value) =>
    isRecord(value)
      ? Object.entries(value).filter(([, one]) => one !== true).map(([name, not]) => ({
        type: "object",
        required: [name],
        properties: { [name]: { not } }
      }))
      : [],
  minLength: ofNumber(isPositive, (value) => ({ type: "string", maxLength: value - 1 })),
  maxLength: ofNumber(always, (value) => ({ type: "string", minLength: value + 1 })),
  minItems: ofNumber(isPositive, (value) => ({ type: "array", maxItems: value - 1 })),
  maxItems: ofNumber(always, (value) => ({ type: "array", minItems: value + 1 })),
  minProperties: ofNumber(isPositive, (value) => ({ type: "object", maxProperties: value - 1 })),
  maxProperties: ofNumber(always, (value) => ({ type: "object", minProperties: value + 1 })),
  minimum: ofNumber(always, (value) => ({ type: "number", exclusiveMaximum: value })),
  maximum: ofNumber(always, (value) => ({ type: "number", exclusiveMinimum: value })),
  exclusiveMinimum: ofNumber(always, (value) => ({ type: "number", maximum: value })),
  exclusiveMaximum: ofNumber(always, (value) => ({ type: "number", minimum: value })),
  pattern: (value) => isString(value) ? [excluding({ pattern: value })] : [],
  items: (value) =>
    value === true || isList(value) ? [] : [{ type: "array", minItems: 1, prefixItems: [{ not: value }] }]
}

/** Keywords that constrain values and have no schema of their failure. */
const withoutFailure = new Set([
  "$dynamicRef",
  "$recursiveRef",
  "additionalItems",
  "additionalProperties",
  "contains",
  "dependencies",
  "dependentRequired",
  "dependentSchemas",
  "format",
  "if",
  "multipleOf",
  "oneOf",
  "patternProperties",
  "prefixItems",
  "propertyNames",
  "unevaluatedItems",
  "unevaluatedProperties",
  "uniqueItems"
])

/** Whether the bounds of a schema are those of draft 4, whose exclusion is a boolean. */
const hasOldBounds = (schema: SchemaObject): boolean =>
  schema["exclusiveMinimum"] === true || schema["exclusiveMaximum"] === true

const failuresOf = (schema: SchemaObject): ReadonlyArray<unknown> =>
  Object.entries(schema).flatMap(([keyword, value]) => {
    if (hasOldBounds(schema) && /m[ai][xn]imum$/i.test(keyword)) return []
    return Object.hasOwn(failures, keyword) ? failures[keyword]!(value, schema) : []
  })

const known = new WeakMap<object, ReadonlyArray<unknown> | undefined>()

const negate = (schema: SchemaObject, resolved: unknown): ReadonlyArray<unknown> | undefined => {
  // Drafts disagree on keywords beside a reference.
  if (resolved !== undefined) return [{ not: resolved }]
  const found = failuresOf(schema)
  const isIncomplete = hasOldBounds(schema) || Object.keys(schema).some((keyword) => withoutFailure.has(keyword))
  return found.length > 0 || !isIncomplete ? found : undefined
}

/**
 * Alternatives that hold only where a schema does not, the same objects for the same schema; undefined if it has only keywords
 * without such alternatives.
 *
 * @param resolved the schema to which a reference of this one points
 */
export const negationsOf = (schema: unknown, resolved: unknown): ReadonlyArray<unknown> | undefined => {
  if (schema === true) return []
  if (schema === false) return [true]
  if (!isRecord(schema)) return undefined
  if (!known.has(schema)) known.set(schema, negate(schema, resolved))
  return known.get(schema)
}

/** Schemas that hold together, each with the keyword whose value it is part of. */
export type Together = ReadonlyArray<readonly [keyword: string, schema: unknown]>

/** Alternatives, one of which must hold. */
type Condition = ReadonlyArray<Together>

const dependency = (keyword: string, name: string, needed: unknown): Condition => [
  [[keyword, { propertyNames: excluding({ words: [name] }) }]],
  isList(needed)
    ? [[keyword, { required: [name, ...needed] }]]
    : [[keyword, { required: [name] }], [keyword, needed]]
]

const knownConditions = new WeakMap<object, ReadonlyArray<Condition>>()

const readConditions = (schema: SchemaObject): ReadonlyArray<Condition> => {
  const { else: no = true, if: condition, then: yes = true } = schema
  const dependencies = ["dependencies", "dependentRequired", "dependentSchemas"].flatMap((keyword) => {
    const value = schema[keyword]
    return isRecord(value) ? Object.entries(value).map(([name, needed]) => dependency(keyword, name, needed)) : []
  })
  if (condition === undefined) return dependencies
  return [...dependencies, [[["if", condition], ["then", yes]], [["if", { not: condition }], ["else", no]]]]
}

/** What the conditional keywords of a schema require; the same objects for the same schema. */
export const conditionsOf = (schema: SchemaObject): ReadonlyArray<Condition> => {
  const conditions = knownConditions.get(schema) ?? readConditions(schema)
  knownConditions.set(schema, conditions)
  return conditions
}
