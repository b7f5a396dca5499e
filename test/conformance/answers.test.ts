/** The store of cached answers, on each database and on Redis. */
import { assert } from "@effect/vitest"
import { Clock, Effect, Layer } from "effect"
import * as Defaults from "../../src/domain/Defaults.ts"
import * as AnswerStore from "../../src/layers/cache/AnswerStore.ts"
import * as ResponseCacheLayer from "../../src/layers/cache/ResponseCache.ts"
import type { CachedAnswer } from "../../src/services/cache/CachedAnswer.ts"
import type { Found } from "../../src/services/cache/ResponseCache.ts"
import { ResponseCache } from "../../src/services/cache/ResponseCache.ts"
import { onEachDatabase, onRedis } from "./databases.ts"

type Cache = ResponseCache["Service"]

const usage = { promptTokens: 1, completionTokens: 1, cachedTokens: 1 }

const answerOf = (text: string, more: Partial<CachedAnswer> = {}) =>
  Effect.map(Clock.currentTimeMillis, (at): CachedAnswer => ({
    model: "chat",
    tenant: "one",
    deployment: "chat#0",
    at,
    ttlMs: 3_600_000,
    events: [{ type: "text", text, tokens: 0 }, { type: "finish", reason: "stop", usage }],
    ...more
  }))

const keep = (cache: Cache, key: string, text: string, more?: Partial<CachedAnswer>) =>
  Effect.flatMap(answerOf(text, more), (answer) => cache.keep(key, answer) ?? Effect.void)

const textOf = (found: Found | undefined) => {
  const [first] = found?.answer.events ?? []
  return first?.type === "text" ? first.text : undefined
}

const find = (cache: Cache, key: string) => Effect.map(cache.recallStored!(key), textOf)

/** Runs a program with a cache of its own: as another process of the same store. */
type Start = <A>(program: (cache: Cache) => Effect.Effect<A, unknown>) => Effect.Effect<A, unknown>

const startOn = (backing: Layer.Layer<never, unknown>, prefix: string): Start => (program) =>
  Effect.flatMap(ResponseCache, program).pipe(
    Effect.provide(
      Layer.fresh(ResponseCacheLayer.layerWith({ ...Defaults.cache, storeId: `${prefix}answers` })).pipe(
        Layer.provide(Layer.fresh(backing))
      )
    )
  )

const behaviors: Readonly<Record<string, (start: Start) => Effect.Effect<void, unknown>>> = {
  "gives an answer to every process, with every character": (start) =>
    Effect.gen(function*() {
      const text = "ä\u{1F600}'\"\\\n".repeat(1_000)
      yield* start((cache) => keep(cache, "a", text))
      assert.strictEqual(yield* start((cache) => find(cache, "a")), text)
      assert.isUndefined(yield* start((cache) => find(cache, "b")))
    }),
  "gives the newest answer of a key": (start) =>
    Effect.gen(function*() {
      yield* start((cache) => Effect.andThen(keep(cache, "a", "first"), keep(cache, "a", "second")))
      assert.strictEqual(yield* start((cache) => find(cache, "a")), "second")
    }),
  "gives no answer whose time to live has ended": (start) =>
    Effect.gen(function*() {
      yield* start((cache) => keep(cache, "a", "Hi", { ttlMs: 1 }))
      yield* Effect.sleep("10 millis")
      assert.isUndefined(yield* start((cache) => find(cache, "a")))
    }),
  "is cleared for every process by key, model and tenant": (start) =>
    Effect.gen(function*() {
      yield* start((cache) =>
        Effect.all([keep(cache, "a", "A"), keep(cache, "b", "B"), keep(cache, "c", "C", { tenant: "two" })])
      )
      yield* start((cache) => cache.clear({ key: "a" }))
      const left = () => start((cache) => Effect.forEach(["a", "b", "c"], (key) => find(cache, key)))
      assert.deepStrictEqual(yield* left(), [undefined, "B", "C"])
      yield* start((cache) => cache.clear({ tenant: "one", model: "chat" }))
      assert.deepStrictEqual(yield* left(), [undefined, undefined, "C"])
      yield* start((cache) => cache.clear({}))
      assert.deepStrictEqual(yield* left(), [undefined, undefined, undefined])
    })
}

onEachDatabase("cached answers", (test) => {
  for (const [name, behavior] of Object.entries(behaviors)) {
    test(name, (database) =>
      Effect.scoped(Effect.flatMap(
        // One client: a database in memory ends with it.
        Layer.build(database.layer()),
        (context) => behavior(startOn(Layer.provide(AnswerStore.layerSql, Layer.succeedContext(context)), "test:"))
      )))
  }

  test("are bounded in number: those that end first are deleted, and no mark", (database) =>
    Effect.scoped(Effect.flatMap(
      Layer.build(database.layer()),
      (context) => {
        const backing = Layer.provide(AnswerStore.layerSqlWith(10), Layer.succeedContext(context))
        const start = startOn(backing, "test:")
        const others = startOn(backing, "others:")
        return Effect.gen(function*() {
          yield* others((cache) => keep(cache, "0", "other", { ttlMs: 1_000_000 }))
          yield* start((cache) =>
            Effect.gen(function*() {
              yield* cache.clear({ tenant: "two" })
              const at = yield* Clock.currentTimeMillis
              // The store reads the clock again, so that ends less than a second apart could change places.
              for (let index = 0; index < 30; index++) {
                yield* keep(cache, String(index), `answer ${index}`, { at, ttlMs: 3_600_000 + index * 60_000 })
              }
            })
          )
          const keys = Array.from({ length: 30 }, (_, index) => String(index))
          const found = yield* start((cache) => Effect.forEach(keys, (key) => find(cache, key)))
          // The mark is one of the ten.
          assert.deepStrictEqual(
            found.filter((text) => text !== undefined),
            keys.slice(-9).map((key) => `answer ${key}`)
          )
          assert.strictEqual(yield* others((cache) => find(cache, "0")), "other")
        })
      }
    )))
})

onRedis("cached answers", (test) => {
  for (const [name, behavior] of Object.entries(behaviors)) {
    test(
      name,
      ({ layer, location: { prefix } }) => behavior(startOn(Layer.provide(AnswerStore.layerRedis, layer()), prefix))
    )
  }
})
