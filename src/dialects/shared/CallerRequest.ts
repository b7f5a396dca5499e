/**
 * Decodes the parts of a request that all dialects of callers share: checks of the body, unknown fields, and the caller's
 * identity and options. Pure.
 *
 * **Gotchas**
 *
 * `null` is the same as a missing field: clients send it for options that they do not set.
 */
import type { Schema } from "effect"
import { Duration, Result } from "effect"
import { LRUCache } from "lru-cache"
import { hash } from "node:crypto"
import * as CacheControl from "../../domain/CacheControl.ts"
import type { Caller } from "../../domain/Caller.ts"
import { tenantHeader } from "../../domain/Caller.ts"
import type { Identity } from "../../domain/Identity.ts"
import { InvalidRequest } from "../../domain/InferenceError.ts"
import { nearestName } from "../../domain/NearestName.ts"
import * as Problem from "../../domain/Problem.ts"
import type { RoutingOptions } from "../../domain/RoutingOptions.ts"
import type { UnknownField } from "../../domain/Source.ts"
import * as Text from "../../domain/Text.ts"
import * as Time from "../../domain/Time.ts"
import type { callerFields } from "../openai/Schema.ts"
import type { BodyFields, ByType, Place } from "./FieldNames.ts"
import type { Fields } from "./Json.ts"
import { isObject, isOneOf, typeOf } from "./Json.ts"

/** How the bodies of an endpoint are decoded. */
export interface Shape<A> {
  /** Suggests the known name that an unknown field of the body probably means. */
  readonly suggest: (name: string) => string | undefined
  readonly decode: (body: Fields) => Result.Result<A, Schema.SchemaError>
  /** The most elements of lists, counted before any is checked: a check of each takes time on the event loop. */
  readonly most: ReadonlyArray<readonly [field: string, count: number]>
  /** Checks what the schema cannot express; for bodies that the schema accepts. */
  readonly problems: (decoded: A) => ReadonlyArray<Problem.Problem>
}

const hasNull = (body: Fields): boolean => {
  for (const name in body) if (body[name] === null) return true
  return false
}

const dropNulls = (body: Fields): Fields =>
  hasNull(body) ? Object.fromEntries(Object.entries(body).filter(([, value]) => value !== null)) : body

const isLonger = (list: unknown, count: number): boolean => Array.isArray(list) && list.length > count

/**
 * The message for an object that has the type of a known alternative and not its fields. It is left out if there are
 * problems of that alternative, which are more specific.
 */
export const fieldsOfType = (type: string): string => `Expected the fields of type ${type}`

const isUnspecific = ({ expected }: Problem.Problem): boolean => expected.startsWith(fieldsOfType(""))

const literals = /^Expected one of "/

const numbers = /^Expected a (?:whole )?number/

const valueAt = (body: Fields, path: ReadonlyArray<PropertyKey>): unknown => {
  let value: unknown = body
  for (const key of path) value = (value as Readonly<Record<PropertyKey, unknown>> | null | undefined)?.[key]
  return value
}

/** The text after a problem: the literal that a misspelt one probably means, or a number that is not allowed. */
const hintFor = (expected: string, value: unknown): string => {
  if (Number.isFinite(value) && numbers.test(expected)) return `, got ${String(value)}`
  if (typeof value !== "string" || !literals.test(expected)) return ""
  const nearest = nearestName(value, [...expected.matchAll(/"([^"]*)"/g)].map(([, name]) => name!))
  return nearest === undefined ? "" : `. Did you mean "${nearest}"?`
}

/** The text after the problem of a missing field inside the body: the name that is there instead, probably misspelt. */
const misnamedIn = (parent: unknown, name: string): string => {
  if (!isObject(parent) || Object.hasOwn(parent, name)) return ""
  const instead = Object.keys(parent).slice(0, mostCompared).find((one) => nearestName(one, [name]) === name)
  return instead === undefined ? "" : misnamed(instead, name)
}

const misnamed = (instead: string, name: string): string =>
  `; ${Text.cutName(instead)} is unknown. Did you mean ${name}?`

/** Adds to a problem what the author of the body probably means. */
const withHint = (body: Fields, { expected, path }: Problem.KeyedProblem): Problem.KeyedProblem => {
  const name = path.at(-1)
  const hint = path.length > 1 && typeof name === "string"
    ? misnamedIn(valueAt(body, path.slice(0, -1)), name)
    : ""
  return { path, expected: `${expected}${hint === "" ? hintFor(expected, valueAt(body, path)) : hint}` }
}

/** Adds the same to the problems that the schema cannot express: their paths are texts. */
const withHints = (body: Fields, problems: ReadonlyArray<Problem.Problem>): ReadonlyArray<Problem.Problem> =>
  problems.map(({ expected, path }) => ({ path, expected: withHint(body, { expected, path: keysOf(path) }).expected }))

const keysOf = (path: string): ReadonlyArray<string> => path.split(/[.[\]]+/).filter((key) => key !== "")

/** The problems of a body that its schema rejects. */
const schemaProblems = (body: Fields, error: Schema.SchemaError): ReadonlyArray<Problem.Problem> => {
  const problems = Problem.keyed(error)
    .map((problem, index) => index < mostCompared ? withHint(body, problem) : problem)
    .map(({ expected, path }) => ({ path: Problem.formatPath(path), expected }))
  const own = problems.filter((problem) => !isUnspecific(problem))
  return own.length === 0 ? problems : own
}

/** A comparison of names takes time on the event loop. */
const mostCompared = 100

const refuse = (path: string, detail: string): Result.Result<never, InvalidRequest> =>
  Result.fail(new InvalidRequest(path === "" ? { detail } : { detail, path, inBody: true }))

/** Adds to the problem of a missing field the name that the body has instead: misspelt, or of another API. */
const withMisnamed = (body: Fields, suggest: Shape<never>["suggest"], problems: ReadonlyArray<Problem.Problem>) => {
  const missing = new Set(problems.map(({ path }) => path).filter((path) => !Object.hasOwn(body, path)))
  if (missing.size === 0) return problems
  const instead = new Map<string | undefined, string>()
  for (const name of Object.keys(body).slice(0, mostCompared)) instead.set(suggest(name), name)
  return problems.map((problem) => {
    const name = missing.has(problem.path) ? instead.get(problem.path) : undefined
    return name === undefined
      ? problem
      : { ...problem, expected: `${problem.expected}${misnamed(name, problem.path)}` }
  })
}

/** Decodes a parsed body. Of several problems, the error has the path of the first and the texts of all. */
export const decodeBody = <A>(json: unknown, shape: Shape<A>): Result.Result<A, InvalidRequest> => {
  if (!isObject(json)) return refuse("", "The body must be a JSON object")
  const body = dropNulls(json)
  const long = shape.most.find(([field, count]) => isLonger(body[field], count))
  if (long !== undefined) return refuse(long[0], `Expected at most ${long[1]} elements`)
  const decoded = shape.decode(body)
  const wrong = Result.isFailure(decoded)
    ? schemaProblems(body, decoded.failure)
    : withHints(body, shape.problems(decoded.success))
  const [first, ...others] = wrong.length === 0 ? [] : withMisnamed(body, shape.suggest, wrong)
  if (first !== undefined) return refuse(first.path, Problem.summary(first, others))
  return Result.mapError(decoded, () => new InvalidRequest({ detail: "The body is invalid" }))
}

export const isByType = (place: Place | ByType): place is ByType => "types" in place

/** The table of a value; undefined for an unknown type. */
export const placeFor = (place: Place | ByType, value: unknown): Place | undefined => {
  if (!isByType(place)) return place
  const type = typeOf(value) ?? place.defaultType
  return typeof type === "string" && Object.hasOwn(place.types, type) ? place.types[type] : undefined
}

const isOptionalAt = ({ optional }: Place, name: string, value: unknown): boolean =>
  optional === "all" || (Object.hasOwn(optional, name) && optional[name]!(value))

const unknownField = Symbol("unknown")

/** A search for unknown fields. */
interface Search {
  readonly found: Array<UnknownField>
  /** The path of the value that is searched. */
  readonly path: Array<string | number>
}

const add = ({ found, path }: Search, isOptional: boolean): void => {
  found.push(isOptional ? { path: [...path], optional: true } : { path: [...path] })
}

const findInObject = (value: Fields, place: Place, search: Search): void => {
  const { path } = search
  for (const name in value) {
    const one = value[name]
    const inner = Object.hasOwn(place.fields, name) ? place.fields[name] : unknownField
    if (inner === undefined) continue
    path.push(name)
    if (inner !== unknownField) find(one, inner, search)
    // `null` is the same as a missing field.
    else if (one !== null) add(search, isOptionalAt(place, name, one))
    path.pop()
  }
}

const find = (value: unknown, place: Place | ByType, search: Search): void => {
  if (Array.isArray(value)) {
    for (let index = 0; index < value.length; index++) {
      search.path.push(index)
      find(value[index], place, search)
      search.path.pop()
    }
  } else if (isObject(value)) {
    const found = placeFor(place, value)
    if (found !== undefined && (found.accepts?.(value) ?? true)) findInObject(value, found, search)
    else add(search, isByType(place) && isOneOf(place.optionalTypes ?? [], typeOf(value)))
  }
}

/** The fields of a body that its table does not have. */
export const unknownFieldsOf = (body: unknown, table: BodyFields): ReadonlyArray<UnknownField> => {
  const search: Search = { found: [], path: [] }
  find(body, table, search)
  return search.found
}

/** What identifies a caller, in addition to fields of the body. */
export interface CallerIdentity {
  /** A bearer token, or the dialect's own key. */
  readonly key?: string | undefined
  /** Of the caller's virtual key, if the service has keys. */
  readonly identity?: Identity | undefined
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string | undefined>> | undefined
}

/** The fields of a body that identify the caller and its options. */
type CallerFields = { readonly [Field in keyof typeof callerFields]?: (typeof callerFields)[Field]["Type"] }

/** The longest duration of Go, ms: 292 years. */
const maxGoDuration = 2 ** 63 / 1e6

/** Ollama's `keep_alive`: a number of seconds or a duration of Go; a negative value means without a limit. */
export const keepAliveOf = (value: number | string): Duration.Duration => {
  const ms = typeof value === "number" ? value * 1000 : Time.goDurationMs(value)
  return ms < 0 || ms > maxGoDuration ? Duration.infinity : Duration.millis(Math.ceil(ms))
}

const identityKey = Symbol("identity")

interface Identified {
  [identityKey]?: Identity
}

/** The identity of a request's caller; undefined where the service has no keys, and for a request that is not Node's. */
export const identityOf = (request: object): Identity | undefined => (request as Identified)[identityKey]

/** Records the identity of a request's caller. */
export const setIdentity = (request: object, identity: Identity): void => {
  ;(request as Identified)[identityKey] = identity
}

/** The token of an `Authorization` header that has one. */
export const bearerTokenOf = (authorization: string | undefined): string | undefined =>
  /^bearer +(\S+) *$/i.exec(authorization ?? "")?.[1]

/** Characters of base64: 120 bits. */
const fingerprintLength = 20

/** The fingerprints of the latest callers: clients send the same key with every request. */
const fingerprints = new LRUCache<string, string>({ max: 1_000 })

/** Keys are secret and user names personal, so only their hash is passed on. */
const fingerprint = (kind: "token" | "user", text: string): string => {
  const named = `${kind} ${text}`
  const known = fingerprints.get(named)
  if (known !== undefined) return known
  const made = hash("sha256", named, "base64url").slice(0, fingerprintLength)
  fingerprints.set(named, made)
  return made
}

/** The longest tenant of another instance that is used as it is, characters. */
const longestTenant = 100

/** The tenant of a key, or the one that a key names which may do so. */
const tenantOfKey = ({ setsTenant, tenant }: Identity, named: string | undefined): string => {
  if (!setsTenant || named === undefined || named === "") return tenant
  return named.length <= longestTenant ? named : fingerprint("user", named)
}

/** Another instance sends the tenant in a header, because the body is its caller's. */
const tenantOf = (fields: CallerFields, { headers = {}, identity, key }: CallerIdentity): string => {
  if (identity !== undefined) return tenantOfKey(identity, headers[tenantHeader])
  if (key !== undefined) return fingerprint("token", key)
  const user = headers[tenantHeader] ?? fields.safety_identifier ?? fields.user ?? ""
  return user === "" ? "" : fingerprint("user", user)
}

/** The tenant and the options of a request; without a key and a user, the tenant is "", the default. */
export const callerOf = (
  fields: CallerFields,
  caller: CallerIdentity
): Caller & { readonly route?: RoutingOptions } => {
  const tenant = tenantOf(fields, caller)
  return {
    ...(caller.identity === undefined ? {} : { identity: caller.identity }),
    ...(tenant === "" ? {} : { tenant }),
    ...(fields.priority === undefined ? {} : { priority: fields.priority }),
    ...(fields.keep_alive === undefined ? {} : { keepAlive: keepAliveOf(fields.keep_alive) }),
    ...(fields.troupe === undefined ? {} : { route: fields.troupe })
  }
}

/** What the caller's `Cache-Control` says about cached answers. */
export const cacheOf = ({ headers = {} }: CallerIdentity): { readonly cache?: CacheControl.CacheControl } => {
  const header = headers["cache-control"]
  const cache = header === undefined ? undefined : CacheControl.parse(header)
  return cache === undefined ? {} : { cache }
}

const requestId: unique symbol = Symbol("troupe/dialects/shared/CallerRequest/id")

/** Keeps the id of the response with a request. */
export const setRequestId = (request: object, id: string): void => {
  ;(request as { [requestId]?: string })[requestId] = id
}

/** The id of the response to a request; undefined before it has one. */
export const requestIdOf = (request: object | undefined): string | undefined =>
  request && (request as { readonly [requestId]?: string })[requestId]
