/** The choice of a batch's tokens, and the measurement of batches. */
import * as fc from "fast-check"
import type { BatchItem, LlamaContext, Token } from "node-llama-cpp"
import { assert, describe, it } from "vitest"
import { makeBatches, makeWidths } from "../../../src/workers/llama/LlamaBatches.ts"

const item = (tokens: number): BatchItem => ({
  tokens: Array.from({ length: tokens }, (_, index) => index as Token),
  logits: [],
  evaluationPriority: 5
})

/** Batches for so many tokens that all wait again once computed, as long as `batches`. */
const play = (waiting: number, batches: number, msOf: (width: number) => number) => {
  const widths = makeWidths()
  const chosen = Array.from({ length: batches }, () => {
    const width = widths.choose(waiting)
    widths.record(width, msOf(width))
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
      const width = widths.choose(4)
      widths.record(width, width === 1 ? 20 : 2 * width)
      return width
    })
    assert.strictEqual(later.at(-1), 4)
    // Measuring the other width is cheap.
    assert.isBelow(later.slice(-5_000).filter((width) => width === 1).length, 15)
  })

  it("are one or all, whatever has been measured", () => {
    fc.assert(fc.property(
      fc.array(fc.tuple(fc.integer({ min: 0, max: 16 }), fc.double({ min: 0, max: 1e6, noNaN: true }))),
      (measured) => {
        const widths = makeWidths()
        for (const [waiting, ms] of measured) {
          const width = widths.choose(waiting)
          assert.include([Math.min(1, waiting), waiting], width)
          if (width > 0) widths.record(width, ms)
        }
      }
    ))
  })
})

describe("batches", () => {
  it("take complete pieces of prompts in order, up to the limit", () => {
    const { strategy } = makeBatches(128)
    const [one, two, three, next] = [item(64), item(40), item(64), item(1)]
    assert.deepStrictEqual(strategy({ items: [one, two, three, next], size: 512 }), [
      { item: next, processAmount: 1 },
      { item: one, processAmount: 64 },
      { item: two, processAmount: 40 }
    ])
  })

  it("take every next token, with any number of prompts", () => {
    const prompts = Array.from({ length: 8 }, () => item(64))
    const next = [item(1), item(1)]
    assert.deepStrictEqual(
      makeBatches(512).strategy({ items: [...prompts, ...next], size: 512 }),
      [...next, ...prompts.slice(0, 7)].map((item) => ({ item, processAmount: item.tokens.length }))
    )
  })

  it("take a part of an item that is larger than any batch", () => {
    const large = item(300)
    assert.deepStrictEqual(makeBatches(512).strategy({ items: [large], size: 256 }), [{
      item: large,
      processAmount: 256
    }])
  })

  it("always make progress, within their size, with each item at most once", () => {
    fc.assert(fc.property(
      fc.array(fc.integer({ min: 1, max: 200 }), { minLength: 1, maxLength: 32 }),
      fc.integer({ min: 1, max: 512 }),
      fc.integer({ min: 1, max: 512 }),
      (lengths, most, size) => {
        const items = lengths.map(item)
        const taken = makeBatches(most).strategy({ items, size })
        const tokens = taken.reduce((sum, { processAmount }) => sum + processAmount, 0)
        assert.isAtLeast(tokens, 1)
        assert.isAtMost(tokens, size)
        assert.strictEqual(new Set(taken.map(({ item }) => item)).size, taken.length)
        for (const { item, processAmount } of taken) {
          assert.include(items, item)
          assert.isAtLeast(processAmount, 1)
          assert.isAtMost(processAmount, item.tokens.length)
        }
      }
    ))
  })

  it("are measured if they contain next tokens only", async () => {
    let time = 0
    const { strategy, measure } = makeBatches(128, () => time)
    let takes = 0
    const native = {
      decodeBatch: () => {
        time += takes
        return Promise.resolve()
      }
    }
    measure({ _ctx: native } as unknown as LlamaContext)
    const batch = async (items: ReadonlyArray<BatchItem>, msOf: (width: number) => number) => {
      const width = strategy({ items, size: 512 }).length
      takes = msOf(width)
      await native.decodeBatch()
      return width
    }
    const next = Array.from({ length: 4 }, () => item(1))
    for (let turn = 0; turn < 20; turn++) await batch(next, (width) => width === 1 ? 1 : 2 * width)
    assert.strictEqual(await batch(next, () => 1), 1)
    for (let turn = 0; turn < 20; turn++) {
      // Prompts in between take long, and are not measured.
      await batch([...next, item(64)], () => 10_000)
    }
    assert.strictEqual(await batch(next, () => 1), 1)
  })

  it("report a library version other than the pinned one", () => {
    assert.throws(() => makeBatches(128).measure({} as LlamaContext))
  })
})
