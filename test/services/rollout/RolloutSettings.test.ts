import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { resolve, RolloutPlan, RolloutSettings } from "../../../src/services/rollout/RolloutSettings.ts"

const decode = Schema.decodeUnknownSync(RolloutSettings)

describe("the settings of a rollout", () => {
  it("have defaults", () => {
    const plan = resolve(decode({}))
    assert.deepInclude(plan, { steps: [0.1, 0.3, 0.7, 1], stepMs: 300_000, evaluateMs: 10_000, errorRate: 0.05 })
    assert.deepStrictEqual(plan, resolve())
  })

  it("become a plan that survives JSON", () => {
    const plan = resolve(decode({ steps: [0.5, 1], every: "30 seconds", errorRate: false, tolerance: { errors: 0 } }))
    assert.deepInclude(plan, { steps: [0.5, 1], stepMs: 30_000, errorRate: null })
    assert.deepInclude(plan.tolerance, { errors: 0, refusals: 0.01 })
    const json = Schema.fromJsonString(RolloutPlan)
    assert.deepStrictEqual(Schema.decodeSync(json)(Schema.encodeSync(json)(plan)), plan)
  })

  it("read a plan of an earlier version, without the limits of probes and checks", () => {
    const plan = resolve(decode({}))
    const { health: { timeoutMs, ...health }, probeTokens, ...earlier } = plan
    assert.deepStrictEqual([timeoutMs, probeTokens], [60_000, 256])
    assert.deepStrictEqual(Schema.decodeUnknownSync(RolloutPlan)({ ...earlier, health }), plan)
  })

  it.each([[[]], [[0.5]], [[0, 1]], [[0.5, 0.5, 1]], [[0.7, 0.3, 1]], [[1.5]]])("reject the steps %j", (steps) => {
    assert.throws(() => decode({ steps }), /Expected/)
  })
})
