import { assert, describe, it } from "@effect/vitest"
import { begin } from "../../../bench/RolloutSimulation.ts"
import type { Rollout } from "../../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../../src/services/rollout/RolloutMachine.ts"
import type { RolloutPlan } from "../../../src/services/rollout/RolloutSettings.ts"
import { resolve } from "../../../src/services/rollout/RolloutSettings.ts"
import { tailOf } from "../../../src/services/rollout/Silence.ts"
import * as Tally from "../../../src/services/rollout/Tally.ts"
import { Waiting } from "../../../src/services/rollout/Waiting.ts"

const usual = { callers: 10, slots: 2, stable: 0, usualMs: 200, candidateAnswersAt: Infinity, compared: 0 }

/** How a rollout ends at which callers wait from the second 1 on, within 3 minutes. */
const play = (change: Partial<typeof usual> = {}, settings: Partial<RolloutPlan> = {}) => {
  const { callers, candidateAnswersAt, compared, slots, stable, usualMs } = { ...usual, ...change }
  const tallies = { stable: Tally.empty(), candidate: Tally.empty() }
  const waiting = new Waiting((version) => version === undefined ? tallies.stable : tallies.candidate)
  const plan = { ...resolve({ steps: [0.3, 1] }), evaluateMs: 1000, ...settings }
  let { state } = RolloutMachine.advance(begin(plan).state, { _tag: "Healthy" }, 0)
  for (let count = 0; count < 20; count++) waiting.begin(undefined, 0).end(usualMs, true)
  tallies.stable.requests = compared
  const waits = Array.from({ length: callers }, () => waiting.enqueue("new", 1000))
  for (const wait of waits.slice(0, slots)) wait.granted(1000)
  for (let count = 0; count < stable; count++) waiting.begin(undefined, 2000)
  for (let now = 1000; now < 180_000 && !("outcome" in state.phase); now += 1000) {
    if (now % candidateAnswersAt === 0) waits.shift()?.end(now, true)
    waiting.report(now)
    state = RolloutMachine.advance(state, { _tag: "Observed", ...tallies }, now).state
    state = RolloutMachine.advance(state, { _tag: "Tick" }, now).state
    Object.assign(tallies, { stable: Tally.empty(), candidate: Tally.empty() })
  }
  return state
}

const outcomeOf = ({ phase }: Rollout) => "outcome" in phase ? phase.outcome : undefined

describe("a candidate for which all callers wait", () => {
  it("is rolled back after hangsAfter, those in its queue included", () => {
    const state = play()
    assert.deepInclude(outcomeOf(state), { result: "rolledBack", cause: "silence", metric: "hanging" })
    assert.match(outcomeOf(state)!.reason, /no request had a token or an answer for 3\d s while (9|10) waited/)
    assert.strictEqual(state.history.at(-1)!.at, 31_000)
  })

  it("is rolled back by the test, before hangsAfter, where enough of them wait beside the old version's requests", () => {
    const state = play({ slots: 10, compared: 20 })
    assert.deepInclude(outcomeOf(state), { result: "rolledBack", cause: "test", metric: "hanging" })
    assert.match(
      outcomeOf(state)!.reason,
      /no token or answer after \d+ ms and the tolerance: 100 % of 10 against 0 % of 20 /
    )
    assert.strictEqual(state.history.at(-1)!.at, 3_000)
  })

  it.each(
    [
      ["has answered one meanwhile", { candidateAnswersAt: 20_000 }, {}],
      ["loads: no request has a slot", { slots: 0 }, {}],
      ["has fewer callers than five", { callers: 4 }, {}],
      ["is compared with a version of which more wait", { stable: 20 }, {}],
      ["may take four times as long as the old version's slowest", { usualMs: 50_000 }, {}],
      ["has no limit", {}, { hangsMs: null }],
      ["has all requests, so that nothing is known of the old one", {}, { steps: [1] }]
    ] as const
  )("stays where it %s", (_, change, settings) => {
    // Without the test, which the old version's first requests would decide.
    assert.isUndefined(outcomeOf(play(change, { metrics: ["score"], ...settings })))
  })
})

it("the probability of a share of requests is that of the binomial distribution", () => {
  assert.approximately(tailOf(8, 12, 0.3), 0.00949, 0.00001)
  assert.approximately(tailOf(12, 12, 0.7), 0.7 ** 12, 1e-9)
  assert.strictEqual(tailOf(0, 5, 0.5), 1)
  assert.strictEqual(tailOf(5, 5, 1), 1)
})
