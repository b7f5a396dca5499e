import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Growth, quantile, Windows } from "../../../src/services/alerts/Increases.ts"

const table = (...values: ReadonlyArray<number>) => new Map([["a", values]])

describe("the growth of counters", () => {
  it("begins with the second report", () => {
    const growth = new Growth()
    assert.strictEqual(growth.since(table(5, 1)).size, 0)
    assert.deepStrictEqual([...growth.since(table(7, 1))], [["a", [2, 0]]])
    assert.strictEqual(growth.since(table(7, 1)).size, 0)
  })

  it("counts a series that is new from zero, as one that began again", () => {
    const growth = new Growth()
    growth.since(new Map())
    assert.deepStrictEqual([...growth.since(table(3))], [["a", [3]]])
    assert.deepStrictEqual([...growth.since(table(1))], [["a", [1]]])
  })
})

describe("the increase in a window", () => {
  it("is the sum of the reports in it, whatever their number and order in time", () => {
    const reports = fc.array(fc.tuple(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 1, max: 9 })), {
      maxLength: 40
    })
    fc.assert(fc.property(reports, fc.integer({ min: 1, max: 60 }), (reports, window) => {
      const windows = new Windows()
      let now = 0
      const at = reports.map(([later, count]) => {
        now += later
        windows.add(table(count), now, 60)
        return { now, count }
      })
      const inside = at.filter((one) => one.now > now - window).reduce((sum, { count }) => sum + count, 0)
      assert.strictEqual(windows.increase("a", window, now)[0] ?? 0, reports.length === 0 ? 0 : inside)
    }))
  })

  it("adds up the reports of several processes", () => {
    const windows = new Windows()
    windows.add(table(2, 0), 10, 100)
    windows.add(table(3, 1), 11, 100)
    assert.deepStrictEqual(windows.increase("a", 50, 20), [5, 1])
    assert.deepStrictEqual(windows.increase("a", 50, 200), [0, 0])
    assert.deepStrictEqual(windows.increase("b", 50, 20), [])
  })
})

describe("a quantile", () => {
  it("lies in the bucket of its rank, by interpolation", () => {
    assert.strictEqual(quantile(0.5, [1, 2, 4], [0, 10, 0, 0]), 1.5)
    assert.strictEqual(quantile(0.95, [1, 2, 4], [90, 5, 5, 0]), 2)
    assert.strictEqual(quantile(0.5, [10, 20], [4, 0, 0]), 5)
  })

  it("above the last bound is that bound", () => {
    assert.strictEqual(quantile(0.95, [1, 2, 4], [0, 0, 0, 9]), 4)
  })
})
