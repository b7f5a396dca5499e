import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { ArrivalPacer, ByteBudget } from "../../../src/services/limits/RequestLimits.ts"

/** A pacer over a clock and turns that the test moves. */
const make = (limit: number, sliceMs: number, perTurn = 100) => {
  let time = 0
  const turns: Array<() => void> = []
  const pacer = new ArrivalPacer({ limit, perTurn, sliceMs, now: () => time, nextTurn: (run) => turns.push(run) })
  return {
    pacer,
    pass: (ms: number) => {
      time += ms
    },
    /** False where no turn was asked for. */
    turn: () => {
      const next = turns.shift()
      next?.()
      return next !== undefined
    }
  }
}

describe("ArrivalPacer", () => {
  it("starts as many arrivals as fit the turn, and the rest in later turns, in order", () => {
    const { pacer, pass, turn } = make(100, 10)
    const started: Array<number> = []
    for (let index = 0; index < 6; index++) {
      pacer.offer(() => {
        started.push(index)
        pass(4)
      })
    }
    assert.deepStrictEqual(started, [0, 1, 2])
    turn()
    assert.deepStrictEqual(started, [0, 1, 2, 3, 4, 5])
  })

  it("starts every accepted arrival once, in order, within each turn's number, or its slice and one arrival", () => {
    const step = fc.oneof(fc.record({ cost: fc.integer({ min: 0, max: 30 }) }), fc.constant("turn" as const))
    fc.assert(
      fc.property(
        fc.array(step),
        fc.integer({ min: 1, max: 5 }),
        fc.integer({ min: 1, max: 4 }),
        (steps, limit, perTurn) => {
          const { pacer, pass, turn } = make(limit, 10, perTurn)
          const accepted: Array<number> = []
          const started: Array<number> = []
          let spent = 0
          let begun = 0
          const begin = () => {
            spent = 0
            begun = 0
            return turn()
          }
          for (const [index, one] of steps.entries()) {
            if (one === "turn") begin()
            else {
              const isTaken = pacer.offer(() => {
                assert.isBelow(spent, 10)
                assert.isAtMost(++begun, perTurn)
                started.push(index)
                pass(one.cost)
                spent += one.cost
              })
              if (isTaken) accepted.push(index)
              else assert.strictEqual(pacer.waiting, limit)
            }
            assert.isAtMost(pacer.waiting, limit)
          }
          while (begin());
          assert.deepStrictEqual(started, accepted)
          assert.strictEqual(pacer.waiting, 0)
        }
      )
    )
  })
})

describe("ByteBudget", () => {
  it("is never exceeded, and is complete again once every hold has been released, even repeatedly", () => {
    const step = fc.record({ hold: fc.nat(5), bytes: fc.option(fc.nat(60)) })
    fc.assert(fc.property(fc.array(step), fc.integer({ min: 1, max: 200 }), (steps, limit) => {
      const budget = new ByteBudget(limit)
      const holds = Array.from({ length: 6 }, () => budget.hold())
      const held = holds.map(() => 0)
      const gone = new Set<number>()
      for (const { bytes, hold } of steps) {
        if (bytes === null) {
          holds[hold]!.release()
          held[hold] = 0
          gone.add(hold)
        } else {
          const fits = !gone.has(hold) && bytes <= budget.left
          assert.strictEqual(holds[hold]!.take(bytes), fits)
          if (fits) held[hold]! += bytes
        }
        assert.strictEqual(budget.used, held.reduce((sum, one) => sum + one, 0))
        assert.isAtMost(budget.used, limit)
      }
      for (const hold of holds) hold.release()
      assert.strictEqual(budget.used, 0)
    }))
  })
})
