/**
 * Keeps earlier answers in the memory of this process, bounded in number, bytes and age.
 *
 * **Details**
 *
 * Effect's `Cache` is not bounded in bytes, so this is a `Map` in order of use. The key is the SHA-256 of what identifies a
 * request: prompts are not kept. SHA-256 is why this is a layer: it comes from Node.
 */
import { Duration, Effect, Layer } from "effect"
import { hash } from "node:crypto"
import * as Policies from "../../domain/Defaults.ts"
import type { Request } from "../../domain/Inference.ts"
import * as Time from "../../domain/Time.ts"
import type { Response } from "../../services/cache/CachedResponses.ts"
import { bytesOf, CachedResponses, fits, identify } from "../../services/cache/CachedResponses.ts"

interface Entry {
  readonly response: Response
  readonly bytes: number
  /** monotonic ms */
  readonly until: number
}

/** Bounds of the cache. */
export interface Options {
  readonly entries: number
  readonly bytes: number
  readonly timeToLive: Duration.Duration
}

/** The key of a request's answer. */
export const keyOf = (request: Request): string => hash("sha256", identify(request), "base64url")

const make = ({ bytes: maxBytes, entries: maxEntries, timeToLive }: Options): CachedResponses["Service"] => {
  /** Least recently used first. */
  const entries = new Map<string, Entry>()
  let held = 0

  const remove = (key: string, { bytes }: Entry) => {
    entries.delete(key)
    held -= bytes
  }
  const put = (key: string, entry: Entry) => {
    const before = entries.get(key)
    if (before !== undefined) remove(key, before)
    entries.set(key, entry)
    held += entry.bytes
    for (const [oldest, one] of entries) {
      if (entries.size <= maxEntries && held <= maxBytes) return
      remove(oldest, one)
    }
  }
  const take = (key: string, now: number): Response | undefined => {
    const entry = entries.get(key)
    if (entry === undefined) return undefined
    remove(key, entry)
    if (entry.until <= now) return undefined
    put(key, entry)
    return entry.response
  }
  return {
    keep: (request, response) => {
      const bytes = bytesOf(response)
      if (!fits(bytes)) return Effect.void
      return Effect.map(
        Time.now,
        (now) => put(keyOf(request), { response, bytes, until: now + Duration.toMillis(timeToLive) })
      )
    },
    recall: (request) => Effect.map(Time.now, (now) => take(keyOf(request), now))
  }
}

/** A cache with these bounds. */
export const layerWith = (options: Options): Layer.Layer<CachedResponses> =>
  Layer.sync(CachedResponses, () => CachedResponses.of(make(options)))

/** A cache with the bounds of `Policies.cachedResponses`. */
export const layer = layerWith(Policies.cachedResponses)
