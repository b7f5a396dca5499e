/**
 * The settings of what is kept of requests: the sections `responses` and `decisions`.
 *
 * **Details**
 *
 * `POST /v1/responses` stores responses unless the request says `store: false`, and `/v1/conversations` stores conversations.
 * Both are in the database of `storage`, or in Redis. `decisions` is what is kept beside decision records.
 */
import { Duration, Schema } from "effect"
import { Bytes, durationText, optional, Span } from "../../domain/Fields.ts"
import type * as Problem from "../../domain/Problem.ts"
import { wholeNumber } from "../../domain/Problem.ts"
import type { Bounds } from "../routing/KeptRequests.ts"
import type { RedisLocation, StorageLocation } from "./StorageSettings.ts"

const defaults = { ttl: Duration.days(30), maxBytes: 2 ** 30 }

/** The longest time, days. */
const longestDays = 3_650

/** The section `responses`. */
export const ResponseSettings = Schema.Struct({
  store: optional(
    "Where responses and conversations are stored. database: that of storage. redis: that of redis, for instances that share " +
      "no Postgres. Default redis if it is set and storage is not postgres, otherwise database.",
    Schema.Literals(["database", "redis"])
  ),
  ttl: optional(
    "How long responses and conversations are stored after their last use. Default " +
      `${durationText(Duration.toMillis(defaults.ttl))}.`,
    Span.check(
      Schema.makeFilter((span: Duration.Duration) =>
        Duration.toDays(span) <= longestDays ? undefined : `Expected at most ${longestDays} days`
      )
    )
  ),
  maxBytes: optional(
    "Size of all stored responses and conversations, as 1 GiB or in bytes, above which those that end first are deleted. " +
      "Default 1 GiB.",
    Bytes
  )
})

/** Where, how long and how much is stored. */
export interface ResponseStorage {
  readonly store: "database" | "redis"
  readonly ttl: Duration.Duration
  readonly maxBytes: number
}

/** What the default of `store` depends on. */
interface Context {
  readonly redis: RedisLocation | undefined
  readonly storage: StorageLocation
}

/** The resolved section `responses`. */
export const responsesOf = (
  { maxBytes, store, ttl }: typeof ResponseSettings.Type = {},
  { redis, storage }: Context = { redis: undefined, storage: { type: "memory" } }
): ResponseStorage => ({
  store: store ?? (redis === undefined || storage.type === "postgres" ? "database" : "redis"),
  ttl: ttl ?? defaults.ttl,
  maxBytes: maxBytes ?? defaults.maxBytes
})

/** Problems of fields that depend on other sections. */
export const problemsOf = (
  { redis, responses }: { readonly redis?: object; readonly responses?: typeof ResponseSettings.Type }
): ReadonlyArray<Problem.KeyedProblem> =>
  responses?.store === "redis" && redis === undefined
    ? [{ path: ["responses", "store"], expected: "`redis.url` is required for redis, such as redis://host:6379" }]
    : []

const defaultBytes = 64 * 2 ** 20

/** A body cannot be found without its decision record. */
const mostBodies = 1_000

/** The section `decisions`. */
export const DecisionSettings = Schema.Struct({
  keepBodies: optional(
    "Number of the latest requests whose bodies are kept in memory, in each process, so that administrators can see them and " +
      `send them again; at most ${mostBodies}. They contain prompts: security.md. Default 0, none.`,
    wholeNumber(0).check(Schema.isLessThanOrEqualTo(mostBodies))
  ),
  maxBytes: optional("Memory of these bodies together, as 64 MiB or in bytes. Default 64 MiB.", Bytes)
})

/** Undefined: no body is kept. */
export const decisionsOf = ({ keepBodies = 0, maxBytes = defaultBytes }: typeof DecisionSettings.Type = {}):
  | Bounds
  | undefined => keepBodies === 0 ? undefined : { keepBodies, maxBytes }
