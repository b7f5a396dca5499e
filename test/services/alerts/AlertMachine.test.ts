import { assert, describe, it } from "@effect/vitest"
import { Duration } from "effect"
import * as fc from "fast-check"
import type { AlertStates, Reading, ResolvedBecause, Transition } from "../../../src/services/alerts/AlertMachine.ts"
import { step } from "../../../src/services/alerts/AlertMachine.ts"
import type { AlertRule } from "../../../src/services/alerts/AlertRule.ts"
import { ruleDefaults } from "../../../src/services/alerts/AlertRule.ts"

const errors: AlertRule = {
  ...ruleDefaults,
  name: "errors",
  metric: "error_rate",
  threshold: 0.5,
  clear: 0.3,
  for: Duration.seconds(30)
}

const every = 10_000

interface Turn {
  readonly value: number | undefined
  readonly transitions: ReadonlyArray<Transition>
  readonly phase: "inactive" | "pending" | "firing"
}

/** Evaluates one rule for one target, once for each value. */
const run = (rule: AlertRule, values: ReadonlyArray<number | undefined>): ReadonlyArray<Turn> => {
  let states: AlertStates = new Map()
  let episodes = 0
  return values.map((value, index) => {
    const readings = new Map([[rule.name, new Map([["chat", value]])]])
    const now = { monotonic: index * every, date: 0 }
    const next = step([rule], states, readings, now, () => `episode-${++episodes}`)
    states = next.states
    return { value, transitions: next.transitions, phase: states.get("errors/chat")?.phase ?? "inactive" }
  })
}

const typesOf = (turns: ReadonlyArray<Turn>) =>
  turns.map(({ transitions }) => transitions.map(({ type }) => type).join())

/** One evaluation of alerts that were made by `fire`. */
const after = (states: AlertStates, rules: ReadonlyArray<AlertRule>, readings: ReadonlyMap<string, Reading>) =>
  step(rules, states, readings, { monotonic: every, date: 0 }, () => "another")

const atOnce = { ...errors, for: Duration.zero }
const fire = () =>
  step([atOnce], new Map(), new Map([["errors", new Map([["chat", 1]])]]), { monotonic: 0, date: 0 }, () => "one")
    .states

describe("an alert", () => {
  it("is pending at the threshold, fires after the hold, and is resolved below the clear value", () => {
    const turns = run(errors, [0.5, 0.6, 0.9, 0.5, 0.4, 0.3, 0.29, 0.4])
    assert.deepStrictEqual(typesOf(turns), ["pending", "", "", "firing", "", "", "resolved", ""])
  })

  it("begins its hold again after a value below the threshold", () => {
    assert.deepStrictEqual(typesOf(run(errors, [0.5, 0.5, 0.4, 0.5, 0.5, 0.5, 0.5])), [
      "pending",
      "",
      "",
      "pending",
      "",
      "",
      "firing"
    ])
  })

  it("fires at once without a hold", () => {
    assert.deepStrictEqual(typesOf(run(atOnce, [0.49, 0.5])), ["", "firing"])
  })

  it("neither fires nor is resolved without a value", () => {
    const turns = run(errors, [0.5, undefined, 0.5, 0.5, 0.5, 0.5, undefined, undefined, 0.1])
    assert.deepStrictEqual(typesOf(turns), ["pending", "", "pending", "", "", "firing", "", "", "resolved"])
  })

  it.each<[ResolvedBecause, ReadonlyArray<AlertRule>, ReadonlyMap<string, Reading>]>([
    ["target_removed", [atOnce], new Map([["errors", new Map()]])],
    ["rule_removed", [], new Map()],
    ["rule_changed", [{ ...atOnce, targets: ["other*"] }], new Map([["errors", new Map()]])],
    ["rule_changed", [{ ...atOnce, metric: "latency_p95" }], new Map([["errors", new Map([["chat", 0.1]])]])]
  ])("is resolved because of %s", (because, rules, readings) => {
    const { states, transitions } = after(fire(), rules, readings)
    assert.strictEqual(states.size, 0)
    assert.deepStrictEqual(transitions.map((one) => one.type === "resolved" ? one.because : undefined), [because])
  })

  it("continues its episode under another threshold", () => {
    const readings = new Map([["errors", new Map([["chat", 0.6]])]])
    const kept = after(fire(), [{ ...atOnce, threshold: 0.9, clear: 0.55 }], readings)
    assert.deepStrictEqual(kept.transitions, [])
    assert.strictEqual(kept.states.get("errors/chat")?.episode, "one")
    const ended = after(fire(), [{ ...atOnce, threshold: 0.9, clear: 0.7 }], readings)
    assert.deepStrictEqual(ended.transitions.map(({ type }) => type), ["resolved"])
  })

  it("of one target leaves the others as they are", () => {
    const readings = new Map([["errors", new Map([["chat", 0], ["other", 1]])]])
    const { states, transitions } = after(fire(), [atOnce], readings)
    assert.deepStrictEqual(transitions.map(({ state, type }) => `${type} ${state.target}`), [
      "resolved chat",
      "firing other"
    ])
    assert.deepStrictEqual([...states.keys()], ["errors/other"])
  })
})

describe("alerts", () => {
  const value = fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: undefined, freq: 6 })
  const values = fc.array(value, { maxLength: 60 })
  const rule = fc.record({
    clear: fc.double({ min: 0, max: 0.5, noNaN: true }),
    threshold: fc.double({ min: 0.5, max: 1, noNaN: true }),
    hold: fc.integer({ min: 0, max: 4 })
  }).map(({ clear, hold, threshold }): AlertRule => ({
    ...errors,
    clear,
    threshold,
    for: Duration.millis(hold * every)
  }))

  it("fire once in an episode, and are resolved before they fire again", () => {
    fc.assert(fc.property(rule, values, (rule, values) => {
      const told = run(rule, values).flatMap(({ transitions }) => transitions).filter(({ type }) => type !== "pending")
      for (const [index, one] of told.entries()) assert.strictEqual(one.type, index % 2 === 0 ? "firing" : "resolved")
      const started = told.filter(({ type }) => type === "firing").map(({ state }) => state.episode)
      assert.strictEqual(new Set(started).size, started.length)
      for (const [index, one] of told.entries()) {
        if (index % 2 === 1) assert.strictEqual(one.state.episode, told[index - 1]!.state.episode)
      }
    }))
  })

  it("fire after the whole hold at the threshold, and only then", () => {
    const wrong = (rule: AlertRule, values: ReadonlyArray<number | undefined>) => {
      const turns = run(rule, values)
      const hold = Duration.toMillis(rule.for) / every
      return turns.filter(({ phase, transitions }, index) => {
        const last = turns.slice(Math.max(0, index - hold), index + 1)
        const isHeld = last.length === hold + 1 && last.every(({ value = -1 }) => value >= rule.threshold)
        const fires = transitions.some(({ type }) => type === "firing")
        return fires && !isHeld || isHeld && phase !== "firing"
      })
    }
    assert.isEmpty(wrong(errors, [0.5, 0.5, 0.5, 0.5]))
    fc.assert(fc.property(rule, values, (rule, values) => assert.isEmpty(wrong(rule, values))))
  })

  it("do not change between the clear value and the threshold", () => {
    fc.assert(fc.property(rule, values, (rule, values) => {
      const turns = run(rule, values)
      for (const [index, { phase, value }] of turns.entries()) {
        if (value === undefined || value < rule.clear || value >= rule.threshold) continue
        const before = turns[index - 1]?.phase ?? "inactive"
        assert.strictEqual(phase, before === "firing" ? "firing" : "inactive")
      }
    }))
  })

  it("are resolved by every value below the clear value", () => {
    const wrong = (rule: AlertRule, values: ReadonlyArray<number | undefined>) =>
      run(rule, values).filter(({ phase, value = 1 }) => value < rule.clear && phase !== "inactive")
    assert.isEmpty(wrong(errors, [0.5, 0.5, 0.5, 0.5, 0.1]))
    fc.assert(fc.property(rule, values, (rule, values) => assert.isEmpty(wrong(rule, values))))
  })
})
