import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import { begin } from "../../../bench/RolloutSimulation.ts"
import type { Command, Event } from "../../../src/services/rollout/Rollout.ts"
import { Rollout } from "../../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../../src/services/rollout/RolloutMachine.ts"
import type { RolloutPlan } from "../../../src/services/rollout/RolloutSettings.ts"
import { resolve } from "../../../src/services/rollout/RolloutSettings.ts"
import * as Tally from "../../../src/services/rollout/Tally.ts"

const plan = resolve()
const minute = 60_000

const tally = (requests: number, failures = 0): Tally.Tally => ({ ...Tally.empty(), requests, failures })

const observed = (stable: Tally.Tally, candidate: Tally.Tally): Event => ({ _tag: "Observed", stable, candidate })

/** The state after events, each at its time, and all commands. */
const after = (plan: RolloutPlan, ...events: ReadonlyArray<readonly [at: number, event: Event]>) => {
  let state = begin(plan).state
  const commands: Array<Command> = []
  for (const [at, event] of events) {
    const advanced = RolloutMachine.advance(state, event, at)
    state = advanced.state
    commands.push(...advanced.commands)
  }
  return { state, commands }
}

const healthy: readonly [number, Event] = [0, { _tag: "Healthy" }]
const tick: Event = { _tag: "Tick" }

const outcomeOf = ({ phase }: Rollout) => "outcome" in phase ? phase.outcome : undefined

describe("the health check", () => {
  it("comes before the first request", () => {
    const { commands, state } = begin(plan)
    assert.deepStrictEqual(commands, [
      { _tag: "SetWeights", weights: { stable: 1, candidate: 0 } },
      { _tag: "CheckHealth", deployment: "chat#1" }
    ])
    assert.deepStrictEqual(RolloutMachine.advance(state, { _tag: "Healthy" }, 5).commands, [
      { _tag: "SetWeights", weights: { stable: 0.9, candidate: 0.1 } }
    ])
  })

  it("is repeated, and ends the rollout when it has failed as often as the plan says", () => {
    const unhealthy: Event = { _tag: "Unhealthy", problem: "no answer" }
    const twice = after(plan, [0, unhealthy], [9_000, tick], [10_000, tick], [11_000, unhealthy], [21_000, tick])
    assert.deepStrictEqual(twice.commands.map(({ _tag }) => _tag), ["CheckHealth", "CheckHealth"])
    assert.include(RolloutMachine.waitingFor(twice.state, 22_000), "no answer")
    const { commands, state } = RolloutMachine.advance(twice.state, unhealthy, 22_000)
    assert.deepInclude(outcomeOf(state), { result: "rolledBack", cause: "health" })
    assert.deepStrictEqual(commands.map(({ _tag }) => _tag), ["SetWeights", "Drain"])
  })

  it("that fails later rolls back at once", () => {
    const { state } = after(plan, healthy, [minute, { _tag: "Unhealthy", problem: "it cannot be loaded" }])
    assert.deepInclude(outcomeOf(state), { result: "rolledBack", cause: "health" })
  })
})

describe("a step", () => {
  it("ends when it has lasted and has had requests", () => {
    const few = after(plan, healthy, [1, observed(tally(900), tally(99))], [5 * minute, tick])
    assert.strictEqual(few.state.step, 0)
    assert.include(RolloutMachine.waitingFor(few.state, 5 * minute), "99 of 100 requests")
    const early = after(plan, healthy, [1, observed(tally(900), tally(100))], [5 * minute - 1, tick])
    assert.strictEqual(early.state.step, 0)
    assert.include(RolloutMachine.waitingFor(early.state, 4 * minute), "60 s")
    const { commands, state } = after(plan, healthy, [1, observed(tally(900), tally(100))], [5 * minute, tick])
    assert.strictEqual(state.step, 1)
    assert.deepStrictEqual(commands.at(-1), { _tag: "SetWeights", weights: { stable: 0.7, candidate: 0.3 } })
  })

  it("says how many of the new version's requests were rate limited, and how many run", () => {
    const limited = { ...tally(20, 6), rateLimited: 6 }
    const few = after(plan, healthy, [1, observed(tally(180), limited)])
    assert.include(RolloutMachine.waitingFor(few.state, 5 * minute), "20 of 100 requests, 6 rate limited")
    assert.include(RolloutMachine.waitingFor(few.state, 5 * minute, 30), "6 rate limited, 30 running")
  })

  it("waits without requests, however long", () => {
    const ticks = Array.from({ length: 100 }, (_, index) => [(index + 1) * 60 * minute, tick] as const)
    const { commands, state } = after(plan, healthy, ...ticks)
    assert.deepStrictEqual(state.phase, { _tag: "Stepping", since: 0 })
    assert.lengthOf(commands, 1)
  })

  it("asks for probes where the plan has some and requests are lacking at its end", () => {
    const { commands } = after(resolve({ probes: ["2 + 2?"] }), healthy, [minute, tick], [5 * minute, tick])
    assert.deepStrictEqual(commands.slice(1), [
      { _tag: "Probe", deployments: ["chat#0", "chat#1"], prompts: ["2 + 2?"] }
    ])
  })

  it("does not end while the rollout is paused, whose time does not count", () => {
    const full = observed(tally(900), tally(100))
    const paused = after(plan, healthy, [1, full], [minute, { _tag: "Pause" }], [60 * minute, tick])
    assert.deepStrictEqual(paused.state.phase, { _tag: "Paused", elapsedMs: minute })
    assert.deepStrictEqual(RolloutMachine.weightsOf(paused.state), { stable: 0.9, candidate: 0.1 })
    const resumed = RolloutMachine.advance(paused.state, { _tag: "Resume" }, 60 * minute).state
    assert.strictEqual(RolloutMachine.advance(resumed, tick, 64 * minute - 1).state.step, 0)
    assert.strictEqual(RolloutMachine.advance(resumed, tick, 64 * minute).state.step, 1)
  })
})

describe("the limit of failures", () => {
  const rate = (stable: Tally.Tally, candidate: Tally.Tally) =>
    after(resolve({ metrics: [] }), healthy, [1, observed(stable, candidate)], [10_000, tick]).state

  it("rolls back above it, with its numbers", () => {
    const state = rate(tally(900, 9), tally(100, 7))
    assert.deepInclude(outcomeOf(state), { result: "rolledBack", cause: "errorRate", metric: "errors" })
    assert.include(outcomeOf(state)?.reason, "7 % of 100 requests of this step failed; the limit is 5 %")
    assert.isNotNull(state.history.at(-1)?.evidence)
  })

  it("does not at it, below it, or with too few requests", () => {
    for (const candidate of [tally(100, 5), tally(100, 1), tally(99, 50)]) {
      assert.strictEqual(rate(tally(900, 9), candidate).phase._tag, "Stepping")
    }
  })

  it("can be turned off", () => {
    const { state } = after(
      resolve({ metrics: [], errorRate: false }),
      healthy,
      [1, observed(tally(900), tally(100, 50))],
      [10_000, tick]
    )
    assert.strictEqual(state.phase._tag, "Stepping")
  })

  it("begins the step again while both versions exceed it", () => {
    for (const shareOfBoth of [0.1, 1]) {
      const { state } = after(
        plan,
        healthy,
        [1, observed(tally(900, 900 * shareOfBoth), tally(100, 100 * shareOfBoth))],
        [5 * minute, tick]
      )
      assert.deepStrictEqual([state.phase, state.step], [{ _tag: "Stepping", since: 5 * minute }, 0])
      assert.strictEqual(state.tallies.candidate.requests, 0)
    }
  })

  it("applies without a stable version to compare with", () => {
    assert.deepInclude(outcomeOf(rate(tally(0), tally(100, 6))), { result: "rolledBack", cause: "errorRate" })
  })
})

describe("a rollback", () => {
  const failing = [1, observed(tally(90), tally(10, 10))] as const

  it("comes with the first evaluation that has the evidence, which is kept", () => {
    const { commands, state } = after(plan, healthy, failing, [10_000, tick])
    assert.deepInclude(outcomeOf(state), { result: "rolledBack", cause: "test", metric: "errors" })
    assert.match(
      outcomeOf(state)?.reason ?? "",
      /^Rolled back: failures: 100 % of 10 against 0 % of 90 \(evidence \d\S*, limit 100, 5 metrics\)\.$/
    )
    assert.deepStrictEqual(commands.slice(-2), [
      { _tag: "SetWeights", weights: { stable: 1, candidate: 0 } },
      { _tag: "Drain", deployment: "chat#1" }
    ])
    const ended = after(
      plan,
      healthy,
      failing,
      [10_000, tick],
      [11_000, { _tag: "Drained", deployment: "chat#1" }],
      [12_000, { _tag: "Unloaded", deployment: "chat#1" }]
    )
    assert.deepStrictEqual(ended.commands.at(-1), { _tag: "Unload", deployment: "chat#1" })
    assert.strictEqual(ended.state.phase._tag, "Ended")
    assert.deepStrictEqual(ended.state.evidence, state.evidence)
  })

  it("says what is worse, with its unit", () => {
    const [stable, candidate] = [Tally.empty(), Tally.empty()]
    for (let index = 0; index < 200; index++) {
      const answer = { failed: false, refused: false, firstTokenMs: 100, tokensPerSecond: 50 }
      Tally.record(stable, answer)
      Tally.record(candidate, { ...answer, firstTokenMs: 1_000 })
    }
    const slow = { _tag: "Observed", stable, candidate } as const
    const { state } = after(plan, healthy, [1, slow], [10_000, tick], [10_001, slow], [20_000, tick])
    assert.match(
      outcomeOf(state)?.reason ?? "",
      /^Rolled back: time to first token above \d+(?:\.\d+)? ms: 100 % of 400 /
    )
  })

  it("comes while paused as well", () => {
    const { state } = after(plan, healthy, [0, { _tag: "Pause" }], failing, [10_000, tick])
    assert.deepInclude(outcomeOf(state), { result: "rolledBack", cause: "test" })
  })
})

describe("an operator", () => {
  it("promotes from any step; the stable version drains before it is unloaded", () => {
    const { commands, state } = after(plan, healthy, [1, { _tag: "Promote" }], [2, {
      _tag: "Drained",
      deployment: "chat#0"
    }], [3, { _tag: "Unloaded", deployment: "chat#0" }])
    assert.deepStrictEqual(commands.slice(1), [
      { _tag: "SetWeights", weights: { stable: 0, candidate: 1 } },
      { _tag: "Drain", deployment: "chat#0" },
      { _tag: "Unload", deployment: "chat#0" }
    ])
    assert.deepInclude(outcomeOf(state), { result: "promoted", cause: "operator" })
    assert.deepStrictEqual(RolloutMachine.weightsOf(state), { stable: 0, candidate: 1 })
  })

  it("aborts with a reason", () => {
    const { state } = after(plan, healthy, [1, { _tag: "Abort", reason: "wrong model" }])
    assert.deepStrictEqual(outcomeOf(state), {
      result: "aborted",
      cause: "operator",
      metric: null,
      reason: "Aborted by an operator: wrong model"
    })
    assert.deepStrictEqual(RolloutMachine.weightsOf(state), { stable: 1, candidate: 0 })
  })

  it("learns why an event has no effect", () => {
    const checking = begin(plan).state
    const running = after(plan, healthy).state
    const over = after(plan, healthy, [1, { _tag: "Abort", reason: "" }]).state
    const refusal = (state: Rollout, _tag: "Pause" | "Resume" | "Promote") => RolloutMachine.refusal(state, { _tag })
    assert.strictEqual(refusal(checking, "Promote"), "The candidate has not passed its health check.")
    assert.strictEqual(refusal(checking, "Pause"), "The rollout is checking the candidate.")
    assert.strictEqual(refusal(running, "Resume"), "The rollout is running.")
    assert.isUndefined(refusal(running, "Pause"))
    assert.strictEqual(refusal(over, "Promote"), "The rollout is over: Aborted by an operator.")
    assert.isUndefined(RolloutMachine.refusal(over, tick))
  })
})

describe("a rollout without a regression", () => {
  it("passes its steps and is promoted", () => {
    const steps = [0.9, 0.7, 0.3, 0].flatMap((stable, step) => [
      [step * 5 * minute + 1, observed(tally(1_000 * stable), tally(1_000 - 1_000 * stable))] as const,
      [(step + 1) * 5 * minute, tick] as const
    ])
    const { commands, state } = after(plan, healthy, ...steps)
    assert.deepInclude(outcomeOf(state), { result: "promoted", cause: "steps" })
    assert.deepStrictEqual(
      commands.flatMap((command) => command._tag === "SetWeights" ? [command.weights.candidate] : []),
      [0.1, 0.3, 0.7, 1, 1]
    )
  })
})

const count = fc.nat({ max: 150 })
const anyTally = fc.tuple(count, count, count).map(([requests, failures, slow]): Tally.Tally => {
  const tally = Tally.empty()
  for (let request = 0; request < requests; request++) {
    Tally.record(tally, { failed: request < failures, refused: false, firstTokenMs: request < slow ? 900 : 90 })
  }
  return tally
})
const deployment = fc.constantFrom("chat#0", "chat#1")
const anyEvent: fc.Arbitrary<Event> = fc.oneof(
  { weight: 6, arbitrary: fc.constant(tick) },
  { weight: 4, arbitrary: fc.tuple(anyTally, anyTally).map(([stable, candidate]) => observed(stable, candidate)) },
  { weight: 2, arbitrary: fc.constantFrom<Event>({ _tag: "Healthy" }, { _tag: "Pause" }, { _tag: "Resume" }) },
  fc.constantFrom<Event>({ _tag: "Unhealthy", problem: "down" }, { _tag: "Promote" }, { _tag: "Abort", reason: "no" }),
  deployment.map((deployment): Event => ({ _tag: "Drained", deployment })),
  deployment.map((deployment): Event => ({ _tag: "Unloaded", deployment }))
)
const events = fc.array(fc.tuple(fc.nat({ max: 4 * minute }), anyEvent), { maxLength: 40 })
const json = Schema.fromJsonString(Rollout)

describe("whatever happens", () => {
  it("a process that reads the state goes on as the one that wrote it", () => {
    const thorough = resolve({ minRequests: 20, probes: ["hello"] })
    fc.assert(fc.property(events, (events) => {
      let state = begin(thorough).state
      let now = 0
      for (const [took, event] of events) {
        now += took
        const read = Schema.decodeSync(json)(Schema.encodeSync(json)(state))
        assert.deepStrictEqual(RolloutMachine.recover(read), RolloutMachine.recover(state))
        const advanced = RolloutMachine.advance(state, event, now)
        assert.deepStrictEqual(RolloutMachine.advance(read, event, now), advanced)
        state = advanced.state
      }
    }))
  })

  it("weights have the sum 1, and a version is unloaded only without requests and after it has drained", () => {
    fc.assert(fc.property(events, (events) => {
      let state = begin(resolve({ minRequests: 20 })).state
      const drained = new Set<string>()
      for (const [took, event] of events) {
        const before = state
        const advanced = RolloutMachine.advance(state, event, state.evaluatedAt + took)
        state = advanced.state
        const { candidate, stable } = RolloutMachine.weightsOf(state)
        assert.closeTo(stable + candidate, 1, 1e-12)
        if (event._tag === "Drained" && before.phase._tag === "Draining") drained.add(event.deployment)
        for (const command of [...advanced.commands, ...RolloutMachine.recover(state)]) {
          if (command._tag === "SetWeights") assert.deepStrictEqual(command.weights, { stable, candidate })
          if (command._tag !== "Unload") continue
          assert.isTrue(drained.has(command.deployment))
          assert.strictEqual(command.deployment === "chat#0" ? stable : candidate, 0)
        }
        if (before.phase._tag === "Ended") assert.strictEqual(state, before)
        assert.isAtMost(state.history.length, 50)
      }
    }))
  })
})
