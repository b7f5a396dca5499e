/**
 * What one request wants of its routing otherwise than its model's configuration says. Pure.
 *
 * **Details**
 *
 * A program says it in `Inference.Request.route`, a caller over HTTP in the body's field `troupe`, or in headers: the name
 * of a field after `x-troupe-`, lists with commas. Where both say it, the body counts.
 *
 * **Example**
 *
 * ```ts
 * inference.generate({ model: "chat", messages, route: { strategy: "cost", timeoutMs: 5_000, fallbacks: [] } })
 * ```
 */
import { Result, Schema } from "effect"
import * as Bounded from "./Bounded.ts"
import { names as strategies } from "./Strategies.ts"

const within = (minimum: number, maximum: number) => Schema.isBetween({ minimum, maximum })
const Name = Schema.NonEmptyString.check(Schema.isMaxLength(512))
const Names = Schema.Array(Name).check(Schema.isMaxLength(100))

/** Attempts at one deployment after its first, at most. */
export const mostRetries = 10

/** What is left out is as configured. */
export const RoutingOptions = Schema.Struct({
  /** A policy's name. */
  policy: Schema.optional(Name),
  strategy: Schema.optional(Schema.Literals(strategies)),
  /** Only these of the model's deployments, by id, as `chat#0`. */
  deployments: Schema.optional(Names),
  /** None of these. */
  except: Schema.optional(Names),
  /** Models that stand in for this one, in order; none with an empty list. */
  fallbacks: Schema.optional(Names),
  /** Requests of one session go to one deployment, by the strategy `session`; default the tenant. */
  session: Schema.optional(Name),
  /** What the request is about, as deployments name it in `tasks`. */
  task: Schema.optional(Name),
  /** Attempts at one deployment after its first. */
  retries: Schema.optional(Schema.Int.check(within(0, mostRetries))),
  /** For the request as a whole, ms; never longer than the policy says. */
  timeoutMs: Schema.optional(Schema.Int.check(within(1, 86_400_000))),
  /** Whether another deployment goes on from the text so far when one fails in the middle of an answer. */
  continue: Schema.optional(Schema.Boolean)
})
export type RoutingOptions = typeof RoutingOptions.Type

/** Why overrides cannot be followed. */
export interface Problem {
  readonly path: string
  readonly detail: string
}

const listed = (all: ReadonlyArray<string>): string => all.join(", ")

/** The first deployment that the request names and the model does not have; undefined where it has them all. */
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

/** Nothing is not 0. */
const number = (text: string): number | string => /^\d+$/.test(text) ? Number(text) : text

const list = (text: string): ReadonlyArray<string> => text.split(",").map((name) => name.trim()).filter(Boolean)

const headers = Object.entries(readers).map(([field, read]) => {
  const name = `${prefix}${field.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`
  return { field, name, read }
})

/** Their names, as `x-troupe-timeout-ms`. */
export const headerNames: ReadonlyArray<string> = headers.map(({ name }) => name)

/** What a request's headers say, unchecked; undefined where they say nothing. */
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
 * What is told of a request, with the header's name for a field of `troupe`, or of `route` within, that came in one.
 *
 * @param body as it came
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

/**
 * A body with what its headers and its field `troupe` say together, unchecked but for names: a field that does not exist
 * would be passed over, and the caller would not know.
 */
export const join = (
  body: unknown,
  given: Readonly<Record<string, string | undefined>>
): Result.Result<unknown, Problem> => {
  const said = fromHeaders(given)
  if (!isObject(body) || (said === undefined && body["troupe"] === undefined)) return Result.succeed(body)
  const own = body["troupe"] ?? {}
  if (!isObject(own)) return Result.fail({ path: "troupe", detail: "Expected an object" })
  const unknown = Object.keys(own).find((name) => !Object.hasOwn(readers, name))
  return unknown === undefined
    ? Result.succeed({ ...body, troupe: { ...said, ...own } })
    : Result.fail({
      path: `troupe.${Bounded.name(unknown)}`,
      detail: `Expected one of ${listed(Object.keys(readers))}`
    })
}
