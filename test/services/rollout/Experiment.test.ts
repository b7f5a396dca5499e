import { assert, describe, it } from "@effect/vitest"
import { Schema } from "effect"
import { Draws } from "../../../bench/RolloutSimulation.ts"
import * as Experiment from "../../../src/services/rollout/Experiment.ts"
import { ExperimentSettings, resolveExperiment } from "../../../src/services/rollout/RolloutSettings.ts"
import * as Tally from "../../../src/services/rollout/Tally.ts"
import { repetitions } from "../../support/Repetitions.ts"

const plan = resolveExperiment({
  variants: [{ deployment: "a", weight: 2 }, { deployment: "b", weight: 1 }, { deployment: "c", weight: 1 }],
  metrics: ["errors", "firstToken"]
})

interface Behaviour {
  readonly failures: number
  readonly medianMs: number
}

const usual: Behaviour = { failures: 0.02, medianMs: 200 }

/** 40 evaluations of 40, 20 and 20 requests. */
const run = (seed: number, behaviours: ReadonlyArray<Behaviour>): Experiment.Experiment => {
  const draws = new Draws(seed)
  const tallyOf = ({ failures, medianMs }: Behaviour, requests: number): Tally.Tally => {
    const tally = Tally.empty()
    for (let request = 0; request < requests; request++) {
      const firstTokenMs = medianMs * Math.exp(0.5 * draws.normal())
      Tally.record(tally, { failed: draws.chance(failures), refused: false, firstTokenMs })
    }
    return tally
  }
  let experiment = Experiment.start(plan)
  for (let evaluation = 0; evaluation < 40; evaluation++) {
    const tallies = behaviours.map((behaviour, index) => tallyOf(behaviour, index === 0 ? 40 : 20))
    experiment = Experiment.evaluated(Experiment.observed(experiment, tallies))
  }
  return experiment
}

const verdicts = (experiment: Experiment.Experiment) => Experiment.report(experiment).map(({ verdict }) => verdict)

describe("an A/B test", () => {
  it("finds variants that are worse, better, or both", () => {
    const [worse, better] = [{ ...usual, failures: 0.2 }, { ...usual, medianMs: 100 }]
    assert.deepStrictEqual(verdicts(run(1, [usual, worse, better])), ["control", "worse", "better"])
    const mixed = { failures: 0.2, medianMs: 100 }
    assert.deepStrictEqual(verdicts(run(1, [usual, mixed, usual])), ["control", "mixed", "undecided"])
  })

  it("finds no difference between equal variants", () => {
    for (let seed = 1; seed <= repetitions(5, 200); seed++) {
      assert.deepStrictEqual(verdicts(run(seed, [usual, usual, usual])), ["control", "undecided", "undecided"])
    }
  })

  it("reports the figures of each variant", () => {
    const [a = assert.fail(), b = assert.fail()] = Experiment.report(
      run(1, [usual, { ...usual, medianMs: 400 }, usual])
    )
    assert.deepInclude(a, { deployment: "a", weight: 2, requests: 1_600, share: 0.5, worse: [], better: [] })
    assert.deepInclude(b, { deployment: "b", weight: 1, requests: 800, share: 0.25 })
    assert.closeTo(Number(b.typical.firstToken), 400, 60)
    assert.closeTo(Number(a.typical.errors), 0.02, 0.02)
    const [errors = assert.fail()] = b.worse
    assert.closeTo(errors.needed, Math.log(2 * 2 * 2 / 0.05), 1e-9)
    assert.deepStrictEqual([errors.stable.of, errors.candidate.of], [1_600, 800])
    assert.deepStrictEqual(b.better.map(({ stable }) => stable.of), [800, 800])
  })

  it("has a state that survives JSON", () => {
    const json = Schema.fromJsonString(Experiment.Experiment)
    const experiment = run(1, [usual, usual, usual])
    assert.deepStrictEqual(Schema.decodeSync(json)(Schema.encodeSync(json)(experiment)), experiment)
  })

  it("needs different deployments, one of them with requests", () => {
    const decode = Schema.decodeUnknownSync(ExperimentSettings)
    const variants = (...weights: ReadonlyArray<number>) => weights.map((weight) => ({ deployment: "a", weight }))
    assert.throws(() => decode({ variants: variants(1, 1) }), /different deployments/)
    assert.throws(
      () => decode({ variants: [{ deployment: "a", weight: 0 }, { deployment: "b", weight: 0 }] }),
      /above 0/
    )
    assert.throws(() => decode({ variants: variants(1) }), /Expected/)
  })
})
