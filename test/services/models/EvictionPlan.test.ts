import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import type { Candidate, Resident, Snapshot } from "../../../src/services/models/EvictionPlan.ts"
import { costOf, finestBits, make, order } from "../../../src/services/models/EvictionPlan.ts"

const GiB = 2 ** 30
const holdMs = 5_000

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

const candidate = (bytes: number, bits?: number): Candidate => ({
  name: `${bytes}@${bits}`,
  bytes,
  ...(bits === undefined ? {} : { bits })
})

const snapshot = (budgetBytes: number, ...residents: ReadonlyArray<Resident>): Snapshot => ({
  budgetBytes,
  residents,
  holdMs
})

const residents = fc.array(
  fc.record({
    bytes: fc.integer({ min: 1, max: 40 }),
    pinned: fc.boolean(),
    inUse: fc.boolean(),
    idleMs: fc.nat(100_000),
    heldMs: fc.nat(2 * holdMs),
    reloadMs: fc.nat(60_000),
    demand: fc.nat(100)
  }),
  { maxLength: 7 }
).map((all) => all.map((one, index) => ({ ...one, key: `m${index}` })))

const candidates = fc.array(
  fc.record({ bytes: fc.integer({ min: 1, max: 100 }), bits: fc.constantFrom(undefined, 4, 8, 16) }),
  { minLength: 1, maxLength: 4 }
).map((all) =>
  all.map(({ bits, bytes }, index): Candidate => ({
    name: `c${index}`,
    bytes,
    ...(bits === undefined ? {} : { bits })
  }))
)

/** Any memory there may be, also one of which more is in use than there is. */
const anySnapshot = fc.record({ budgetBytes: fc.nat(150), residents, holdMs: fc.constantFrom(0, holdMs) })

const sum = (all: ReadonlyArray<{ readonly bytes: number }>) => all.reduce((total, { bytes }) => total + bytes, 0)

const canGo = ({ holdMs }: Snapshot) => ({ heldMs, inUse, pinned }: Resident) => !pinned && !inUse && heldMs >= holdMs

const property = (check: (candidates: ReadonlyArray<Candidate>, snapshot: Snapshot) => void) =>
  fc.assert(fc.property(candidates, anySnapshot, check), { numRuns: 1_000 })

describe("EvictionPlan", () => {
  describe("a plan to load", () => {
    it("never exceeds the budget", () => {
      property((candidates, snapshot) => {
        const plan = make(candidates, snapshot)
        if (plan.type !== "load") return
        const stays = snapshot.residents.filter(({ key }) => !plan.evict.includes(key))
        assert.isAtMost(sum(stays) + plan.candidate.bytes, snapshot.budgetBytes)
      })
    })

    it("never evicts a model that is pinned, in use, or within its hold time", () => {
      property((candidates, snapshot) => {
        const plan = make(candidates, snapshot)
        if (plan.type !== "load") return
        for (const key of plan.evict) assert.isTrue(canGo(snapshot)(snapshot.residents.find((one) => one.key === key)!))
      })
    })

    it("has no victim that could stay", () => {
      property((candidates, snapshot) => {
        const plan = make(candidates, snapshot)
        if (plan.type !== "load") return
        for (const spared of plan.evict) {
          const stays = snapshot.residents.filter(({ key }) => key === spared || !plan.evict.includes(key))
          assert.isAbove(sum(stays) + plan.candidate.bytes, snapshot.budgetBytes)
        }
      })
    })

    it("exists whenever one is possible", () => {
      property((candidates, snapshot) => {
        const stays = snapshot.residents.filter((one) => !canGo(snapshot)(one))
        const possible = candidates.some(({ bytes }) => sum(stays) + bytes <= snapshot.budgetBytes)
        assert.strictEqual(make(candidates, snapshot).type === "load", possible)
      })
    })

    it("takes the first candidate that fits beside the loaded models, and evicts only if none does", () => {
      property((candidates, snapshot) => {
        const plan = make(candidates, snapshot)
        const ordered = order(candidates, snapshot.budgetBytes)
        const firstBeside = (residents: ReadonlyArray<Resident>) =>
          ordered.find(({ bytes }) => sum(residents) + bytes <= snapshot.budgetBytes)
        const beside = firstBeside(snapshot.residents)
        const after = firstBeside(snapshot.residents.filter((one) => !canGo(snapshot)(one)))
        const loaded = plan.type === "load" ? plan : undefined
        assert.strictEqual(loaded?.candidate, beside ?? after)
        assert.strictEqual(loaded?.evict.length === 0, beside !== undefined)
      })
    })
  })

  describe("a refusal", () => {
    it("comes exactly if evicting everything that is not pinned is not enough for the smallest", () => {
      property((candidates, snapshot) => {
        const plan = make(candidates, snapshot)
        const available = snapshot.budgetBytes - sum(snapshot.residents.filter(({ pinned }) => pinned))
        const needed = Math.min(...candidates.map(({ bytes }) => bytes))
        if (needed <= available) return assert.notStrictEqual(plan.type, "refuse")
        assert.deepStrictEqual(plan, {
          type: "refuse",
          neededBytes: needed,
          availableBytes: Math.max(0, available)
        })
      })
    })

    it("never concerns a model that needs no memory, even if more is in use than available", () => {
      const plan = make([candidate(0)], snapshot(5, resident("pinned", 10, { pinned: true })))
      assert.deepStrictEqual(plan, { type: "load", candidate: candidate(0), evict: [] })
    })
  })

  describe("a plan to wait", () => {
    it("makes progress: a model in use drains, or the wait has an end", () => {
      property((candidates, snapshot) => {
        const plan = make(candidates, snapshot)
        if (plan.type !== "wait") return
        const inUse = plan.drain.filter((key) => snapshot.residents.some((one) => one.key === key && one.inUse))
        assert.isTrue(inUse.length > 0 || Number.isFinite(plan.atMostMs))
        assert.isAbove(plan.atMostMs, 0)
        assert.isTrue(!Number.isFinite(plan.atMostMs) || plan.atMostMs <= snapshot.holdMs)
      })
    })

    it("never drains a model that is pinned or within its hold time", () => {
      property((candidates, snapshot) => {
        const plan = make(candidates, snapshot)
        if (plan.type !== "wait") return
        for (const key of plan.drain) {
          const one = snapshot.residents.find((other) => other.key === key)!
          assert.isTrue(!one.pinned && one.heldMs >= snapshot.holdMs)
        }
      })
    })

    it("becomes a load when its time has passed and the draining model is idle", () => {
      property((candidates, start) => {
        let now = start
        for (let rounds = 0; rounds <= 2 * start.residents.length; rounds++) {
          const plan = make(candidates, now)
          if (plan.type !== "wait") {
            return assert.strictEqual(plan.type, make(candidates, start).type === "refuse" ? "refuse" : "load")
          }
          const passed = Number.isFinite(plan.atMostMs) ? plan.atMostMs : 0
          now = {
            ...now,
            residents: now.residents.map((one) => ({
              ...one,
              heldMs: one.heldMs + passed,
              idleMs: one.idleMs + passed,
              inUse: one.inUse && !plan.drain.includes(one.key)
            }))
          }
        }
        assert.fail("it waits for ever")
      })
    })
  })

  describe("the variant", () => {
    const variants = [candidate(16, 16), candidate(8, 8), candidate(4, 4)]
    const budgets: ReadonlyArray<readonly [name: string, budgetBytes: number, bits: number]> = [
      ["just below 2 GiB", 2 * GiB - 1, 4],
      ["at exactly 2 GiB", 2 * GiB, 8],
      ["just below 4 GiB", 4 * GiB - 1, 8],
      ["at exactly 4 GiB", 4 * GiB, 16],
      ["without a limit", Number.POSITIVE_INFINITY, 16]
    ]
    for (const [name, budgetBytes, bits] of budgets) {
      it(`has ${bits} bits ${name}`, () => {
        assert.strictEqual(finestBits(budgetBytes), bits)
        assert.strictEqual(finestBits(budgetBytes, { int4Below: 0, int8Below: 0 }), 16)
        const plan = make(variants, snapshot(budgetBytes))
        assert.strictEqual(plan.type === "load" && plan.candidate.bits, bits)
      })
    }

    it("is a smaller one if the large one does not fit beside the others", () => {
      const plan = make(
        [candidate(6 * GiB, 16), candidate(3 * GiB, 8)],
        snapshot(8 * GiB, resident("other", 4 * GiB))
      )
      assert.deepStrictEqual(plan, { type: "load", candidate: candidate(3 * GiB, 8), evict: [] })
    })

    it("is a finer one than the budget is for if there is no other", () => {
      const plan = make([candidate(GiB, 16)], snapshot(1.5 * GiB))
      assert.strictEqual(plan.type === "load" && plan.candidate.bits, 16)
    })

    it("of unknown bits comes after those that are known to be coarse enough", () => {
      assert.deepStrictEqual(order([candidate(9), candidate(1, 4), candidate(2, 4)], GiB).map(({ bytes }) => bytes), [
        2,
        1,
        9
      ])
    })
  })

  describe("the victim", () => {
    const victimOf = (...residents: ReadonlyArray<Resident>) => {
      const plan = make([candidate(10)], snapshot(sum(residents), ...residents))
      return plan.type === "load" ? plan.evict : plan.type
    }

    it("is the one that has been idle for longest", () => {
      assert.deepStrictEqual(
        victimOf(resident("a", 10), resident("b", 10, { idleMs: 90_000 }), resident("c", 10)),
        ["b"]
      )
    })

    it("is the one that is quickest to load again", () => {
      assert.deepStrictEqual(victimOf(resident("a", 10), resident("b", 10, { reloadMs: 10 })), ["b"])
    })

    it("is the one with the fewest requests", () => {
      assert.deepStrictEqual(victimOf(resident("a", 10), resident("b", 10, { demand: 1 })), ["b"])
    })

    it("is the only one that is large enough if the cheaper ones are not", () => {
      assert.deepStrictEqual(
        victimOf(resident("small", 4, { idleMs: 90_000 }), resident("large", 10)),
        ["large"]
      )
    })

    it("costs more as any one of its terms grows", () => {
      fc.assert(fc.property(residents, (all) => {
        for (const one of all) {
          assert.isAbove(costOf({ ...one, reloadMs: one.reloadMs + 1 }), costOf(one))
          assert.isAbove(costOf({ ...one, demand: one.demand + 1 }), costOf(one))
          assert.isBelow(costOf({ ...one, idleMs: one.idleMs + 1 }), costOf(one))
        }
      }))
    })
  })
})
