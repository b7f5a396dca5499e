/** The settings of the response cache: the section `cache`, and the field of a model. */
import { Duration, Schema } from "effect"
import type { CacheSettings, SemanticSettings } from "../../domain/CacheControl.ts"
import * as Defaults from "../../domain/Defaults.ts"
import { Bytes, Count, described, durationText, optional, Span } from "../../domain/Fields.ts"
import type { KeyedProblem } from "../../domain/Problem.ts"
import type { Environment } from "./Settings.ts"

const longest = Defaults.cache.longestTimeToLive

/** A time to live. */
const TimeToLive = Span.check(
  Schema.makeFilter((span: Duration.Duration) =>
    Duration.isLessThanOrEqualTo(span, longest)
      ? undefined
      : `Expected at most ${Duration.toDays(longest)} days`
  )
)

const When = Schema.Literals(["never", "deterministic", "always"])

const whenText =
  "Which chat answers are given again to equal requests of the same tenant. deterministic: those of requests " +
  "with temperature 0 or a seed."

const ttlText = "How long an answer is given again."

/** The section `cache`. */
export const Cache = Schema.Struct({
  when: optional(`${whenText} Default deterministic in production, else never.`, When),
  ttl: optional(
    `${ttlText} Default ${durationText(Duration.toMillis(Defaults.cache.timeToLive))}.`,
    TimeToLive
  ),
  memory: optional("Memory of the answers that are ready to be sent, as 64 MiB or in bytes. Default 64 MiB.", Bytes),
  entries: optional(
    `Number of answers that memory also keeps as text, at most 64 MiB. Default ${Defaults.cache.compactEntries}.`,
    Count
  ),
  stored: optional(
    `Number of answers in the database, above which those that end first are deleted. Default ${Defaults.cache.storedEntries}.`,
    Count
  )
})

const similarity = Schema.Finite.check(Schema.isBetween({ minimum: 0.5, maximum: 1 }))

const semanticDefaults = Defaults.semanticCache

/** The field `cache.semantic` of a model. */
const Semantic = Schema.Struct({
  embeddings: described("The model that embeds questions: one with an embedding deployment.", Schema.NonEmptyString),
  threshold: optional(
    `Least cosine similarity of two questions with one answer. Default ${semanticDefaults.threshold}.`,
    similarity
  ),
  margin: optional(
    `Least difference to the similarity of the nearest question with another answer. Default ${semanticDefaults.margin}.`,
    Schema.Finite.check(Schema.isBetween({ minimum: 0, maximum: 0.5 }))
  ),
  timeout: optional(
    "Longest that an embedding delays a request, which then has no answer of a similar one. Default " +
      `${durationText(Duration.toMillis(semanticDefaults.timeout))}.`,
    Span
  ),
  entries: optional(`Questions that are kept for each tenant. Default ${semanticDefaults.entries}.`, Count),
  memory: optional("Memory of these questions for each tenant, as 8 MiB or in bytes. Default 8 MiB.", Bytes)
})

/** The field `cache` of a model. */
export const ModelCache = Schema.Struct({
  when: optional(`${whenText} Default cache.when.`, When),
  ttl: optional(`${ttlText} Default cache.ttl.`, TimeToLive),
  semantic: optional("Whether requests that are only similar share answers, too. Default none.", Semantic)
})

type Section = typeof Cache.Type

/** The bounds of the memory that answers take, and of the database. */
export interface CacheBounds {
  readonly memoryBytes: number
  readonly compactEntries: number
  readonly storedEntries: number
}

export const boundsOf = (
  {
    entries = Defaults.cache.compactEntries,
    memory = Defaults.cache.memoryBytes,
    stored = Defaults.cache.storedEntries
  }: Section
): CacheBounds => ({ memoryBytes: memory, compactEntries: entries, storedEntries: stored })

const semanticOf = ({
  embeddings,
  entries = semanticDefaults.entries,
  margin = semanticDefaults.margin,
  memory = semanticDefaults.bytes,
  threshold = semanticDefaults.threshold,
  timeout = semanticDefaults.timeout
}: typeof Semantic.Type): SemanticSettings => ({
  embeddings,
  entries,
  margin,
  bytes: memory,
  threshold,
  timeoutMs: Duration.toMillis(timeout)
})

/** The cache of a model; undefined if it has none. */
export const modelCacheOf = (
  section: Section,
  own: typeof ModelCache.Type,
  environment: Environment
): CacheSettings | undefined => {
  const when = own.when ?? section.when ?? (environment === "production" ? "deterministic" : "never")
  if (when === "never") return undefined
  return {
    when,
    ttlMs: Duration.toMillis(own.ttl ?? section.ttl ?? Defaults.cache.timeToLive),
    ...(own.semantic === undefined ? {} : { semantic: semanticOf(own.semantic) })
  }
}

/** Models that embed questions and are not configured. */
export const cacheProblems = (
  models: Readonly<Record<string, { readonly cache?: typeof ModelCache.Type | undefined }>>,
  known: ReadonlyArray<string>
): ReadonlyArray<KeyedProblem> =>
  Object.entries(models).flatMap(([model, { cache }]) => {
    const embeddings = cache?.semantic?.embeddings
    if (embeddings === undefined || known.includes(embeddings)) return []
    return [{
      path: ["models", model, "cache", "semantic", "embeddings"],
      expected: `Expected the name of a model. Available models: ${known.join(", ")}`
    }]
  })
