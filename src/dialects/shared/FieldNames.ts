/**
 * Tables of the fields of a dialect: which fields a body may have at each place, and what the core calls them. Pure.
 *
 * **Details**
 *
 * One table per endpoint is the only list of its names: it finds unknown fields, suggests the name for a misspelt one, and
 * gives the dialect's name for a path of the core in an error.
 */
import type { UnknownField } from "../../domain/Source.ts"
import { isObject, typeOf } from "./Json.ts"

type Names = ReadonlyArray<string>

/** Whether the value is the default of a field or a hint, so that a deployment may ignore the field. */
type IsOptional = (value: unknown) => boolean

/** The fields of an object, or of the objects in a list. */
export interface Place {
  /** Known fields; the value of some has a table of its own. */
  readonly fields: Readonly<Record<string, Place | ByType | undefined>>
  /** Fields that Troupe does not use and that deployments may ignore, by their value. */
  readonly optional: Readonly<Record<string, IsOptional>> | "all"
  /** Unless it holds, the whole value is unknown. */
  readonly accepts?: (value: Readonly<Record<string, unknown>>) => boolean
}

/** Objects whose fields depend on their `type`. */
export interface ByType {
  readonly types: Readonly<Record<string, Place>>
  /** Types that providers document and that Troupe does not know. */
  readonly documented: Names
  /** The type of an object that names none. */
  readonly defaultType?: string
  /** Unknown types that deployments may ignore. */
  readonly optionalTypes?: Names
}

/** The fields of an endpoint's body. */
export interface BodyFields extends Place {
  /** Names that other APIs have for its fields. */
  readonly aliases?: Readonly<Record<string, string>>
}

interface Options {
  readonly fields?: Place["fields"]
  readonly optional?: Readonly<Record<string, IsOptional>>
  /** Fields that the schema checks and that only providers of the dialect use. */
  readonly without?: Names
}

export const always: IsOptional = () => true

/** A place with the fields of a schema. */
export const placeOf = (
  schema: { readonly fields: object },
  { fields = {}, optional = {}, without = [] }: Options = {}
): Place => ({
  fields: {
    ...Object.fromEntries(
      Object.keys(schema.fields).filter((name) => !without.includes(name)).map((name) => [name, undefined])
    ),
    ...fields
  },
  optional: { ...Object.fromEntries(without.map((name) => [name, never])), ...optional }
})

const never: IsOptional = () => false

export const isByType = (place: Place | ByType): place is ByType => "types" in place

/** The table of one value; undefined for a type that is not known. */
export const placeFor = (place: Place | ByType, value: unknown): Place | undefined => {
  if (!isByType(place)) return place
  const type = typeOf(value) ?? place.defaultType
  return typeof type === "string" && Object.hasOwn(place.types, type) ? place.types[type] : undefined
}

type Add = (path: UnknownField["path"], isOptional: boolean) => void

const isOptionalAt = ({ optional }: Place, name: string, value: unknown): boolean =>
  optional === "all" || (Object.hasOwn(optional, name) && optional[name]!(value))

const unknownField = Symbol("unknown")

const findInObject = (
  value: Readonly<Record<string, unknown>>,
  place: Place,
  path: UnknownField["path"],
  add: Add
): void => {
  for (const name of Object.keys(value)) {
    const one = value[name]
    const inner = Object.hasOwn(place.fields, name) ? place.fields[name] : unknownField
    if (inner === unknownField) {
      // `null` means what leaving the field out means.
      if (one !== null) add([...path, name], isOptionalAt(place, name, one))
    } else if (inner !== undefined) find(one, inner, [...path, name], add)
  }
}

const find = (value: unknown, place: Place | ByType, path: UnknownField["path"], add: Add): void => {
  if (Array.isArray(value)) {
    for (const [index, one] of value.entries()) find(one, place, [...path, index], add)
  } else if (isObject(value)) {
    const found = placeFor(place, value)
    if (found !== undefined && (found.accepts?.(value) ?? true)) findInObject(value, found, path, add)
    else add(path, isByType(place) && (place.optionalTypes ?? []).includes(String(typeOf(value))))
  }
}

/** The fields of a body that its table does not have. */
export const unknownFieldsOf = (body: unknown, table: BodyFields): ReadonlyArray<UnknownField> => {
  const found: Array<UnknownField> = []
  find(body, table, [], (path, isOptional) => {
    found.push(isOptional ? { path, optional: true } : { path })
  })
  return found
}

/** The dialect's name for a path of the core, as `max_tokens` for `maxTokens`. */
export type PathRenamer = (path: string) => string

/** An endpoint's names in errors. */
export interface ErrorNames {
  /** The field that does not fit the context window. */
  readonly prompt: string
  readonly rename: PathRenamer
}

/** Names that all endpoints share. */
const shared: Readonly<Record<string, string>> = { route: "troupe", keepAlive: "keep_alive" }

/**
 * @param names of fields, by the names of the core
 * @param nested patterns of paths whose shape is another in the dialect; the first that fits counts
 */
export const pathRenamer = (
  names: Readonly<Record<string, string>>,
  nested: ReadonlyArray<readonly [path: RegExp, name: string]> = []
): PathRenamer => {
  const byName = new Map(Object.entries({ ...shared, ...names }))
  return (path) => {
    const found = nested.find(([pattern]) => pattern.test(path))
    if (found !== undefined) return path.replace(found[0], found[1])
    return path.replace(/^\w+/, (name) => byName.get(name) ?? name)
  }
}
