/**
 * Where rollouts are kept: tables of the service's database, which several processes may share.
 *
 * **Details**
 *
 * A row is the whole state of a rollout. It is written only over the version that was read, so that a command of an
 * operator and a step of the leader at the same time do not undo each other. `troupe_rollouts_leases` has the process that
 * carries out the commands of a rollout; one that ends without giving up its lease is followed by another when the lease ends.
 * Processes that do not lead add what they have measured to `troupe_rollouts_tallies`, from where the leader takes it.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as Migrations from "../persistence/Migrations.ts"
import { LastRead } from "../persistence/OtherCommits.ts"
import type { StorageError } from "../persistence/StorageError.ts"
import { Rollout } from "./Rollout.ts"
import { Tally } from "./Tally.ts"
import * as Tallied from "./Tally.ts"

/** A deployment as it was when the rollout began: its id, and its options as text, without secrets. */
const Known = Schema.Struct({ id: Schema.String, options: Schema.String })
export type Known = typeof Known.Type

/** A rollout with the deployments that it is about. */
export const Stored = Schema.Struct({
  rollout: Rollout,
  candidate: Known,
  /** The deployments that the candidate is to replace. */
  stable: Schema.Array(Known),
  /** Where the rollout has added the candidate to its model: as the sibling, with this model or file. */
  added: Schema.optionalKey(Schema.Struct({ sibling: Known, to: Schema.String })),
  /** What the result means for the A/B test that the model had then (`VariantHold`). */
  test: Schema.optionalKey(Schema.Struct({
    /** The variants and weights of that test, as text. */
    variants: Schema.String,
    withheld: Schema.Array(Known)
  }))
})
export type Stored = typeof Stored.Type

/** A row. */
export interface Versioned {
  readonly stored: Stored
  readonly version: number
}

/** What was measured of both versions. */
export const Tallies = Schema.Struct({ stable: Tally, candidate: Tally })
export type Tallies = typeof Tallies.Type

export const noTallies = (): Tallies => ({ stable: Tallied.empty(), candidate: Tallied.empty() })

export const joined = (some: ReadonlyArray<Tallies>): Tallies =>
  some.reduce(
    (sum, one) => ({
      stable: Tallied.add(sum.stable, one.stable),
      candidate: Tallied.add(sum.candidate, one.candidate)
    }),
    noTallies()
  )

export class RolloutStore extends Context.Service<RolloutStore, {
  /** Every rollout that is kept, oldest first. */
  readonly load: Effect.Effect<ReadonlyArray<Versioned>, SqlError>
  /** Reads again only if another process may have changed something. */
  readonly current: Effect.Effect<ReadonlyArray<Versioned>, SqlError>
  /** False if a rollout of the model has not ended. Removes its oldest ended ones beyond `mostEnded`. */
  readonly insert: (stored: Stored) => Effect.Effect<boolean, SqlError>
  /** Writes over the version that was read; false if there is a newer one. */
  readonly update: (versioned: Versioned) => Effect.Effect<boolean, SqlError>
  /**
   * Whether this process leads the rollout until `until`.
   *
   * @param now ms since 1970
   */
  readonly lead: (rollout: string, owner: string, now: number, until: number) => Effect.Effect<boolean, SqlError>
  /** The rollouts that a process leads at `now`. */
  readonly led: (now: number) => Effect.Effect<ReadonlySet<string>, SqlError>
  /** Gives up the leases of this process. */
  readonly resign: (owner: string) => Effect.Effect<void, SqlError>
  /** Adds what this process has measured. */
  readonly add: (rollout: string, tallies: Tallies) => Effect.Effect<void, SqlError>
  /** Takes what was added. */
  readonly take: (rollout: string) => Effect.Effect<ReadonlyArray<Tallies>, SqlError>
}>()("troupe/services/rollout/RolloutStore") {}

const migrations = Migrations.make("rollouts", [
  {
    name: "create",
    run: (sql) =>
      Effect.gen(function*() {
        yield* sql`CREATE TABLE troupe_rollouts (
          id TEXT PRIMARY KEY, model TEXT NOT NULL, started_at BIGINT NOT NULL, ended SMALLINT NOT NULL,
          version BIGINT NOT NULL, state TEXT NOT NULL
        )`
        yield* sql`CREATE UNIQUE INDEX troupe_rollouts_running ON troupe_rollouts (model) WHERE ended = 0`
        yield* sql`CREATE TABLE troupe_rollouts_leader (
          id BIGINT PRIMARY KEY, owner TEXT NOT NULL, until BIGINT NOT NULL
        )`
        yield* sql`INSERT INTO troupe_rollouts_leader (id, owner, until) VALUES (1, '', 0)`
        yield* sql`CREATE TABLE troupe_rollouts_tallies (rollout TEXT NOT NULL, tallies TEXT NOT NULL)`
      })
  },
  {
    name: "lead each rollout",
    run: (sql) =>
      Effect.gen(function*() {
        yield* sql`DROP TABLE troupe_rollouts_leader`
        yield* sql`CREATE TABLE troupe_rollouts_leases (
          rollout TEXT PRIMARY KEY, owner TEXT NOT NULL, until BIGINT NOT NULL
        )`
      })
  }
])

/** Ended rollouts of a model that are kept. */
export const mostEnded = 50

interface Row {
  readonly state: string
  readonly version: number | string
}

const StoredText = Schema.fromJsonString(Stored)
const decode = Schema.decodeSync(StoredText)
const encode = Schema.encodeSync(StoredText)
const TalliesText = Schema.fromJsonString(Tallies)
const decodeTallies = Schema.decodeSync(TalliesText)
const encodeTallies = Schema.encodeSync(TalliesText)

const endedOf = ({ rollout: { phase } }: Stored): number => phase._tag === "Ended" ? 1 : 0

/** Who leads which rollout. */
const leasesOf = (sql: SqlClient): Pick<RolloutStore["Service"], "lead" | "led" | "resign"> => ({
  lead: (rollout, owner, now, until) =>
    Effect.map(
      sql`INSERT INTO troupe_rollouts_leases (rollout, owner, until) VALUES (${rollout}, ${owner}, ${until})
        ON CONFLICT (rollout) DO UPDATE SET owner = excluded.owner, until = excluded.until
        WHERE troupe_rollouts_leases.owner = excluded.owner OR troupe_rollouts_leases.until <= ${now}
        RETURNING rollout`,
      (found) => found.length > 0
    ),
  led: (now) =>
    Effect.map(
      sql<{ readonly rollout: string }>`SELECT rollout FROM troupe_rollouts_leases WHERE until > ${now}`,
      (found) => new Set(found.map(({ rollout }) => rollout))
    ),
  resign: (owner) => Effect.asVoid(sql`DELETE FROM troupe_rollouts_leases WHERE owner = ${owner}`)
})

const make = Effect.gen(function*() {
  yield* Migrations.apply(migrations)
  const sql = yield* SqlClient
  const rows = new LastRead(
    sql,
    Effect.map(
      sql<Row>`SELECT state, version FROM troupe_rollouts ORDER BY started_at, id`,
      (found) => found.map(({ state, version }) => ({ stored: decode(state), version: Number(version) }))
    )
  )
  const changed = <A, E>(statement: Effect.Effect<ReadonlyArray<A>, E>) =>
    Effect.suspend(() => {
      rows.forget()
      return Effect.map(statement, (found) => found.length > 0)
    })
  const prune = (model: string): Effect.Effect<void, SqlError> =>
    Effect.asVoid(sql`DELETE FROM troupe_rollouts WHERE model = ${model} AND ended = 1 AND id NOT IN (
      SELECT id FROM troupe_rollouts WHERE model = ${model} AND ended = 1
      ORDER BY started_at DESC, id DESC LIMIT ${mostEnded}
    )`)
  return RolloutStore.of({
    load: rows.latest,
    current: rows.current,
    insert: (stored) => {
      const { id, model, startedAt } = stored.rollout
      const row = { id, model, started_at: startedAt, ended: endedOf(stored), version: 1, state: encode(stored) }
      const inserted = changed(
        sql`INSERT INTO troupe_rollouts ${sql.insert(row)} ON CONFLICT DO NOTHING RETURNING id`
      )
      return Effect.tap(inserted, (isNew) => isNew ? prune(model) : Effect.void)
    },
    update: ({ stored, version }) =>
      changed(sql`UPDATE troupe_rollouts
        SET state = ${encode(stored)}, ended = ${endedOf(stored)}, version = ${version + 1}
        WHERE id = ${stored.rollout.id} AND version = ${version} RETURNING id`),
    ...leasesOf(sql),
    add: (rollout, tallies) =>
      Effect.asVoid(
        sql`INSERT INTO troupe_rollouts_tallies ${sql.insert({ rollout, tallies: encodeTallies(tallies) })}`
      ),
    take: (rollout) =>
      Effect.map(
        sql<
          { readonly tallies: string }
        >`DELETE FROM troupe_rollouts_tallies WHERE rollout = ${rollout} RETURNING tallies`,
        (found) => found.map(({ tallies }) => decodeTallies(tallies))
      )
  })
})

/** Creates the tables if they do not exist. */
export const layer: Layer.Layer<RolloutStore, SqlError | StorageError, SqlClient> = Layer.effect(RolloutStore, make)
