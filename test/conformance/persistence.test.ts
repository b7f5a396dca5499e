/** Effect's store of values with a time to live, on each database and on Redis. */
import { assert } from "@effect/vitest"
import { Context, Duration, Effect, Layer } from "effect"
import { BackingPersistence, layerBackingRedis, layerBackingSql } from "effect/persistence/Persistence"
import { onEachDatabase, onRedis } from "./databases.ts"

/** A client of its own, until the scope ends. */
const open = (layer: Layer.Layer<BackingPersistence, unknown>, id: string) =>
  Effect.flatMap(Layer.build(layer), (context) => Context.get(context, BackingPersistence).make(id))

const keepsValues = (layer: Layer.Layer<BackingPersistence, unknown>, prefix = "") =>
  Effect.gen(function*() {
    const store = yield* open(layer, `${prefix}answers`)
    const other = yield* open(layer, `${prefix}others`)
    yield* store.set("a", { text: "ä\u{1F600}", list: [1, null] }, Duration.minutes(1))
    yield* store.setMany([["b", { text: "b" }, undefined], ["c", { text: "c" }, Duration.minutes(1)]])
    assert.deepStrictEqual(yield* store.getMany(["a", "none", "b"]), [
      { text: "ä\u{1F600}", list: [1, null] },
      undefined,
      { text: "b" }
    ])
    yield* store.set("a", { text: "newer" }, undefined)
    assert.deepStrictEqual(yield* store.get("a"), { text: "newer" })
    assert.isUndefined(yield* other.get("a"))
    yield* store.remove("a")
    assert.isUndefined(yield* store.get("a"))
    yield* store.clear
    assert.isUndefined(yield* store.get("b"))
  }).pipe(Effect.scoped)

const isReadByOthers = (layer: () => Layer.Layer<BackingPersistence, unknown>, prefix = "") =>
  Effect.gen(function*() {
    const one = yield* open(layer(), `${prefix}answers`)
    const other = yield* open(layer(), `${prefix}answers`)
    yield* one.set("a", { text: "a" }, Duration.minutes(1))
    assert.deepStrictEqual(yield* other.get("a"), { text: "a" })
  }).pipe(Effect.scoped)

const subject = "a store of values"
const keeps = "keeps values by key and name, until they are removed"
const shares = "has the values of other clients"

onEachDatabase(subject, (test) => {
  const of = (database: Parameters<Parameters<typeof test>[1]>[0]) => Layer.provide(layerBackingSql, database.layer())
  test(keeps, (database) => keepsValues(of(database)))
  test(shares, (database) => database.location.type === "memory" ? Effect.void : isReadByOthers(() => of(database)))
})

onRedis(subject, (test) => {
  const of = (redis: Parameters<Parameters<typeof test>[1]>[0]) => Layer.provide(layerBackingRedis, redis.layer())
  test(keeps, (redis) => keepsValues(of(redis), redis.location.prefix))
  test(shares, (redis) => isReadByOthers(() => of(redis), redis.location.prefix))
})
