import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import * as fc from "fast-check"
import type { Deployment, Model } from "../../../src/domain/Deployment.ts"
import type { Version } from "../../../src/domain/Version.ts"
import * as KnownDeployment from "../../../src/services/rollout/KnownDeployment.ts"
import type { Outcome, Phase } from "../../../src/services/rollout/Rollout.ts"
import * as RolloutMachine from "../../../src/services/rollout/RolloutMachine.ts"
import type { ExperimentPlan } from "../../../src/services/rollout/RolloutSettings.ts"
import { resolve, resolveExperiment } from "../../../src/services/rollout/RolloutSettings.ts"
import { Stored } from "../../../src/services/rollout/RolloutStore.ts"
import type { Observer } from "../../../src/services/rollout/Split.ts"
import * as Standing from "../../../src/services/rollout/Standing.ts"
import * as VariantHold from "../../../src/services/rollout/VariantHold.ts"
import { deployment } from "../../support/Deployments.ts"

const observer: Observer = { observe: () => {} }

const serving = (index: number, reply = `answer ${index}`): Deployment =>
  deployment(`chat#${index}`, { options: { engine: "fake", reply } })

const model: Model = { name: "chat", deployments: [serving(0), serving(1), serving(2)] }

const planOf = (...weights: ReadonlyArray<number>): ExperimentPlan =>
  resolveExperiment({ variants: weights.map((weight, index) => ({ deployment: `chat#${index}`, weight })) })

const plan = planOf(2, 1, 1)

/** As a process after its restart reads it. */
const restarted = Schema.decodeSync(Schema.fromJsonString(Stored))
const written = Schema.encodeSync(Schema.fromJsonString(Stored))

const entryOf = (rollouts: ReadonlyArray<Stored>, given = model, test: ExperimentPlan | undefined = plan) =>
  Standing.entryOf(given, rollouts, () => observer, { planOf: () => test, observer: () => observer })

const stableOf = (rollouts: ReadonlyArray<Stored>, candidate: string) =>
  Standing.stableOf(model, rollouts, candidate, undefined, { planOf: () => plan, observer: () => observer })

const begun = (rollouts: ReadonlyArray<Stored>, index: number, phase: Phase): Stored => {
  const candidate = model.deployments[index]!
  const stable = stableOf(rollouts, candidate.id)
  const ids = { id: `rollout-${rollouts.length}`, model: "chat", stable: stable[0]!.id, candidate: candidate.id }
  const { state } = RolloutMachine.start({ ...ids, plan: resolve() }, 0)
  return {
    rollout: { ...state, phase },
    candidate: KnownDeployment.knownOf(candidate),
    stable: stable.map(KnownDeployment.knownOf)
  }
}

/** After a rollout to a deployment, decided and then over. */
const after = (rollouts: ReadonlyArray<Stored>, index: number, result: Outcome["result"]) => {
  const started = begun(rollouts, index, { _tag: "Stepping", since: 0 })
  const outcome: Outcome = { result, cause: "operator", metric: null, reason: "So." }
  const drains = result === "promoted" ? started.rollout.stable : started.rollout.candidate
  const draining: Phase = { _tag: "Draining", deployment: drains, drained: false, outcome }
  const decided = VariantHold.decided(started, { ...started.rollout, phase: draining }, model, plan)
  const ended = { ...decided.rollout, phase: { _tag: "Ended", at: 1, outcome } as const }
  return {
    running: [...rollouts, started],
    draining: [...rollouts, decided],
    ended: [...rollouts, VariantHold.decided(decided, ended, model, plan)]
  }
}

const idsOf = (shares: ReadonlyArray<Version> | undefined, role: Version["role"]) =>
  shares?.filter((one) => one.role === role).map(({ deployment }) => deployment) ?? []

/** The deployments that the first attempts of requests go to. */
const taken = (rollouts: ReadonlyArray<Stored>, given = model, test: ExperimentPlan | undefined = plan) => {
  const entry = entryOf(rollouts, given, test)
  const seen = new Set<string>()
  for (let seed = 0; seed < 60; seed++) {
    const split = entry?.split({}, Math.imul(seed, 0x9e3779b9) >>> 0)
    if (split?.first !== undefined) seen.add(split.first)
  }
  return [...seen].toSorted()
}

const results = ["promoted", "rolledBack", "aborted"] as const

describe("VariantHold", () => {
  it("holds each result of any rollouts, also after a restart, and shows what the requests get", () => {
    const step = fc.record({ index: fc.nat(2), result: fc.constantFrom(...results), restarts: fc.boolean() })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 8 }), (steps) => {
        let rollouts: ReadonlyArray<Stored> = []
        let taking = ["chat#0", "chat#1", "chat#2"]
        for (const { index, restarts, result } of steps) {
          const id = `chat#${index}`
          if (stableOf(rollouts, id).length === 0) continue
          const { draining, ended, running } = after(rollouts, index, result)
          assert.deepStrictEqual(idsOf(entryOf(running)?.shares, "candidate"), [id])
          rollouts = restarts ? ended.map((one) => restarted(written(one))) : ended
          if (result === "promoted") taking = [id]
          if (result === "rolledBack") taking = taking.filter((one) => one !== id)
          const { withheld } = entryOf(draining)!.split({}, 1)
          const drained = result === "promoted" ? draining.at(-1)!.stable.map((one) => one.id) : [id]
          assert.isTrue(drained.every((one) => withheld.has(one)))
          const { shares } = entryOf(rollouts)!
          assert.deepStrictEqual(taken(rollouts), taking)
          assert.deepStrictEqual(idsOf(shares, "variant"), taking)
          assert.closeTo(shares!.reduce((sum, { weight }) => sum + weight, 0), 1, 1e-9)
          assert.isTrue(shares!.every(({ reason, role }) => (role === "withheld") === (reason !== undefined)))
        }
      }),
      { numRuns: 40 }
    )
  })

  it("ends with other variants, another deployment, or the operator's word, and not with other settings of the test", () => {
    const rolledBack = after([], 1, "rolledBack").ended
    assert.deepStrictEqual(taken(rolledBack), ["chat#0", "chat#2"])
    assert.deepStrictEqual(taken(rolledBack, model, { ...plan, alpha: 0.2, evaluateMs: 1 }), ["chat#0", "chat#2"])
    assert.deepStrictEqual(taken(rolledBack, model, planOf(1, 1, 1)), ["chat#0", "chat#1", "chat#2"])
    const edited = (index: number): Model => ({
      ...model,
      deployments: model.deployments.map((one, at) =>
        at === index ? serving(index, "edited") : one
      ) as unknown as Model["deployments"]
    })
    assert.deepStrictEqual(taken(rolledBack, edited(1)), ["chat#0", "chat#1", "chat#2"])
    assert.deepStrictEqual(taken(rolledBack, edited(0)), ["chat#0", "chat#2"])
    const resumed = rolledBack.map((one) => VariantHold.resumed(one, plan, 5))
    assert.deepStrictEqual(taken(resumed), ["chat#0", "chat#1", "chat#2"])
    assert.deepInclude(resumed[0]!.rollout.history.at(-1), { at: 5, weight: 0.25, what: "The A/B test is resumed." })
    const promoted = after([], 1, "promoted").ended
    assert.deepStrictEqual(taken(promoted, edited(1)), ["chat#0", "chat#1", "chat#2"])
  })

  it("lets a drained variant without requests until it is unloaded, also where the rollout was aborted", () => {
    const { draining, ended } = after([], 1, "aborted")
    assert.deepStrictEqual(taken(draining), ["chat#0", "chat#2"])
    assert.deepStrictEqual(taken(draining, model, planOf(1, 1, 1)), ["chat#0", "chat#2"])
    assert.deepStrictEqual(taken(ended), ["chat#0", "chat#1", "chat#2"])
  })

  it("leaves sessions of the other variants where they are", () => {
    const before = entryOf([])!
    const held = entryOf(after([], 0, "rolledBack").ended)!
    for (let session = 0; session < 300; session++) {
      const request = { route: { session: `s${session}` } }
      const { first } = before.split(request, 1)
      if (first !== "chat#0") assert.strictEqual(held.split(request, 2).first, first)
      else assert.notStrictEqual(held.split(request, 2).first, "chat#0")
    }
  })

  it("says what the test does before, during and after a rollout", () => {
    const stateOf = (rollouts: ReadonlyArray<Stored>) =>
      VariantHold.testState(rollouts.at(-1)!.rollout, plan, entryOf(rollouts)?.shares)
    const checking = begun([], 1, { _tag: "Checking", attempts: 0, nextAt: null, lastProblem: null })
    assert.match(stateOf([checking]).message, /^It goes on until chat#1 has passed its check, then pauses/)
    const { ended, running } = after([], 1, "rolledBack")
    assert.deepInclude(stateOf(running), { state: "paused", withheld: [] })
    assert.deepInclude(stateOf(ended), { state: "running", withheld: ["chat#1"] })
    assert.match(stateOf(ended).message, /^It goes on without chat#1 \(rolled back\)\. `troupe rollout resume chat`/)
    assert.match(stateOf(after([], 1, "promoted").ended).message, /^It has stopped without chat#0 \(replaced\), chat#2/)
    assert.strictEqual(stateOf(after([], 1, "aborted").ended).message, "It goes on with all variants.")
  })

  it("gives the share that a deployment has now", () => {
    const share = (rollouts: ReadonlyArray<Stored>, index: number) =>
      Standing.shareNow(model, KnownDeployment.knownOf(model.deployments[index]!), entryOf(rollouts))
    const promoted = after([], 1, "promoted").ended
    assert.deepStrictEqual([share(promoted, 1), share(promoted, 0)], [1, 0])
    assert.deepStrictEqual([share(after([], 1, "aborted").ended, 1), share([], 0)], [0.25, 0.5])
    assert.isUndefined(Standing.shareNow(model, { id: "chat#9", options: "[]" }, undefined))
  })
})
