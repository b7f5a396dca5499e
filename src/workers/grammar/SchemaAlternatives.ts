/**
 * Expands the schemas of one value: `$ref` and `allOf` add schemas that must also hold; each alternative of `anyOf` and
 * `oneOf`, of a condition and of what `not` leaves becomes a case. In a case of `oneOf` no other alternative holds.
 */
import type { Budget } from "./Budget.ts"
import type { Located, SchemaObject } from "./JsonSchemaKeywords.ts"
import {
  isFilledList,
  isRecord,
  isString,
  objectOf,
  readKeyword,
  refuseAt,
  unsupported,
  within
} from "./JsonSchemaKeywords.ts"
import { objectNamesOf } from "./MergedSchema.ts"
import type { Together } from "./SchemaNegation.ts"
import { conditionsOf, negationsOf } from "./SchemaNegation.ts"
import type { Written } from "./SchemaOverlap.ts"
import { areApart, factsOf } from "./SchemaOverlap.ts"

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

/** To compare two alternatives. */
const stepsPerPair = 10

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

/** Schemas that hold together as one alternative, and the alternatives that must not hold with them. */
interface Choice {
  readonly chosen: ReadonlyArray<Located>
  readonly others: ReadonlyArray<Located>
}

const plain = (from: Located, together: Together): Choice => ({
  chosen: together.map(([keyword, one]) => stepTo(from, one, within(from.path, keyword))),
  others: []
})

const overlapping =
  "may hold together with another alternative of oneOf, and a grammar cannot exclude it; use anyOf, or " +
  "give each a required property with a distinct const"

const readSchema = (from: Located, budget: Budget): SchemaObject => {
  const schema = objectOf(from)
  budget.spend(Object.keys(schema).length * stepsPerKeyword, from.path)
  return schema
}

/** Expands the schemas of one value. */
class Expansion {
  readonly cases: Array<ReadonlyArray<Part>> = []
  readonly #document: Located
  readonly #budget: Budget
  readonly #path: string
  #steps = 0

  constructor(document: Located, budget: Budget, path: string) {
    this.#document = document
    this.#budget = budget
    this.#path = path
  }

  #countStep(times: number): void {
    this.#steps += times
    this.#budget.spend(times * stepsPerSchema, this.#path)
    if (this.#steps > mostVisits) refuseAt(this.#path, "combines too many alternatives; use fewer")
  }

  #alternatives(from: Located, schema: SchemaObject, keyword: string): ReadonlyArray<Located> | undefined {
    return readKeyword(from, schema, keyword, isFilledList, list)
      ?.map((one, index) => stepTo(from, one, within(within(from.path, keyword), index)))
  }

  #more(from: Located, schema: SchemaObject): ReadonlyArray<Located> {
    const reference = readKeyword(from, schema, "$ref", isString, "a text")
    const all = this.#alternatives(from, schema, "allOf") ?? []
    if (reference === undefined) return all
    const target = resolve(reference, this.#document, from)
    return [stepTo(from, target.schema, target.path), ...all]
  }

  /** The schema to which a reference points; undefined if the schema has none. */
  #referred(from: Located, schema: unknown): unknown {
    const reference = isRecord(schema) ? schema["$ref"] : undefined
    return isString(reference) ? resolve(reference, this.#document, from).schema : undefined
  }

  #negated(from: Located, schema: unknown, refused: () => never): ReadonlyArray<unknown> {
    return negationsOf(schema, this.#referred(from, schema)) ?? refused()
  }

  #choices(from: Located, schema: SchemaObject): ReadonlyArray<ReadonlyArray<Choice>> {
    const any = this.#alternatives(from, schema, "anyOf")
    const one = this.#alternatives(from, schema, "oneOf")
    const refused = () => unsupported(from, "not", "is not supported with these keywords")
    return [
      ...(any === undefined ? [] : [any.map((one) => ({ chosen: [one], others: [] }))]),
      ...(one === undefined
        ? []
        : [one.map((chosen) => ({ chosen: [chosen], others: one.filter((other) => other !== chosen) }))]),
      ...(Object.hasOwn(schema, "not")
        ? [this.#negated(from, schema["not"], refused).map((one) => plain(from, [["not", one]]))]
        : []),
      ...conditionsOf(schema).map((condition) => condition.map((together) => plain(from, together)))
    ]
  }

  /** Cases in which no other alternative of a `oneOf` holds. */
  #separate(parts: ReadonlyArray<Part>, others: ReadonlyArray<Located>): void {
    const written = others.length === 0 ? undefined : this.#written(parts)
    const overlap = others.findIndex((other) => {
      this.#budget.spend(stepsPerPair, other.path)
      return !areApart(written!, other.schema, (schema) => this.#referred(other, schema))
    })
    if (overlap < 0) {
      this.cases.push(parts)
      return
    }
    const first = others[overlap]!
    const outside = this.#negated(first, first.schema, () => refuseAt(first.path, overlapping))
    for (const one of outside) this.spread([stepTo(first, one, first.path)], parts, others.slice(overlap + 1))
  }

  #written(parts: ReadonlyArray<Part>): Written {
    const entries = parts.reduce(
      (sum, { schema: { properties } }) => sum + (isRecord(properties) ? Object.keys(properties).length : 0),
      0
    )
    this.#budget.spend(entries * stepsPerKeyword, this.#path)
    const resolve = (schema: SchemaObject) => this.#referred(parts[0]!, schema)
    return { facts: factsOf(parts.map(({ schema }) => schema), resolve), ...objectNamesOf(parts) }
  }

  /** @param others alternatives that must not hold */
  spread(pending: ReadonlyArray<Located>, parts: ReadonlyArray<Part>, others: ReadonlyArray<Located>): void {
    const [first, ...rest] = pending
    this.#countStep(1)
    if (first === undefined) return this.#separate(parts, others)
    if (first.schema === false) return
    if (first.schema === true || parts.some(({ schema }) => schema === first.schema)) {
      return this.spread(rest, parts, others)
    }
    const schema = readSchema(first, this.#budget)
    const must = [...this.#more(first, schema), ...rest]
    const choices = this.#choices(first, schema)
    this.#countStep(choices.reduce((product, { length }) => product * length, 1))
    const combined = choices.reduce<ReadonlyArray<ReadonlyArray<Choice>>>(
      (before, choice) => choice.flatMap((one) => before.map((list) => [...list, one])),
      [[]]
    )
    for (const chosen of combined) {
      this.spread(
        [...chosen.flatMap((one) => one.chosen), ...must],
        [...parts, { ...first, schema }],
        [...others, ...chosen.flatMap((one) => one.others)]
      )
    }
  }
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
  const expansion = new Expansion(document, budget, schemas[0]?.path ?? document.path)
  expansion.spread(schemas.map((one) => stepTo(one, one.schema, one.path)), [], [])
  return expansion.cases
}
