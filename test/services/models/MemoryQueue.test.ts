import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Candidate, Resident, Snapshot } from "../../../src/services/models/EvictionPlan.ts"
import type { Decision, Waiting } from "../../../src/services/models/MemoryQueue.ts"
import { overtakesLimit, schedule } from "../../../src/services/models/MemoryQueue.ts"
import type { Random } from "../../support/Seeded.ts"
import { randomOf } from "../../support/Seeded.ts"

const resident = (key: string, bytes: number, more: Partial<Resident> = {}): Resident => ({
  key,
  bytes,
  pinned: false,
  inUse: false,
  idleMs: 60_000,
  heldMs: 60_000,
  reloadMs: 1_000,
  demand: 10,
  ...more
})

const busy = (key: string, bytes: number, more: Partial<Resident> = {}) =>
  resident(key, bytes, { inUse: true, ...more })

const waiting = (key: string, bytes: number, overtaken = 0): Waiting => ({
  key,
  candidates: [{ name: key, bytes }],
  overtaken
})

const snapshot = (budgetBytes: number, ...residents: ReadonlyArray<Resident>): Snapshot => ({
  budgetBytes,
  residents,
  holdMs: 5_000
})

/** What becomes of each, in short. */
const outcomes = (decisions: ReadonlyArray<Decision>) =>
  decisions.map(({ key, overtakes, plan }) => {
    switch (plan.type) {
      case "load":
        return [key, overtakes ? "overtakes" : "loads", ...plan.evict]
      case "wait":
        return [key, "waits", ...plan.drain]
      case "refuse":
        return [key, "is refused"]
    }
  })

const cases: ReadonlyArray<
  readonly [name: string, waiting: ReadonlyArray<Waiting>, snapshot: Snapshot, expected: ReturnType<typeof outcomes>]
> = [
  [
    "all that fit load at once",
    [waiting("x", 4), waiting("y", 3), waiting("z", 3)],
    snapshot(10),
    [["x", "loads"], ["y", "loads"], ["z", "loads"]]
  ],
  [
    "what an earlier one has been granted is not there for the next",
    [waiting("x", 4), waiting("y", 7)],
    snapshot(10),
    [["x", "loads"], ["y", "waits"]]
  ],
  [
    "one that fits beside what an earlier one waits for does not wait, however often that was overtaken",
    [waiting("large", 8, overtakesLimit), waiting("small", 2)],
    snapshot(10, busy("a", 6)),
    [["large", "waits", "a"], ["small", "loads"]]
  ],
  [
    "one that needs the memory that an earlier one waits for may overtake it",
    [waiting("large", 9), waiting("small", 2)],
    snapshot(10, busy("a", 6)),
    [["large", "waits", "a"], ["small", "overtakes"]]
  ],
  [
    "but not for ever",
    [waiting("large", 9, overtakesLimit), waiting("small", 2)],
    snapshot(10, busy("a", 6)),
    [["large", "waits", "a"], ["small", "waits"]]
  ],
  [
    "those that overtake in one pass count",
    [waiting("large", 10, overtakesLimit - 1), waiting("x", 1), waiting("y", 1)],
    snapshot(10, busy("a", 6)),
    [["large", "waits", "a"], ["x", "overtakes"], ["y", "waits"]]
  ],
  [
    "each drains models of its own, so that none waits for the long job of another's",
    [waiting("x", 6), waiting("y", 3)],
    snapshot(9, busy("a", 6, { demand: 0 }), busy("b", 3)),
    [["x", "waits", "a"], ["y", "waits", "b"]]
  ],
  [
    "what is evicted for an earlier one is not evicted for the next",
    [waiting("x", 5), waiting("y", 5)],
    snapshot(10, resident("a", 5), busy("b", 5)),
    [["x", "loads", "a"], ["y", "waits", "b"]]
  ],
  [
    "what is evicted beyond need is not there before it has ended",
    [waiting("x", 3), waiting("y", 3)],
    snapshot(10, resident("a", 6), busy("b", 4)),
    [["x", "loads", "a"], ["y", "waits", "b"]]
  ],
  [
    "one that can never fit is refused at once and delays none",
    [waiting("large", 9), waiting("x", 2)],
    snapshot(10, busy("a", 6, { pinned: true })),
    [["large", "is refused"], ["x", "loads"]]
  ]
]

/** Models that come, work, go and wait, step by step. */
const makeWorld = (random: Random, budgetBytes: number, holdMs: number) => {
  let now = 0
  let residents: Array<Resident & { readonly since: number; until: number }> = []
  let queue: Array<Waiting & { readonly since: number }> = []
  let paused = new Set<string>()
  const longest = { waited: 0 }
  const observe = () => residents.map((one) => ({ ...one, inUse: one.until > now, heldMs: now - one.since }))

  const admit = (candidate: Candidate, key: string) =>
    residents.push({ ...resident(key, candidate.bytes), since: now, until: now + 1 + random.upTo(5) })

  const check = (decisions: ReadonlyArray<Decision>, seen: ReadonlyArray<Resident>) => {
    for (const { plan } of decisions) {
      if (plan.type !== "load") continue
      for (const key of plan.evict) {
        const victim = seen.find((one) => one.key === key)!
        assert.isTrue(!victim.pinned && !victim.inUse && victim.heldMs >= holdMs, "only idle models are evicted")
      }
    }
    const evicted = decisions.flatMap(({ plan }) => plan.type === "load" ? plan.evict : [])
    assert.strictEqual(new Set(evicted).size, evicted.length, "each is evicted for one")
  }

  const plan = () => {
    const seen = observe()
    const decisions = schedule(queue, { budgetBytes, holdMs, residents: seen })
    check(decisions, seen)
    paused = new Set()
    const ended = new Set<string>()
    for (const { key, overtakes, plan } of decisions) {
      if (plan.type === "wait") {
        plan.drain.forEach((one) => paused.add(one))
        continue
      }
      ended.add(key)
      if (plan.type === "refuse") continue
      residents = residents.filter((one) => !plan.evict.includes(one.key))
      admit(plan.candidate, key)
      if (!overtakes) continue
      const place = queue.findIndex((one) => one.key === key)
      queue = queue.map((one, index) =>
        index < place && !ended.has(one.key) ? { ...one, overtaken: one.overtaken + 1 } : one
      )
    }
    queue = queue.filter(({ key }) => !ended.has(key))
    assert.isAtMost(residents.reduce((total, { bytes }) => total + bytes, 0), budgetBytes, "within the budget")
    for (const { overtaken } of queue) assert.isAtMost(overtaken, overtakesLimit)
  }

  return {
    longest,
    waits: () => queue.length,
    arrive(key: string, bytes: number) {
      queue.push({ ...waiting(key, bytes), since: now })
      plan()
    },
    leave() {
      const one = random.pick(queue)
      queue = queue.filter((other) => other !== one)
      plan()
    },
    unload() {
      const idle = random.pick(residents.filter(({ until }) => until <= now))
      residents = residents.filter((other) => other !== idle)
      plan()
    },
    /** Every model that may take jobs always has one. */
    pass() {
      now++
      for (const one of residents) {
        if (one.until <= now && !paused.has(one.key)) one.until = now + 1 + random.upTo(5)
      }
      plan()
      for (const { since } of queue) longest.waited = Math.max(longest.waited, now - since)
    }
  }
}

describe("MemoryQueue", () => {
  for (const [name, waiting, snapshot, expected] of cases) {
    it(name, () => assert.deepStrictEqual(outcomes(schedule(waiting, snapshot)), expected))
  }

  it("stays within the budget, evicts only idle models, and serves all loads, in any sequence of events", () => {
    fc.assert(fc.property(fc.nat(), fc.integer({ min: 4, max: 12 }), fc.constantFrom(0, 3), (seed, budget, hold) => {
      const random = randomOf(seed)
      const world = makeWorld(random, budget, hold)
      for (let step = 0; step < 80; step++) {
        const choice = random.upTo(10)
        if (choice < 4) world.arrive(`m${step}`, 1 + random.upTo(budget + 1))
        else if (choice < 5) world.leave()
        else if (choice < 6) world.unload()
        else world.pass()
      }
      const enough = 20 * (1 + world.waits())
      for (let step = 0; step < enough; step++) world.pass()
      assert.strictEqual(world.waits(), 0)
    }))
  })

  it("loads a large model within a bound among constant small loads", () => {
    fc.assert(fc.property(fc.nat(), fc.constantFrom(0, 3), (seed, hold) => {
      const world = makeWorld(randomOf(seed), 10, hold)
      world.arrive("first", 3)
      world.arrive("large", 10)
      for (let step = 0; step < 100; step++) {
        world.arrive(`s${step}`, 1 + step % 3)
        world.pass()
        if (world.waits() > 6) break
      }
      // The jobs of those that are there, of those that overtake, and their hold times.
      assert.isAtMost(world.longest.waited, 2 * (1 + overtakesLimit) * (6 + hold))
    }))
  })
})
