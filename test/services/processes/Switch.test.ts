import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { defaultSteps, Divider, problemOf, sum } from "../../../src/services/processes/Switch.ts"

const ofNew = (divider: Divider, count: number): number =>
  Array.from({ length: count }, () => divider.next()).filter(Boolean).length

describe("Divider", () => {
  it("gives the new generation its share of any number of connections", () => {
    fc.assert(fc.property(fc.integer({ min: 0, max: 100 }), fc.nat(1000), fc.nat(1000), (percent, before, count) => {
      const divider = new Divider()
      divider.share = percent / 100
      ofNew(divider, before)
      assert.approximately(ofNew(divider, count), count * percent / 100, 1)
    }))
  })

  it.each([[0, 0], [0.1, 10], [0.3, 30], [0.7, 70], [1, 100]])(
    "gives %f of 100 connections exactly",
    (share, expected) => {
      const divider = new Divider()
      divider.share = share
      assert.strictEqual(ofNew(divider, 100), expected)
    }
  )

  it("gives none at the start, and begins again with each share", () => {
    const divider = new Divider()
    assert.isFalse(divider.next())
    divider.share = 0.5
    divider.next()
    divider.share = 0.5
    assert.isFalse(divider.next())
    assert.isTrue(divider.next())
  })
})

describe("problemOf", () => {
  it.each([
    [{ answers: 100, failures: 5 }, undefined],
    [{ answers: 100, failures: 6 }, "6 of its 100 answers failed (6 %; the limit is 5 %)"],
    [{ answers: 1, failures: 1 }, undefined],
    [{ answers: 2, failures: 2 }, "2 of its 2 answers failed (100 %; the limit is 5 %)"],
    [{ answers: 0, failures: 0 }, undefined]
  ])("%o: %s", (tally, expected) => {
    assert.strictEqual(problemOf(tally, defaultSteps), expected)
  })

  it("judges the processes of a generation together", () => {
    const tally = sum([{ answers: 60, failures: 1 }, { answers: 40, failures: 5 }])
    assert.deepStrictEqual(tally, { answers: 100, failures: 6 })
  })
})
