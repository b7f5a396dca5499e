/**
 * The caller's own request: its dialect and its parsed body. A provider of the same dialect is sent this body, with only
 * those fields changed that Troupe decides: the model, streaming, and what a policy changes.
 *
 * **Gotchas**
 *
 * The body is shared between attempts and never modified.
 */
import { Schema } from "effect"
import type { DeploymentOptions } from "./Deployment.ts"
import { isRemote } from "./Deployment.ts"
import * as PassThrough from "./PassThrough.ts"
import { providerKindOf } from "./ProviderKind.ts"

type Fields = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Fields =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** The caller's request. */
export const Source = Schema.Struct({
  dialect: Schema.Literals(PassThrough.dialects),
  /** Parsed JSON, an object. */
  body: Schema.declare(isObject, { expected: "an object" }),
  /** Headers that belong to the dialect, as `anthropic-beta`; names in lower case; default none. */
  headers: Schema.optional(Schema.Record(Schema.String, Schema.String))
})
export type Source = typeof Source.Type

/** An answer, or a part of one, as a provider of the caller's dialect sent it. */
export interface Native {
  readonly dialect: PassThrough.Dialect
  /** A whole answer, or one event of a stream. */
  readonly form: "whole" | "chunk"
  readonly body: Fields
  /** Whether it has content beside the text and the function calls of the events after it, as thoughts or audio. */
  readonly hasMore: boolean
}

/** The dialect that a deployment shares with callers; undefined where it has one of its own. */
export const dialectOf = (options: DeploymentOptions): PassThrough.Dialect | undefined =>
  isRemote(options) ? providerKindOf(options.provider).callerDialect : undefined

/** A request that may have come from a caller of some dialect. */
interface Asked {
  readonly source?: Source | undefined
  readonly resumed?: boolean | undefined
}

/** Whether a deployment's answer reaches the caller as it is: not where another's goes on. */
export const isNative = ({ resumed = false, source }: Asked, options: DeploymentOptions): boolean =>
  source !== undefined && !resumed && dialectOf(options) === source.dialect

/** Answers that a request asks for at once. */
export const choicesOf = ({ source }: Pick<Asked, "source">): number => {
  const n = source?.body["n"]
  return typeof n === "number" ? n : 1
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

/** The request without these fields. */
export const without = (source: Source, names: ReadonlyArray<string>): Source => ({
  ...source,
  body: Object.fromEntries(Object.entries(source.body).filter(([name]) => !names.includes(name)))
})
