/** The settings of the response cache: the section `cache`, and the field of a model. */
import { Duration, Schema } from "effect"
import type { CacheSettings } from "../../domain/CacheControl.ts"
import * as Defaults from "../../domain/Defaults.ts"
import { Bytes, Count, durationText, optional, Span } from "../../domain/Fields.ts"
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
  )
})

/** The field `cache` of a model. */
export const ModelCache = Schema.Struct({
  when: optional(`${whenText} Default cache.when.`, When),
  ttl: optional(`${ttlText} Default cache.ttl.`, TimeToLive)
})

type Section = typeof Cache.Type

/** The bounds of the memory that answers take. */
export interface CacheBounds {
  readonly memoryBytes: number
  readonly compactEntries: number
}

export const boundsOf = (
  { entries = Defaults.cache.compactEntries, memory = Defaults.cache.memoryBytes }: Section
): CacheBounds => ({ memoryBytes: memory, compactEntries: entries })

/** The cache of a model; undefined if it has none. */
export const modelCacheOf = (
  section: Section,
  own: typeof ModelCache.Type,
  environment: Environment
): CacheSettings | undefined => {
  const when = own.when ?? section.when ?? (environment === "production" ? "deterministic" : "never")
  if (when === "never") return undefined
  return { when, ttlMs: Duration.toMillis(own.ttl ?? section.ttl ?? Defaults.cache.timeToLive) }
}
