/**
 * Tables of the fields of a dialect: which fields a body may have at each place, and what the core calls them. Pure.
 *
 * **Details**
 *
 * One table per endpoint is the only list of its names. Three functions use it: the search for unknown fields, the suggestion
 * for a misspelt one, and the renaming of the core's paths in errors.
 */
type Names = ReadonlyArray<string>

/** Whether the value is the default of a field or a hint, so that a deployment may ignore the field. */
export interface IsOptional {
  (value: unknown): boolean
  /** Those values in words, for errors about others; left out: any, or none. */
  readonly expected?: string
}

/** @param expected the accepted values in words */
export const accepting = (expected: string, accepts: (value: unknown) => boolean): IsOptional =>
  Object.assign((value: unknown) => accepts(value), { expected })

/** Accepts this value only. */
export const only = (expected: unknown): IsOptional =>
  accepting(JSON.stringify(expected), (value) => value === expected)

export const emptyList: IsOptional = accepting("[]", (value) => Array.isArray(value) && value.length === 0)

/** The fields of an object, or of the objects in a list. */
export interface Place {
  /** Known fields; the value of some has a table of its own. */
  readonly fields: Readonly<Record<string, Place | ByType | undefined>>
  /** Fields that Troupe does not use and that deployments may ignore, by their value. */
  readonly optional: Readonly<Record<string, IsOptional>> | "all"
  /** Further fields of the dialect, which Troupe does not know. */
  readonly others?: Names
  /** If it returns false, the entire value is unknown. */
  readonly accepts?: (value: Readonly<Record<string, unknown>>) => boolean
}

/** Objects whose fields depend on their `type`. */
export interface ByType {
  readonly types: Readonly<Record<string, Place>>
  /** Types that providers document and that Troupe does not know. */
  readonly documented: Names
  /** Types of the dialect itself that Troupe does not know. */
  readonly others?: RegExp
  /** The type of an object without `type`. */
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
  readonly others?: Names
  /** Fields that the schema checks and that only providers of the dialect use. */
  readonly without?: Names
}

export const always: IsOptional = () => true

/** A place with the fields of a schema. */
export const placeOf = (
  schema: { readonly fields: object },
  { fields = {}, optional = {}, others, without = [] }: Options = {}
): Place => ({
  fields: {
    ...Object.fromEntries(
      Object.keys(schema.fields).filter((name) => !without.includes(name)).map((name) => [name, undefined])
    ),
    ...fields
  },
  optional: { ...Object.fromEntries(without.map((name) => [name, never])), ...optional },
  ...(others === undefined ? {} : { others })
})

const never: IsOptional = () => false

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
 * @param nested patterns of paths whose shape is another in the dialect; the first match is used
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
