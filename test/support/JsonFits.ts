/** Whether a value satisfies a JSON Schema: an independent implementation of the keywords, to verify the grammars. */

// oxlint-disable-next-line typescript/no-explicit-any
export type AnySchema = boolean | { readonly [keyword: string]: any }

const typeFits = (type: string, value: unknown): boolean => {
  if (type === "null") return value === null
  if (type === "array") return Array.isArray(value)
  if (type === "object") return typeof value === "object" && value !== null && !Array.isArray(value)
  if (type === "integer") return Number.isInteger(value)
  // oxlint-disable-next-line valid-typeof
  return typeof value === type
}

const isSame = (a: unknown, b: unknown): boolean => {
  if (typeof a !== "object" || typeof b !== "object" || a === null || b === null) return a === b
  const [keys, others] = [Object.keys(a), Object.keys(b)]
  return Array.isArray(a) === Array.isArray(b) && keys.length === others.length &&
    keys.every((key) => isSame((a as Record<string, unknown>)[key], (b as Record<string, unknown>)[key]))
}

const formats: Record<string, RegExp> = {
  date: /^\d{4}-\d\d-\d\d$/,
  time: /^\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/,
  "date-time": /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)$/,
  uuid: /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i
}

const isRealDate = (text: string): boolean => new Date(`${text}T00:00:00Z`).toISOString().startsWith(text)

const formatFits = (format: string, value: string): boolean =>
  formats[format] === undefined ||
  (formats[format].test(value) && (!format.startsWith("date") || isRealDate(value.slice(0, 10))))

type Check = (limit: any, value: any, schema: any, root: AnySchema) => boolean // oxlint-disable-line typescript/no-explicit-any

const pointTo = (reference: string, root: AnySchema): AnySchema =>
  reference.split("/").slice(1).reduce(
    (at, key) => (at as Record<string, AnySchema>)[key.replaceAll("~1", "/").replaceAll("~0", "~")]!,
    root
  )

const checks: Record<string, Check> = {
  type: (types, value) => [types].flat().some((type: string) => typeFits(type, value)),
  enum: (values, value) => values.some((one: unknown) => isSame(one, value)),
  const: (one, value) => isSame(one, value),
  $ref: (reference: string, value, _, root) => jsonFits(pointTo(reference, root), value, root),
  allOf: (all, value, _, root) => all.every((one: AnySchema) => jsonFits(one, value, root)),
  anyOf: (all, value, _, root) => all.some((one: AnySchema) => jsonFits(one, value, root)),
  oneOf: (all, value, _, root) => all.filter((one: AnySchema) => jsonFits(one, value, root)).length === 1,
  not: (one, value, _, root) => !jsonFits(one, value, root)
}

const numberChecks: Record<string, Check> = {
  minimum: (limit, value) => value >= limit,
  maximum: (limit, value) => value <= limit,
  exclusiveMinimum: (limit, value) => value > limit,
  exclusiveMaximum: (limit, value) => value < limit,
  multipleOf: (limit, value) => value % limit === 0
}

const stringChecks: Record<string, Check> = {
  minLength: (limit, value) => Array.from(value).length >= limit,
  maxLength: (limit, value) => Array.from(value).length <= limit,
  pattern: (source, value) => new RegExp(source, "u").test(value),
  format: (format, value) => formatFits(format, value)
}

const arrayChecks: Record<string, Check> = {
  minItems: (limit, value) => value.length >= limit,
  maxItems: (limit, value) => value.length <= limit,
  prefixItems: (schemas, value, _, root) =>
    schemas.every((one: AnySchema, index: number) => index >= value.length || jsonFits(one, value[index], root)),
  items: (one, value, schema, root) =>
    value.slice(schema.prefixItems?.length ?? 0).every((item: unknown) => jsonFits(one, item, root))
}

const objectChecks: Record<string, Check> = {
  required: (names, value) => names.every((name: string) => Object.hasOwn(value, name)),
  properties: (properties, value, _, root) =>
    Object.keys(value).every((name) =>
      !Object.hasOwn(properties, name) || jsonFits(properties[name], value[name], root)
    ),
  additionalProperties: (one, value, schema, root) =>
    Object.keys(value).every((name) => Object.hasOwn(schema.properties ?? {}, name) || jsonFits(one, value[name], root))
}

const checksOf = (value: unknown): Record<string, Check> => {
  if (typeof value === "number") return numberChecks
  if (typeof value === "string") return stringChecks
  if (Array.isArray(value)) return arrayChecks
  return typeof value === "object" && value !== null ? objectChecks : {}
}

export const jsonFits = (schema: AnySchema, value: unknown, root: AnySchema = schema): boolean => {
  if (typeof schema === "boolean") return schema
  const forValue = { ...checks, ...checksOf(value) }
  return Object.entries(schema).every(([keyword, limit]) => forValue[keyword]?.(limit, value, schema, root) ?? true)
}
