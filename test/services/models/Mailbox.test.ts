import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Priority } from "../../../src/domain/Inference.ts"
import type { Waiting } from "../../../src/services/models/Mailbox.ts"
import { Mailbox } from "../../../src/services/models/Mailbox.ts"

const ageing = 1_000

interface Caller {
  readonly name: number
}

type Step =
  | {
    readonly type: "offer"
    readonly address: string
    readonly tenant: string
    readonly priority: Priority
    readonly after: number
  }
  | { readonly type: "next"; readonly after: number }
  | { readonly type: "leave"; readonly which: number }

const tenants = ["a", "b", "c"] as const
const addresses = ["", "192.0.2.1", "192.0.2.2"] as const

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      type: fc.constant("offer" as const),
      address: fc.constantFrom(...addresses),
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
  /** When it was the turn of each address, and of each tenant of an address, last; or when it began to wait. */
  const turns = new Map<string, number>()
  let turn = 0
  const address = ({ address = "" }: Waiting<Caller>) => `address ${address}`
  const tenant = (one: Waiting<Caller>) => `${address(one)} tenant ${one.tenant}`
  const keys = [address, tenant] as const
  const held = (key: (one: Waiting<Caller>) => string, name: string) => waiting.filter((one) => key(one) === name)
  const takeOut = (one: Waiting<Caller>) => {
    waiting.splice(waiting.indexOf(one), 1)
    return one
  }
  /** The callers of the one that holds the most places of those that are counted. */
  const most = (key: (one: Waiting<Caller>) => string, among: ReadonlyArray<Waiting<Caller>>) =>
    [...new Set(among.map(key))].map((name) => held(key, name)).sort((a, b) =>
      b.length - a.length || turns.get(key(a[0]!))! - turns.get(key(b[0]!))!
    )[0] ?? []
  const displacedBy = (one: Waiting<Caller>) => {
    const flood = most(address, waiting)
    if (flood.length > held(address, address(one)).length + 1) return most(tenant, flood).at(-1)
    const largest = most(tenant, held(address, address(one)))
    return largest.length > held(tenant, tenant(one)).length + 1 ? largest.at(-1) : undefined
  }
  return {
    waiting,
    takeOut,
    offer(one: Waiting<Caller>): Waiting<Caller> | undefined {
      const displaced = waiting.length < limit ? undefined : displacedBy(one)
      if (waiting.length >= limit && displaced === undefined) return one
      if (displaced !== undefined) takeOut(displaced)
      for (const key of keys) if (held(key, key(one)).length === 0) turns.set(key(one), ++turn)
      waiting.push(one)
      return displaced
    },
    next(now: number): Waiting<Caller> | undefined {
      const rankOf = ({ priority, since }: Waiting<Caller>) =>
        Math.min(2, ["low", "normal", "high"].indexOf(priority) + Math.floor((now - since) / ageing))
      const turnOf = (key: (one: Waiting<Caller>) => string, one: Waiting<Caller>) => turns.get(key(one))!
      const best =
        waiting.toSorted((a, b) =>
          rankOf(b) - rankOf(a) || turnOf(address, a) - turnOf(address, b) || turnOf(tenant, a) - turnOf(tenant, b)
        )[0]
      if (best === undefined) return undefined
      for (const key of keys) turns.set(key(best), ++turn)
      return takeOut(best)
    }
  }
}

/** Plays a schedule on a queue and on the model, and holds one against the other. */
const play = (limit: number, steps: ReadonlyArray<Step>) => {
  const queue = new Mailbox<Caller>({ limit, ageing })
  const model = makeModel(limit)
  const out: Array<number> = []
  let now = 0
  let names = 0
  for (const one of steps) {
    if (one.type === "offer") {
      now += one.after
      const { address, priority, tenant } = one
      const waiting = { address, tenant, priority, since: now, value: { name: names++ } }
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
      assert.isFalse(queue.remove(leaving), "a removed caller is not in the queue")
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

const drain = (queue: Mailbox<Caller>, now: number): Array<Waiting<Caller>> => {
  const one = queue.next(now)
  return one === undefined ? [] : [one, ...drain(queue, now)]
}

describe("Mailbox", () => {
  it("behaves like its simple model, and never exceeds its limit", () => {
    let played = 0
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 12 }), schedule, (limit, steps) => {
        played += play(limit, steps).names
      }),
      { numRuns: 500 }
    )
    assert.isAbove(played, 500)
  })

  it("ends every caller's wait exactly once: served, displaced, refused, gone or cleared", () => {
    fc.assert(fc.property(fc.integer({ min: 1, max: 12 }), schedule, (limit, steps) => {
      const { names, out } = play(limit, steps)
      assert.deepStrictEqual(out.sort((a, b) => a - b), Array.from({ length: names }, (_, name) => name))
    }))
  })

  it("serves the oldest of one tenant and priority first", () => {
    const queue = new Mailbox<Caller>({ limit: 10, ageing })
    for (let name = 0; name < 5; name++) queue.offer(waiting("a", name, name))
    assert.deepStrictEqual(drain(queue, 5).map(({ value }) => value.name), [0, 1, 2, 3, 4])
  })

  it("serves tenants in turns, for any number of callers each", () => {
    const queue = new Mailbox<Caller>({ limit: 100, ageing })
    for (let name = 0; name < 50; name++) queue.offer(waiting("flood", name))
    for (let name = 50; name < 53; name++) queue.offer(waiting("b", name))
    queue.offer(waiting("c", 60))
    assert.deepStrictEqual(
      drain(queue, 0).slice(0, 8).map(({ tenant }) => tenant),
      ["flood", "b", "c", "flood", "b", "flood", "b", "flood"]
    )
  })

  it("serves high before normal before low", () => {
    const queue = new Mailbox<Caller>({ limit: 10, ageing })
    for (const [name, priority] of (["low", "normal", "high"] as const).entries()) {
      queue.offer(waiting(String(name), name, 0, priority))
    }
    assert.deepStrictEqual(drain(queue, 0).map(({ priority }) => priority), ["high", "normal", "low"])
  })

  it("raises a caller by one priority after exactly the ageing time", () => {
    for (const [now, expected] of [[ageing - 1, "new"], [ageing, "old"]] as const) {
      const queue = new Mailbox<Caller>({ limit: 10, ageing })
      queue.offer(waiting("old", 0, 0, "low"))
      queue.offer(waiting("new", 1, now, "normal"))
      assert.strictEqual(queue.next(now)?.tenant, expected)
    }
  })

  it("bounds each wait: once aged, by the tenant's older callers times the number of tenants", () => {
    fc.assert(fc.property(
      fc.integer({ min: 0, max: 8 }),
      fc.integer({ min: 1, max: 5 }),
      fc.infiniteStream(fc.nat(4)),
      (older, others, arrivals) => {
        const queue = new Mailbox<Caller>({ limit: 1_000, ageing })
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

  it("serves addresses in turns, for any number of tenants each", () => {
    const queue = new Mailbox<Caller>({ limit: 100, ageing })
    for (let name = 0; name < 50; name++) queue.offer({ ...waiting(`made up ${name}`, name), address: "192.0.2.1" })
    for (let name = 50; name < 53; name++) queue.offer({ ...waiting("b", name), address: "192.0.2.2" })
    assert.deepStrictEqual(
      drain(queue, 0).slice(0, 7).map(({ value }) => value.name),
      [0, 50, 1, 51, 2, 52, 3]
    )
  })

  it("knows the place of each caller: all differ, and callers of one priority are served in their order", () => {
    const callers = fc.array(
      fc.record({
        address: fc.constantFrom(...addresses),
        tenant: fc.constantFrom(...tenants),
        priority: fc.constantFrom("low" as const, "normal" as const, "high" as const)
      }),
      { maxLength: 30 }
    )
    fc.assert(fc.property(callers, fc.boolean(), fc.nat(10), (all, isOnePriority, served) => {
      const queue = new Mailbox<Caller>({ limit: 100, ageing })
      const offered = all.map((one, name) => ({
        ...one,
        ...(isOnePriority ? { priority: "normal" as const } : {}),
        since: name,
        value: { name }
      }))
      for (const one of offered) queue.offer(one)
      const now = offered.length
      const gone = Array.from({ length: served }, () => queue.next(now))
      const left = offered.filter((one) => !gone.includes(one))
      for (const one of gone) if (one !== undefined) assert.isUndefined(queue.positionOf(one, now))
      const places = new Map(left.map((one) => [queue.positionOf(one, now), one.value.name]))
      const inOrder = left.map((_, index) => places.get(index + 1))
      assert.notInclude(inOrder, undefined)
      const order = drain(queue, now)
      assert.strictEqual(inOrder[0], order[0]?.value.name)
      if (isOnePriority) assert.deepStrictEqual(inOrder, order.map(({ value }) => value.name))
    }))
  })

  it("places a caller ahead once its priority has risen", () => {
    const queue = new Mailbox<Caller>({ limit: 100, ageing })
    const [high, low] = [waiting("a", 0, 0, "high"), waiting("b", 1, 0, "low")]
    queue.offer(low)
    queue.offer(high)
    assert.deepStrictEqual([queue.positionOf(high, 0), queue.positionOf(low, 0)], [1, 2])
    assert.deepStrictEqual([queue.positionOf(high, 2 * ageing), queue.positionOf(low, 2 * ageing)], [2, 1])
  })

  it("accepts another address if one has filled it with tenants of one caller each", () => {
    const queue = new Mailbox<Caller>({ limit: 8, ageing })
    for (let name = 0; name < 8; name++) queue.offer({ ...waiting(`made up ${name}`, name), address: "192.0.2.1" })
    assert.isFalse(queue.offer({ ...waiting("one more", 8), address: "192.0.2.1" }).accepted)
    for (let name = 10; name < 14; name++) {
      assert.isTrue(queue.offer({ ...waiting("b", name), address: "192.0.2.2" }).accepted)
    }
    assert.isFalse(queue.offer({ ...waiting("b", 14), address: "192.0.2.2" }).accepted)
  })

  describe("when it is full", () => {
    const full = () => {
      const queue = new Mailbox<Caller>({ limit: 4, ageing })
      for (let name = 0; name < 4; name++) queue.offer(waiting("flood", name, name))
      return queue
    }

    it("refuses another caller of the tenant with most callers", () => {
      const queue = full()
      assert.deepStrictEqual(queue.offer(waiting("flood", 4)), { accepted: false })
      assert.strictEqual(queue.size, 4)
    })

    it("accepts another tenant in place of the newest caller of the tenant with most callers", () => {
      const queue = full()
      const offer = queue.offer(waiting("b", 4, 9))
      assert.strictEqual(offer.accepted && offer.displaced?.value.name, 3)
      assert.deepStrictEqual(drain(queue, 9).map(({ value }) => value.name), [0, 4, 1, 2])
    })

    it("shares its capacity evenly with a tenant that floods it", () => {
      const queue = full()
      assert.isTrue(queue.offer(waiting("b", 4)).accepted)
      assert.isTrue(queue.offer(waiting("b", 5)).accepted)
      assert.isFalse(queue.offer(waiting("b", 6)).accepted)
    })

    it("has capacity again when a caller disconnects", () => {
      const queue = new Mailbox<Caller>({ limit: 1, ageing })
      const first = waiting("a", 0)
      queue.offer(first)
      assert.isFalse(queue.offer(waiting("a", 1)).accepted)
      assert.isTrue(queue.remove(first))
      assert.deepStrictEqual(queue.offer(waiting("a", 2)), { accepted: true })
    })
  })
})
