/**
 * Routing options of one request, which override the configuration of its model. Pure.
 *
 * **Details**
 *
 * A program sets them in `Inference.Request.route`, an HTTP client in the body's field `troupe` or in headers: `x-troupe-`
 * and the name of a field, lists separated by commas. The body overrides the headers.
 *
 * **Example**
 *
 * ```ts
 * inference.generate({ model: "chat", messages, route: { strategy: "cost", timeoutMs: 5_000, fallbacks: [] } })
 * ```
 */
import { Result, Schema } from "effect"
import { nearestName } from "./NearestName.ts"
import { expectedWholeNumber, wholeNumber } from "./Problem.ts"
import { names as strategies } from "./Strategies.ts"
import * as Text from "./Text.ts"

/** The message for a value of any type, since every value of a header is text. */
const withMessage = <S extends Schema.Top>(schema: S, message: string) =>
  Schema.optionalKey(Schema.UndefinedOr(schema).annotate({ message }))

const within = (minimum: number, maximum: number) =>
  withMessage(wholeNumber(minimum, maximum), expectedWholeNumber(minimum, maximum))

const Name = Schema.NonEmptyString.check(Schema.isMaxLength(512))
const Names = Schema.Array(Name).check(Schema.isMaxLength(100))

/** The most retries at one deployment. */
export const mostRetries = 10

/** An option that is left out is as configured. */
export const RoutingOptions = Schema.Struct({
  /** A policy's name. */
  policy: Schema.optional(Name),
  strategy: Schema.optional(Schema.Literals(strategies)),
  /** Only these of the model's deployments, by id, as `chat#0`. */
  deployments: Schema.optional(Names),
  /** None of these. */
  except: Schema.optional(Names),
  /** Fallback models, in order; an empty list: none. */
  fallbacks: Schema.optional(Names),
  /** Requests of one session go to one deployment, by the strategy `session`; default the tenant. */
  session: Schema.optional(Name),
  /** The task of the request, as deployments list it in `tasks`. */
  task: Schema.optional(Name),
  /** Retries at one deployment. */
  retries: within(0, mostRetries),
  /** The limit of the whole request, ms; the limit of the policy still applies. */
  timeoutMs: within(1, 86_400_000),
  /** Whether another deployment continues an answer that breaks off. */
  continue: withMessage(Schema.Boolean, "Expected true or false")
})
export type RoutingOptions = typeof RoutingOptions.Type

/** Why options cannot be applied. */
export interface Problem {
  readonly path: string
  readonly detail: string
}

const listed = (all: ReadonlyArray<string>): string => all.join(", ")

/** The first named deployment that the model does not have; undefined if it has all of them. */
export const unknownDeployment = (
  { deployments, except }: RoutingOptions,
  known: ReadonlyArray<string>
): Problem | undefined => {
  for (const [path, names] of [["deployments", deployments], ["except", except]] as const) {
    const index = names?.findIndex((name) => !known.includes(name)) ?? -1
    if (index >= 0) {
      return {
        path: `${path}[${index}]`,
        detail: `Expected the id of one of the model's deployments: ${listed(known)}`
      }
    }
  }
  return undefined
}

const prefix = "x-troupe-"

/** How each field is written in a header. */
const readers: { readonly [Field in keyof RoutingOptions]-?: (text: string) => unknown } = {
  policy: String,
  strategy: String,
  deployments: (text) => list(text),
  except: (text) => list(text),
  fallbacks: (text) => list(text),
  session: String,
  task: String,
  retries: (text) => number(text),
  timeoutMs: (text) => number(text),
  continue: (text) => text === "true" || (text === "false" ? false : text)
}

/** An empty text is not the number 0. */
const number = (text: string): number | string => /^\d+$/.test(text) ? Number(text) : text

const list = (text: string): ReadonlyArray<string> => text.split(",").map((name) => name.trim()).filter(Boolean)

const headers = Object.entries(readers).map(([field, read]) => {
  const name = `${prefix}${field.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
  return { field, name, read }
})

/** The names of the headers, as `x-troupe-timeout-ms`. */
export const headerNames: ReadonlyArray<string> = headers.map(({ name }) => name)

/** The options in a request's headers, unchecked; undefined without any. */
export const fromHeaders = (given: Readonly<Record<string, string | undefined>>): object | undefined => {
  let found: Record<string, unknown> | undefined
  for (const { field, name, read } of headers) {
    const text = given[name]
    if (text !== undefined) (found ??= {})[field] = read(text)
  }
  return found
}

const isObject = (value: unknown): value is Readonly<Record<string, unknown>> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/**
 * The text of an error with the name of the header in place of the path of an option that was set by a header.
 *
 * @param body as received
 */
export const named = (
  text: string,
  body: unknown,
  given: Readonly<Record<string, string | undefined>>
): string => {
  const own = isObject(body) && isObject(body["troupe"]) ? body["troupe"] : {}
  return text.replace(/(?<![\w.-])(?:troupe|route)\.(\w+)(?:\[\d+\])?/g, (path: string, field: string) => {
    const header = headers.find((one) => one.field === field)
    return header === undefined || given[header.name] === undefined || Object.hasOwn(own, field) ? path : header.name
  })
}

const didYouMean = (unknown: string): string => {
  const nearest = nearestName(unknown, Object.keys(readers))
  return nearest === undefined ? "" : `. Did you mean ${nearest}?`
}

/**
 * A body whose field `troupe` has the options of the headers and of the body. Only their names are checked, since the
 * decoder of a body ignores unknown fields.
 */
export const join = (
  body: unknown,
  given: Readonly<Record<string, string | undefined>>
): Result.Result<unknown, Problem> => {
  const fromHeader = fromHeaders(given)
  if (!isObject(body)) return Result.succeed(body)
  const own = body["troupe"] ?? {}
  if (!isObject(own)) return Result.fail({ path: "troupe", detail: "Expected an object" })
  const unknown = Object.keys(own).find((name) => !Object.hasOwn(readers, name))
  return unknown === undefined
    ? Result.succeed({ ...body, troupe: { ...fromHeader, ...own } })
    : Result.fail({
      path: `troupe.${Text.cutName(unknown)}`,
      detail: `Expected one of ${listed(Object.keys(readers))}${didYouMean(unknown)}`
    })
}
