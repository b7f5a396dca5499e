import { assert, describe, it } from "@effect/vitest"
import fc from "fast-check"
import { dayOf, scenarios } from "../../../bench/ScalingSimulation.ts"
import type { Decision, Readings, Rules, State } from "../../../src/services/scaling/ScalingPolicy.ts"
import * as ScalingPolicy from "../../../src/services/scaling/ScalingPolicy.ts"
import { rulesOf, scalingOf } from "../../../src/services/scaling/ScalingSettings.ts"
import { repetitions } from "../../support/Repetitions.ts"

const rules = rulesOf(scalingOf({}))
const bounds = { least: 1, most: 3 }
const slots = 4

const readingsOf = (replicas: number, used: number, machine: Readings["machine"] = {}): Readings => ({
  replicas,
  slots: replicas * slots,
  demand: used * replicas * slots,
  machine
})

interface Change {
  readonly at: number
  readonly direction: "up" | "down"
}

/** Steps with these readings, 5 s apart; the replicas follow each decision at once. */
const play = (all: ReadonlyArray<Readings>, given: Rules = rules, state: State = ScalingPolicy.initial) => {
  let current = state
  let replicas = all[0]?.replicas ?? 1
  const changes: Array<Change & { readonly decision: Decision }> = []
  const decisions = all.map((readings, index) => {
    const now = 5_000 * index
    const own = { ...readings, replicas, slots: replicas * slots }
    const { decision, state } = ScalingPolicy.step(given, bounds, current, own, now)
    current = state
    if (decision.action !== "stay") {
      replicas += decision.action === "up" ? 1 : -1
      changes.push({ at: now, direction: decision.action, decision })
    }
    assert.isTrue(replicas >= bounds.least && replicas <= bounds.most)
    return decision
  })
  return { changes, decisions, replicas }
}

const during = (seconds: number, readings: Readings): ReadonlyArray<Readings> =>
  Array.from({ length: seconds / 5 }, () => readings)

describe("a step of the scaling", () => {
  it("adds a replica after 30 s above 1.2 times the target, and another after a minute", () => {
    const { changes } = play(during(200, readingsOf(1, 12)))
    assert.deepStrictEqual(changes.map(({ at, direction }) => [at, direction]), [[30_000, "up"], [90_000, "up"]])
    const [{ decision }] = changes as [typeof changes[number]]
    assert.deepInclude(decision, { cause: "demand", measure: "slots", limit: 1.2 * 0.7 })
  })

  it("adds none at 1.2 times the target", () => {
    const { changes, decisions } = play(during(600, readingsOf(1, 0.83)))
    assert.deepStrictEqual(changes, [])
    assert.strictEqual(decisions.at(-1)?.cause, "within")
  })

  it("removes a replica after 5 min below half of the target, and the next after 5 more", () => {
    const { changes, decisions } = play(during(1_000, readingsOf(3, 0.1)))
    assert.deepStrictEqual(changes.map(({ at, direction }) => [at, direction]), [[300_000, "down"], [605_000, "down"]])
    assert.deepInclude(decisions.at(-1), { action: "stay", cause: "least" })
  })

  it("removes none that was just added, until the cool-down ends", () => {
    const { changes, decisions } = play(
      [...during(40, readingsOf(1, 3)), ...during(500, readingsOf(1, 0))],
      { ...rules, downAfterMs: 0 }
    )
    const [up, down] = changes as unknown as [Change, Change]
    assert.strictEqual(down.at - up.at, rules.cooldownMs)
    assert.isTrue(decisions.some(({ cause, remainingMs = 0 }) => cause === "cooldown" && remainingMs > 0))
  })

  it("has as many replicas as it may have", () => {
    const { decisions, replicas } = play(during(600, readingsOf(1, 30)))
    assert.strictEqual(replicas, bounds.most)
    assert.deepInclude(decisions.at(-1), { action: "stay", cause: "most" })
  })

  it.each([["cpu", 0.7], ["memory", 0.8], ["gpu", 0.85]] as const)(
    "adds none where the machine's %s is at its target, and says so",
    (resource, target) => {
      const full = play(during(120, readingsOf(1, 3, { [resource]: target })))
      assert.deepStrictEqual(full.changes, [])
      assert.deepInclude(full.decisions.at(-1), { cause: "room", measure: resource, limit: target })
      assert.isNotEmpty(play(during(120, readingsOf(1, 3, { [resource]: target - 0.01 }))).changes)
    }
  )

  it("removes a replica in use where memory is above 1.2 times its target, and no one for a full processor", () => {
    const { changes } = play(during(60, readingsOf(2, 0.8, { memory: 0.97 })))
    assert.deepInclude(changes[0]?.decision, { action: "down", cause: "relief", measure: "memory" })
    assert.deepStrictEqual(play(during(600, readingsOf(2, 0.8, { cpu: 1, gpu: 1 }))).changes, [])
  })

  it("adds none for a queue of 10 s, however long", () => {
    const usual = during(60, readingsOf(1, 0.5))
    const { changes } = play([...usual, ...during(10, { ...readingsOf(1, 1), demand: 10_000 }), ...usual])
    assert.deepStrictEqual(changes, [])
  })

  it("follows other targets and factors", () => {
    const own: Rules = { ...rules, targets: { ...rules.targets, slots: 0.5 }, up: 1.5, down: 0.2, upAfterMs: 10_000 }
    assert.deepStrictEqual(play(during(15, readingsOf(1, 0.76)), own).changes.map(({ at }) => at), [10_000])
    assert.deepStrictEqual(play(during(600, readingsOf(1, 0.74)), own).changes, [])
  })
})

const anyReadings: fc.Arbitrary<ReadonlyArray<Readings>> = fc.array(
  fc.record({
    seconds: fc.integer({ min: 1, max: 120 }).map((steps) => 5 * steps),
    used: fc.oneof(fc.constantFrom(0, 0.35, 0.84, 1, 3), fc.double({ min: 0, max: 4, noNaN: true })),
    machine: fc.record(
      {
        cpu: fc.double({ min: 0, max: 1, noNaN: true }),
        memory: fc.double({ min: 0, max: 1, noNaN: true }),
        gpu: fc.double({ min: 0, max: 1, noNaN: true })
      },
      { requiredKeys: [] }
    )
  }),
  { minLength: 1, maxLength: 12 }
).map((parts) => parts.flatMap(({ machine, seconds, used }) => during(seconds, readingsOf(1, used, machine))))

/** Each run is an hour. */
const few = { numRuns: repetitions(8, 300) }

describe("properties of the scaling", () => {
  it("never changes back within the cool-down, and stays within the bounds", () => {
    fc.assert(
      fc.property(anyReadings, fc.boolean(), (readings, atOnce) => {
        const eager = atOnce ? { ...rules, upAfterMs: 0, downAfterMs: 0, smoothingMs: 1 } : rules
        const { changes } = play(readings, eager)
        changes.forEach(({ at, direction }, index) => {
          const before = changes[index - 1]
          if (before === undefined) return
          const pause = direction === "up" && before.direction === "up" ? rules.additionMs : rules.cooldownMs
          assert.isAtLeast(at - before.at, pause)
        })
      }),
      few
    )
  })

  it("adds nothing to a machine without room", () => {
    fc.assert(
      fc.property(anyReadings, fc.constantFrom("cpu", "memory", "gpu"), (readings, resource) => {
        const full = readings.map((one) => ({ ...one, machine: { ...one.machine, [resource]: 1 } }))
        assert.isFalse(play(full).changes.some(({ direction }) => direction === "up"))
      }),
      few
    )
  })

  it("leaves a steady demand alone after it has found its replicas", () => {
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 3 * slots, noNaN: true }),
        fc.integer({ min: 1, max: 3 }),
        (demand, from) => {
          const { changes } = play(during(3_600, { ...readingsOf(from, 0), demand }))
          assert.isAtMost(changes.length, 2)
          assert.strictEqual(new Set(changes.map(({ direction }) => direction)).size, Math.min(1, changes.length))
        }
      ),
      few
    )
  })

  it("decides the same again", () => {
    fc.assert(
      fc.property(anyReadings, (readings) => {
        assert.deepStrictEqual(play(readings).decisions, play(readings).decisions)
      }),
      { numRuns: repetitions(3, 30) }
    )
  })
})

describe("a simulated day", () => {
  const [curve] = scenarios
  const most = { "6 minutes full, 6 minutes empty": 288 } as Readonly<Record<string, number>>

  it.each(scenarios.slice(0, repetitions(1, scenarios.length)).map((scenario) => [scenario.name, scenario] as const))(
    "%s: does not flap",
    (name, scenario) => {
      const day = dayOf(rules, bounds, scenario, 7)
      assert.isAtMost(day.changes, most[name] ?? 30)
      assert.isAtLeast(day.shortestReversal, rules.cooldownMs / 1_000)
      assert.isAtLeast(day.fewest, bounds.least)
      assert.isAtMost(day.mostReplicas, bounds.most)
    }
  )

  it("follows the load: with 2.3 of 3 replicas nearly as few callers wait as with 3", () => {
    const day = dayOf(rules, bounds, curve!, 1)
    const fixed = dayOf(rules, { least: 3, most: 3 }, curve!, 1)
    assert.isAtLeast(day.inBand, 0.85)
    assert.isAtMost(day.meanReplicas, 2.3)
    assert.isAtMost(day.late, fixed.late + 0.02)
  })
})
