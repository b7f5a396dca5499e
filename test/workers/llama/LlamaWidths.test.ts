/** The choice of a batch's width by its measured cost. */
import * as fc from "fast-check"
import { assert, describe, it } from "vitest"
import { makeWidths, runsOf } from "../../../src/workers/llama/LlamaWidths.ts"

/** Batches for so many tokens that all wait again once computed, as long as `batches`. */
const play = (waiting: number, batches: number, msOf: (width: number) => number) => {
  const widths = makeWidths()
  const chosen = Array.from({ length: batches }, () => {
    const width = widths.choose([waiting])
    widths.record([width], msOf(width))
    return width
  })
  return { widths, chosen }
}

describe("widths", () => {
  it("become one if that is clearly cheaper, and all otherwise", () => {
    const alone = play(8, 100, (width) => width === 1 ? 6 : 9 * width)
    assert.deepStrictEqual(new Set(alone.chosen.slice(10)), new Set([1]))
    const together = play(8, 100, (width) => width === 1 ? 6 : 2 * width)
    assert.deepStrictEqual(new Set(together.chosen.slice(10)), new Set([8]))
    const nearly = play(8, 100, (width) => width === 1 ? 6 : 6.5 * width)
    assert.deepStrictEqual(new Set(nearly.chosen.slice(10)), new Set([8]))
  })

  it("ignore the slow first batches, while the file is read", () => {
    let first = true
    const { chosen } = play(4, 100, (width) => {
      const slow = first ? 5_000 : 0
      first = false
      return slow + (width === 1 ? 9 : 4 * width)
    })
    assert.deepStrictEqual(new Set(chosen.slice(10)), new Set([4]))
  })

  it("are measured again when the cost changes", () => {
    const { chosen, widths } = play(4, 100, (width) => width === 1 ? 6 : 9 * width)
    assert.strictEqual(chosen.at(-1), 1)
    const later = Array.from({ length: 20_000 }, () => {
      const width = widths.choose([4])
      widths.record([width], width === 1 ? 20 : 2 * width)
      return width
    })
    assert.strictEqual(later.at(-1), 4)
    // Measuring the other width is cheap.
    assert.isBelow(later.slice(-5_000).filter((width) => width === 1).length, 15)
  })

  it("are one or all, whatever has been measured", () => {
    fc.assert(fc.property(
      fc.array(
        fc.tuple(
          fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 4 }),
          fc.double({ min: 0, max: 1e6, noNaN: true })
        )
      ),
      (measured) => {
        const widths = makeWidths()
        for (const [runs, ms] of measured) {
          const waiting = runs.reduce((sum, run) => sum + run, 0)
          const width = widths.choose(runs)
          assert.include([1, waiting], width)
          widths.record(width === waiting ? runs : [1], ms)
        }
      }
    ))
  })

  it("are those of runs: sequences with a gap between them are computed one after the other", () => {
    const widths = makeWidths()
    const cost = (run: number) => run < 8 ? 9 * run : 4 * run
    const play = (runs: ReadonlyArray<number>) =>
      Array.from({ length: 20 }, () => {
        const waiting = runs.reduce((sum, run) => sum + run, 0)
        const width = widths.choose(runs)
        const computed = width === waiting ? runs : [1]
        widths.record(computed, computed.reduce((sum, run) => sum + (run === 1 ? 6 : cost(run)), 0))
        return width
      }).at(-1)
    assert.strictEqual(play([8]), 8)
    // Known from the first batches with a gap, which have a run of unknown cost.
    assert.strictEqual(play([8, 4]), 12)
    assert.strictEqual(play([4]), 1)
    assert.strictEqual(play([4, 4]), 1)
    assert.strictEqual(play([8, 1, 1]), 10)
  })
})

describe("runsOf", () => {
  it("splits ascending numbers at their gaps", () => {
    assert.deepStrictEqual(runsOf([]), [])
    assert.deepStrictEqual(runsOf([3]), [1])
    assert.deepStrictEqual(runsOf([0, 1, 2, 4, 6, 7]), [3, 1, 2])
  })
})
