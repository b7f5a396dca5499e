/**
 * Values by key that end after a time, on each database and on Redis: Effect's store, and the makers of signed reasoning.
 */
import { assert } from "@effect/vitest"
import type { Scope } from "effect"
import { Clock, Context, Duration, Effect, Layer } from "effect"
import { BackingPersistence, layerBackingRedis, layerBackingSql } from "effect/persistence/Persistence"
import { Redis } from "effect/persistence/Redis"
import { SqlClient } from "effect/sql/SqlClient"
import * as Defaults from "../../src/domain/Defaults.ts"
import type { Made, Shared } from "../../src/services/inference/ReasoningMakers.ts"
import * as RedisMakers from "../../src/services/inference/RedisMakers.ts"
import * as SqlMakers from "../../src/services/inference/SqlMakers.ts"
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

type OpenMakers<R> = Effect.Effect<Shared, unknown, Scope.Scope | R>

/** The end of the scope writes them. */
const added = <R>(makers: OpenMakers<R>, made: ReadonlyArray<Made>) =>
  Effect.scoped(Effect.map(makers, ({ add }) => made.forEach(add)))

/** 53 bits. */
const greatest = Number.MAX_SAFE_INTEGER

const hasMakers = <R>(makers: OpenMakers<R>) =>
  Effect.gen(function*() {
    const other = yield* makers
    yield* added(makers, [[1, "ada"], [greatest, "bob"], [1, "late"]])
    yield* added(makers, [[1, "ada"], [3, "ada"]])
    const found = yield* other.find([greatest, 2, 1])
    assert.deepStrictEqual(found.toSorted(([a], [b]) => a - b), [[1, "ada"], [greatest, "bob"]])
    const many = Array.from({ length: Defaults.reasoningMakers.asked }, (_, index) => index)
    assert.lengthOf(yield* other.find(many), 2)
  }).pipe(Effect.scoped)

const knows = "has the makers that other clients have written"

const subject = "a store of values"
const keeps = "keeps values by key and name, until they are removed"
const shares = "has the values of other clients"

onEachDatabase(subject, (test) => {
  const of = (database: Parameters<Parameters<typeof test>[1]>[0]) => Layer.provide(layerBackingSql, database.layer())
  test(keeps, (database) => keepsValues(of(database)))
  test(shares, (database) => database.location.type === "memory" ? Effect.void : isReadByOthers(() => of(database)))

  test(knows, (database) =>
    Effect.scoped(Effect.flatMap(Layer.build(database.layer()), (own) =>
      // Memory is a database of one client.
      hasMakers(
        database.location.type === "memory"
          ? Effect.provide(SqlMakers.make, own)
          : Effect.flatMap(Layer.build(Layer.fresh(database.layer())), (other) => Effect.provide(SqlMakers.make, other))
      ))))

  test("deletes old makers, and no others", (database) =>
    Effect.gen(function*() {
      const sql = yield* SqlClient
      const now = yield* Clock.currentTimeMillis
      yield* added(SqlMakers.make, [[1, "ada"]])
      const old = now - Defaults.reasoningMakers.keptMs - 1
      const row = (mark: number, noted_at: number) => ({ mark, maker: "bob", noted_at })
      const many = Array.from({ length: 1_001 }, (_, index) => row(index + 10, old))
      yield* sql`INSERT INTO troupe_makers ${sql.insert([row(2, old), row(3, now), ...many])}`
      // The first write of another process.
      yield* added(SqlMakers.make, [[4, "ada"]])
      const kept = yield* sql<{ readonly mark: number }>`SELECT mark FROM troupe_makers ORDER BY mark`
      assert.deepStrictEqual(kept.map(({ mark }) => mark), [1, 3, 4])
    }).pipe(Effect.provide(database.layer())))
})

onRedis(subject, (test) => {
  const of = (redis: Parameters<Parameters<typeof test>[1]>[0]) => Layer.provide(layerBackingRedis, redis.layer())
  test(keeps, (redis) => keepsValues(of(redis), redis.location.prefix))
  test(shares, (redis) => isReadByOthers(() => of(redis), redis.location.prefix))

  test(knows, (redis) =>
    Effect.gen(function*() {
      const { prefix } = redis.location
      yield* hasMakers(RedisMakers.make(prefix))
      const { send } = yield* Redis
      const left = yield* send<number>("PTTL", `${prefix}maker:1`)
      assert.isTrue(left > 0 && left <= Defaults.reasoningMakers.keptMs, `${left}`)
    }).pipe(Effect.provide(redis.layer())))
})
