/** What is wrong with data from outside, and where: for configuration files and request bodies alike. */
import type { Result } from "effect"
import { Schema, SchemaIssue } from "effect"
import * as SchemaJITCompiler from "effect/schema/SchemaJITCompiler"
import { didYouMean } from "./NearestName.ts"
import * as Text from "./Text.ts"

/** One thing that is wrong. */
export const Problem = Schema.Struct({
  /** Where, as `models.tiny-chat.deployments[0].file`; empty for the whole. */
  path: Schema.String,
  /** What was expected there. */
  expected: Schema.String,
  /** Where in the file, from 1; left out where that is not known. */
  line: Schema.optionalKey(Schema.Int),
  column: Schema.optionalKey(Schema.Int)
})
export type Problem = typeof Problem.Type

/** A path in the notation of JavaScript, `stop[0]`, of bounded length. */
export const formatPath = (path: ReadonlyArray<PropertyKey>): string =>
  Text.cut(
    path.reduce<string>((text, key) => {
      if (typeof key === "number") return `${text}[${key}]`
      const name = Text.cutName(String(key))
      return text === "" ? name : `${text}.${name}`
    }, ""),
    Text.longestPath
  )

/** One line for people. */
export const format = ({ column, expected, line, path }: Problem): string => {
  const where = line === undefined ? "" : ` (line ${line}, column ${column})`
  return path === "" ? `${expected}${where}` : `${path}: ${expected}${where}`
}

/** Problems that a summary names. */
export const mostListed = 10

/** The first problem, then the others in short. The length is bounded, whatever the data. */
export const summary = (first: Problem, others: ReadonlyArray<Problem>): string => {
  const listed = [first.expected, ...others.slice(0, mostListed - 1).map(format)].join("; ")
  const more = others.length + 1 - mostListed
  return more > 0 ? `${listed}; and ${more} more` : listed
}

/** The message for a value that is not a whole number of this range. */
export const expectedWholeNumber = (minimum: number, maximum?: number): string =>
  maximum === undefined
    ? `Expected a whole number of at least ${minimum}`
    : `Expected a whole number from ${minimum} to ${maximum}`

/** The message for a number that is too large to be exact has the largest one and the number. */
export const withLargest = (expected: string, value: unknown): string => {
  const [, least] = /^Expected a whole number of at least (-?\d+)$/.exec(expected) ?? []
  return least !== undefined && typeof value === "number" && value > Number.MAX_SAFE_INTEGER
    ? `${expectedWholeNumber(Number(least), Number.MAX_SAFE_INTEGER)} (2^53 - 1), not ${value}`
    : expected
}

/** A whole number of this range, whose message has the range whatever is wrong with the value. */
export const wholeNumber = (minimum: number, maximum?: number) => {
  const message = expectedWholeNumber(minimum, maximum)
  const isWithin = maximum === undefined
    ? Schema.isGreaterThanOrEqualTo(minimum, { message })
    : Schema.isBetween({ minimum, maximum }, { message })
  // An integer is finite.
  // @effect-diagnostics-next-line schemaNumber:off
  return Schema.Number.annotate({ message }).check(Schema.isInt({ message }).abort(), isWithin)
}

const emptyList = "Expected at least one element"

/** For a list that must not be empty. */
export const atLeastOne = Schema.isMinLength(1, { message: emptyList })

const unexpected = "Expected no excess property"

/**
 * For an unknown field, the names of the known fields, a line each: the schema has them, and the path has the unknown
 * name.
 */
const leafMessage: SchemaIssue.LeafHook = (issue) =>
  issue._tag === "UnexpectedKey" && issue.ast._tag === "Objects"
    ? [unexpected, ...issue.ast.propertySignatures.map(({ name }) => String(name))].join("\n")
    : SchemaIssue.defaultLeafHook(issue)

/** @param names of the known fields */
export const noSuchField = (name: string, names: Iterable<string>): string => {
  const meant = didYouMean(name, [...names])
  return meant === "" ? "Unknown field" : `Unknown field.${meant}`
}

/** The members of a union of structs that a literal distinguishes, as the schema's message lists them. */
const kinds = /\{ readonly "(\w+)": ("[^"]+"), \.\.\. \}/g

/** The names of types in errors. */
const typeNames: Readonly<Record<string, string>> = {
  array: "an array",
  boolean: "a boolean",
  false: "false",
  null: "null",
  number: "a number",
  object: "an object",
  string: "a string",
  true: "true"
}

const oneType = `(?:${Object.keys(typeNames).join("|")})`

const isTypes = new RegExp(`^Expected (${oneType}(?: \\| ${oneType})*)$`)

const listed = (names: ReadonlyArray<string>): string =>
  names.length === 1 ? names[0]! : `${names.slice(0, -1).join(", ")} or ${names.at(-1)!}`

/** Messages of schemas in plain words, for authors of the data. */
const wordings: ReadonlyArray<readonly [message: RegExp, words: string]> = [
  [/ \| undefined$/, ""],
  [/^Expected (?="[^"]*"(?: \| "[^"]*")+$)/, "Expected one of "],
  [/" \| "/g, "\", \""],
  [/^Expected a value with a length of at least 1$/, "Expected a string that is not empty"],
  [/^Expected a value between (-?[\d.]+) and (-?[\d.]+)$/, "Expected a number from $1 to $2"],
  [/^Expected a value greater than or equal to (-?[\d.]+)$/, "Expected a number of at least $1"],
  [/^Expected an integer$/, "Expected a whole number"],
  [/^Expected a string matching the RegExp (.+)$/s, "Expected text that matches $1"],
  [/^Expected a string representing a finite number$/, "Expected a number"]
]

const worded = (message: string): string => {
  const text = wordings.reduce((text, [pattern, words]) => text.replace(pattern, words), message)
  const [, types] = isTypes.exec(text) ?? []
  return types === undefined ? text : `Expected ${listed(types.split(" | ").map((type) => typeNames[type]!))}`
}

/** Rewrites a schema's message for the author of the data. */
const inWords = (path: ReadonlyArray<PropertyKey>, message: string) => {
  if (message.startsWith(unexpected)) {
    return { path, expected: noSuchField(String(path.at(-1)), message.split("\n").slice(1)) }
  }
  // Only a list that must not be empty can miss an element.
  if (message === "Missing key" && typeof path.at(-1) === "number") {
    return { path: path.slice(0, -1), expected: emptyList }
  }
  if (message === "Missing key") return { path, expected: `\`${Text.cutName(String(path.at(-1)))}\` is required` }
  // Schemas that have names are those of objects.
  if (/^Expected [A-Z]\w*$/.test(message)) return { path, expected: "Expected an object" }
  const found = [...message.matchAll(kinds)]
  const last = found.pop()
  // `undefined` cannot be written in JSON or YAML.
  if (last === undefined) return { path, expected: worded(message) }
  const others = found.map(([, , kind]) => kind).join(", ")
  return { path: [...path, last[1]!], expected: `Expected ${others === "" ? "" : `${others} or `}${last[2]}` }
}

const issues = SchemaIssue.makeFormatterStandardSchemaV1({ leafHook: leafMessage })

/** A problem whose path is still a list of keys. */
export interface KeyedProblem {
  readonly path: ReadonlyArray<PropertyKey>
  readonly expected: string
}

/** Every problem of a failed decoding, with its path as keys. */
export const keyed = (error: Schema.SchemaError): ReadonlyArray<KeyedProblem> =>
  issues(error.issue).issues.map((issue) =>
    inWords((issue.path ?? []).map((key) => typeof key === "object" ? key.key : key), issue.message)
  )

/** Every problem of a failed decoding. */
export const fromSchemaError = (error: Schema.SchemaError): ReadonlyArray<Problem> =>
  keyed(error).map(({ expected, path }) => ({ path: formatPath(path), expected }))

/**
 * A decoder that reports every problem, compiled to a function at its first use, which takes half the time of the
 * interpreter. It is interpreted where the program may not compile code.
 */
export const decoderOf = <S extends Schema.ConstraintDecoder<unknown>>(
  schema: S
): (input: unknown) => Result.Result<S["Type"], Schema.SchemaError> => {
  SchemaJITCompiler.enable(schema.ast)
  return Schema.decodeUnknownResult(schema, { errors: "all" })
}
