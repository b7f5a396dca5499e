/**
 * Converts JSON schemas for providers that support a subset of JSON Schema. Pure.
 *
 * **Details**
 *
 * A schema is converted completely or rejected: a provider ignores or rejects a keyword that it does not support, and the
 * answer would not follow the caller's schema. Keywords that do not constrain answers are left out.
 */
import { Result } from "effect"
import type { Reason } from "../../domain/InferenceError.ts"
import type { JsonSchema } from "../../domain/Job.ts"
import { formatPath } from "../../domain/Problem.ts"
import { notSupported } from "./ErrorMapping.ts"
import { type Fields, fieldsOf } from "./Json.ts"
import type { Target } from "./ProviderDialect.ts"

/** The subset of a provider. */
export interface Subset {
  /** The supported keywords, and which of their values. */
  readonly known: Readonly<Record<string, (value: unknown) => boolean>>
  /** Rewrites a schema: a value that fits the new one fits the old one. */
  readonly rewrite: (schema: Fields) => Fields
}

/** A keyword of any value. */
export const any = (): boolean => true

/** Local references only. */
export const isLocal = (value: unknown): boolean => typeof value === "string" && value.startsWith("#")

/** Keywords that do not constrain answers. */
const annotations = new Set(["$schema", "$comment", "examples", "default", "deprecated", "readOnly", "writeOnly"])

type Path = ReadonlyArray<string | number>

interface Context {
  readonly subset: Subset
  readonly target: Target
}

const convertEach = (context: Context, schemas: ReadonlyArray<unknown>, path: Path) =>
  Result.all(schemas.map((schema, index) => convertSchema(context, schema, [...path, index])))

const convertNamed = (context: Context, schemas: unknown, path: Path) =>
  Result.all(
    Object.fromEntries(
      Object.entries(fieldsOf(schemas) ?? {}).map(
        ([name, schema]) => [name, convertSchema(context, schema, [...path, name])]
      )
    )
  )

/** Keywords whose value is an object of schemas. */
const namedSchemas = new Set(["properties", "$defs", "definitions"])

const convertValue = (
  context: Context,
  keyword: string,
  value: unknown,
  path: Path
): Result.Result<unknown, Reason> => {
  if (namedSchemas.has(keyword)) return convertNamed(context, value, path)
  if (keyword === "anyOf" || keyword === "prefixItems") {
    return convertEach(context, Array.isArray(value) ? value : [value], path)
  }
  return keyword === "items" || (keyword === "additionalProperties" && typeof value !== "boolean")
    ? convertSchema(context, value, path)
    : Result.succeed(value)
}

const convertSchema = (context: Context, schema: unknown, path: Path): Result.Result<Fields, Reason> => {
  const { subset, target } = context
  const fields = fieldsOf(schema)
  if (fields === undefined) {
    return Result.fail(notSupported(target, formatPath(path), "its API accepts no schema that is not an object."))
  }
  const constraints = Object.entries(subset.rewrite(fields)).filter(([keyword]) => !annotations.has(keyword))
  const unknown = constraints.find(([keyword, value]) =>
    !Object.hasOwn(subset.known, keyword) || !subset.known[keyword]!(value)
  )
  return unknown === undefined
    ? Result.all(Object.fromEntries(
      constraints.map(([keyword, value]) => [keyword, convertValue(context, keyword, value, [...path, keyword])])
    ))
    : Result.fail(
      notSupported(target, formatPath([...path, unknown[0]]), "its API does not support this part of a schema.")
    )
}

/** The converted schema, or the part that the provider does not support. */
export const convert = (schema: JsonSchema, subset: Subset, target: Target): Result.Result<Fields, Reason> =>
  convertSchema({ subset, target }, schema, ["format", "schema"])
