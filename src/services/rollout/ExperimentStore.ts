/**
 * Where A/B tests are kept: tables of the service's database, which several processes may share.
 *
 * **Details**
 *
 * A row is the whole state of a test. Each process adds what it has measured to `troupe_experiments_tallies`; the one that leads
 * takes all of it, and what it has measured itself, as one batch (`evaluate`). That is one transaction, which first writes the
 * row of the test and so locks it: nothing is counted twice or lost between the tables, also where two processes lead for a
 * moment.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Migrations from "../persistence/Migrations.ts"
import type { StorageError } from "../persistence/StorageError.ts"
import * as Experiment from "./Experiment.ts"
import type { ExperimentPlan } from "./RolloutSettings.ts"
import * as Tally from "./Tally.ts"

/** A tally for each variant, in the order of the plan. */
export type Batch = ReadonlyArray<Tally.Tally>

/** Which test it is. */
export interface Test {
  /** Of the plan and of what its variants serve: another configuration is another test. */
  readonly id: string
  readonly model: string
  readonly plan: ExperimentPlan
}

export class ExperimentStore extends Context.Service<ExperimentStore, {
  /** The test as it was last compared; undefined before. */
  readonly find: (id: string) => Effect.Effect<Experiment.Experiment | undefined, SqlError>
  /** Adds what a process has measured. */
  readonly add: (id: string, batch: Batch) => Effect.Effect<void, SqlError>
  /**
   * Compares what this process has measured, and what others have added, as one batch. Keeps the last `mostTests` of a model.
   *
   * @param now ms since 1970
   */
  readonly evaluate: (test: Test, batch: Batch, now: number) => Effect.Effect<void, SqlError>
}>()("troupe/services/rollout/ExperimentStore") {}

const migrations = Migrations.make("experiments", [
  {
    name: "create",
    run: (sql) =>
      Effect.all([
        sql`CREATE TABLE troupe_experiments (
          id TEXT PRIMARY KEY, model TEXT NOT NULL, evaluations BIGINT NOT NULL, evaluated_at BIGINT NOT NULL,
          state TEXT NOT NULL
        )`,
        sql`CREATE TABLE troupe_experiments_tallies (experiment TEXT NOT NULL, tallies TEXT NOT NULL)`,
        sql`CREATE INDEX troupe_experiments_tallies_experiment ON troupe_experiments_tallies (experiment)`
      ], { discard: true })
  }
])

/** Tests of a model that are kept. */
export const mostTests = 20

const StateText = Schema.fromJsonString(Experiment.Experiment)
const decodeState = Schema.decodeSync(StateText)
const encodeState = Schema.encodeSync(StateText)
const BatchText = Schema.fromJsonString(Schema.Array(Tally.Tally))
const decodeBatch = Schema.decodeSync(BatchText)
const encodeBatch = Schema.encodeSync(BatchText)

/** The sum of two batches, which stay as they are. */
export const joined = (one: Batch, other: Batch): Batch =>
  one.map((tally, index) => Tally.add(tally, other[index] ?? Tally.empty()))

interface Row {
  readonly state: string
  readonly evaluations: number | string
}

/** Removes the oldest tests of a model beyond `mostTests`. */
const prune = Effect.fnUntraced(function*(sql: SqlClient, model: string) {
  const old = yield* sql<{ readonly id: string }>`DELETE FROM troupe_experiments WHERE id IN (
    SELECT id FROM troupe_experiments WHERE model = ${model}
    ORDER BY evaluated_at DESC, id LIMIT 1000 OFFSET ${mostTests}
  ) RETURNING id`
  for (const { id } of old) yield* sql`DELETE FROM troupe_experiments_tallies WHERE experiment = ${id}`
})

const makeEvaluate = (sql: SqlClient): ExperimentStore["Service"]["evaluate"] =>
  Effect.fnUntraced(function*({ id, model, plan }: Test, batch: Batch, now: number) {
    const begun = { id, model, evaluations: 0, evaluated_at: now, state: encodeState(Experiment.start(plan)) }
    const [row] = yield* sql<Row>`INSERT INTO troupe_experiments ${sql.insert(begun)}
      ON CONFLICT (id) DO UPDATE SET
        evaluations = troupe_experiments.evaluations + 1, evaluated_at = excluded.evaluated_at
      RETURNING state, evaluations`
    const others = yield* sql<{ readonly tallies: string }>`
      DELETE FROM troupe_experiments_tallies WHERE experiment = ${id} RETURNING tallies`
    const all = others.reduce((sum, { tallies }) => joined(sum, decodeBatch(tallies)), batch)
    const state = Experiment.evaluated(Experiment.observed(decodeState(row!.state), all))
    yield* sql`UPDATE troupe_experiments SET state = ${encodeState(state)} WHERE id = ${id}`
    if (Number(row!.evaluations) === 0) yield* prune(sql, model)
  }, sql.withTransaction)

const make = Effect.gen(function*() {
  yield* Migrations.apply(migrations)
  const sql = yield* SqlClient
  const evaluate = makeEvaluate(sql)
  const hasNothing = (id: string) =>
    Effect.map(
      sql`SELECT experiment FROM troupe_experiments_tallies WHERE experiment = ${id} LIMIT 1`,
      (found) => found.length === 0
    )
  return ExperimentStore.of({
    find: (id) =>
      Effect.map(
        sql<Pick<Row, "state">>`SELECT state FROM troupe_experiments WHERE id = ${id}`,
        ([found]) => found === undefined ? undefined : decodeState(found.state)
      ),
    add: (id, batch) =>
      batch.every(Tally.isEmpty)
        ? Effect.void
        : Effect.asVoid(
          sql`INSERT INTO troupe_experiments_tallies ${sql.insert({ experiment: id, tallies: encodeBatch(batch) })}`
        ),
    evaluate: (test, batch, now) =>
      batch.every(Tally.isEmpty)
        ? Effect.flatMap(hasNothing(test.id), (nothing) => nothing ? Effect.void : evaluate(test, batch, now))
        : evaluate(test, batch, now)
  })
})

/** Creates the tables if they do not exist. */
export const layer: Layer.Layer<ExperimentStore, SqlError | StorageError, SqlClient> = Layer.effect(
  ExperimentStore,
  make
)
