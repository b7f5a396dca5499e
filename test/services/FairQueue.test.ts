import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Waiting } from "../../src/services/FairQueue.ts"
import { FairQueue } from "../../src/services/FairQueue.ts"
import type { Priority } from "../../src/services/Inference.ts"

const ageing = 1_000

interface Caller {
  readonly name: number
}

type Step =
  | { readonly type: "offer"; readonly tenant: string; readonly priority: Priority; readonly after: number }
  | { readonly type: "next"; readonly after: number }
  | { readonly type: "leave"; readonly which: number }

const tenants = ["a", "b", "c"] as const

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant("offer" as const),
      tenant: fc.constantFrom(...tenants),
      priority: fc.constantFrom("low" as const, "normal" as const, "high" as const),
      after: fc.nat(600)
    })
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constant("next" as const), after: fc.nat(600) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("leave" as const), which: fc.nat(20) }) }
)

const schedule = fc.array(step, { maxLength: 120 })

/** What the head of the module says, over one list in the order of arrival, without a thought for speed. */
const makeModel = (limit: number) => {
  const waiting: Array<Waiting<Caller>> = []
  /** When it was each tenant's turn last, or he began to wait. */
  const turns = new Map<string, number>()
  let turn = 0
  const heldBy = (tenant: string) => waiting.filter((one) => one.tenant === tenant)
  const takeOut = (one: Waiting<Caller>) => {
    waiting.splice(waiting.indexOf(one), 1)
    return one
  }
  const turnOf = ({ tenant }: Waiting<Caller>) => turns.get(tenant) ?? 0
  return {
    waiting,
    heldBy,
    takeOut,
    offer(one: Waiting<Caller>): Waiting<Caller> | undefined {
      const add = () => {
        if (heldBy(one.tenant).length === 0) turns.set(one.tenant, ++turn)
        waiting.push(one)
      }
      if (waiting.length < limit) {
        add()
        return undefined
      }
      const most = [...new Set(waiting.map(({ tenant }) => tenant))]
        .sort((a, b) => heldBy(b).length - heldBy(a).length || turns.get(a)! - turns.get(b)!)[0]
      if (most === undefined || heldBy(most).length <= heldBy(one.tenant).length + 1) return one
      const displaced = takeOut(heldBy(most).at(-1)!)
      add()
      return displaced
    },
    next(now: number): Waiting<Caller> | undefined {
      const rankOf = ({ priority, since }: Waiting<Caller>) =>
        Math.min(2, ["low", "normal", "high"].indexOf(priority) + Math.floor((now - since) / ageing))
      const best = waiting.toSorted((a, b) => rankOf(b) - rankOf(a) || turnOf(a) - turnOf(b))[0]
      if (best === undefined) return undefined
      turns.set(best.tenant, ++turn)
      return takeOut(best)
    }
  }
}

/** Plays a schedule on a queue and on the model, and holds one against the other. */
const play = (limit: number, steps: ReadonlyArray<Step>) => {
  const queue = new FairQueue<Caller>({ limit, ageing })
  const model = makeModel(limit)
  const out: Array<number> = []
  let now = 0
  let names = 0
  for (const one of steps) {
    if (one.type === "offer") {
      now += one.after
      const waiting = { tenant: one.tenant, priority: one.priority, since: now, value: { name: names++ } }
      const refused = model.offer(waiting)
      const offer = queue.offer(waiting)
      assert.strictEqual(offer.accepted ? offer.displaced : waiting, refused)
      if (refused !== undefined) out.push(refused.value.name)
    } else if (one.type === "next") {
      now += one.after
      const expected = model.next(now)
      assert.strictEqual(queue.next(now), expected)
      if (expected !== undefined) out.push(expected.value.name)
    } else {
      const leaving = model.waiting[one.which]
      if (leaving === undefined) continue
      assert.isTrue(queue.remove(model.takeOut(leaving)))
      assert.isFalse(queue.remove(leaving), "who has left is not there")
      out.push(leaving.value.name)
    }
    assert.strictEqual(queue.size, model.waiting.length)
    assert.isAtMost(queue.size, limit)
  }
  out.push(...queue.clear().map(({ value }) => value.name))
  assert.strictEqual(queue.size, 0)
  return { names, out }
}

const waiting = (tenant: string, name: number, since = 0, priority: Priority = "normal"): Waiting<Caller> => ({
  tenant,
  priority,
  since,
  value: { name }
})

const drain = (queue: FairQueue<Caller>, now: number): Array<Waiting<Caller>> => {
  const one = queue.next(now)
  return one === undefined ? [] : [one, ...drain(queue, now)]
}

describe("FairQueue", () => {
  it("does what its simple model does, and never holds more than its limit", () => {
    let played = 0
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), schedule, (limit, steps) => {
        played += play(limit, steps).names
      }),
      { numRuns: 500 }
    )
    assert.isAbove(played, 500)
  })

  it("lets everyone out exactly once: served, displaced, refused, gone or cleared", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 12 }), schedule, (limit, steps) => {
      const { names, out } = play(limit, steps)
      assert.deepStrictEqual(out.sort((a, b) => a - b), Array.from({ length: names }, (_, name) => name))
    }))
  })

  it("serves the oldest of one tenant and priority first", () => {
    const queue = new FairQueue<Caller>({ limit: 10, ageing })
    for (let name = 0; name < 5; name++) queue.offer(waiting("a", name, name))
    assert.deepStrictEqual(drain(queue, 5).map(({ value }) => value.name), [0, 1, 2, 3, 4])
  })

  it("lets tenants take turns, however many callers each has", () => {
    const queue = new FairQueue<Caller>({ limit: 100, ageing })
    for (let name = 0; name < 50; name++) queue.offer(waiting("flood", name))
    for (let name = 50; name < 53; name++) queue.offer(waiting("b", name))
    queue.offer(waiting("c", 60))
    assert.deepStrictEqual(
      drain(queue, 0).slice(0, 8).map(({ tenant }) => tenant),
      ["flood", "b", "c", "flood", "b", "flood", "b", "flood"]
    )
  })

  it("serves high before normal before low", () => {
    const queue = new FairQueue<Caller>({ limit: 10, ageing })
    for (const [name, priority] of (["low", "normal", "high"] as const).entries()) {
      queue.offer(waiting(String(name), name, 0, priority))
    }
    assert.deepStrictEqual(drain(queue, 0).map(({ priority }) => priority), ["high", "normal", "low"])
  })

  it("lifts a caller by one priority when he has waited for exactly the ageing", () => {
    for (const [now, expected] of [[ageing - 1, "new"], [ageing, "old"]] as const) {
      const queue = new FairQueue<Caller>({ limit: 10, ageing })
      queue.offer(waiting("old", 0, 0, "low"))
      queue.offer(waiting("new", 1, now, "normal"))
      assert.strictEqual(queue.next(now)?.tenant, expected)
    }
  })

  it("lets nobody wait for ever: once aged, for at most his tenant's older callers, times the tenants", () => {
    fc.assert(fc.property(
      fc.integer({ min: 0, max: 8 }),
      fc.integer({ min: 1, max: 5 }),
      fc.infiniteStream(fc.nat(4)),
      (older, others, arrivals) => {
        const queue = new FairQueue<Caller>({ limit: 1_000, ageing })
        for (let name = 0; name < older; name++) queue.offer(waiting("a", name, 0, "low"))
        queue.offer(waiting("a", 99, 0, "low"))
        const bound = (older + 1) * (others + 1)
        let turns = 0
        for (;;) {
          // High priority without end, of every tenant, his own too.
          for (let tenant = 0; tenant < others; tenant++) {
            queue.offer(waiting(`other${tenant}`, 1_000, 2 * ageing, "high"))
            if (arrivals.next().value === 0) queue.offer(waiting("a", 1_000, 2 * ageing, "high"))
          }
          turns++
          if (queue.next(2 * ageing)?.value.name === 99) break
          assert.isBelow(turns, bound)
        }
      }
    ))
  })

  describe("when it is full", () => {
    const full = () => {
      const queue = new FairQueue<Caller>({ limit: 4, ageing })
      for (let name = 0; name < 4; name++) queue.offer(waiting("flood", name, name))
      return queue
    }

    it("refuses one more of whoever holds most", () => {
      const queue = full()
      assert.deepStrictEqual(queue.offer(waiting("flood", 4)), { accepted: false })
      assert.strictEqual(queue.size, 4)
    })

    it("lets another tenant in for the newest caller of whoever holds most", () => {
      const queue = full()
      const offer = queue.offer(waiting("b", 4, 9))
      assert.strictEqual(offer.accepted && offer.displaced?.value.name, 3)
      assert.deepStrictEqual(drain(queue, 9).map(({ value }) => value.name), [0, 4, 1, 2])
    })

    it("shares its places evenly with a flood, and no further", () => {
      const queue = full()
      assert.isTrue(queue.offer(waiting("b", 4)).accepted)
      assert.isTrue(queue.offer(waiting("b", 5)).accepted)
      assert.isFalse(queue.offer(waiting("b", 6)).accepted)
    })

    it("has a place again when someone leaves", () => {
      const queue = new FairQueue<Caller>({ limit: 1, ageing })
      const first = waiting("a", 0)
      queue.offer(first)
      assert.isFalse(queue.offer(waiting("a", 1)).accepted)
      assert.isTrue(queue.remove(first))
      assert.deepStrictEqual(queue.offer(waiting("a", 2)), { accepted: true })
    })
  })
})
