/** What a request says about cached answers, and what an answer says about them. Pure. */
import { Schema } from "effect"

/** The directives of HTTP's `Cache-Control` for a request: RFC 9111, 5.2.1. One that is left out does not apply. */
export const CacheControl = Schema.Struct({
  /** No cached answer is given, and this answer is not kept. */
  noStore: Schema.optional(Schema.Boolean),
  /** No cached answer is given; this answer is kept. */
  noCache: Schema.optional(Schema.Boolean),
  /** A cached answer may be at most this old, s. */
  maxAge: Schema.optional(Schema.Finite.check(Schema.isGreaterThanOrEqualTo(0)))
})
export type CacheControl = typeof CacheControl.Type

type Mutable<A> = { -readonly [K in keyof A]: A[K] }

/** The directives of a header; undefined if it has none that apply. Other directives are ignored, as HTTP requires. */
export const parse = (header: string): CacheControl | undefined => {
  const found: Mutable<CacheControl> = {}
  for (const directive of header.toLowerCase().split(",")) {
    const [name, value = ""] = directive.trim().split("=", 2)
    if (name === "no-store") found.noStore = true
    if (name === "no-cache") found.noCache = true
    if (name === "max-age" && /^"?\d{1,10}"?$/.test(value)) found.maxAge = Number(value.replaceAll("\"", ""))
  }
  return Object.keys(found).length === 0 ? undefined : found
}

/** Which answers of a model are cached. */
export interface CacheSettings {
  /** ms, above 0 */
  readonly ttlMs: number
  /** `deterministic`: of requests with temperature 0 or a seed. */
  readonly when: "deterministic" | "always"
}

/**
 * Where a cached answer was found. `memory` has answers as events, `compact` has them as text, `store` has them in the
 * database or in Redis, and `flight` is an answer to the same request that was generated at the time.
 */
export type Tier = "memory" | "compact" | "store" | "flight"

/** How the cache took part in an answer. */
export type CacheUse =
  | { readonly result: "hit"; readonly tier: Tier; readonly ageMs: number; readonly key: string }
  | { readonly result: "miss"; readonly key: string }
  /** The model has a cache that does not apply to the request. */
  | { readonly result: "bypass" }

/** Response headers: `hit` with its tier, its age in s and its key, `miss`, or `bypass`. */
export const headersOf = (use: CacheUse): Readonly<Record<string, string>> => {
  switch (use.result) {
    case "hit":
      return {
        "x-troupe-cache": "hit",
        "x-troupe-cache-tier": use.tier,
        "x-troupe-cache-age": String(Math.floor(use.ageMs / 1000)),
        "x-troupe-cache-key": use.key
      }
    case "miss":
      return { "x-troupe-cache": "miss", "x-troupe-cache-key": use.key }
    case "bypass":
      return { "x-troupe-cache": "bypass" }
  }
}
