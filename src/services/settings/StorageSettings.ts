/** Where Troupe stores keys, budgets, usage and cached answers: the settings, their defaults and their checks. */
import { Redacted, Schema } from "effect"
import { described, optional } from "../../domain/Fields.ts"
import type * as Problem from "../../domain/Problem.ts"

/** A URL with one of these schemes, or the name of a variable, which may be unset. Errors never contain it. */
const Url = (schemes: string, example: string) =>
  Schema.RedactedFromValue(
    Schema.String.check(
      Schema.isPattern(new RegExp(`^(?:${schemes})://[^\\s/?#]+|\\$\\{`), {
        message: `Expected a URL such as ${example}`
      })
    ),
    { disallowEncode: true }
  )

const postgresExample = "postgres://user:${PASSWORD}@host:5432/database"
const redisExample = "redis://:${PASSWORD}@host:6379"

/** The section `storage`. */
export const Storage = Schema.Struct({
  type: optional(
    "Where keys, budgets and usage are stored. sqlite: a file in the folder. memory: nowhere; they are lost when Troupe " +
      "ends. postgres: a database, which several instances can share. Default sqlite for the service, memory for " +
      "embedding and in test.",
    Schema.Literals(["sqlite", "memory", "postgres"])
  ),
  folder: optional(
    "Folder of the SQLite file, relative to the configuration file. Default TROUPE_DATA, or troupe/data in the user's " +
      "data folder.",
    Schema.NonEmptyString
  ),
  url: optional(
    `URL of the Postgres database, as ${postgresExample}, with special characters of the password percent-encoded; for ` +
      "TLS with ?sslmode=require. Required for postgres. Default none.",
    Url("postgres|postgresql", postgresExample)
  )
})

/** The section `redis`. */
export const Redis = Schema.Struct({
  url: described(
    "URL of the Redis that instances share for rate limits, reservations, cached answers, makers of signed reasoning and " +
      `stored responses, as ${redisExample}, or with rediss: for TLS.`,
    Url("rediss?", redisExample)
  ),
  prefix: optional("Begin of the names of all Redis keys. Default troupe:.", Schema.NonEmptyString)
})

/** A place for everything that outlives a request. */
export type StorageLocation =
  | { readonly type: "memory" }
  /** The folder is absolute. */
  | { readonly type: "sqlite"; readonly folder: string }
  | { readonly type: "postgres"; readonly url: Redacted.Redacted }

/** The Redis that instances share. */
export interface RedisLocation {
  readonly url: Redacted.Redacted
  readonly prefix: string
}

/** What the defaults of `storage` depend on. */
export interface Context {
  readonly type: "sqlite" | "memory"
  /** Absolute. */
  readonly folder: string
  readonly resolvePath: (path: string) => string
}

/** The resolved section `storage`. */
export const storageOf = (
  { folder, type, url }: typeof Storage.Type = {},
  { folder: defaultFolder, resolvePath, type: defaultType }: Context
): StorageLocation => {
  const chosen = type ?? defaultType
  if (chosen === "memory") return { type: "memory" }
  // `problemsOf` reports a missing URL.
  if (chosen === "postgres") return { type: "postgres", url: url ?? Redacted.make("") }
  return { type: "sqlite", folder: folder === undefined ? defaultFolder : resolvePath(folder) }
}

/** The resolved section `redis`. */
export const redisOf = ({ prefix = "troupe:", url }: typeof Redis.Type): RedisLocation => ({ prefix, url })

const isUrl = (url: Redacted.Redacted): boolean => {
  const text = Redacted.value(url)
  return text.includes("${") || URL.canParse(text)
}

const urlProblem = (section: string, url: Redacted.Redacted | undefined): ReadonlyArray<Problem.KeyedProblem> =>
  url === undefined || isUrl(url) ? [] : [{
    path: [section, "url"],
    expected: "Expected a valid URL; special characters of the password must be percent-encoded"
  }]

const typeProblem = ({ type, url }: typeof Storage.Type = {}): ReadonlyArray<Problem.KeyedProblem> => {
  if (type === "postgres" && url === undefined) {
    return [{ path: ["storage", "url"], expected: `\`url\` is required for postgres, such as ${postgresExample}` }]
  }
  return type === undefined && url !== undefined
    ? [{ path: ["storage", "type"], expected: "Expected type: postgres, because `url` is set" }]
    : []
}

/** Problems of URLs, and of fields that depend on each other. */
export const problemsOf = (
  { redis, storage }: { readonly storage?: typeof Storage.Type; readonly redis?: typeof Redis.Type }
): ReadonlyArray<Problem.KeyedProblem> => [
  ...urlProblem("storage", storage?.url),
  ...typeProblem(storage),
  ...urlProblem("redis", redis?.url)
]

/** Whether a path of the file is that of a URL that may have a password. */
export const isSecretUrl = (path: ReadonlyArray<PropertyKey>): boolean =>
  path.at(-1) === "url" && (path.at(-2) === "storage" || path.at(-2) === "redis")
