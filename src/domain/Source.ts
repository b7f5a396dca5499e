/**
 * The caller's own request: its dialect and its parsed body. A provider of the same dialect is sent this body, with only
 * those fields changed that Troupe decides: the model, streaming, and what a policy changes.
 *
 * **Details**
 *
 * Fields that Troupe does not know stay in the body, and `unknownFields` lists their paths. Deployments of another dialect
 * cannot take them: they are not eligible, unless all of the fields are optional (hints, and values that are the default).
 *
 * **Gotchas**
 *
 * The body is shared between attempts and never modified. Its numbers are read with `ExactNumber.numberOf`.
 *
 * **Example**
 *
 * A program that needs one field of a dialect gives a body with nothing else; it is added to the encoded request.
 *
 * ```ts
 * const request = Inference.request({
 *   model: "gpt",
 *   messages: [{ role: "user", content: "Hello!" }],
 *   source: {
 *     dialect: "openai",
 *     body: { reasoning_effort: "low" },
 *     unknownFields: [{ path: ["reasoning_effort"] }]
 *   }
 * })
 * ```
 */
import { Schema } from "effect"
import type { DeploymentOptions } from "./Deployment.ts"
import { isRemote } from "./Deployment.ts"
import * as ExactNumber from "./ExactNumber.ts"
import { JsonText } from "./JsonText.ts"
import { formatPath } from "./Problem.ts"
import type { Dialect, Provider } from "./ProviderKind.ts"
import { dialects, kinds } from "./ProviderKind.ts"
import type { RemoteDeployment } from "./RemoteDeployment.ts"

/** Endpoints of the OpenAI dialect that have fields of their own. */
export const tasks = ["completions", "embeddings", "rerank", "classify", "tokenize"] as const
export type Task = typeof tasks[number]

type Fields = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** A field of a body that Troupe does not know. */
export const UnknownField = Schema.Struct({
  /** Names and indexes from the body down, as `["messages", 0, "name"]`. */
  path: Schema.Array(Schema.Union([Schema.String, Schema.Int])).check(Schema.isMinLength(1)),
  /** A deployment that cannot take it may ignore it; default false. */
  optional: Schema.optional(Schema.Boolean)
})
export type UnknownField = typeof UnknownField.Type

/** A field of a request of the Responses API that only its own endpoint has, and the error where a deployment has none. */
export const Need = Schema.Struct({ path: Schema.String, expected: Schema.String })
export type Need = typeof Need.Type

/** A request of the Responses API, for deployments that have its endpoint. */
export const Responses = Schema.Struct({
  /** As the caller sent it, with all items of its conversation as `input`. */
  body: Schema.declare(isObject, { expected: "an object" }),
  /** What cannot be translated into a chat; default none. */
  needs: Schema.optional(Schema.NonEmptyArray(Need))
})
export type Responses = typeof Responses.Type

/** The caller's request. */
export const Source = Schema.Struct({
  dialect: Schema.Literals(dialects),
  /** The endpoint; left out, one that chats. */
  task: Schema.optional(Schema.Literals(tasks)),
  /** Parsed JSON, an object. A number that a double does not hold may be an `ExactNumber`. */
  body: Schema.declare(isObject, { expected: "an object" }),
  /** The text that the body was parsed from, which is sent where nothing else has to change; default none. */
  text: Schema.optional(Schema.instanceOf(JsonText)),
  /** Headers that belong to the dialect, as `anthropic-beta`; names in lower case; default none. */
  headers: Schema.optional(Schema.Record(Schema.String, Schema.String)),
  /** Default none. */
  unknownFields: Schema.optional(Schema.Array(UnknownField)),
  /** The body has numbers that are `ExactNumber`; default false. */
  hasExactNumbers: Schema.optional(Schema.Boolean),
  /** A dialect has decoded and checked this request, so that it is not checked again; default false. */
  isChecked: Schema.optional(Schema.Boolean),
  /** The request is one of several that the caller's `n` stands for, whose answers must differ; default false. */
  isChoice: Schema.optional(Schema.Boolean),
  /** The bodies of all requests that the caller's prompts and choices stand for, this one's among them; default none. */
  siblings: Schema.optional(Schema.Array(Schema.declare(isObject, { expected: "an object" }))),
  /** The caller's request if it uses the Responses API; `body` then has its fields as a chat. Default none. */
  responses: Schema.optional(Responses)
})
export type Source = typeof Source.Type

/** Whether the body is a whole request: a program may give only some fields. */
export const isComplete = ({ body, dialect }: Source): boolean =>
  Array.isArray(body["messages"]) || body["input"] !== undefined ||
  (dialect !== "anthropic" && body["prompt"] !== undefined)

/** The unknown fields that no deployment may ignore. */
export const requiredFields = (source: Source | undefined): ReadonlyArray<UnknownField> =>
  source?.unknownFields?.filter(({ optional }) => optional !== true) ?? []

/** Their paths, as `messages[0].audio`. */
export const requiredPaths = (source: Source | undefined): ReadonlyArray<string> =>
  requiredFields(source).map(({ path }) => formatPath(path))

/** The value of a field of the body. */
export const valueAt = ({ body }: Source, path: UnknownField["path"]): unknown => {
  let value: unknown = body
  for (const step of path) {
    if (typeof value !== "object" || value === null) return undefined
    value = (value as Readonly<Record<string | number, unknown>>)[step]
  }
  return value
}

/** The capability to take unknown fields of a dialect, or those of the Responses API that have no translation. */
export type Capability = `${Dialect | "responses"} fields`

export const capabilities: ReadonlyArray<Capability> = [
  ...dialects.map((dialect): Capability => `${dialect} fields`),
  "responses fields"
]

/** The capability that a request needs for fields of its dialect, if it needs one. */
export const capabilityFor = (source: Source | undefined): Capability | undefined => {
  if (source?.responses?.needs !== undefined) return "responses fields"
  return source?.unknownFields?.some(({ optional }) => optional !== true) === true
    ? `${source.dialect} fields`
    : undefined
}

/** An answer, or a part of one, as a provider of the caller's dialect sent it. */
export interface Native {
  readonly dialect: Dialect | "responses"
  /** A buffered answer, or one event of a stream. */
  readonly form: "buffered" | "chunk"
  readonly body: Fields
  /** The text that the body was parsed from; left out: the body was changed, or is a part of a text. */
  readonly text?: JsonText
  /** Whether it has content beside the text and the function calls of the events after it, as thoughts or audio. */
  readonly hasMore: boolean
}

const callerDialects: { readonly [Name in Provider]?: Dialect } = Object.fromEntries(
  Object.entries(kinds).flatMap(([name, kind]) => "callerDialect" in kind ? [[name, kind.callerDialect]] : [])
)

/** The dialect that a deployment shares with callers; undefined for one that callers do not have. */
export const dialectOf = ({ provider }: DeploymentOptions): Dialect | undefined =>
  provider === undefined ? undefined : callerDialects[provider]

/** A request that may have come from a caller of some dialect. */
interface WithSource {
  readonly source?: Source | undefined
  readonly resumed?: boolean | undefined
}

/**
 * Whether the caller gets the deployment's answer as the provider sent it: not if it continues the answer of another
 * deployment.
 */
export const isNative = ({ resumed = false, source }: WithSource, options: DeploymentOptions): boolean =>
  source !== undefined && !resumed && dialectOf(options) === source.dialect

const ownUrls: { readonly [Name in Provider]?: RegExp } = Object.fromEntries(
  Object.entries(kinds).flatMap(([name, kind]) => "ownUrls" in kind ? [[name, kind.ownUrls]] : [])
)

/** Whether the provider itself serves a deployment, not another host with the same API. */
export const isOwnHost = ({ baseUrl, provider }: Pick<RemoteDeployment, "baseUrl" | "provider">): boolean => {
  const urls = ownUrls[provider]
  return urls !== undefined && (baseUrl === undefined || urls.test(baseUrl))
}

/** Whether a deployment has the endpoint of the Responses API. */
export const hasResponses = (options: DeploymentOptions): boolean =>
  isRemote(options) && (options.responses ?? isOwnHost(options))

/** Whether a generation is sent to that endpoint: not if it continues a text. */
export const isResponse = (
  { assistantPrefix, resumed = false, source }: WithSource & { readonly assistantPrefix?: string | undefined }
): boolean => source?.responses !== undefined && !resumed && assistantPrefix === undefined

/** The number of answers to one request. */
export const choicesOf = ({ source }: Pick<WithSource, "source">): number => {
  return ExactNumber.numberOf(source?.body["n"]) ?? 1
}

/** Fields of a request's body that are Troupe's own and not of any dialect. */
const own = new Set(["keep_alive", "priority", "troupe"])

/**
 * A shallow copy of the caller's body without Troupe's own fields.
 *
 * @param changes by field; undefined leaves the field out
 */
export const bodyWith = ({ body }: Source, changes: Fields): Fields => {
  const copy: Record<string, unknown> = {}
  for (const name of Object.keys(body)) {
    if (own.has(name)) continue
    const value = Object.hasOwn(changes, name) ? changes[name] : body[name]
    // `__proto__` is a name like any other in JSON.
    if (name === "__proto__") Object.defineProperty(copy, name, { value, enumerable: true })
    else if (value !== undefined) copy[name] = value
  }
  for (const name of Object.keys(changes)) {
    if (changes[name] !== undefined && !Object.hasOwn(copy, name)) copy[name] = changes[name]
  }
  return copy
}

/**
 * The caller's body with changes, without Troupe's own fields: as text where the caller's text can be kept.
 *
 * @param changes by field; undefined leaves the field out
 */
export const bodyOrTextWith = (source: Source, changes: Fields): Fields | string => {
  const { body, text } = source
  if (text === undefined) return bodyWith(source, changes)
  for (const name of own) if (Object.hasOwn(body, name)) return bodyWith(source, changes)
  return text.with(body, changes) ?? bodyWith(source, changes)
}

/** A copy of a value without the value at a path below it. A list that becomes empty is left out itself. */
const withoutAt = (value: unknown, [step, ...below]: UnknownField["path"]): unknown => {
  if (Array.isArray(value)) {
    const list = below.length === 0
      ? value.toSpliced(step as number, 1)
      : value.with(step as number, withoutAt(value[step as number], below))
    return list.length === 0 ? undefined : list
  }
  if (!isObject(value)) return value
  const inner = below.length === 0 ? undefined : withoutAt(value[step!], below)
  const others = Object.entries(value).filter(([name]) => name !== step)
  return Object.fromEntries(inner === undefined ? others : [...others, [step, inner]])
}

/** The request with another body, which its text no longer is. */
export const withBody = ({ text: _, ...source }: Source, body: Fields): Source => ({ ...source, body })

/** A path in a body after an element of a list before it was taken out. */
const shifted = (path: UnknownField["path"], removed: UnknownField["path"]): UnknownField["path"] => {
  const at = removed.length - 1
  const [index, own] = [removed[at], path[at]]
  if (typeof index !== "number" || typeof own !== "number" || own <= index) return path
  return removed.slice(0, at).every((step, depth) => path[depth] === step) ? path.with(at, own - 1) : path
}

/** The request without some of its unknown fields. */
export const withoutFields = (source: Source, fields: ReadonlyArray<UnknownField>): Source => {
  const { text: _, unknownFields = [], ...known } = source
  // From the end, so that the indexes of elements before stay.
  const removed = fields.toReversed()
  const body = removed.reduce<unknown>((body, { path }) => withoutAt(body, path), source.body)
  const others = unknownFields.filter((field) => !fields.includes(field)).map((field) => ({
    ...field,
    path: removed.reduce((path, one) => shifted(path, one.path), field.path)
  }))
  return { ...known, body: body as Fields, ...(others.length === 0 ? {} : { unknownFields: others }) }
}

/** The request without these fields. */
export const without = (source: Source, names: ReadonlyArray<string>): Source => ({
  ...source,
  body: Object.fromEntries(Object.entries(source.body).filter(([name]) => !names.includes(name)))
})
