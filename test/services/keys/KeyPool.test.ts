import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { KeyPool } from "../../../src/services/keys/KeyPool.ts"
import {
  accepted,
  choose,
  limited,
  limitedFor,
  make,
  probeIn,
  refused,
  waiting
} from "../../../src/services/keys/KeyPool.ts"

const cooldowns = { limited: 1000, longest: 60_000, refused: 5000, longestRefused: 20_000 }
const none: ReadonlySet<number> = new Set()

const weights = fc.array(fc.double({ min: 0.01, max: 100, noNaN: true }), { minLength: 1, maxLength: 6 })
const random = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })

/** What happens to keys, in order of time. */
const happenings = fc.array(fc.record({
  kind: fc.constantFrom("limited" as const, "refused" as const, "accepted" as const, "chosen" as const),
  index: fc.nat(5),
  after: fc.nat(10_000),
  retryAfterMs: fc.option(fc.nat(200_000), { nil: undefined }),
  random
}))

type Happening = typeof happenings extends fc.Arbitrary<infer A> ? A extends ReadonlyArray<infer One> ? One : never
  : never

const apply = (keys: KeyPool, one: Happening, now: number): KeyPool => {
  const index = one.index % keys.length
  switch (one.kind) {
    case "limited":
      return limited(keys, index, now, one.retryAfterMs, cooldowns)
    case "refused":
      return refused(keys, index, now, now, cooldowns)
    case "accepted":
      return accepted(keys, index, now, now)
    case "chosen":
      return choose(keys, none, now, one.random, cooldowns)?.keys ?? keys
  }
}

describe("KeyPool", () => {
  it("counts a rejected key after its cooldown too, until it is accepted", () => {
    const rejected = refused(make([1, 1]), 0, 0, 0, cooldowns)
    const later = cooldowns.longestRefused + 1
    assert.deepInclude(waiting(rejected, 0), { waiting: 1, rejected: 1 })
    assert.deepInclude(waiting(rejected, later), { waiting: 0, rejected: 1 })
    assert.deepInclude(waiting(accepted(rejected, 0, later, later), later), { waiting: 0, rejected: 0 })
  })

  it("counts the keys that cannot be chosen, and the time until one can", () => {
    fc.assert(fc.property(weights, happenings, (weights, all) => {
      let now = 0
      let keys = make(weights)
      for (const one of all) {
        now += one.after
        keys = apply(keys, one, now)
        const isFree = (index: number, at: number) => {
          const others = new Set(weights.map((_, other) => other).filter((other) => other !== index))
          return choose(keys, others, at, 0, cooldowns) !== undefined
        }
        const blocked = weights.map((_, index) => index).filter((index) => !isFree(index, now))
        const { rejected: _, retryAfterMs, ...counted } = waiting(keys, now)
        assert.deepStrictEqual(counted, { waiting: blocked.length, total: weights.length })
        if (blocked.length === 0) assert.strictEqual(retryAfterMs, 0)
        else {
          assert.isFalse(blocked.some((index) => isFree(index, now + retryAfterMs - 1)))
          assert.isTrue(blocked.some((index) => isFree(index, now + retryAfterMs)))
        }
      }
    }))
  })

  it("chooses only keys that are free and not tried, and one of them if there is one", () => {
    fc.assert(fc.property(weights, happenings, fc.uniqueArray(fc.nat(5)), random, (weights, all, tried, random) => {
      let keys = make(weights)
      let now = 0
      for (const one of all) {
        now += one.after
        keys = apply(keys, one, now)
      }
      const excluded = new Set(tried)
      const free = keys.flatMap(({ standing, until }, index) =>
        (standing === "usable" || until <= now) && !excluded.has(index) ? [index] : []
      )
      const chosen = choose(keys, excluded, now, random, cooldowns)
      if (free.length === 0) assert.isUndefined(chosen)
      else assert.include(free, chosen?.index)
    }))
  })

  it("keeps no cooldown beyond its limit", () => {
    fc.assert(fc.property(weights, happenings, (weights, all) => {
      let keys = make(weights)
      let now = 0
      for (const one of all) {
        now += one.after
        keys = apply(keys, one, now)
      }
      const later = now + Math.max(cooldowns.longest, cooldowns.longestRefused)
      const tried = new Set<number>()
      for (const _ of weights) {
        const chosen = choose(keys, tried, later, 0.5, cooldowns)
        assert.isDefined(chosen)
        tried.add(chosen.index)
      }
      assert.strictEqual(tried.size, weights.length)
    }))
  })

  it("chooses by weight", () => {
    const keys = make([1, 3])
    const draws = Array.from({ length: 1000 }, (_, index) => choose(keys, none, 0, index / 1000, cooldowns)!.index)
    assert.strictEqual(draws.filter((index) => index === 0).length, 250)
  })

  it("keeps a limited key in cooldown for the provider's wait, and uses the others", () => {
    const keys = limited(make([1, 1]), 0, 100, 7000, cooldowns)
    for (const random of [0, 0.5, 0.99]) assert.strictEqual(choose(keys, none, 200, random, cooldowns)?.index, 1)
    assert.strictEqual(limitedFor(keys, 100), 7000)
    assert.strictEqual(choose(keys, none, 7100, 0, cooldowns)?.index, 0)
  })

  it("keeps a cooldown when an earlier request succeeds", () => {
    const keys = accepted(limited(make([1]), 0, 100, 7000, cooldowns), 0, 50, 3000)
    assert.isUndefined(choose(keys, none, 7099, 0, cooldowns))
    assert.strictEqual(limitedFor(keys, 3100), 4000)
    assert.isUndefined(limitedFor(accepted(keys, 0, 7100, 7100), 7100))
  })

  it("probes a refused key by one request at a time", () => {
    const keys = refused(make([1]), 0, 0, 0, cooldowns)
    assert.isUndefined(choose(keys, none, 4999, 0, cooldowns))
    const probe = choose(keys, none, 5000, 0, cooldowns)
    assert.strictEqual(probe?.index, 0)
    assert.isUndefined(choose(probe!.keys, none, 5000, 0, cooldowns))
    assert.strictEqual(choose(accepted(probe!.keys, 0, 5000, 5001), none, 5000, 0, cooldowns)?.index, 0)
    assert.isUndefined(limitedFor(keys, 0))
  })

  it("doubles the time between probes of a refused key up to the limit, and resets it once the key is accepted", () => {
    let keys = make([1])
    let now = 0
    const pauses: Array<number> = []
    for (let probe = 0; probe < 5; probe++) {
      keys = refused(keys, 0, now, now, cooldowns)
      const pause = probeIn(keys, now)!
      assert.isUndefined(choose(keys, none, now + pause - 1, 0, cooldowns))
      now += pause
      keys = choose(keys, none, now, 0, cooldowns)!.keys
      pauses.push(pause)
      now++
    }
    assert.deepStrictEqual(pauses, [5000, 10_000, 20_000, 20_000, 20_000])
    keys = refused(accepted(keys, 0, now, now), 0, now, now, cooldowns)
    assert.strictEqual(probeIn(keys, now), 5000)
  })

  it("counts refusals of concurrent requests as one", () => {
    let keys = make([1])
    for (const now of [100, 101, 102]) keys = refused(keys, 0, 50, now, cooldowns)
    assert.strictEqual(probeIn(keys, 102), 4998)
  })

  it("keeps a refusal when an earlier request succeeds, until a probe does", () => {
    const keys = refused(make([1]), 0, 100, 100, cooldowns)
    assert.isUndefined(choose(accepted(keys, 0, 50, 3000), none, 5099, 0, cooldowns))
    const probe = choose(keys, none, 5100, 0, cooldowns)!
    assert.isUndefined(choose(accepted(probe.keys, 0, 100, 5200), none, 5200, 0, cooldowns))
    assert.strictEqual(choose(accepted(probe.keys, 0, 5100, 5200), none, 5200, 0, cooldowns)?.index, 0)
  })
})
