/**
 * The A/B tests of this process: what each variant has had since the start, and how the variants compare.
 *
 * **Details**
 *
 * A model with `experiment` in the configuration has one. Requests are divided by fixed weights (`Split.varied`); the comparison
 * is that of `Experiment`, on a batch of each period. A rollout of the model takes the place of its test while it runs.
 *
 * **Gotchas**
 *
 * The counts are those of this process since its start, or since the test was changed: nothing is decided by them.
 */
import { Equal } from "effect"
import type { Model } from "../../domain/Deployment.ts"
import * as Experiment from "./Experiment.ts"
import type { ExperimentPlan } from "./RolloutSettings.ts"
import type { Observe, Observer } from "./Split.ts"
import * as Tally from "./Tally.ts"
import { Waiting } from "./Waiting.ts"

interface Run {
  readonly plan: ExperimentPlan
  state: Experiment.Experiment
  /** A tally for each variant, since the last period. */
  batch: ReadonlyArray<Tally.Tally>
  readonly waiting: Waiting
  /** ms since 1970 */
  evaluatedAt: number
}

/** An A/B test as it is now. */
export interface Report {
  readonly model: string
  readonly variants: ReadonlyArray<Experiment.VariantReport>
}

const emptyBatch = ({ variants }: ExperimentPlan): ReadonlyArray<Tally.Tally> => variants.map(() => Tally.empty())

const tallyOf = ({ batch, plan }: Run, version: string | undefined): Tally.Tally | undefined =>
  batch[plan.variants.findIndex(({ deployment }) => deployment === version)]

const begin = (plan: ExperimentPlan): Run => {
  const run: Run = {
    plan,
    state: Experiment.start(plan),
    batch: emptyBatch(plan),
    waiting: new Waiting((version) => tallyOf(run, version)),
    evaluatedAt: 0
  }
  return run
}

export class Experiments {
  #runs: ReadonlyMap<string, Run> = new Map()

  /** @param plans by the names of models */
  constructor(plans: ReadonlyMap<string, ExperimentPlan>) {
    this.replace(plans)
  }

  /** The tests of another configuration: one whose plan is equal goes on, another one begins. */
  replace(plans: ReadonlyMap<string, ExperimentPlan>): void {
    const before = this.#runs
    this.#runs = new Map(Array.from(plans, ([model, plan]) => {
      const run = before.get(model)
      return [model, run !== undefined && Equal.equals(run.plan, plan) ? run : begin(plan)]
    }))
  }

  /** The variants that a model has now; undefined without a test, or with fewer than two of its variants. */
  planOf({ deployments, name }: Model): ExperimentPlan | undefined {
    const plan = this.#runs.get(name)?.plan
    const variants = plan?.variants.filter(({ deployment }) => deployments.some(({ id }) => id === deployment)) ?? []
    return plan !== undefined && variants.length > 1 ? { ...plan, variants } : undefined
  }

  readonly #observe = (model: string): Observe => (version, observation) => {
    const run = this.#runs.get(model)
    const tally = run && tallyOf(run, version)
    if (tally !== undefined) Tally.record(tally, observation)
  }

  /** Of a test as it is now. */
  observer(model: string): Observer {
    return { observe: this.#observe(model), waiting: this.#runs.get(model)?.waiting }
  }

  /**
   * Compares what came since the last period of each test.
   *
   * @param now ms since 1970
   * @param monotonicMs for how long requests have run
   */
  evaluate(now: number, monotonicMs: number): void {
    for (const run of this.#runs.values()) {
      if (now - run.evaluatedAt < run.plan.evaluateMs) continue
      run.waiting.report(monotonicMs)
      run.state = Experiment.evaluated(Experiment.observed(run.state, run.batch))
      run.batch = emptyBatch(run.plan)
      run.evaluatedAt = now
    }
  }

  get reports(): ReadonlyArray<Report> {
    return [...this.#runs].map(([model, { state }]) => ({ model, variants: Experiment.report(state) }))
  }
}
