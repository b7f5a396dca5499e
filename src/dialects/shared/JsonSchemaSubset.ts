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
export interface Words {
  /** The supported keywords, and which of their values. */
  readonly known: Readonly<Record<string, (value: unknown) => boolean>>
  /** Rewrites a schema: a value that fits the new one fits the old one. */
  readonly rewrite: (schema: Fields) => Fields
}

/** A keyword of any value. */
export const any = (): boolean => true

/** Local references only. */
export const isLocal = (value: unknown): boolean => typeof value === "string" && value.startsWith("#")

const silent = new Set(["$schema", "$comment", "examples", "default", "deprecated", "readOnly", "writeOnly"])

type Path = ReadonlyArray<string | number>

interface Reading {
  readonly words: Words
  readonly target: Target
}

const each = (reading: Reading, schemas: ReadonlyArray<unknown>, path: Path) =>
  Result.all(schemas.map((schema, index) => said(reading, schema, [...path, index])))

const eachNamed = (reading: Reading, schemas: unknown, path: Path) =>
  Result.all(
    Object.fromEntries(
      Object.entries(fieldsOf(schemas) ?? {}).map(([name, schema]) => [name, said(reading, schema, [...path, name])])
    )
  )

const isNamed = new Set(["properties", "$defs", "definitions"])

const valueOf = (
  reading: Reading,
  keyword: string,
  value: unknown,
  path: Path
): Result.Result<unknown, Reason> => {
  if (isNamed.has(keyword)) return eachNamed(reading, value, path)
  if (keyword === "anyOf" || keyword === "prefixItems") {
    return each(reading, Array.isArray(value) ? value : [value], path)
  }
  return keyword === "items" || (keyword === "additionalProperties" && typeof value !== "boolean")
    ? said(reading, value, path)
    : Result.succeed(value)
}

const said = (reading: Reading, schema: unknown, path: Path): Result.Result<Fields, Reason> => {
  const { target, words } = reading
  const fields = fieldsOf(schema)
  if (fields === undefined) {
    return Result.fail(notSupported(target, formatPath(path), "its API accepts no schema that is not an object."))
  }
  const heard = Object.entries(words.rewrite(fields)).filter(([keyword]) => !silent.has(keyword))
  const unknown = heard.find(([keyword, value]) =>
    !Object.hasOwn(words.known, keyword) || !words.known[keyword]!(value)
  )
  return unknown === undefined
    ? Result.all(Object.fromEntries(
      heard.map(([keyword, value]) => [keyword, valueOf(reading, keyword, value, [...path, keyword])])
    ))
    : Result.fail(
      notSupported(target, formatPath([...path, unknown[0]]), "its API does not support this part of a schema.")
    )
}

/** The converted schema, or the part that the provider does not support. */
export const sayable = (schema: JsonSchema, words: Words, target: Target): Result.Result<Fields, Reason> =>
  said({ words, target }, schema, ["format", "schema"])
