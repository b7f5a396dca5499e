/**
 * Checks of request bodies that all endpoints share. Pure.
 *
 * **Gotchas**
 *
 * A field that would change the answer and that Troupe cannot honour is refused by its name, not passed over. `null`
 * means what leaving the field out means, as clients send it so.
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

/** Fields that change the answer and are not supported, with the values that ask for nothing. */
export type Unsupported = ReadonlyArray<readonly [field: string, asksForNothing: (value: unknown) => boolean]>

/** What a body must be. */
export interface Shape<A> {
  /** The body's field that a name which is not one of them was probably meant to be. */
  readonly meant: (name: string) => string | undefined
  readonly decode: (body: Body) => Result.Result<A, Schema.SchemaError>
  readonly unsupported: Unsupported
  /** Of objects in lists: the list's field and what its elements must not have. */
  readonly unsupportedWithin?: readonly [field: string, unsupported: Unsupported]
  /** The most elements of lists, counted before any is checked: checking each costs time that others wait for. */
  readonly most: ReadonlyArray<readonly [field: string, count: number]>
  /** What the schema cannot say; of bodies that the schema takes. */
  readonly problems: (decoded: A) => ReadonlyArray<Problem>
}

export const notSupported = "This field is not supported; leave it out"

const unsupportedIn = (body: Body, fields: Unsupported, prefix = ""): ReadonlyArray<Problem> =>
  fields.filter(([field, asksForNothing]) => (body[field] ?? null) !== null && !asksForNothing(body[field])).map((
    [field]
  ) => ({ path: `${prefix}${field}`, expected: notSupported }))

const unsupportedWithin = (body: Body, within: Shape<never>["unsupportedWithin"]): ReadonlyArray<Problem> => {
  if (within === undefined) return []
  const [field, unsupported] = within
  const list = body[field]
  return Array.isArray(list)
    ? list.flatMap((one: unknown, index) => isBody(one) ? unsupportedIn(one, unsupported, `${field}[${index}].`) : [])
    : []
}

const dropNulls = (body: Body): Body => Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null))

const isLonger = (list: unknown, count: number): boolean => Array.isArray(list) && list.length > count

const refuse = (path: string, detail: string): Result.Result<never, InvalidRequest> =>
  Result.fail(new InvalidRequest(path === "" ? { detail } : { detail, path }))

/** A comparison with every field costs time that others wait for. */
const mostCompared = 100

/** The problems, where a field is missing with the name that the body has instead: misspelt, or another API's. */
const withMisnamed = (body: Body, meant: Shape<never>["meant"], problems: ReadonlyArray<Problem>) => {
  const missing = new Set(problems.map(({ path }) => path).filter((path) => !Object.hasOwn(body, path)))
  if (missing.size === 0) return problems
  const instead = new Map<string | undefined, string>()
  for (const name of Object.keys(body).slice(0, mostCompared)) instead.set(meant(name), name)
  return problems.map((problem) => {
    const name = missing.has(problem.path) ? instead.get(problem.path) : undefined
    return name === undefined
      ? problem
      : { ...problem, expected: `${problem.expected}; ${Bounded.name(name)} is unknown. Did you mean ${problem.path}?` }
  })
}

/** What a parsed JSON body asks for; of several problems, the first is the error's path, all are its text. */
export const decode = <A>(json: unknown, shape: Shape<A>): Result.Result<A, InvalidRequest> => {
  if (!isBody(json)) return refuse("", "Expected the body to be a JSON object")
  const body = dropNulls(json)
  const long = shape.most.find(([field, count]) => isLonger(body[field], count))
  if (long !== undefined) return refuse(long[0], `Expected at most ${long[1]} ${long[0]}`)
  const decoded = shape.decode(body)
  const wrong = Result.isFailure(decoded)
    ? Problems.fromSchemaError(decoded.failure)
    : shape.problems(decoded.success)
  const [first, ...others] = [
    ...unsupportedIn(body, shape.unsupported),
    ...unsupportedWithin(body, shape.unsupportedWithin),
    ...(wrong.length === 0 ? [] : withMisnamed(body, shape.meant, wrong))
  ]
  if (first !== undefined) return refuse(first.path, Problems.summary(first, others))
  return Result.mapError(decoded, () => new InvalidRequest({ detail: "Expected another body" }))
}
