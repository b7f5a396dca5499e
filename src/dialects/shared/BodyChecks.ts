/**
 * Checks of request bodies that all endpoints share. Pure.
 *
 * **Gotchas**
 *
 * `null` means what leaving the field out means: clients send it for options that they do not set.
 */
import type { Schema } from "effect"
import { Result } from "effect"
import * as Bounded from "../../domain/Bounded.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import type { Problem } from "../../domain/Problem.ts"
import * as Problems from "../../domain/Problem.ts"

/** A JSON object. */
export type Body = Readonly<Record<string, unknown>>

const isBody = (json: unknown): json is Body => typeof json === "object" && json !== null && !Array.isArray(json)

/** What a body must be. */
export interface Shape<A> {
  /** Suggests the known name that an unknown field of the body probably means. */
  readonly suggest: (name: string) => string | undefined
  readonly decode: (body: Body) => Result.Result<A, Schema.SchemaError>
  /** The most elements of lists, counted before any is checked: a check of each takes time on the event loop. */
  readonly most: ReadonlyArray<readonly [field: string, count: number]>
  /** Checks what the schema cannot express; for bodies that the schema accepts. */
  readonly problems: (decoded: A) => ReadonlyArray<Problem>
}

const dropNulls = (body: Body): Body => Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))

const isLonger = (list: unknown, count: number): boolean => Array.isArray(list) && list.length > count

/** The names of JSON types in errors. */
const typeNames: Readonly<Record<string, string>> = {
  array: "an array",
  boolean: "a boolean",
  null: "null",
  number: "a number",
  object: "an object",
  string: "a string"
}

const listed = (names: ReadonlyArray<string>): string =>
  names.length === 1 ? names[0]! : `${names.slice(0, -1).join(", ")} or ${names.at(-1)!}`

const isTypes =
  /^Expected ((?:array|boolean|null|number|object|string)(?: \| (?:array|boolean|null|number|object|string))*)$/

/** Messages of schemas, in terms of JSON. */
const wordings: ReadonlyArray<readonly [message: RegExp, text: string]> = [
  [/^Expected a value between (-?[\d.]+) and (-?[\d.]+)$/, "Expected a number from $1 to $2"],
  [/^Expected a value greater than or equal to (-?[\d.]+)$/, "Expected a number of at least $1"],
  [/^Expected a value that is not empty$/, "Expected a string that is not empty"]
]

const worded = (expected: string): string => {
  const [, types] = isTypes.exec(expected) ?? []
  if (types !== undefined) return `Expected ${listed(types.split(" | ").map((type) => typeNames[type]!))}`
  return wordings.reduce((text, [pattern, words]) => text.replace(pattern, words), expected)
}

/**
 * The message for an object that has the type of a known alternative and not its fields. The problems of that alternative
 * say more, so this one is left out beside them.
 */
export const fieldsOfType = (type: string): string => `Expected the fields of type ${type}`

const isEcho = ({ expected }: Problem): boolean => expected.startsWith(fieldsOfType(""))

/** The problems of a body that its schema rejects. */
const schemaProblems = (error: Schema.SchemaError): ReadonlyArray<Problem> => {
  const problems = Problems.fromSchemaError(error)
  const own = problems.filter((problem) => !isEcho(problem))
  return (own.length === 0 ? problems : own).map((problem) => ({ ...problem, expected: worded(problem.expected) }))
}

const refuse = (path: string, detail: string): Result.Result<never, InvalidRequest> =>
  Result.fail(new InvalidRequest(path === "" ? { detail } : { detail, path }))

/** A comparison of names takes time on the event loop. */
const mostCompared = 100

/** Adds to the problem of a missing field the name that the body has instead: misspelt, or of another API. */
const withMisnamed = (body: Body, suggest: Shape<never>["suggest"], problems: ReadonlyArray<Problem>) => {
  const missing = new Set(problems.map(({ path }) => path).filter((path) => !Object.hasOwn(body, path)))
  if (missing.size === 0) return problems
  const instead = new Map<string | undefined, string>()
  for (const name of Object.keys(body).slice(0, mostCompared)) instead.set(suggest(name), name)
  return problems.map((problem) => {
    const name = missing.has(problem.path) ? instead.get(problem.path) : undefined
    return name === undefined
      ? problem
      : { ...problem, expected: `${problem.expected}; ${Bounded.name(name)} is unknown. Did you mean ${problem.path}?` }
  })
}

/** Decodes a parsed body. Of several problems, the error has the path of the first and the texts of all. */
export const decode = <A>(json: unknown, shape: Shape<A>): Result.Result<A, InvalidRequest> => {
  if (!isBody(json)) return refuse("", "The body must be a JSON object")
  const body = dropNulls(json)
  const long = shape.most.find(([field, count]) => isLonger(body[field], count))
  if (long !== undefined) return refuse(long[0], `Expected at most ${long[1]} elements`)
  const decoded = shape.decode(body)
  const wrong = Result.isFailure(decoded)
    ? schemaProblems(decoded.failure)
    : shape.problems(decoded.success)
  const [first, ...others] = wrong.length === 0 ? [] : withMisnamed(body, shape.suggest, wrong)
  if (first !== undefined) return refuse(first.path, Problems.summary(first, others))
  return Result.mapError(decoded, () => new InvalidRequest({ detail: "The body is invalid" }))
}
