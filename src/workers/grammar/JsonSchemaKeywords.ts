/**
 * How each keyword of JSON Schema (draft 2020-12) is handled: enforced, refused with advice, or, as the standard has it for
 * unknown keywords, ignored as an annotation.
 */
import { refuse } from "../../domain/Job.ts"

/** A schema and its path in the request. */
export interface Located {
  readonly schema: unknown
  readonly path: string
  /** The references and combinations that were followed to this schema within one value. */
  readonly via: ReadonlyArray<unknown>
}

/** A schema with keywords, as opposed to `true` and `false`. */
export type SchemaObject = Readonly<Record<string, unknown>>

export const refuseAt = (path: string, message: string): never => refuse({ kind: "invalid_request", path, message })

/** The path of a part: `a.b`, `a[0]`, `a["b c"]`. */
export const within = (path: string, key: string | number): string => {
  if (typeof key === "number") return `${path}[${key}]`
  return /^[A-Za-z_$][\w$-]*$/.test(key) ? `${path}.${key}` : `${path}[${JSON.stringify(key)}]`
}

/** The part of a schema under a keyword. */
export const partOf = ({ path }: Located, schema: unknown, ...keys: ReadonlyArray<string | number>): Located => ({
  schema,
  path: keys.reduce(within, path),
  via: []
})

/** The type that a keyword constrains; values of other types are not constrained. */
export const typeOfKeyword: ReadonlyMap<string, string> = new Map(
  Object.entries({
    array: ["items", "maxItems", "minItems", "prefixItems", "uniqueItems"],
    number: ["exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum", "multipleOf"],
    object: [
      "additionalProperties",
      "maxProperties",
      "minProperties",
      "patternProperties",
      "properties",
      "propertyNames",
      "required"
    ],
    string: ["format", "maxLength", "minLength", "pattern"]
  }).flatMap(([type, keywords]) => keywords.map((keyword) => [keyword, type] as const))
)

/** The keywords that constrain values and that a grammar does not express. */
const advice: Readonly<Record<string, string>> = {
  $dynamicRef: "use $ref",
  $recursiveRef: "use $ref",
  contains: "use items, and check the rest in the answer",
  unevaluatedItems: "use items",
  unevaluatedProperties: "use additionalProperties"
}

const check = "omit it, and check it in the answer"

export const unsupported = (located: Located, keyword: string, what = "is not supported"): never =>
  refuseAt(within(located.path, keyword), `${what}; ${advice[keyword] ?? check}`)

/** The schema as an object, all of whose constraints are supported. */
export const objectOf = (located: Located): SchemaObject => {
  const { path, schema } = located
  if (typeof schema !== "object" || schema === null || Array.isArray(schema)) {
    return refuseAt(path, "must be a schema: an object, true or false")
  }
  for (const keyword of Object.keys(schema)) if (Object.hasOwn(advice, keyword)) unsupported(located, keyword)
  return schema as SchemaObject
}

/** The value of a keyword, which must have this type if present. */
export const readKeyword = <A>(
  located: Located,
  schema: SchemaObject,
  keyword: string,
  is: (value: unknown) => value is A,
  must: string
): A | undefined => {
  if (!Object.hasOwn(schema, keyword)) return undefined
  const value = schema[keyword]
  return is(value) ? value : refuseAt(within(located.path, keyword), `must be ${must}`)
}

export const isBoolean = (value: unknown): value is boolean => typeof value === "boolean"
export const isNumber = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value)
export const isCount = (value: unknown): value is number => Number.isSafeInteger(value) && (value as number) >= 0
export const isString = (value: unknown): value is string => typeof value === "string"
export const isList = (value: unknown): value is ReadonlyArray<unknown> => Array.isArray(value)
export const isFilledList = (value: unknown): value is ReadonlyArray<unknown> => isList(value) && value.length > 0
export const isRecord = (value: unknown): value is SchemaObject =>
  typeof value === "object" && value !== null && !Array.isArray(value)
