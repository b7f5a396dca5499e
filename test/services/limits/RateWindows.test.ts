import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Subject } from "../../../src/services/admission/Subject.ts"
import type { LimitRule } from "../../../src/services/limits/RateWindows.ts"
import { RateWindows, Taken } from "../../../src/services/limits/RateWindows.ts"

const subject: Subject = { key: "k1", user: "ada", tenant: "team", model: "m", endpoint: "chat" }
const hour = 3_600_000
const perHour: LimitRule = {
  id: "default",
  name: "default",
  by: ["user", "endpoint"],
  limits: { requestsPerHour: 100 },
  mode: "enforced"
}

const tokens: LimitRule = {
  id: "tokens",
  name: "tokens",
  by: ["key"],
  limits: { tokensPerMinute: 1_000 },
  mode: "enforced"
}

const taken = (outcome: ReturnType<RateWindows["take"]>): Taken => {
  assert.instanceOf(outcome, Taken)
  return outcome
}

describe("RateWindows", () => {
  it("rejects the 101st request of an hour, says what is left and when, and admits again with the next window", () => {
    const limits = new RateWindows()
    for (let index = 0; index < 100; index++) {
      const one = taken(limits.take([perHour], subject, 0, index * 1_000))
      assert.deepStrictEqual(one.standing("requests", index * 1_000), {
        limit: 100,
        remaining: 99 - index,
        resetMs: hour - index * 1_000
      })
      one.release(0)
    }
    assert.deepStrictEqual(limits.take([perHour], subject, 0, 100_000), {
      rule: "default",
      limit: "requestsPerHour",
      counter: "user of key k1, endpoint chat",
      most: 100,
      remaining: 0,
      needed: 1,
      resetMs: hour - 100_000
    })
    taken(limits.take([perHour], { ...subject, endpoint: "embeddings" }, 0, 100_000))
    taken(limits.take([perHour], { ...subject, user: "grace" }, 0, 100_000))
    taken(limits.take([perHour], subject, 0, hour))
  })

  it("take little memory for the limits of each of many keys", () => {
    const limits = new RateWindows()
    const rules = Array.from({ length: 200 }, (): LimitRule => ({ ...perHour, name: "key", by: ["key"] }))
    const used = () => {
      const { arrayBuffers, heapUsed } = process.memoryUsage()
      return arrayBuffers + heapUsed
    }
    const before = used()
    rules.forEach((rule, index) => taken(limits.take([rule], { ...subject, key: `k${index}` }, 0, 0)))
    assert.isBelow(used() - before, 20e6)
    assert.strictEqual(
      taken(limits.take([rules[7]!], { ...subject, key: "k7" }, 0, 1)).standing("requests", 1)?.remaining,
      98
    )
  })

  it("counts in all limits or in none", () => {
    const limits = new RateWindows()
    const narrow: LimitRule = {
      id: "narrow",
      name: "narrow",
      by: ["model"],
      limits: { requestsPerMinute: 1 },
      mode: "enforced"
    }
    taken(limits.take([perHour, narrow], subject, 0, 0))
    for (let index = 0; index < 5; index++) {
      assert.deepInclude(limits.take([perHour, narrow], subject, 0, 1), { rule: "narrow" })
    }
    assert.strictEqual(taken(limits.take([perHour], subject, 0, 2)).standing("requests", 2)?.remaining, 98)
  })

  it("counts tokens by the estimate at first, and by what was used at the end", () => {
    const limits = new RateWindows()
    const one = taken(limits.take([tokens], subject, 900, 0))
    assert.deepInclude(limits.take([tokens], subject, 200, 1), { limit: "tokensPerMinute", remaining: 100 })
    one.release(100)
    one.release(100)
    assert.strictEqual(taken(limits.take([tokens], subject, 900, 2)).standing("tokens", 2)?.remaining, 0)
  })

  it("does not correct a window that began after the request", () => {
    const limits = new RateWindows()
    const long = taken(limits.take([tokens], subject, 500, 0))
    const next = taken(limits.take([tokens], subject, 600, 60_000))
    long.release(0)
    assert.strictEqual(next.standing("tokens", 60_000)?.remaining, 400)
  })

  it("keeps what it has counted when its limits are changed, or another object has the same", () => {
    const limits = new RateWindows()
    taken(limits.take([perHour], subject, 0, 0))
    const changed = { ...perHour, limits: { ...perHour.limits, requestsPerHour: 2, requestsPerDay: 9 } }
    assert.strictEqual(taken(limits.take([changed], subject, 0, 1)).standing("requests", 1)?.remaining, 0)
    assert.deepInclude(limits.take([{ ...changed }], subject, 0, 2), { limit: "requestsPerHour", most: 2 })
  })

  it("keeps what it has counted when the clock is set back, and ends its windows in time", () => {
    const limits = new RateWindows()
    const one = { ...perHour, limits: { requestsPerHour: 1 } }
    taken(limits.take([one], subject, 0, 100 * hour))
    assert.deepInclude(limits.take([one], subject, 0, hour), { resetMs: hour })
    taken(limits.take([one], subject, 0, 2 * hour))
  })

  it("says that no wait helps a request above the limit itself", () => {
    const rejected = new RateWindows().take([tokens], subject, 1_001, 0)
    assert.deepInclude(rejected, { needed: 1_001, resetMs: Number.POSITIVE_INFINITY })
  })

  it("limits requests at the same time", () => {
    const limits = new RateWindows()
    const two: LimitRule = { id: "two", name: "two", by: ["tenant"], limits: { parallel: 2 }, mode: "enforced" }
    const first = taken(limits.take([two], subject, 0, 0))
    taken(limits.take([two], subject, 0, 0))
    assert.deepInclude(limits.take([two], subject, 0, 0), { limit: "parallel", most: 2, resetMs: undefined })
    first.release(0)
    first.release(0)
    taken(limits.take([two], subject, 0, 0))
    assert.notInstanceOf(limits.take([two], subject, 0, 0), Taken)
  })

  it("frees the place of a request that leaves before it ends, once", () => {
    const limits = new RateWindows()
    const rule: LimitRule = {
      id: "one",
      name: "one",
      by: ["tenant"],
      limits: { parallel: 1, tokensPerDay: 100 },
      mode: "enforced"
    }
    const first = taken(limits.take([rule], subject, 50, 0))
    first.leave()
    first.leave()
    const second = taken(limits.take([rule], subject, 50, 0))
    first.release(10)
    assert.notInstanceOf(limits.take([rule], subject, 10, 0), Taken)
    second.leave()
    second.cancel()
    const third = taken(limits.take([rule], subject, 90, 0))
    assert.notInstanceOf(limits.take([rule], subject, 0, 0), Taken)
    third.release(0)
    assert.deepInclude(taken(limits.take([rule], subject, 0, 0)).standing("tokens", 0), { remaining: 90 })
  })

  it("reports what a shadow limit would reject, and rejects nothing", () => {
    const limits = new RateWindows()
    const shadow: LimitRule = { id: "new", name: "new", by: ["key"], limits: { requestsPerDay: 1 }, mode: "shadow" }
    assert.deepStrictEqual(taken(limits.take([shadow], subject, 0, 0)).shadowed, [])
    const second = taken(limits.take([shadow], subject, 0, 1))
    assert.deepStrictEqual(second.shadowed.map(({ rule }) => rule), ["new"])
    assert.strictEqual(second.standing("requests", 1), undefined)
  })

  it("admits at most the limit in any window from its first request, whatever the order", () => {
    const gaps = fc.array(fc.nat(20_000), { maxLength: 60 })
    fc.assert(fc.property(gaps, fc.integer({ min: 1, max: 20 }), (waits, most) => {
      const limits = new RateWindows()
      const rule: LimitRule = { id: "r", name: "r", by: [], limits: { requestsPerMinute: most }, mode: "enforced" }
      let now = 0
      let begin = Number.NEGATIVE_INFINITY
      let admitted = 0
      for (const wait of waits) {
        now += wait
        if (now - begin >= 60_000) {
          begin = now
          admitted = 0
        }
        const outcome = limits.take([rule], subject, 0, now)
        assert.strictEqual(outcome instanceof Taken, admitted < most)
        if (outcome instanceof Taken) admitted++
        else assert.strictEqual(outcome.resetMs, begin + 60_000 - now)
      }
    }))
  })
})
