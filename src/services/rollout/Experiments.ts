/**
 * The A/B tests of a service as one process has them: what each variant has had since the last period.
 *
 * **Details**
 *
 * A model with `experiment` in the configuration has one. Requests are divided by fixed weights (`Split.varied`). A rollout of the
 * model takes the place of its test while it runs.
 *
 * In each period a process passes on what it has measured. One of them leads a test, as long as its lease lasts: it compares what
 * all have passed on (`ExperimentStore`), so that the test counts the requests of all processes, and goes on after a restart. A
 * test is that of its plan and of what its variants serve: with another of these, another test begins. One that is configured
 * again as it was goes on.
 *
 * **Gotchas**
 *
 * What a killed process has measured since its last period is lost. If the database's answer to a write is lost, the write
 * is repeated and may count twice.
 */
import { Clock, Effect } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Model } from "../../domain/Deployment.ts"
import * as Hashing from "../../domain/Hashing.ts"
import * as Time from "../../domain/Time.ts"
import type { Version } from "../../domain/Version.ts"
import * as Experiment from "./Experiment.ts"
import type { Batch, ExperimentStore, Test } from "./ExperimentStore.ts"
import { joined } from "./ExperimentStore.ts"
import { optionsText } from "./KnownDeployment.ts"
import type { ExperimentPlan } from "./RolloutSettings.ts"
import type { RolloutStore } from "./RolloutStore.ts"
import type { Observe, Observer } from "./Split.ts"
import * as Tally from "./Tally.ts"
import { Waiting } from "./Waiting.ts"

interface Run extends Test {
  /** A tally for each variant, since the last period. */
  batch: Batch
  readonly waiting: Waiting
  /** ms since 1970 */
  passedOnAt: number
}

/** An A/B test as it is now. */
export interface Report {
  readonly model: string
  readonly variants: ReadonlyArray<
    Experiment.VariantReport & {
      /** What the deployment gets now; left out, it is one of several equal ones of a rollout. */
      readonly version?: Omit<Version, "deployment">
    }
  >
}

export interface Parts {
  readonly store: ExperimentStore["Service"]
  readonly leases: Pick<RolloutStore["Service"], "lead">
  /** This process for leases. */
  readonly owner: string
}

/** The tests of a configuration. */
export interface Configured {
  /** By the names of models. */
  readonly plans: ReadonlyMap<string, ExperimentPlan>
  readonly models: ReadonlyArray<Model>
}

/** ms for which a leader leads beyond the two periods in which it renews its lease. */
const leaseMs = 3_000

/** The name of a test. The length makes it more than 32 bits. */
const idOf = (model: string, plan: ExperimentPlan, models: ReadonlyArray<Model>): string => {
  const deployments = models.find(({ name }) => name === model)?.deployments ?? []
  const served = plan.variants.map(({ deployment }) => {
    const found = deployments.find(({ id }) => id === deployment)
    return found === undefined ? null : optionsText(found)
  })
  const text = JSON.stringify([model, plan, served])
  const hashes = [Hashing.hashText(text), Hashing.hashText(text, text.length >> 1)]
  return `experiment-${hashes.map((hash) => hash.toString(36)).join("-")}`
}

const emptyBatch = ({ variants }: ExperimentPlan): Batch => variants.map(() => Tally.empty())

const tallyOf = ({ batch, plan }: Run, version: string | undefined): Tally.Tally | undefined =>
  batch[plan.variants.findIndex(({ deployment }) => deployment === version)]

const begin = (test: Test): Run => {
  const run: Run = {
    ...test,
    batch: emptyBatch(test.plan),
    waiting: new Waiting((version) => tallyOf(run, version)),
    passedOnAt: 0
  }
  return run
}

export class Experiments {
  readonly #parts: Parts
  #runs: ReadonlyMap<string, Run> = new Map()

  constructor(parts: Parts, configured: Configured) {
    this.#parts = parts
    this.replace(configured)
  }

  /** The tests of another configuration: one that is the same goes on, another one begins. */
  replace({ models, plans }: Configured): void {
    const before = this.#runs
    this.#runs = new Map(Array.from(plans, ([model, plan]) => {
      const id = idOf(model, plan, models)
      const run = before.get(model)
      return [model, run?.id === id ? run : begin({ id, model, plan })]
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

  /** Passes on what came since the last period of each test, and compares the variants where this process leads. */
  readonly once: Effect.Effect<void, SqlError> = Effect.suspend(() =>
    Effect.forEach(this.#runs.values(), (run) => this.#period(run), { discard: true })
  )

  /** Passes on what is left, at the end of the process. */
  readonly leave: Effect.Effect<void, SqlError> = Effect.suspend(() =>
    Effect.forEach(
      this.#runs.values(),
      (run) => this.#passOn(run, (batch) => this.#parts.store.add(run.id, batch)),
      { discard: true }
    )
  )

  /** As the store has them. */
  readonly reports: Effect.Effect<ReadonlyArray<Report>, SqlError> = Effect.suspend(() =>
    Effect.forEach(this.#runs.values(), ({ id, model, plan }) =>
      Effect.map(this.#parts.store.find(id), (found) => ({
        model,
        variants: Experiment.report(found ?? Experiment.start(plan))
      })))
  )

  readonly #period = Effect.fnUntraced({ self: this }, function*(this: Experiments, run: Run) {
    const { leases, owner, store } = this.#parts
    const { evaluateMs } = run.plan
    const now = yield* Clock.currentTimeMillis
    if (now - run.passedOnAt < evaluateMs) return
    run.passedOnAt = now
    const leads = yield* leases.lead(run.id, owner, now, now + 2 * evaluateMs + leaseMs)
    yield* this.#passOn(run, (batch) => leads ? store.evaluate(run, batch, now) : store.add(run.id, batch))
  })

  /** What cannot be written is kept for the next period. */
  readonly #passOn = Effect.fnUntraced({ self: this }, function*(
    this: Experiments,
    run: Run,
    write: (batch: Batch) => Effect.Effect<void, SqlError>
  ) {
    run.waiting.report(yield* Time.now)
    const batch = run.batch
    run.batch = emptyBatch(run.plan)
    yield* Effect.onError(write(batch), () =>
      Effect.sync(() => {
        run.batch = joined(run.batch, batch)
      }))
  })
}
