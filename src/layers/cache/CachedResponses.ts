/**
 * Keeps earlier answers in the memory of this process, bounded in number, bytes and age.
 *
 * **Details**
 *
 * Effect's `Cache` has no bound in bytes; `lru-cache` has. Its own expiry is not used, because it does not run on Effect's
 * clock. The key is the SHA-256 of the text that identifies a request, so that no prompt is kept. This is a layer because
 * Node provides SHA-256.
 */
import { Duration, Effect, Layer } from "effect"
import { LRUCache } from "lru-cache"
import { hash } from "node:crypto"
import * as Defaults from "../../domain/Defaults.ts"
import type { Request } from "../../domain/Inference.ts"
import * as Time from "../../domain/Time.ts"
import type { Response } from "../../services/cache/CachedResponses.ts"
import { bytesOf, CachedResponses, fits, identify } from "../../services/cache/CachedResponses.ts"

interface Entry {
  readonly response: Response
  /** monotonic ms */
  readonly until: number
}

/** Bounds of the cache, each above 0. */
export interface Options {
  readonly entries: number
  readonly bytes: number
  readonly timeToLive: Duration.Duration
}

/** The key of a request's answer. */
export const keyOf = (request: Request): string => hash("sha256", identify(request), "base64url")

const make = ({ bytes: maxSize, entries: max, timeToLive }: Options): CachedResponses["Service"] => {
  const entries = new LRUCache<string, Entry>({ max, maxSize })

  const take = (key: string, now: number): Response | undefined => {
    const entry = entries.get(key)
    if (entry === undefined || entry.until > now) return entry?.response
    entries.delete(key)
    return undefined
  }
  return {
    keep: (request, response) => {
      const size = bytesOf(response)
      if (!fits(size)) return Effect.void
      return Effect.map(Time.now, (now) => {
        entries.set(keyOf(request), { response, until: now + Duration.toMillis(timeToLive) }, { size })
      })
    },
    recall: (request) => Effect.map(Time.now, (now) => take(keyOf(request), now))
  }
}

/** A cache with these bounds. */
export const layerWith = (options: Options): Layer.Layer<CachedResponses> =>
  Layer.sync(CachedResponses, () => CachedResponses.of(make(options)))

/** A cache with the bounds of `Defaults.cachedResponses`. */
export const layer = layerWith(Defaults.cachedResponses)
