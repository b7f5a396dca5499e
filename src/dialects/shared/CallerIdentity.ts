/**
 * How a caller stands among others: whose request it is, its priority, and how long it keeps the model. Pure.
 */
import { Duration } from "effect"
import { hash } from "node:crypto"
import { tenantHeader } from "../../domain/Caller.ts"
import type { Caller } from "../../domain/Caller.ts"
import * as GoDuration from "../../domain/GoDuration.ts"
import type { RoutingOptions } from "../../domain/RoutingOptions.ts"
import type { standing } from "../openai/Schema.ts"

/** What identifies a caller beside the body. */
export interface CallerIdentity {
  /** A bearer token, or the dialect's own key. */
  readonly key?: string | undefined
  /** Names in lower case. */
  readonly headers?: Readonly<Record<string, string | undefined>> | undefined
}

/** The fields of a body that identify the caller and its options. */
type Fields = { readonly [Field in keyof typeof standing]?: (typeof standing)[Field]["Type"] }

/** The longest span that Go's durations have, ms: 292 years. */
const longest = 2 ** 63 / 1e6

/** By Ollama's rules: a number is of seconds, a text a duration of Go's; what is negative means for ever. */
export const keepAliveOf = (value: number | string): Duration.Duration => {
  const ms = typeof value === "number" ? value * 1000 : GoDuration.toMillis(value)
  return ms < 0 || ms > longest ? Duration.infinity : Duration.millis(Math.ceil(ms))
}

/** The token of an `Authorization` header that has one. */
export const bearerTokenOf = (authorization: string | undefined): string | undefined =>
  /^bearer +(\S+) *$/i.exec(authorization ?? "")?.[1]

/** Bytes are 4 characters for 3: 120 bits. */
const fingerprintLength = 20

/** Whatever names the caller may be a secret or personal, so nothing after this sees it. */
const fingerprint = (kind: "token" | "user", text: string): string =>
  hash("sha256", `${kind} ${text}`, "base64url").slice(0, fingerprintLength)

/** Another instance names the tenant in a header, as the body is its caller's. */
const tenantOf = (fields: Fields, { headers = {}, key }: CallerIdentity): string => {
  if (key !== undefined) return fingerprint("token", key)
  const user = headers[tenantHeader] ?? fields.safety_identifier ?? fields.user ?? ""
  return user === "" ? "" : fingerprint("user", user)
}

/** A caller without a key and without a user is the tenant "", which is the default. */
export const callerOf = (
  fields: Fields,
  caller: CallerIdentity
): Caller & { readonly route?: RoutingOptions } => {
  const tenant = tenantOf(fields, caller)
  return {
    ...(tenant === "" ? {} : { tenant }),
    ...(fields.priority === undefined ? {} : { priority: fields.priority }),
    ...(fields.keep_alive === undefined ? {} : { keepAlive: keepAliveOf(fields.keep_alive) }),
    ...(fields.troupe === undefined ? {} : { route: fields.troupe })
  }
}
