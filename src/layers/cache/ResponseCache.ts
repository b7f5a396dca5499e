/**
 * The tiers of the response cache: two in the memory of this process, and a store (see `AnswerStore`) where there is one.
 *
 * **Details**
 *
 * Effect's `Cache` has no bound in bytes; `lru-cache` has. Its own expiry is not used, because it does not run on Effect's
 * clock. A key is a SHA-256, so that no prompt is kept beside its answer. This is a layer because Node provides SHA-256 and
 * the state of files.
 */
import { Clock, Effect, Layer } from "effect"
import { LRUCache } from "lru-cache"
import { hash } from "node:crypto"
import { readdirSync, statSync } from "node:fs"
import { join } from "node:path"
import * as Defaults from "../../domain/Defaults.ts"
import * as Time from "../../domain/Time.ts"
import type { CachedAnswer } from "../../services/cache/CachedAnswer.ts"
import * as Encoded from "../../services/cache/CachedAnswer.ts"
import { fits, sizeOf } from "../../services/cache/CachePolicy.ts"
import type { Found, Selection } from "../../services/cache/ResponseCache.ts"
import { ResponseCache } from "../../services/cache/ResponseCache.ts"
import { SemanticIndex } from "../../services/cache/SemanticIndex.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { AnswerStore } from "./AnswerStore.ts"
import { open as openStore } from "./AnswerStore.ts"
import { Clears } from "./Clears.ts"

/** Bounds of the tiers in memory, each above 0. */
export interface Options {
  readonly memoryBytes: number
  readonly compactEntries: number
  readonly compactBytes: number
  /** Begins the names of the store's keys. */
  readonly storeId: string
}

const storeId = "troupe:answers"

const bytesOf = ({ events }: CachedAnswer): number => events.reduce((sum, event) => sum + sizeOf(event), 256)

/** What memory knows of an answer, in both tiers. */
interface Entry {
  readonly model: string
  readonly tenant: string
  /** When its generation began, monotonic ms: a change of the system's date makes no answer older. */
  readonly bornAt: number
  readonly ttlMs: number
}

interface EventsEntry extends Entry {
  readonly answer: CachedAnswer
}

interface TextEntry extends Entry {
  readonly text: string
}

const isOf = ({ key, model, tenant }: Selection, found: string, entry: Entry): boolean =>
  (key === undefined || key === found) && (model === undefined || model === entry.model) &&
  (tenant === undefined || tenant === entry.tenant)

/** The tiers in memory. */
class MemoryTiers {
  readonly #clock: Clock.Clock
  readonly #memory: LRUCache<string, EventsEntry>
  readonly #compact: LRUCache<string, TextEntry>
  #isOff = false

  constructor({ compactBytes, compactEntries, memoryBytes }: Options, clock: Clock.Clock) {
    this.#clock = clock
    this.#memory = new LRUCache({ maxSize: memoryBytes, sizeCalculation: ({ answer }) => bytesOf(answer) })
    this.#compact = new LRUCache({
      max: compactEntries,
      maxSize: compactBytes,
      sizeCalculation: ({ text }) => 256 + 2 * text.length
    })
  }

  recall(key: string): Found | undefined {
    const known = this.#memory.get(key)
    if (known !== undefined) return this.#given(key, known, known.answer, "memory")
    const compact = this.#compact.get(key)
    if (compact === undefined) return undefined
    const answer = Encoded.decode(compact.text)
    if (answer === undefined) {
      this.#compact.delete(key)
      return undefined
    }
    const { text: _, ...entry } = compact
    this.#memory.set(key, { ...entry, answer })
    return this.#given(key, compact, answer, "compact")
  }

  #given(key: string, { bornAt, ttlMs }: Entry, answer: CachedAnswer, tier: Found["tier"]): Found | undefined {
    const ageMs = Time.nowOf(this.#clock) - bornAt
    if (ageMs < ttlMs) return { answer, tier, ageMs, key }
    this.#memory.delete(key)
    this.#compact.delete(key)
    return undefined
  }

  keep(key: string, answer: CachedAnswer, text: string, ageMs: number): void {
    if (this.#isOff) return
    const { model, tenant, ttlMs } = answer
    const entry = { model, tenant, bornAt: Time.nowOf(this.#clock) - ageMs, ttlMs }
    this.#memory.set(key, { ...entry, answer })
    this.#compact.set(key, { ...entry, text })
  }

  /** Returns the number of answers that were removed. */
  clear(which: Selection): number {
    const removed = new Set<string>()
    for (const tier of [this.#memory, this.#compact]) {
      for (const [key, entry] of tier.entries()) if (isOf(which, key, entry)) removed.add(key)
    }
    for (const key of removed) {
      this.#memory.delete(key)
      this.#compact.delete(key)
    }
    return removed.size
  }

  turnOff(isOff: boolean): void {
    this.#isOff = isOff
    if (!isOff) return
    this.#memory.clear()
    this.#compact.clear()
  }

  contents() {
    return {
      memory: { entries: this.#memory.size, bytes: this.#memory.calculatedSize },
      compact: { entries: this.#compact.size, bytes: this.#compact.calculatedSize }
    }
  }
}

/** The size and the time of a file, or of the files in a folder; of none, if it cannot be read. */
const stateOf = (path: string): string => {
  try {
    const stat = statSync(path)
    if (!stat.isDirectory()) return `${stat.size}:${stat.mtimeMs}`
    const files = readdirSync(path, { withFileTypes: true }).filter((entry) => entry.isFile())
    return files.map(({ name }) => `${name}:${stateOf(join(path, name))}`).sort().join()
  } catch {
    return ""
  }
}

/** The tiers together. */
class Tiers {
  readonly #clock: Clock.Clock
  readonly #clears: Clears
  readonly #memory: MemoryTiers
  readonly #store: AnswerStore | undefined
  readonly similar: SemanticIndex

  constructor(options: Options, clock: Clock.Clock, clears: Clears, store: AnswerStore | undefined) {
    this.similar = new SemanticIndex(clock, Defaults.semanticCache.totalBytes)
    this.#clock = clock
    this.#clears = clears
    this.#memory = new MemoryTiers(options, clock)
    this.#store = store
  }

  #now(): number {
    return this.#clock.currentTimeMillisUnsafe()
  }

  /** ms */
  #ageOf({ at }: CachedAnswer): number {
    return Math.max(0, this.#now() - at)
  }

  /** Another process of the same store may have cleared what memory has. */
  recall(key: string): Found | undefined {
    const found = this.#memory.recall(key)
    return found === undefined || this.#clears.covers(found.answer) ? undefined : found
  }

  recallStored(store: AnswerStore, key: string): Effect.Effect<Found | undefined> {
    return Effect.map(store.find(key), (found): Found | undefined => {
      if (found === undefined) return undefined
      const { answer, text } = found
      const ageMs = this.#ageOf(answer)
      if (ageMs >= answer.ttlMs || this.#clears.covers(answer)) return undefined
      this.#memory.keep(key, answer, text, ageMs)
      return { answer, tier: "store", ageMs, key }
    })
  }

  keep(key: string, answer: CachedAnswer): Effect.Effect<void> | void {
    const ageMs = this.#ageOf(answer)
    if (ageMs >= answer.ttlMs || !fits(bytesOf(answer)) || this.#clears.covers(answer)) return
    const text = Encoded.encode(answer)
    this.#memory.keep(key, answer, text, ageMs)
    return this.#store?.keep(key, text, answer.ttlMs - ageMs)
  }

  clear(which: Selection): Effect.Effect<number> {
    return Effect.suspend(() => {
      const count = this.#memory.clear(which)
      this.similar.clear(which)
      const mark = which.key === undefined ? this.#clears.add(which, this.#now()) : undefined
      return Effect.as(this.#store === undefined ? Effect.void : this.#store.clear(which.key, mark), count)
    })
  }

  turnOff(isOff: boolean): void {
    this.#memory.turnOff(isOff)
    this.similar.turnOff(isOff)
  }

  contents() {
    return { ...this.#memory.contents(), store: this.#store !== undefined, semantic: this.similar.contents }
  }
}

/** The cache with these bounds. */
export const layerWith = (options: Options): Layer.Layer<ResponseCache> =>
  Layer.effect(
    ResponseCache,
    Effect.gen(function*() {
      const clears = new Clears()
      const store = yield* openStore(options.storeId, clears)
      const tiers = new Tiers(options, yield* Clock.Clock, clears, store)
      return ResponseCache.of({
        hash: (text) => hash("sha256", text, "base64url"),
        versionOf: (paths) => paths.map(stateOf).join(";"),
        recall: (key) => tiers.recall(key),
        ...(store === undefined ? {} : { recallStored: (key) => tiers.recallStored(store, key) }),
        keep: (key, answer) => tiers.keep(key, answer),
        similar: tiers.similar,
        clear: (which) => tiers.clear(which),
        turnMemoryOff: (isOff) => tiers.turnOff(isOff),
        contents: () => tiers.contents()
      })
    })
  )

/** The cache with the bounds of `Defaults.cache`. */
export const layer = layerWith({ ...Defaults.cache, storeId })

/** The cache with the bounds of the settings. */
export const layerSettings: Layer.Layer<ResponseCache, never, Settings> = Layer.unwrap(
  Effect.map(
    Settings,
    ({ cache, redis }) =>
      layerWith({ ...Defaults.cache, ...cache, storeId: redis === undefined ? storeId : `${redis.prefix}answers` })
  )
)
