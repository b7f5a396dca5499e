import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import * as Money from "../../src/domain/Money.ts"

const price = { input: 2, output: 8, cachedInput: 0.5, cacheWrite: 2.5, reasoning: 10 }

describe("Money", () => {
  it("costs each token once, at its own price", () => {
    const usage = {
      promptTokens: 1_000_000,
      cachedTokens: 200_000,
      cacheWriteTokens: 100_000,
      completionTokens: 500_000,
      reasoningTokens: 100_000
    }
    assert.strictEqual(Money.format(Money.costOf(price, usage)), "5.95")
    assert.strictEqual(Money.format(Money.costOf({ input: 2, output: 8 }, usage)), "6")
  })

  it("costs cache writes of an hour at their own price, by default at that of others", () => {
    const usage = {
      promptTokens: 1_000_000,
      cachedTokens: 0,
      cacheWriteTokens: 500_000,
      cacheWriteHourTokens: 200_000,
      completionTokens: 0
    }
    const costs = [{ cacheWrite: 2.5, cacheWriteHour: 4 }, { cacheWrite: 2.5 }, {}].map((own) =>
      Money.format(Money.costOf({ input: 2, output: 8, ...own }, usage))
    )
    assert.deepStrictEqual(costs, ["2.55", "2.25", "2"])
  })

  it("is exact: sums of costs have no rounding errors of floating-point numbers", () => {
    const one = Money.costOf({ input: 0.1, output: 0.2 }, { promptTokens: 1, cachedTokens: 0, completionTokens: 1 })
    assert.strictEqual(
      Array.from({ length: 1_000 }, () => one).reduce((sum, cost) => sum + cost, 0),
      Money.nanoOf(0.0003)
    )
    assert.deepStrictEqual([0, 1, 1e9, 123_450_000, 10_000_000_000].map(Money.format), [
      "0",
      "0.000000001",
      "1",
      "0.12345",
      "10"
    ])
  })

  it("has a known part where some costs are unknown", () => {
    const sum = new Money.Sum()
    assert.deepStrictEqual([sum.known, sum.unpriced], [0, undefined])
    sum.add(undefined)
    assert.deepStrictEqual([sum.known, sum.unpriced], [undefined, 1])
    sum.add(0)
    assert.deepStrictEqual([sum.known, sum.unpriced], [undefined, 1])
    sum.add(6)
    sum.add(undefined)
    assert.deepStrictEqual([sum.known, sum.unpriced], [6, 2])
  })

  it("is written with all of its digits, and no others", () => {
    fc.assert(fc.property(fc.integer({ min: -Number.MAX_SAFE_INTEGER, max: Number.MAX_SAFE_INTEGER }), (nano) => {
      const [whole = "", digits = ""] = Money.format(nano).replace("-", "").split(".")
      assert.strictEqual(BigInt(whole) * 1_000_000_000n + BigInt(digits.padEnd(9, "0")), BigInt(Math.abs(nano)))
      assert.strictEqual(Money.format(nano).startsWith("-"), nano < 0)
      assert.notMatch(digits, /0$/)
    }))
  })

  it("never costs more than the most that was reserved", () => {
    const tokens = fc.nat(2_000_000)
    const part = fc.double({ min: 0, max: 1, noNaN: true })
    const usd = fc.integer({ min: 0, max: 100_000 }).map((cents) => cents / 1_000)
    const prices = fc.record({
      input: usd,
      output: usd,
      // Cached tokens cost no more than others.
      cacheWrite: fc.option(usd, { nil: undefined }),
      cacheWriteHour: fc.option(usd, { nil: undefined }),
      reasoning: fc.option(usd, { nil: undefined })
    })
    fc.assert(fc.property(prices, tokens, tokens, part, part, part, (of, prompt, answer, cached, written, reasoned) => {
      const usage = {
        promptTokens: prompt,
        cachedTokens: Math.floor(prompt * cached),
        cacheWriteTokens: Math.floor(prompt * written),
        cacheWriteHourTokens: Math.floor(prompt * written * reasoned),
        completionTokens: answer,
        reasoningTokens: Math.floor(answer * reasoned)
      }
      assert.isAtMost(Money.costOf(of, usage), Money.mostOf(of, prompt, answer))
    }))
  })
})
