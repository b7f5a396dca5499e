/**
 * The identity of a caller: what its virtual key allows. Pure.
 *
 * **Details**
 *
 * An identity has no secret. It is made once for a key and shared by all requests with it.
 *
 * **Gotchas**
 *
 * A pattern of `models` has `*` for any characters, and nothing else is special. Matching takes time in proportion to the
 * name, whatever the pattern is.
 */
import { Schema } from "effect"
import { described, optional } from "./Fields.ts"
import { wholeNumber } from "./Problem.ts"

const Amount = wholeNumber(1)

/** Limits of a key's rate; a limit that is left out is not set. */
export const Limits = Schema.Struct({
  requestsPerMinute: optional("Most requests in a minute. Default none.", Amount),
  requestsPerHour: optional("Most requests in an hour. Default none.", Amount),
  requestsPerDay: optional("Most requests in a day. Default none.", Amount),
  tokensPerMinute: optional("Most tokens of prompts and answers in a minute. Default none.", Amount),
  tokensPerHour: optional("Most tokens of prompts and answers in an hour. Default none.", Amount),
  tokensPerDay: optional("Most tokens of prompts and answers in a day. Default none.", Amount),
  parallel: optional("Most requests that run at the same time. Default none.", Amount)
})
export type Limits = typeof Limits.Type

/** What may be spent in a period. */
export const Budget = Schema.Struct({
  period: described("The period; total never begins again.", Schema.Literals(["day", "week", "month", "total"])),
  usd: optional("Most USD in the period. Default none.", Schema.Finite.check(Schema.isGreaterThan(0))),
  tokens: optional("Most tokens of prompts and answers in the period. Default none.", Amount)
})
export type Budget = typeof Budget.Type

/** Who calls, and what it may do. */
export const Identity = Schema.Struct({
  keyId: Schema.String,
  /** Of the key; left out for callers whose key has none. */
  name: Schema.optionalKey(Schema.String),
  tenant: Schema.String,
  user: Schema.optionalKey(Schema.String),
  /** Patterns of the models that it may use; left out, all. */
  models: Schema.optionalKey(Schema.Array(Schema.String)),
  limits: Schema.optionalKey(Limits),
  budgets: Schema.optionalKey(Schema.Array(Budget)),
  /** Whether it may use `/admin` and `/metrics`. */
  isAdmin: Schema.Boolean,
  /** Whether it may name the tenant in `x-troupe-tenant`, as another instance does. */
  setsTenant: Schema.Boolean
})
export type Identity = typeof Identity.Type

/** Whether a name fits a pattern. */
export const matches = (pattern: string, name: string): boolean => {
  const [first = "", ...others] = pattern.split("*")
  const last = others.pop()
  if (last === undefined) return pattern === name
  if (!name.startsWith(first)) return false
  let at = first.length
  for (const part of others) {
    const found = name.indexOf(part, at)
    if (found < 0) return false
    at = found + part.length
  }
  return name.length - last.length >= at && name.endsWith(last)
}

/** Whether the caller may use the model; true for a caller without an identity. */
export const allowsModel = (identity: Identity | undefined, model: string): boolean =>
  identity?.models?.some((pattern) => matches(pattern, model)) ?? true
