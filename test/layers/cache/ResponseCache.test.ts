/** The tiers of the response cache: bounds, times to live, promotion, clearing, and a store that outlives them. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Layer, Logger } from "effect"
import * as Persistence from "effect/persistence/Persistence"
import { TestClock } from "effect/testing"
import * as Defaults from "../../../src/domain/Defaults.ts"
import { Backing } from "../../../src/layers/cache/AnswerStore.ts"
import * as ResponseCacheLayer from "../../../src/layers/cache/ResponseCache.ts"
import type { CachedAnswer } from "../../../src/services/cache/CachedAnswer.ts"
import type { Found } from "../../../src/services/cache/ResponseCache.ts"
import { ResponseCache } from "../../../src/services/cache/ResponseCache.ts"

type Cache = ResponseCache["Service"]

const minute = 60_000
const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 1 }

const say = (text: string, more: Partial<CachedAnswer> = {}): CachedAnswer => ({
  model: "chat",
  tenant: "one",
  deployment: "chat#0",
  at: 0,
  ttlMs: 60 * minute,
  events: [{ type: "text", text, tokens: 0 }, { type: "finish", reason: "stop", usage }],
  ...more
})

const cacheWith = (options: Partial<ResponseCacheLayer.Options> = {}) =>
  Effect.provide(Layer.fresh(ResponseCacheLayer.layerWith({ ...Defaults.cache, storeId: "test", ...options })))

/** The tier and the text of what is found. */
const shown = (found: Found | undefined): string | undefined => {
  const [first] = found?.answer.events ?? []
  return found && `${found.tier} ${first?.type === "text" ? first.text : ""}`
}

const recalled = (cache: Cache, key: string) => shown(cache.recall(key))

const stored = (cache: Cache, key: string) => Effect.map(cache.recallStored!(key), shown)

const keep = (cache: Cache, key: string, answer: CachedAnswer) =>
  Effect.suspend(() => cache.keep(key, answer) ?? Effect.void)

describe("the tiers in memory", () => {
  it.effect("give the newest answer of a key", () =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      assert.isUndefined(recalled(cache, "a"))
      yield* keep(cache, "a", say("first"))
      yield* keep(cache, "a", say("second"))
      assert.strictEqual(recalled(cache, "a"), "memory second")
    }).pipe(cacheWith()))

  it.effect.each([64 * 2 ** 20, 1])(
    "give an answer until its time to live ends, even if it is used meanwhile, with %d bytes for events",
    (memoryBytes) =>
      Effect.gen(function*() {
        const cache = yield* ResponseCache
        yield* keep(cache, "a", say("Hi"))
        yield* TestClock.adjust("59 minutes")
        assert.strictEqual(recalled(cache, "a"), `${memoryBytes === 1 ? "compact" : "memory"} Hi`)
        assert.strictEqual(cache.recall("a")?.ageMs, 59 * minute)
        yield* TestClock.adjust("1 minute")
        assert.isUndefined(recalled(cache, "a"))
      }).pipe(cacheWith({ memoryBytes }))
  )

  it.effect("count the age from the beginning of the generation", () =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      yield* TestClock.adjust("59 minutes")
      yield* keep(cache, "a", say("Hi"))
      assert.strictEqual(cache.recall("a")?.ageMs, 59 * minute)
      yield* TestClock.adjust("1 minute")
      assert.isUndefined(recalled(cache, "a"))
      yield* keep(cache, "a", say("late"))
      assert.isUndefined(recalled(cache, "a"))
    }).pipe(cacheWith()))

  it.effect("keep what the first has no memory for as text, and promote it", () =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      yield* keep(cache, "a", say("A"))
      yield* keep(cache, "b", say("B"))
      const found = ["a", "a", "b"].map((key) => recalled(cache, key))
      assert.deepStrictEqual(found, ["compact A", "memory A", "compact B"])
    }).pipe(cacheWith({ memoryBytes: 1_000 })))

  it.effect("are bounded in bytes and in number, least recently used first out", () =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      for (let index = 0; index < 100; index++) yield* keep(cache, String(index), say("x".repeat(1_000)))
      const { compact, memory } = cache.contents()
      assert.isAtMost(memory.bytes, 20_000)
      assert.isAbove(memory.entries, 5)
      assert.strictEqual(compact.entries, 10)
      assert.isUndefined(recalled(cache, "89"))
      assert.isDefined(recalled(cache, "90"))
    }).pipe(cacheWith({ memoryBytes: 20_000, compactEntries: 10 })))

  it.effect("keep no answer that is too large, and then still have the others", () =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      yield* keep(cache, "a", say("A"))
      yield* keep(cache, "b", say("B".repeat(Defaults.cache.largestBytes)))
      assert.deepStrictEqual([recalled(cache, "a"), recalled(cache, "b")], ["memory A", undefined])
    }).pipe(cacheWith()))

  it.effect.each(
    [
      [{ key: "a" }, "bc", 1],
      [{ model: "chat" }, "c", 2],
      [{ tenant: "one" }, "b", 2],
      [{ model: "chat", tenant: "two" }, "ac", 1],
      [{ model: "none" }, "abc", 0],
      [{}, "", 3]
    ] as const
  )("clear answers of %o, and leave %s", ([which, left, count]) =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      yield* keep(cache, "a", say("A"))
      yield* keep(cache, "b", say("B", { tenant: "two" }))
      yield* keep(cache, "c", say("C", { model: "other" }))
      assert.strictEqual(yield* cache.clear(which), count)
      assert.strictEqual(["a", "b", "c"].filter((key) => cache.recall(key) !== undefined).join(""), left)
    }).pipe(cacheWith()))

  it.effect("do not keep an answer whose model was cleared while it was generated", () =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      yield* TestClock.adjust("1 minute")
      yield* cache.clear({ model: "chat" })
      yield* keep(cache, "a", say("stale", { at: minute }))
      yield* keep(cache, "b", say("other", { at: minute, model: "other" }))
      yield* TestClock.adjust("1 minute")
      yield* keep(cache, "c", say("new", { at: yield* Clock.currentTimeMillis }))
      const found = ["a", "b", "c"].map((key) => recalled(cache, key))
      assert.deepStrictEqual(found, [undefined, "memory other", "memory new"])
    }).pipe(cacheWith()))

  it.effect("hold nothing while they are off", () =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      yield* keep(cache, "a", say("A"))
      cache.turnMemoryOff(true)
      yield* keep(cache, "b", say("B"))
      const nothing = { entries: 0, bytes: 0 }
      const semantic = { ...nothing, hits: 0, questions: [] }
      assert.deepStrictEqual(cache.contents(), { memory: nothing, compact: nothing, store: false, semantic })
      cache.turnMemoryOff(false)
      yield* keep(cache, "c", say("C"))
      assert.strictEqual(recalled(cache, "c"), "memory C")
    }).pipe(cacheWith()))
})

describe("the questions of kept answers", () => {
  const asked = {
    model: "chat",
    tenant: "one",
    scope: "scope",
    words: Uint32Array.of(1),
    vector: Float32Array.of(1)
  }
  const settings = { threshold: 0.9, margin: 0.02, entries: 10, bytes: 10_000 }
  const add = (cache: Cache) => cache.similar!.add(asked, "a", "A", minute, settings)
  const find = (cache: Cache) => cache.similar!.find(asked, settings)?.key

  it.effect.each([{ key: "a" }, { model: "chat" }, { tenant: "one" }, {}])(
    "are cleared with the answers of %o",
    (which) =>
      Effect.gen(function*() {
        const cache = yield* ResponseCache
        add(cache)
        assert.strictEqual(find(cache), "a")
        yield* cache.clear(which)
        assert.isUndefined(find(cache))
      }).pipe(cacheWith())
  )

  it.effect("are not held while memory is off", () =>
    Effect.gen(function*() {
      const cache = yield* ResponseCache
      add(cache)
      cache.turnMemoryOff(true)
      assert.isUndefined(find(cache))
      add(cache)
      cache.turnMemoryOff(false)
      assert.isUndefined(find(cache))
      add(cache)
      assert.strictEqual(find(cache), "a")
    }).pipe(cacheWith()))
})

type BackingService = Persistence.BackingPersistence["Service"]

/** A cache with a memory of its own: as another process of the same store. */
const inProcess = (backing: BackingService) => <A, E>(program: (cache: Cache) => Effect.Effect<A, E>) =>
  Effect.flatMap(ResponseCache, program).pipe(cacheWith(), Effect.provideService(Backing, backing))

const withBacking = <A, E, R>(program: (backing: BackingService) => Effect.Effect<A, E, R>) =>
  Effect.flatMap(Persistence.BackingPersistence, program).pipe(
    Effect.provide(Layer.fresh(Persistence.layerBackingMemory))
  )

/** Lines of the log. */
const logged = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ message }) => {
    lines.push(String(message))
  })
  return { lines, layer: Logger.layer([logger]) }
}

describe("the store", () => {
  it.effect("outlives the process, and its answers move to memory", () =>
    withBacking((backing) =>
      Effect.gen(function*() {
        const start = inProcess(backing)
        yield* start((cache) => keep(cache, "a", say("Hi")))
        yield* start((cache) =>
          Effect.gen(function*() {
            assert.isUndefined(recalled(cache, "a"))
            assert.strictEqual(yield* stored(cache, "a"), "store Hi")
            assert.strictEqual(recalled(cache, "a"), "memory Hi")
            assert.isUndefined(yield* stored(cache, "b"))
          })
        )
        yield* TestClock.adjust("60 minutes")
        assert.isUndefined(yield* start((cache) => stored(cache, "a")))
      })
    ))

  it.effect("takes a corrupt entry for a miss, removes it and logs it once", () => {
    const { layer, lines } = logged()
    const whole = { version: 1, ...say("x") }
    const texts = [
      "{",
      "null",
      "[]",
      ...[{ ...whole, version: 2 }, { ...whole, events: [] }, {}].map((value) => JSON.stringify(value))
    ]
    const entries: ReadonlyArray<object> = [...texts.map((text) => ({ text })), {}, { text: 1 }]
    return withBacking((backing) =>
      Effect.gen(function*() {
        const store = yield* backing.make("test")
        for (const [index, entry] of entries.entries()) yield* store.set(String(index), entry, undefined)
        yield* inProcess(backing)((cache) =>
          Effect.forEach(entries.keys(), (index) =>
            Effect.gen(function*() {
              assert.isUndefined(yield* stored(cache, String(index)))
              assert.isUndefined(yield* store.get(String(index)))
            }))
        )
        assert.lengthOf(lines, 1)
      })
    ).pipe(Effect.provide(layer), Effect.scoped)
  })

  it.effect("is cleared for every process, by key and by mark, and gives what is new", () =>
    withBacking((backing) => {
      const start = inProcess(backing)
      return start((other) =>
        Effect.gen(function*() {
          yield* keep(other, "a", say("A"))
          yield* keep(other, "b", say("B", { tenant: "two" }))
          yield* start((cache) => cache.clear({ tenant: "one" }))
          assert.isUndefined(yield* stored(other, "a"))
          assert.isUndefined(recalled(other, "a"))
          assert.strictEqual(recalled(other, "b"), "memory B")
          yield* start((cache) => cache.clear({ key: "b" }))
          assert.isUndefined(yield* stored(other, "b"))
          yield* TestClock.adjust("1 minute")
          yield* keep(other, "a", say("new", { at: minute }))
          assert.strictEqual(yield* start((cache) => stored(cache, "a")), "store new")
        })
      )
    }))

  it.effect("changes no answer if it fails, and says so once for each kind of failure", () => {
    const { layer, lines } = logged()
    const failing = Effect.die("down")
    const backing: BackingService = {
      make: () =>
        Effect.succeed({
          get: () => failing,
          getMany: () => failing,
          set: () => failing,
          setMany: () => failing,
          remove: () => failing,
          clear: failing
        })
    }
    return inProcess(backing)((cache) =>
      Effect.gen(function*() {
        for (const key of ["a", "b"]) yield* keep(cache, key, say(key))
        for (const key of ["c", "d"]) assert.isUndefined(yield* stored(cache, key))
        assert.strictEqual(recalled(cache, "a"), "memory a")
        assert.strictEqual(yield* cache.clear({}), 2)
        assert.lengthOf(lines, 3)
      })
    ).pipe(Effect.provide(layer))
  })
})
