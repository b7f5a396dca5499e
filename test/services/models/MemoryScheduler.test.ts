/** Models that share a memory which does not hold them all. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import type { Deployment } from "../../../src/domain/Deployment.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { deployment } from "../../support/Deployments.ts"
import type { EngineBehaviour, ScriptedEngines } from "../../support/ScriptedEngines.ts"
import {
  crashed,
  hold,
  indexOf,
  large,
  loadFailed,
  MiB,
  scriptedEngines,
  settle,
  statusOf,
  using,
  workFor
} from "../../support/ScriptedEngines.ts"

const once = (chosen: Deployment) => using(chosen, (engine) => Effect.succeed(indexOf(engine)))

const openOf = ({ engines }: ScriptedEngines) =>
  engines.filter(({ open }) => open).map(({ deployment }) => deployment.id)

const startsOf = ({ engines }: ScriptedEngines) => engines.map(({ deployment }) => deployment.id)

const reasonOf = (chosen: Deployment) => Effect.map(Effect.flip(once(chosen)), ({ reason }) => reason)

/** Scripted engines with a budget; `over` records each excess of open engines. */
const bounded = (behaviour: EngineBehaviour & { readonly budget: number }) => {
  const over: Array<number> = []
  const setup: ScriptedEngines = scriptedEngines({
    ...behaviour,
    onChange() {
      const taken = setup.engines.filter(({ open }) => open).reduce(
        (sum, { deployment: { options } }) => sum + (options.engine === "fake" ? Number(options.memory ?? 0) : 0),
        0
      )
      if (taken > behaviour.budget * MiB) over.push(taken / MiB)
    }
  })
  return { ...setup, over }
}

/** Callers at an interval, each with a job of 300 ms; their waits, ms. */
const stream = (chosen: Deployment, count: number, everyMs: number) =>
  Effect.gen(function*() {
    const waits: Array<number> = []
    const now = Effect.clockWith((clock) => Effect.succeed(clock.currentTimeMillisUnsafe()))
    const call = Effect.gen(function*() {
      const since = yield* now
      yield* using(chosen, () =>
        Effect.andThen(Effect.map(now, (at) => waits.push(at - since)), Effect.sleep("300 millis")))
    })
    const callers = yield* Effect.forEach(
      Array.from({ length: count }, (_, index) =>
        index),
      (index) => Effect.forkChild(Effect.andThen(Effect.sleep(index * everyMs), call))
    )
    return { callers, waits }
  })

describe("two models that do not fit together", () => {
  const a = large("a", 6)
  const b = large("b", 6)

  it.effect("both serve all their callers within a bound, and swap at most once per hold time", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(5), load: () => Effect.sleep("1 second") })
    return Effect.gen(function*() {
      const streams = yield* Effect.all([stream(a, 200, 290), stream(b, 200, 310)])
      yield* TestClock.adjust("10 minutes")
      for (const { callers, waits } of streams) {
        yield* Fiber.joinAll(callers)
        assert.strictEqual(waits.length, 200)
        // The other's load, hold and last job, and its own load.
        assert.isAtMost(Math.max(...waits), 1_000 + 5_000 + 300 + 1_000)
      }
      assert.deepStrictEqual(setup.over, [])
      const swaps = setup.tries.slice(1).map((at, index) => at - setup.tries[index]!)
      assert.isAtLeast(Math.min(...swaps), 5_000)
      // They did take turns.
      assert.isAbove(swaps.length, 8)
      assert.deepStrictEqual(new Set(startsOf(setup).filter((_, index) => index % 2 === 0)), new Set(["a"]))
      assert.deepStrictEqual(new Set(startsOf(setup).filter((_, index) => index % 2 === 1)), new Set(["b"]))
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("swap without a hold time too: each serves a job before its unload", () => {
    const setup = bounded({ budget: 10, hold: Duration.zero, load: () => Effect.sleep("10 millis") })
    return Effect.gen(function*() {
      const streams = yield* Effect.all([stream(a, 30, 0), stream(b, 30, 0)])
      yield* TestClock.adjust("10 minutes")
      for (const { callers } of streams) yield* Fiber.joinAll(callers)
      assert.deepStrictEqual(setup.over, [])
      assert.isAtMost(setup.tries.length, 60)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("do not swap within the hold time, even if the other is idle", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(5) })
    return Effect.gen(function*() {
      yield* once(a)
      const waits = yield* workFor(b, 0)
      yield* TestClock.adjust("4999 millis")
      assert.deepStrictEqual(openOf(setup), ["a"])
      yield* TestClock.adjust("1 millis")
      yield* Fiber.join(waits)
      assert.deepStrictEqual(openOf(setup), ["b"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("wait for a long job before they swap, and start no other job in its engine meanwhile", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(5) })
    return Effect.gen(function*() {
      const runs = yield* workFor(a, "1 minute")
      const waits = yield* workFor(b, 0)
      yield* TestClock.adjust("6 seconds")
      const late = yield* workFor(a, 0)
      yield* TestClock.adjust("50 seconds")
      assert.isUndefined(late.pollUnsafe())
      yield* TestClock.adjust("4 seconds")
      assert.strictEqual(yield* Fiber.join(runs), 0)
      assert.strictEqual(yield* Fiber.join(waits), 1)
      yield* TestClock.adjust("5 seconds")
      assert.strictEqual(yield* Fiber.join(late), 2)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("continue as before when the caller that waits for memory disconnects", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(5) })
    return Effect.gen(function*() {
      const runs = yield* hold(a)
      const waits = yield* hold(b)
      yield* TestClock.adjust("6 seconds")
      const late = yield* workFor(a, 0)
      yield* settle
      assert.isUndefined(late.pollUnsafe())
      yield* Fiber.interrupt(waits)
      yield* settle
      assert.strictEqual(yield* Fiber.join(late), 0)
      assert.strictEqual((yield* statusOf(b)).state, "cold")
      assert.deepStrictEqual(startsOf(setup), ["a"])
      yield* Fiber.interrupt(runs)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("continue to serve beside a load without callers, which gets the memory once one is idle", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(5) })
    return Effect.gen(function*() {
      const runs = yield* workFor(a, "1 minute")
      yield* TestClock.adjust("6 seconds")
      const waits = yield* Effect.forkChild(
        Models.use(({ lease }) => lease(b, {}, () => true)).pipe(Effect.scoped)
      )
      yield* settle
      const late = yield* workFor(a, "10 seconds")
      yield* settle
      // While a request waits for the other model, this one takes no jobs.
      assert.deepInclude(yield* statusOf(a), { running: 1, queued: 1 })
      yield* Fiber.interrupt(waits)
      yield* settle
      assert.deepInclude(yield* statusOf(a), { running: 2, queued: 0 })
      assert.strictEqual((yield* statusOf(b)).state, "loading")
      yield* TestClock.adjust("54 seconds")
      assert.strictEqual(yield* Fiber.join(runs), 0)
      assert.strictEqual(yield* Fiber.join(late), 0)
      yield* settle
      assert.deepStrictEqual(openOf(setup), ["b"])
      assert.deepStrictEqual(setup.over, [])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("take turns again once a request waits for the load without callers", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(5) })
    return Effect.gen(function*() {
      const runs = yield* workFor(a, "1 minute")
      yield* TestClock.adjust("6 seconds")
      const moving = yield* Effect.forkChild(
        Models.use(({ lease }) => lease(b, {}, () => true)).pipe(Effect.scoped)
      )
      yield* settle
      yield* Fiber.interrupt(moving)
      const stays = yield* workFor(b, 0)
      yield* settle
      const late = yield* workFor(a, 0)
      yield* settle
      assert.isUndefined(late.pollUnsafe())
      yield* TestClock.adjust("54 seconds")
      assert.strictEqual(yield* Fiber.join(runs), 0)
      assert.strictEqual(yield* Fiber.join(stays), 1)
      yield* Fiber.interrupt(late)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("precede a load without callers that has waited longer", () => {
    const c = large("c", 6)
    const setup = bounded({ budget: 10, hold: Duration.seconds(5) })
    return Effect.gen(function*() {
      const runs = yield* workFor(a, "1 minute")
      yield* TestClock.adjust("6 seconds")
      const moving = yield* Effect.forkChild(
        Models.use(({ lease }) => lease(b, {}, () => true)).pipe(Effect.scoped)
      )
      yield* settle
      yield* Fiber.interrupt(moving)
      const stays = yield* workFor(c, 0)
      yield* TestClock.adjust("54 seconds")
      yield* Fiber.join(runs)
      assert.strictEqual(yield* Fiber.join(stays), 1)
      assert.deepStrictEqual(startsOf(setup), ["a", "c"])
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual(startsOf(setup), ["a", "c", "b"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("are unloaded when idle after an eviction whose callers have all disconnected", () => {
    const setup = bounded({ budget: 12, hold: Duration.seconds(5) })
    return Effect.gen(function*() {
      const runs = yield* workFor(a, "10 seconds")
      const long = yield* workFor(large("c", 6), "1 minute")
      const both = yield* hold(large("both", 12))
      yield* TestClock.adjust("6 seconds")
      const late = yield* hold(a)
      yield* TestClock.adjust("4 seconds")
      yield* Fiber.join(runs)
      yield* Fiber.interruptAll([late, both])
      yield* TestClock.adjust("1 hour")
      yield* Fiber.join(long)
      assert.deepStrictEqual(openOf(setup), [])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("swap if the one in use crashes while the other waits", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(5) })
    return Effect.gen(function*() {
      const runs = yield* workFor(a, "1 minute")
      const more = yield* Effect.forEach(Array.from({ length: 8 }), () => workFor(a, "1 second"))
      yield* TestClock.adjust("6 seconds")
      const waits = yield* workFor(b, 0)
      yield* settle
      yield* setup.engines[0]!.crash("Gone.")
      yield* TestClock.adjust("2 minutes")
      yield* Fiber.joinAll([runs, waits, ...more])
      assert.deepStrictEqual(setup.over, [])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("release the memory when a load fails", () => {
    const setup = bounded({
      budget: 10,
      load: (index) => index === 0 ? Effect.fail(loadFailed) : Effect.void
    })
    return Effect.gen(function*() {
      assert.strictEqual((yield* reasonOf(a))._tag, "ModelLoadFailed")
      assert.strictEqual(yield* once(b), 1)
      assert.deepStrictEqual(setup.over, [])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("release the memory when restarts are used up", () => {
    const setup = bounded({
      budget: 10,
      load: (_, { id }) => id === "a" ? Effect.fail(crashed("Always.")) : Effect.void
    })
    return Effect.gen(function*() {
      const failing = yield* Effect.forkChild(reasonOf(a))
      yield* settle
      const waits = yield* workFor(b, 0)
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual((yield* Fiber.join(failing))._tag, "EngineCrashed")
      yield* Fiber.join(waits)
      assert.deepStrictEqual(openOf(setup), ["b"])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("three models", () => {
  it.effect("of which two fit are all served", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(2), load: () => Effect.sleep("500 millis") })
    return Effect.gen(function*() {
      const streams = yield* Effect.forEach(
        [large("a", 5), large("b", 5), large("c", 5)],
        (one, index) => stream(one, 60, 180 + 40 * index)
      )
      yield* TestClock.adjust("10 minutes")
      for (const { callers } of streams) yield* Fiber.joinAll(callers)
      assert.deepStrictEqual(setup.over, [])
      for (const { waits } of streams) assert.isAtMost(Math.max(...waits), 10_000)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("evict the one that is cheapest to evict", () => {
    const setup = bounded({ budget: 12 })
    return Effect.gen(function*() {
      yield* once(large("rare", 6))
      yield* Effect.forEach(Array.from({ length: 20 }), () => once(large("busy", 6)))
      yield* TestClock.adjust("1 minute")
      yield* once(large("new", 6))
      assert.deepStrictEqual(openOf(setup), ["busy", "new"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("never evict the pinned one", () => {
    const setup = bounded({ budget: 12, hold: Duration.seconds(1) })
    return Effect.gen(function*() {
      yield* once(large("pinned", 6, { pinned: true }))
      for (let count = 0; count < 10; count++) {
        const waits = yield* workFor(large(`m${count % 3}`, 6), 0)
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(waits)
        assert.isTrue(setup.engines[0]!.open)
      }
      assert.deepStrictEqual(setup.over, [])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("a model that cannot fit", () => {
  it.effect("is refused at once, with the needed memory and the memory that pinned models leave", () => {
    const setup = bounded({ budget: 10 })
    return Effect.gen(function*() {
      yield* once(large("pinned", 4, { pinned: true }))
      assert.deepInclude(yield* reasonOf(large("a", 7)), {
        _tag: "InsufficientMemory",
        neededBytes: 7 * MiB,
        availableBytes: 6 * MiB
      })
      assert.strictEqual((yield* statusOf(large("a", 7))).state, "failed")
      assert.deepStrictEqual(startsOf(setup), ["pinned"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is refused at once also while others wait for their turn", () => {
    const setup = bounded({ budget: 10 })
    return Effect.gen(function*() {
      const runs = yield* hold(large("a", 6))
      const waits = yield* hold(large("b", 6))
      yield* settle
      assert.strictEqual((yield* reasonOf(large("c", 11)))._tag, "InsufficientMemory")
      yield* Fiber.interruptAll([runs, waits])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("does not delay other models", () => {
    const setup = bounded({ budget: 10 })
    return Effect.gen(function*() {
      assert.strictEqual((yield* reasonOf(large("a", 11)))._tag, "InsufficientMemory")
      assert.strictEqual(yield* once(large("b", 10)), 0)
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("a model that waits for memory", () => {
  const remote = deployment("remote", {
    options: { engine: "remote", provider: "openai", model: "m" }
  })
  const others: ReadonlyArray<readonly [name: string, other: Deployment]> = [
    ["that is remote", remote],
    ["that takes no memory", large("nothing", 0)],
    ["that fits beside what it waits for", large("small", 2)],
    ["that fits now, though it needs that memory", large("medium", 4)]
  ]
  for (const [name, other] of others) {
    it.effect(`does not delay one ${name}`, () => {
      const setup = bounded({ budget: 10 })
      return Effect.gen(function*() {
        const runs = yield* hold(large("a", 6))
        const waits = yield* hold(large("b", 8))
        yield* TestClock.adjust("1 minute")
        assert.strictEqual((yield* statusOf(large("b", 8))).state, "loading")
        const quick = yield* workFor(other, 0)
        yield* settle
        assert.strictEqual(yield* Fiber.join(quick), 1)
        yield* Fiber.interruptAll([runs, waits])
        assert.deepStrictEqual(setup.over, [])
      }).pipe(Effect.provide(setup.layer))
    })
  }

  it.effect("does not delay the load of a remote deployment where the memory cannot be read", () => {
    const setup = scriptedEngines({ reading: () => ({ totalBytes: 0, availableBytes: 0 }) })
    return Effect.gen(function*() {
      yield* once(remote)
      assert.deepStrictEqual(openOf(setup), ["remote"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("gets its turn among constant small loads, and delays those that need its memory", () => {
    const setup = bounded({ budget: 10, hold: Duration.seconds(1) })
    return Effect.gen(function*() {
      const small = yield* Effect.forEach([1, 2, 3, 4, 5], (index) => stream(large(`s${index}`, 3), 100, 300))
      yield* TestClock.adjust("2 seconds")
      const waits = yield* stream(large("large", 10), 1, 0)
      yield* TestClock.adjust("10 minutes")
      for (const { callers } of [...small, waits]) yield* Fiber.joinAll(callers)
      assert.deepStrictEqual(setup.over, [])
      // Those that are there and those that may overtake it: their hold times and last jobs.
      assert.isAtMost(waits.waits[0]!, 4 * (1_000 + 300))
      for (const one of small) assert.isAtMost(Math.max(...one.waits), 20_000)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("waits for its own memory only, not for that of a load that waits longer", () => {
    const setup = bounded({ budget: 12, hold: Duration.zero })
    return Effect.gen(function*() {
      const long = yield* workFor(large("long", 6), "1 hour")
      const short = yield* workFor(large("short", 6), "10 seconds")
      yield* settle
      // It needs the memory of both.
      const both = yield* hold(large("both", 12))
      yield* settle
      const next = yield* workFor(large("next", 6), 0)
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.joinAll([short, next])
      assert.isUndefined(both.pollUnsafe())
      yield* Fiber.interruptAll([long, both])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("the memory of the machine", () => {
  it.effect("is used up to four fifths, and a loading model counts before it uses its memory", () => {
    let available = 20
    const setup = scriptedEngines({
      reading: () => ({ totalBytes: 100 * MiB, availableBytes: available * MiB }),
      load: () => Effect.sleep("1 second")
    })
    return Effect.gen(function*() {
      // 16 of the 20 that are free may be used: the second must wait while the first has taken nothing yet.
      const first = yield* hold(large("a", 10))
      yield* settle
      const second = yield* hold(large("b", 10))
      yield* settle
      assert.deepStrictEqual(startsOf(setup), ["a"])
      available = 10
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(startsOf(setup), ["a"])
      assert.strictEqual((yield* reasonOf(large("c", 17)))._tag, "InsufficientMemory")
      yield* Fiber.interruptAll([first, second])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("a footprint", () => {
  it.effect("that was measured replaces the estimate", () => {
    const setup = scriptedEngines({ budget: 10, hold: Duration.zero })
    const a = large("a", 3)
    const b = large("b", 6)
    return Effect.gen(function*() {
      yield* using(a, () =>
        Effect.sync(() => {
          setup.engines[0]!.memoryBytes = 5 * MiB
        }))
      yield* Models.use(({ statuses }) => statuses)
      // By the estimates they would fit together.
      yield* once(b)
      assert.deepStrictEqual(openOf(setup), ["b"])
      // It is remembered when the model is loaded again.
      const again = yield* workFor(a, "1 minute")
      yield* settle
      assert.deepStrictEqual(openOf(setup), ["a"])
      yield* Fiber.interrupt(again)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("is measured from an engine that has done a job, and is its maximum", () => {
    const setup = scriptedEngines({ budget: 10, hold: Duration.zero })
    const a = large("a", 6)
    return Effect.gen(function*() {
      yield* Models.use(({ load }) => load(a))
      setup.engines[0]!.memoryBytes = 2 * MiB
      yield* Models.use(({ statuses }) => statuses)
      const runs = yield* hold(a)
      yield* settle
      // It has not touched its weights yet: the estimate counts.
      const waits = yield* hold(large("b", 6))
      yield* settle
      assert.deepStrictEqual(openOf(setup), ["a"])
      yield* Fiber.interruptAll([waits, runs])
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("the variants of a model", () => {
  const files = {
    "large.gguf": { mebibytes: 6, bits: 4 },
    "small.gguf": { mebibytes: 3, bits: 4 }
  } as const
  const varied = deployment("v", {
    options: { engine: "llama", file: "large.gguf", variants: ["small.gguf"] }
  })
  const fileOf = ({ engines }: ScriptedEngines) =>
    engines.map(({ deployment: { options } }) => options.engine === "llama" ? options.file : options.engine)

  it.effect("replace a variant that does not fit", () => {
    const setup = scriptedEngines({ budget: 5, files })
    return Effect.gen(function*() {
      yield* once(varied)
      assert.deepStrictEqual(fileOf(setup), ["small.gguf"])
      const { status, variant } = yield* Models
      assert.strictEqual(yield* variant(varied.id), "small.gguf")
      assert.isUndefined(yield* variant("w"))
      assert.strictEqual((yield* status(varied)).variant, "small.gguf")
      assert.isUndefined((yield* status(deployment("w"))).variant)
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("are chosen by size: the largest that fits", () => {
    const setup = scriptedEngines({ budget: 8, files })
    return Effect.gen(function*() {
      yield* once(varied)
      assert.deepStrictEqual(fileOf(setup), ["large.gguf"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("evict no other model if a smaller variant fits beside it", () => {
    const setup = scriptedEngines({ budget: 8, files })
    return Effect.gen(function*() {
      yield* once(large("other", 4))
      yield* TestClock.adjust("1 minute")
      yield* once(varied)
      assert.deepStrictEqual(fileOf(setup), ["fake", "small.gguf"])
      assert.deepStrictEqual(openOf(setup), ["other", "v"])
    }).pipe(Effect.provide(setup.layer))
  })

  it.effect("load even if no file can be read, so that the engine reports the error", () => {
    const setup = scriptedEngines({ budget: 8, load: () => Effect.fail(loadFailed) })
    return Effect.gen(function*() {
      assert.strictEqual((yield* reasonOf(varied))._tag, "ModelLoadFailed")
    }).pipe(Effect.provide(setup.layer))
  })
})

describe("the memory of a job in flight", () => {
  it.effect("is never released early: an eviction waits for the end of a job whose caller has disconnected", () => {
    const setup = bounded({ budget: 10, hold: Duration.zero })
    return Effect.gen(function*() {
      const leaves = yield* Effect.forkChild(
        using(large("a", 6), (engine) => engine.embed(["x"]))
      )
      yield* settle
      yield* Fiber.interrupt(leaves)
      const waits = yield* workFor(large("b", 6), 0)
      yield* TestClock.adjust("1 minute")
      assert.deepStrictEqual(openOf(setup), ["a"])
      assert.isUndefined(waits.pollUnsafe())
      setup.engines[0]!.jobs[0]!.emit({ type: "cancelled" })
      yield* settle
      yield* Fiber.join(waits)
      assert.deepStrictEqual(openOf(setup), ["b"])
    }).pipe(Effect.provide(setup.layer))
  })
})
