/**
 * Expands the schemas of one value: `$ref` and `allOf` add schemas that must also hold, each alternative of `anyOf` and
 * `oneOf` becomes a case.
 */
import type { Budget } from "./Budget.ts"
import type { Located, SchemaObject } from "./JsonSchemaKeywords.ts"
import { isFilledList, isString, objectOf, readKeyword, refuseAt, unsupported, within } from "./JsonSchemaKeywords.ts"

/** A schema without the keywords that are expanded. */
export interface Part extends Located {
  readonly schema: SchemaObject
}

/** Schemas visited for one value, over all its alternatives: nested alternatives multiply. */
const mostVisits = 2000

/** Steps to visit a schema. */
const stepsPerSchema = 20
/** Each of its keywords. */
const stepsPerKeyword = 4

const list = "a list that is not empty"

/** The value at a JSON Pointer of this document. */
const resolve = (reference: string, document: Located, from: Located): Located => {
  const path = within(from.path, "$ref")
  if (!/^#(?:\/|$)/.test(reference)) refuseAt(path, "must point into this document, as \"#/$defs/name\" does")
  let found: Located = document
  for (const token of reference.split("/").slice(1)) {
    const key = decodeToken(token, path)
    const { schema } = found
    if (typeof schema !== "object" || schema === null || !Object.hasOwn(schema, key)) {
      return refuseAt(path, `points to ${reference}, which does not exist`)
    }
    const step = Array.isArray(schema) ? Number(key) : key
    found = { schema: (schema as SchemaObject)[key], path: within(found.path, step), via: [] }
  }
  return found
}

const decodeToken = (token: string, path: string): string => {
  try {
    return decodeURIComponent(token).replaceAll("~1", "/").replaceAll("~0", "~")
  } catch {
    return refuseAt(path, "is not a JSON Pointer")
  }
}

/** The next schema of the same value; circular references are refused. */
const stepTo = (from: Located, schema: unknown, path: string): Located =>
  from.via.includes(schema)
    ? refuseAt(path, "refers to itself without a value in between; remove the circular reference")
    : { schema, path, via: [...from.via, schema] }

const isNothing = (from: Located, schema: SchemaObject): boolean => {
  if (!Object.hasOwn(schema, "not")) return false
  const { not } = schema
  const isAll = not === true || (typeof not === "object" && not !== null && Object.keys(not).length === 0)
  return isAll || unsupported(from, "not", "is supported as \"not\": {} only")
}

const readSchema = (from: Located, budget: Budget): SchemaObject => {
  const schema = objectOf(from)
  budget.spend(Object.keys(schema).length * stepsPerKeyword, from.path)
  return schema
}

/**
 * The alternatives of schemas that must all hold. Each is a list of parts that must all hold; none if no value satisfies
 * the schemas.
 *
 * @param document the schema that references refer to
 */
export const schemaAlternatives = (
  schemas: ReadonlyArray<Located>,
  document: Located,
  budget: Budget
): ReadonlyArray<ReadonlyArray<Part>> => {
  const cases: Array<ReadonlyArray<Part>> = []

  const alternativesOf = (from: Located, schema: SchemaObject, keyword: string): ReadonlyArray<Located> | undefined =>
    readKeyword(from, schema, keyword, isFilledList, list)
      ?.map((one, index) => stepTo(from, one, within(within(from.path, keyword), index)))

  const more = (from: Located, schema: SchemaObject): ReadonlyArray<Located> => {
    const reference = readKeyword(from, schema, "$ref", isString, "a text")
    const all = alternativesOf(from, schema, "allOf") ?? []
    if (reference === undefined) return all
    const target = resolve(reference, document, from)
    return [stepTo(from, target.schema, target.path), ...all]
  }

  let steps = 0
  const countStep = (times: number): void => {
    steps += times
    budget.spend(times * stepsPerSchema, schemas[0]!.path)
    if (steps > mostVisits) refuseAt(schemas[0]!.path, "combines too many alternatives; use fewer")
  }

  const spread = (pending: ReadonlyArray<Located>, parts: ReadonlyArray<Part>): void => {
    const [first, ...rest] = pending
    countStep(1)
    if (first === undefined) {
      cases.push(parts)
      return
    }
    if (first.schema === false || parts.some(({ schema }) => schema === first.schema)) {
      return first.schema === false ? undefined : spread(rest, parts)
    }
    if (first.schema === true) return spread(rest, parts)
    const schema = readSchema(first, budget)
    if (isNothing(first, schema)) return
    const must = [...more(first, schema), ...rest]
    const choices = ["anyOf", "oneOf"].flatMap((keyword) => {
      const found = alternativesOf(first, schema, keyword)
      return found === undefined ? [] : [found]
    })
    countStep(choices.reduce((product, { length }) => product * length, 1))
    const combined = choices.reduce<ReadonlyArray<ReadonlyArray<Located>>>(
      (before, choice) => choice.flatMap((one) => before.map((list) => [...list, one])),
      [[]]
    )
    for (const chosen of combined) spread([...chosen, ...must], [...parts, { ...first, schema }])
  }

  spread(schemas.map((one) => stepTo(one, one.schema, one.path)), [])
  return cases
}
