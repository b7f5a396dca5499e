import { assert, describe, it } from "@effect/vitest"
import * as fc from "fast-check"
import { Draws } from "../../../bench/RolloutSimulation.ts"
import * as Comparison from "../../../src/services/rollout/Comparison.ts"
import { resolveComparison } from "../../../src/services/rollout/RolloutSettings.ts"
import type { Observation } from "../../../src/services/rollout/Tally.ts"
import * as Tally from "../../../src/services/rollout/Tally.ts"

const plan = resolveComparison({ metrics: ["errors", "refusals", "firstToken", "speed", "score"] })

const tallyOf = (requests: number, observe: () => Partial<Observation>): Tally.Tally => {
  const tally = Tally.empty()
  for (let index = 0; index < requests; index++) Tally.record(tally, { failed: false, refused: false, ...observe() })
  return tally
}

/** The metrics with enough evidence after 20 batches of 45 and 15 requests. */
const found = (stable: () => Partial<Observation>, candidate: () => Partial<Observation>, compared = plan) => {
  let comparison = Comparison.fresh()
  for (let batch = 0; batch < 20; batch++) {
    const now = { stable: tallyOf(45, stable), candidate: tallyOf(15, candidate) }
    comparison = Comparison.evaluated(Comparison.observed(comparison, now), compared)
  }
  return Comparison.metricsOf(comparison, compared).filter(({ logE, needed }) => logE >= needed)
}

const draws = new Draws(7)
const around = (median: number) => median * Math.exp(0.5 * draws.normal())
const between = (low: number, high: number) => low + (high - low) * draws.next()

const regressions: ReadonlyArray<readonly [string, (worse: number) => Partial<Observation>]> = [
  ["errors", (worse) => ({ failed: draws.chance(0.01 + 0.1 * worse) })],
  ["refusals", (worse) => ({ refused: draws.chance(0.01 + 0.15 * worse) })],
  ["firstToken", (worse) => ({ firstTokenMs: around(200 * (1 + worse)) })],
  ["firstToken", (worse) => ({ firstTokenMs: draws.chance(0.15 * worse) ? 5_000 : around(200) })],
  ["speed", (worse) => ({ tokensPerSecond: around(40 / (1 + worse)) })],
  ["score", (worse) => ({ score: between(0.5, 0.9) - 0.3 * worse })]
]

describe("the comparison of two versions", () => {
  it.each(regressions)("finds a regression of %s", (metric, observe) => {
    const [evidence = assert.fail("no regression was found"), ...others] = found(() => observe(0), () => observe(1))
    assert.strictEqual(evidence.metric, metric)
    assert.deepStrictEqual(others, [])
    assert.isAbove(evidence.candidate.count / evidence.candidate.of, evidence.stable.count / evidence.stable.of)
  })

  it.each(regressions)("finds nothing in equal %s, nor in better ones", (_, observe) => {
    assert.deepStrictEqual(found(() => observe(0), () => observe(0)), [])
    assert.deepStrictEqual(found(() => observe(1), () => observe(0)), [])
  })

  it.each(
    [
      ["firstToken", (worse: number) => ({ firstTokenMs: 200 * (worse === 0 ? 1 : 1.19) })],
      ["speed", (worse: number) => ({ tokensPerSecond: 40 / (worse === 0 ? 1 : 1.19) })],
      ["score", (worse: number) => ({ score: worse === 0 ? 0.8 : 0.76 })]
    ] as const
  )("permits a difference of %s within the tolerance", (metric, observe) => {
    assert.deepStrictEqual(found(() => observe(0), () => observe(1)), [])
    const strict = resolveComparison({ metrics: [metric], tolerance: { [metric]: 0 } })
    assert.lengthOf(found(() => observe(0), () => observe(1), strict), 1)
  })

  it("has no evidence in an outage of both", () => {
    let batch = 0
    const outage = () => ({ failed: draws.chance(Math.floor(batch++ / 300) % 2 === 0 ? 0.01 : 0.6) })
    assert.deepStrictEqual(found(outage, outage), [])
  })

  it("shows the level with the largest difference, and medians", () => {
    const plan = resolveComparison({ metrics: ["firstToken"], alpha: 0.01 })
    const comparison = Comparison.observed(Comparison.fresh(), {
      stable: tallyOf(10, () => ({ firstTokenMs: 100 })),
      candidate: tallyOf(10, () => ({ firstTokenMs: 1_000 }))
    })
    const [{ candidate, level, needed, stable, typical } = assert.fail()] = Comparison.metricsOf(comparison, plan)
    assert.deepStrictEqual([stable, candidate], [{ count: 0, of: 10 }, { count: 10, of: 10 }])
    assert.isTrue(level !== null && level > 100 && level < 1_000)
    assert.closeTo(needed, Math.log(100), 1e-9)
    assert.closeTo(typical.stable ?? 0, 100, 10)
    assert.closeTo(typical.candidate ?? 0, 1_000, 100)
  })

  it("is finite, whatever was measured", () => {
    const value = fc.option(fc.double({ min: 0, max: 1e6, noNaN: true }), { nil: undefined })
    const observations = fc.array(fc.record({
      failed: fc.boolean(),
      refused: fc.boolean(),
      firstTokenMs: value,
      tokensPerSecond: value,
      score: value
    }))
    const tallies = observations.map((all) => tallyOf(all.length, () => all.pop()!))
    const pair = fc.record({ stable: tallies, candidate: tallies })
    fc.assert(fc.property(pair, pair, (before, batch) => {
      const comparison = [before, batch].reduce(
        (compared, batch) => Comparison.evaluated(Comparison.observed(compared, batch), plan),
        Comparison.fresh()
      )
      for (const { logE } of Comparison.metricsOf(comparison, plan)) assert.isTrue(Number.isFinite(logE))
    }))
  })

  it("waits with a batch until it has two requests of each version", () => {
    const one = { stable: tallyOf(9, () => ({})), candidate: tallyOf(1, () => ({ failed: true })) }
    const waiting = Comparison.evaluated(Comparison.observed(Comparison.fresh(), one), plan)
    assert.deepStrictEqual([waiting.pending.stable.requests, waiting.totals.stable.requests], [9, 0])
    const compared = Comparison.evaluated(Comparison.observed(waiting, one), plan)
    assert.deepStrictEqual([compared.pending.stable.requests, compared.totals.stable.requests], [0, 18])
    assert.isAbove(compared.capital.errors.severe, 0)
  })
})
