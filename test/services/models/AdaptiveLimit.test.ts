/** Adaptive limits, by themselves and with simulated providers. `node bench/limits.ts` prints the table of docs/scaling.md. */
import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import type { Scenario } from "../../../bench/LimitSimulation.ts"
import { scenarios, simulate, simulateFixed } from "../../../bench/LimitSimulation.ts"
import type { Bounds } from "../../../src/domain/AdaptiveConcurrency.ts"
import * as AdaptiveLimit from "../../../src/services/models/AdaptiveLimit.ts"
import { repetitions } from "../../support/Repetitions.ts"

const bounds: Bounds = { min: 2, max: 100, initial: 20 }

/** So many answers of this latency, all slots in use. */
const answers = (state: AdaptiveLimit.State, ms: number, count: number, from: number, inFlight?: number) => {
  let after = state
  for (let at = from; at < from + count; at++) {
    const sample = { startedAt: at, inFlight: inFlight ?? AdaptiveLimit.limitOf(after), type: "latency" } as const
    after = AdaptiveLimit.update(after, bounds, { ...sample, measure: "firstToken", ms }, at)
  }
  return after
}

const limitAfter = (state: AdaptiveLimit.State) => AdaptiveLimit.limitOf(state)

const overload = (state: AdaptiveLimit.State, startedAt: number) =>
  AdaptiveLimit.update(state, bounds, { type: "overload", startedAt, inFlight: 1 }, startedAt)

describe("an adaptive limit", () => {
  it("grows while the latency stays, up to its greatest", () => {
    const start = AdaptiveLimit.make(bounds)
    const once = answers(start, 100, 60, 0)
    assert.isAbove(limitAfter(once), 20)
    assert.strictEqual(limitAfter(answers(once, 100, 3000, 60)) > 65, true)
  })

  it("does not grow by requests that leave slots free", () => {
    assert.strictEqual(limitAfter(answers(AdaptiveLimit.make(bounds), 100, 1000, 0, 10)), 20)
  })

  it("falls at once with a rejection, and by one step for all requests that were in flight", () => {
    const once = overload(answers(AdaptiveLimit.make(bounds), 100, 5, 0), 10)
    assert.strictEqual(limitAfter(once), 18)
    assert.strictEqual(limitAfter(overload(overload(once, 9), 8)), 18)
    assert.strictEqual(limitAfter(overload(once, 11)), 16)
  })

  it("falls while answers take longer than without a queue, and not because a few do", () => {
    const known = answers(AdaptiveLimit.make(bounds), 100, 60, 0)
    assert.isBelow(limitAfter(answers(known, 300, 40, 100)), limitAfter(known))
    assert.isAtLeast(limitAfter(answers(answers(known, 1000, 2, 100), 100, 60, 102)), limitAfter(known))
  })

  it("is the same after a deployment has become slower at every limit", () => {
    const known = answers(AdaptiveLimit.make(bounds), 100, 200, 0)
    const slower = answers(known, 200, 2000, 200)
    assert.isAtLeast(limitAfter(slower), limitAfter(known) * 0.7)
  })

  it("is within its bounds and at least 1, whatever it observes", () => {
    const sample = fc.record({
      type: fc.constantFrom("latency", "overload"),
      measure: fc.constantFrom("firstToken", "perToken", "whole"),
      ms: fc.oneof(fc.integer({ min: 0, max: 10 }), fc.integer({ min: 0, max: 100_000 })),
      tokens: fc.integer({ min: 1, max: 2000 }),
      age: fc.integer({ min: 0, max: 50 }),
      inFlight: fc.integer({ min: 1, max: 100 }),
      times: fc.integer({ min: 1, max: 60 })
    })
    fc.assert(
      fc.property(fc.array(sample, { maxLength: 40 }), fc.integer({ min: 1, max: 5 }), (samples, min) => {
        const own = { ...bounds, min }
        let state = AdaptiveLimit.make(own)
        let now = 0
        for (const { age, times, ...given } of samples) {
          for (let time = 0; time < times; time++) {
            now += 10
            state = AdaptiveLimit.update(state, own, { ...given, startedAt: now - age }, now)
            assert.isAtLeast(state.limit, min)
            assert.isAtMost(state.limit, own.max)
            assert.isAtLeast(AdaptiveLimit.limitOf(state), 1)
          }
        }
      }),
      { numRuns: repetitions(10, 50) }
    )
  })
})

/** The answers of the best of these fixed limits, per second. */
const bestOf = (scenario: Scenario): number =>
  Math.max(
    ...[scenario.knee(scenario.measured[1] - 1), 20].map((limit) => simulateFixed(scenario, 1, limit).throughput)
  )

const cases = [
  ["queue12In2", 0.88, 1.2],
  ["buffered", 0.95, 1.3],
  ["reject", 0.85, 1.05],
  ["slowHour", 0.95, 1.35],
  ["queue", 0.88, 1.2],
  ["queueIn4", 0.85, 1.2],
  ["rejectIn4", 0.85, 1.05],
  ["shared", 0.95, 1.25],
  ["noisy", 0.9, 1.4],
  ["afterSlowHour", 0.95, 1.35],
  ["smaller", 0.85, 1.4]
] as const

describe("an adaptive limit of a simulated provider", () => {
  it.each(cases.slice(0, repetitions(2, cases.length)))("finds the knee: %s", (name, throughput, most) => {
    const scenario: Scenario = scenarios[name]
    const reached = simulate(scenario, 1)
    const knee = scenario.knee(scenario.measured[1] - 1)
    assert.isAtLeast(reached.throughput, throughput * bestOf(scenario))
    assert.isAtLeast(reached.limit, 0.8 * knee)
    assert.isAtMost(reached.limit, most * knee)
    assert.isAtMost(reached.rejected, 0.02)
  })

  it("is the same again with the same seed", () => {
    const brief: Scenario = { ...scenarios.shared, lasts: 300_000, measured: [0, 300_000] }
    assert.deepStrictEqual(simulate(brief, 7), simulate(brief, 7))
  })
})
