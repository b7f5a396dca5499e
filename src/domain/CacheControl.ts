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

/** How answers to similar requests are found. */
export interface SemanticSettings {
  /** The model that embeds questions. */
  readonly embeddings: string
  /** The least cosine similarity of two questions with one answer: above 0, at most 1. */
  readonly threshold: number
  /** The least difference to the similarity of the nearest question with another answer. */
  readonly margin: number
  /** The longest that an embedding may delay a request, ms. */
  readonly timeoutMs: number
  /** Bounds for each tenant of the model: the number of questions, and their memory. */
  readonly entries: number
  readonly bytes: number
}

/** Which answers of a model are cached. */
export interface CacheSettings {
  /** ms, above 0 */
  readonly ttlMs: number
  /** `deterministic`: of requests with temperature 0 or a seed. */
  readonly when: "deterministic" | "always"
  /** Undefined if only equal requests share answers. */
  readonly semantic?: SemanticSettings
}

/**
 * Where a cached answer was found. `memory` has answers as events, `compact` has them as text, `store` has them in the
 * database or in Redis, `flight` is an answer to the same request that was generated at the time, and `semantic` is an
 * answer to a similar request.
 */
export const tiers = ["memory", "compact", "store", "flight", "semantic"] as const
export type Tier = typeof tiers[number]

/** How the cache took part in an answer. */
export type CacheUse =
  | {
    readonly result: "hit"
    readonly tier: Tier
    readonly ageMs: number
    readonly key: string
    /** Of the question that was answered, in the tier `semantic`: cosine, at most 1. */
    readonly similarity?: number
  }
  | { readonly result: "miss"; readonly key: string }
  /** The model has a cache that does not apply to the request. */
  | { readonly result: "bypass" }

/** Response headers: `hit` with its tier, its age in s, its key and its similarity, `miss`, or `bypass`. */
export const headersOf = (use: CacheUse): Readonly<Record<string, string>> => {
  switch (use.result) {
    case "hit":
      return {
        "x-troupe-cache": "hit",
        "x-troupe-cache-tier": use.tier,
        "x-troupe-cache-age": String(Math.floor(use.ageMs / 1000)),
        "x-troupe-cache-key": use.key,
        ...(use.similarity === undefined ? {} : { "x-troupe-cache-similarity": use.similarity.toFixed(3) })
      }
    case "miss":
      return { "x-troupe-cache": "miss", "x-troupe-cache-key": use.key }
    case "bypass":
      return { "x-troupe-cache": "bypass" }
  }
}
