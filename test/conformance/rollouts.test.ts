import { assert } from "@effect/vitest"
import { Effect, Layer, Schema } from "effect"
import { Draws } from "../../bench/RolloutSimulation.ts"
import * as Experiment from "../../src/services/rollout/Experiment.ts"
import type { Batch } from "../../src/services/rollout/ExperimentStore.ts"
import * as ExperimentStore from "../../src/services/rollout/ExperimentStore.ts"
import type { Rollout } from "../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../src/services/rollout/RolloutMachine.ts"
import { resolve, resolveExperiment } from "../../src/services/rollout/RolloutSettings.ts"
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

const storeOn = (database: Database) =>
  Layer.provide(Layer.merge(RolloutStore.layer, ExperimentStore.layer), database.layer())

const variants = [0, 1, 2].map((index) => ({ deployment: `chat#${index}`, weight: 1 }))
const plan = resolveExperiment({ variants })
const test = { id: "test", model: "chat", plan }

/** Random requests of each variant, none of some. */
const batchOf = (draws: Draws): Batch =>
  variants.map(() => {
    const tally = Tally.empty()
    for (let count = Math.floor(draws.next() * 6) - 1; count > 0; count--) {
      const firstTokenMs = 200 * Math.exp(draws.normal())
      Tally.record(tally, { failed: draws.chance(0.2), refused: false, firstTokenMs })
    }
    return tally
  })

const requestsOf = (experiment: Experiment.Experiment | undefined): ReadonlyArray<number> =>
  experiment === undefined ? [] : Experiment.report(experiment).map(({ requests }) => requests)

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

  it("has the A/B test of one process, however the requests were divided among several", (database) =>
    Effect.gen(function*() {
      const store = yield* ExperimentStore.ExperimentStore
      for (let seed = 1; seed <= 5; seed++) {
        const draws = new Draws(seed)
        const id = `test-${seed}`
        let expected = Experiment.start(plan)
        assert.isUndefined(yield* store.find(id))
        for (let period = 0; period < 6; period++) {
          const others = Array.from({ length: Math.floor(draws.next() * 4) }, () => batchOf(draws))
          const own = batchOf(draws)
          yield* Effect.forEach(others, (batch) => store.add(id, batch), { concurrency: "unbounded" })
          yield* store.evaluate({ ...test, id }, own, period)
          expected = Experiment.evaluated(Experiment.observed(expected, others.reduce(ExperimentStore.joined, own)))
          const found = yield* store.find(id)
          assert.deepStrictEqual(requestsOf(found), requestsOf(expected), `seed ${seed}, period ${period}`)
          assert.deepStrictEqual(found, Schema.decodeSync(Experiment.Experiment)(expected))
        }
      }
    }).pipe(Effect.provide(storeOn(database))))

  it("counts each request once where several compare at the same moment", (database) =>
    Effect.gen(function*() {
      const store = yield* ExperimentStore.ExperimentStore
      const draws = new Draws(1)
      const batches = Array.from({ length: 20 }, () => batchOf(draws))
      yield* Effect.forEach(
        batches,
        (batch, index) => index % 2 === 0 ? store.add("test", batch) : store.evaluate(test, batch, index),
        { concurrency: "unbounded", discard: true }
      )
      const nothing = plan.variants.map(() => Tally.empty())
      yield* store.evaluate(test, nothing, 100)
      const all = batches.reduce(ExperimentStore.joined)
      assert.deepStrictEqual(requestsOf(yield* store.find("test")), all.map(({ requests }) => requests))
      const before = yield* store.find("test")
      yield* store.evaluate(test, nothing, 101)
      assert.deepStrictEqual(yield* store.find("test"), before)
    }).pipe(Effect.provide(storeOn(database))))

  it("keeps the last A/B tests of a model", (database) =>
    Effect.gen(function*() {
      const store = yield* ExperimentStore.ExperimentStore
      const batch = plan.variants.map(() => ({ ...Tally.empty(), requests: 1 }))
      yield* store.evaluate({ ...test, id: "other", model: "other" }, batch, 0)
      for (let index = 0; index <= ExperimentStore.mostTests; index++) {
        yield* store.evaluate({ ...test, id: `test-${index}` }, batch, index)
      }
      assert.isUndefined(yield* store.find("test-0"))
      for (const id of ["other", "test-1", `test-${ExperimentStore.mostTests}`]) {
        assert.deepStrictEqual(requestsOf(yield* store.find(id)), [1, 1, 1], id)
      }
    }).pipe(Effect.provide(storeOn(database))))
})
