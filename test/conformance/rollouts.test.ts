import { assert } from "@effect/vitest"
import { Effect, Layer } from "effect"
import type { Rollout } from "../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../src/services/rollout/RolloutMachine.ts"
import { resolve } from "../../src/services/rollout/RolloutSettings.ts"
import type { Stored, Tallies } from "../../src/services/rollout/RolloutStore.ts"
import * as RolloutStore from "../../src/services/rollout/RolloutStore.ts"
import * as Tally from "../../src/services/rollout/Tally.ts"
import type { Database } from "./databases.ts"
import { onEachDatabase } from "./databases.ts"

const input = { id: "a", model: "chat", stable: "chat#0", candidate: "chat#1", plan: resolve() }

const stored = (id: string, more: Partial<Rollout> = {}): Stored => ({
  rollout: { ...RolloutMachine.start({ ...input, id }, 1_700_000_000_000).state, ...more },
  candidate: { id: "chat#1", options: "new" },
  stable: [{ id: "chat#0", options: "old" }]
})

const ended: Rollout["phase"] = {
  _tag: "Ended",
  at: 2,
  outcome: { result: "aborted", cause: "operator", metric: null, reason: "So." }
}

const tallies = (failures: number): Tallies => ({
  stable: Tally.empty(),
  candidate: { ...Tally.empty(), requests: 10, failures }
})

const storeOn = (database: Database) => Layer.provide(RolloutStore.layer, database.layer())

onEachDatabase("the store of rollouts", (it) => {
  it("has a rollout as it was written, and no second one of a model before its end", (database) =>
    Effect.gen(function*() {
      const store = yield* RolloutStore.RolloutStore
      assert.isTrue(yield* store.insert(stored("a")))
      assert.isFalse(yield* store.insert(stored("b")))
      assert.deepStrictEqual(yield* store.load, [{ stored: stored("a"), version: 1 }])
      assert.isTrue(yield* store.update({ stored: stored("a", { phase: ended }), version: 1 }))
      assert.isTrue(yield* store.insert(stored("b", { startedAt: 1_700_000_000_001 })))
      assert.deepStrictEqual((yield* store.current).map((one) => one.stored.rollout.id), ["a", "b"])
    }).pipe(Effect.provide(storeOn(database))))

  it("keeps the last ended rollouts of a model, and those of others", (database) =>
    Effect.gen(function*() {
      const store = yield* RolloutStore.RolloutStore
      const most = RolloutStore.mostEnded
      yield* store.insert(stored("other", { model: "other", phase: ended }))
      for (let index = 0; index < most + 2; index++) {
        yield* store.insert(stored(`r${index}`, { phase: ended, startedAt: 1_700_000_000_001 + index }))
      }
      yield* store.insert(stored("running", { startedAt: 1_800_000_000_000 }))
      const kept = (yield* store.load).map((one) => one.stored.rollout.id)
      assert.strictEqual(kept.length, most + 2)
      assert.deepStrictEqual([kept[0], kept[1], kept.at(-1)], ["other", "r2", "running"])
    }).pipe(Effect.provide(storeOn(database))))

  it("writes only over the version that was read", (database) =>
    Effect.gen(function*() {
      const store = yield* RolloutStore.RolloutStore
      yield* store.insert(stored("a"))
      assert.isTrue(yield* store.update({ stored: stored("a", { step: 1 }), version: 1 }))
      assert.isFalse(yield* store.update({ stored: stored("a", { step: 3 }), version: 1 }))
      assert.deepStrictEqual(yield* store.load, [{ stored: stored("a", { step: 1 }), version: 2 }])
    }).pipe(Effect.provide(storeOn(database))))

  it("has one leader of a rollout, until its lease ends or it resigns", (database) =>
    Effect.gen(function*() {
      const store = yield* RolloutStore.RolloutStore
      assert.isTrue(yield* store.lead("a", "one", 0, 10))
      assert.isFalse(yield* store.lead("a", "two", 5, 15))
      assert.isTrue(yield* store.lead("a", "one", 9, 19))
      assert.isFalse(yield* store.lead("a", "two", 11, 21))
      assert.isTrue(yield* store.lead("a", "two", 20, 30))
      yield* store.resign("one")
      assert.isFalse(yield* store.lead("a", "one", 25, 35))
      yield* store.resign("two")
      assert.isTrue(yield* store.lead("a", "one", 26, 36))
      assert.isTrue(yield* store.lead("b", "two", 26, 28))
      assert.deepStrictEqual([...yield* store.led(28)], ["a"])
    }).pipe(Effect.provide(storeOn(database))))

  it("gives what processes have measured once", (database) =>
    Effect.gen(function*() {
      const store = yield* RolloutStore.RolloutStore
      yield* store.add("a", tallies(1))
      yield* store.add("a", tallies(2))
      yield* store.add("b", tallies(3))
      const taken = yield* store.take("a")
      assert.deepStrictEqual(taken.map(({ candidate }) => candidate.failures).toSorted((a, b) => a - b), [1, 2])
      assert.deepStrictEqual(yield* store.take("a"), [])
    }).pipe(Effect.provide(storeOn(database))))
})
