/**
 * Whether a value of some schemas can satisfy another one too: for `oneOf`, whose alternatives exclude each other. Pure.
 *
 * **Details**
 *
 * Alternatives are apart if they have other types, other listed values, a required property with other values, or a required
 * property that the other one cannot have. What is not certain counts as an overlap.
 */
import type { SchemaObject } from "./JsonSchemaKeywords.ts"
import { isList, isRecord, isString } from "./JsonSchemaKeywords.ts"

/** What a schema says about its values. */
export interface Facts {
  /** Undefined for any. */
  readonly types: ReadonlySet<string> | undefined
  readonly values: ReadonlySet<string> | undefined
  readonly properties: ReadonlyMap<string, ReadonlyArray<unknown>>
  readonly required: ReadonlySet<string>
  /** No other properties are valid. */
  readonly isClosed: boolean
}

type Resolve = (schema: SchemaObject) => unknown

/** References and combinations that are followed. */
const mostSteps = 20

const typesOf = ({ nullable, type }: SchemaObject): ReadonlySet<string> | undefined => {
  if (type === undefined) return undefined
  const named = [type].flat().filter(isString).map((one) => one === "integer" ? "number" : one)
  return new Set(nullable === true ? [...named, "null"] : named)
}

const valuesOf = (schema: SchemaObject): ReadonlySet<string> | undefined => {
  if (Object.hasOwn(schema, "const")) return new Set([JSON.stringify(schema["const"])])
  return isList(schema["enum"]) ? new Set(schema["enum"].map((value) => JSON.stringify(value))) : undefined
}

const common = <A>(a: ReadonlySet<A> | undefined, b: ReadonlySet<A> | undefined): ReadonlySet<A> | undefined =>
  a === undefined || b === undefined ? a ?? b : new Set([...a].filter((one) => b.has(one)))

const none: Facts = { types: undefined, values: undefined, properties: new Map(), required: new Set(), isClosed: false }

const both = (a: Facts, b: Facts): Facts => ({
  types: common(a.types, b.types),
  values: common(a.values, b.values),
  properties: new Map(
    [...new Set([...a.properties.keys(), ...b.properties.keys()])].map((name) =>
      [name, [...a.properties.get(name) ?? [], ...b.properties.get(name) ?? []]] as const
    )
  ),
  required: new Set([...a.required, ...b.required]),
  isClosed: a.isClosed || b.isClosed
})

const ownFacts = (schema: SchemaObject): Facts => {
  const { additionalProperties, patternProperties, properties, required } = schema
  return {
    types: typesOf(schema),
    values: valuesOf(schema),
    properties: new Map(isRecord(properties) ? Object.entries(properties).map(([name, one]) => [name, [one]]) : []),
    required: new Set(isList(required) ? required.filter(isString) : []),
    isClosed: additionalProperties === false && patternProperties === undefined
  }
}

/** The facts of schemas that must all hold. */
export const factsOf = (schemas: ReadonlyArray<unknown>, resolve: Resolve): Facts => {
  const pending = [...schemas]
  let facts = none
  for (let step = 0; step < mostSteps && pending.length > 0; step++) {
    const schema = pending.shift()
    if (!isRecord(schema)) continue
    if (isString(schema["$ref"])) pending.push(resolve(schema))
    if (isList(schema["allOf"])) pending.push(...schema["allOf"])
    facts = both(facts, ownFacts(schema))
  }
  return pending.length > 0 ? { ...facts, isClosed: false } : facts
}

const isDisjoint = <A>(a: ReadonlySet<A> | undefined, b: ReadonlySet<A> | undefined): boolean =>
  a !== undefined && b !== undefined && [...a].every((one) => !b.has(one))

const known = new WeakMap<object, Facts>()

/** The facts of one schema, which are read once. */
const factsOfOne = (schema: unknown, resolve: Resolve): Facts => {
  if (!isRecord(schema)) return none
  const facts = known.get(schema) ?? factsOf([schema], resolve)
  known.set(schema, facts)
  return facts
}

const factsOfAll = (schemas: ReadonlyArray<unknown>, resolve: Resolve): Facts =>
  schemas.length === 1 ? factsOfOne(schemas[0], resolve) : factsOf(schemas, resolve)

/** Whether values that both have a property cannot satisfy both schemas. */
const differs = (a: ReadonlyArray<unknown>, b: ReadonlyArray<unknown>, resolve: Resolve): boolean => {
  const [first, second] = [factsOfAll(a, resolve), factsOfAll(b, resolve)]
  return isDisjoint(first.types, second.types) || isDisjoint(first.values, second.values)
}

/** What the grammar writes for some schemas. */
export interface Written {
  readonly facts: Facts
  readonly isObject: boolean
  /** The properties that an object can have; undefined if it can have others. */
  readonly names: ReadonlySet<string> | undefined
}

/** Whether no value that the grammar writes for some schemas satisfies another one. */
export const areApart = ({ facts: first, isObject, names }: Written, other: unknown, resolve: Resolve): boolean => {
  const second = factsOfOne(other, resolve)
  if (isDisjoint(first.types, second.types) || isDisjoint(first.values, second.values)) return true
  if (!isObject) return false
  if (second.types?.has("object") === false) return true
  if (names !== undefined && [...second.required].some((name) => !names.has(name))) return true
  return [...first.required].some((name) => {
    const declared = second.properties.get(name)
    if (declared === undefined) return second.isClosed
    return differs(first.properties.get(name) ?? [], declared, resolve)
  })
}
