/** Rollouts of a simulated service. `node bench/rollouts.ts` has more seeds, and the table of docs/rollouts.md. */
import { assert, describe, it } from "@effect/vitest"
import { begin, scenarios, simulate, summarize } from "../../../bench/RolloutSimulation.ts"
import * as RolloutMachine from "../../../src/services/rollout/RolloutMachine.ts"
import { repetitions } from "../../support/Repetitions.ts"

const seeds = repetitions(6, 200)

/** Requests per second, of both versions. */
const rate = 10

describe("a simulated rollout", () => {
  it.each(["equal", "equalFailing", "outage", "late", "slightlySlower"] as const)(
    "promotes a candidate that is %s",
    (name) => {
      const { promoted, rolledBack } = summarize(scenarios[name], rate, seeds)
      assert.isAtMost(rolledBack, seeds * scenarios[name].plan.alpha)
      assert.strictEqual(promoted + rolledBack, seeds)
    }
  )

  it.each(
    [
      ["failing", 10],
      ["longPrompts", 5],
      ["slow", 5],
      ["twiceAsSlow", 1],
      ["refusing", 10],
      ["hangingRarely", 5]
    ] as const
  )("rolls a candidate back that is %s, within %i minutes in the median", (name, minutes) => {
    const { medianMs, rolledBack } = summarize(scenarios[name], rate, seeds)
    assert.isAtLeast(rolledBack, seeds * 0.95)
    assert.isAtMost(medianMs ?? Infinity, minutes * 60_000)
  })

  it.each(
    [
      ["fails every request", "broken"],
      ["never answers", "hanging"]
    ] as const
  )("rolls a candidate back that %s within one evaluation period", (_, name) => {
    const { medianMs, rolledBack } = summarize(scenarios[name], rate, seeds)
    assert.strictEqual(rolledBack, seeds)
    assert.strictEqual(medianMs, scenarios[name].plan.evaluateMs)
  })

  it.each(["hangingCallers", "hangingFewCallers"] as const)(
    "rolls a candidate back for which a fixed number of callers waits: %s",
    (name) => {
      const some = { ...scenarios[name], requestsPerSecond: 0, forMs: 10 * 60_000 }
      const ends = Array.from({ length: seeds }, (_, index) => simulate({ ...some, seed: index + 1 }))
      // Without five answers of the old version first, nothing is known of it.
      assert.isAtLeast(
        ends.filter(({ outcome, tookMs }) => outcome !== undefined && tookMs <= 35_000).length,
        seeds * 0.8
      )
    }
  )

  it.each(["equalSlow", "stalled"] as const)(
    "promotes a candidate for which a fixed number of callers waits: %s",
    (name) => {
      const few = repetitions(2, 50)
      assert.deepInclude(summarize(scenarios[name], 0, few), { promoted: few, rolledBack: 0 })
    }
  )

  it("waits in its first step without requests", () => {
    const { plan } = scenarios.equal
    const { outcome, state } = simulate({ ...scenarios.equal, requestsPerSecond: 0, seed: 1, forMs: 24 * 3_600_000 })
    assert.isUndefined(outcome)
    assert.deepStrictEqual(RolloutMachine.weightsOf(state), { stable: 0.9, candidate: 0.1 })
    assert.strictEqual(begin(plan).state.step, state.step)
  })

  it("is the same again with the same seed", () => {
    const simulation = { ...scenarios.failing, requestsPerSecond: rate, seed: 3, forMs: 3_600_000 }
    assert.deepStrictEqual(simulate(simulation), simulate(simulation))
  })
})
