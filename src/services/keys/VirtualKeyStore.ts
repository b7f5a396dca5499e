/**
 * Where virtual keys are kept: a table of the service's database, which several processes may share.
 *
 * **Details**
 *
 * A row has hashes, never a secret. Changes are conditional, so that of a rotation and a revocation at the same time in two
 * processes none undoes the other. Every change raises the version of the table, in its transaction: a process reads the
 * keys again when the version has grown.
 */
import { Context, Effect, Layer, Schema } from "effect"
import { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import type { Fragment } from "effect/sql/Statement"
import * as Migrations from "../persistence/Migrations.ts"
import { LastRead } from "../persistence/OtherCommits.ts"
import type { StorageError } from "../persistence/StorageError.ts"
import { Grant } from "./VirtualKey.ts"
import type { StoredKey } from "./VirtualKey.ts"

/** What a rotation changes. */
export interface Rotation {
  readonly hash: string
  readonly begins: string
  /** Until when the secret before it is accepted, ms since 1970. */
  readonly previousUntil: number
}

/** When a key was used, ms since 1970. */
export interface Use {
  readonly id: string
  readonly at: number
}

/** All keys, at a version of the table. */
export interface Snapshot {
  readonly keys: ReadonlyArray<StoredKey>
  readonly version: number
}

export class VirtualKeyStore extends Context.Service<VirtualKeyStore, {
  readonly load: Effect.Effect<Snapshot, SqlError>
  /** Grows with every change of any process. */
  readonly version: Effect.Effect<number, SqlError>
  /** False if a key of this name exists that is not revoked. */
  readonly insert: (stored: StoredKey) => Effect.Effect<boolean, SqlError>
  /** False if the key does not exist or is revoked. */
  readonly rotate: (id: string, rotation: Rotation) => Effect.Effect<boolean, SqlError>
  /** Writes what the key grants. False if the key does not exist or is revoked. */
  readonly grant: (stored: StoredKey) => Effect.Effect<boolean, SqlError>
  /** False if the key does not exist or is revoked. @param at ms since 1970 */
  readonly revoke: (id: string, at: number) => Effect.Effect<boolean, SqlError>
  /** Writes when keys were used; the version stays. */
  readonly touch: (uses: ReadonlyArray<Use>) => Effect.Effect<void, SqlError>
}>()("troupe/services/keys/VirtualKeyStore") {}

const migrations = Migrations.make("keys", [
  {
    name: "create",
    run: (sql) =>
      Effect.gen(function*() {
        yield* sql`CREATE TABLE troupe_keys (
          id TEXT PRIMARY KEY, name TEXT NOT NULL, grants TEXT NOT NULL,
          hash TEXT NOT NULL UNIQUE, begins TEXT NOT NULL, previous_hash TEXT, previous_until BIGINT,
          created_at BIGINT NOT NULL, revoked_at BIGINT, last_used_at BIGINT
        )`
        yield* sql`CREATE UNIQUE INDEX troupe_keys_name ON troupe_keys (name) WHERE revoked_at IS NULL`
        yield* sql`CREATE TABLE troupe_keys_version (id BIGINT PRIMARY KEY, version BIGINT NOT NULL)`
        yield* sql`INSERT INTO troupe_keys_version (id, version) VALUES (1, 0)`
      })
  }
])

interface Row {
  readonly id: string
  readonly grants: string
  readonly hash: string
  readonly begins: string
  readonly previous_hash: string | null
  readonly previous_until: number | string | null
  readonly created_at: number | string
  readonly revoked_at: number | string | null
  readonly last_used_at: number | string | null
}

const GrantText = Schema.fromJsonString(Schema.Struct({ ...Grant.fields, tenant: Schema.String }))
const decodeGrant = Schema.decodeSync(GrantText)
const encodeGrant = Schema.encodeSync(GrantText)

/** A field of a column that may be null. */
const time = <Name extends string>(name: Name, value: number | string | null) =>
  (value === null ? {} : { [name]: Number(value) }) as { readonly [N in Name]?: number }

const storedOf = (row: Row): StoredKey => ({
  hash: row.hash,
  previousHash: row.previous_hash ?? undefined,
  key: {
    ...decodeGrant(row.grants),
    id: row.id,
    begins: row.begins,
    origin: "store",
    createdAt: Number(row.created_at),
    ...time("revokedAt", row.revoked_at),
    ...time("lastUsedAt", row.last_used_at),
    ...time("previousUntil", row.previous_until)
  }
})

const rowOf = ({ hash, key }: StoredKey) => {
  const { admin, budgets, expiresAt, limits, models, name, setsTenant, tenant, user } = key
  const grants = { admin, budgets, expiresAt, limits, models, name, setsTenant, tenant, user }
  return {
    id: key.id,
    name,
    grants: encodeGrant(JSON.parse(JSON.stringify(grants)) as typeof GrantText.Type),
    hash,
    begins: key.begins ?? "",
    created_at: key.createdAt ?? 0
  }
}

const make = Effect.gen(function*() {
  yield* Migrations.apply(migrations)
  const sql = yield* SqlClient
  const version = new LastRead(
    sql,
    Effect.map(
      sql<{ readonly version: number | string }>`SELECT version FROM troupe_keys_version WHERE id = 1`,
      ([row]) => Number(row?.version ?? 0)
    )
  )
  /** A statement that returns the ids that it changes, in a transaction with the next version. */
  const change = (statement: Fragment & Effect.Effect<ReadonlyArray<object>, SqlError>) =>
    sql.withTransaction(Effect.gen(function*() {
      version.forget()
      // First, so that changes of several processes wait for each other here.
      yield* sql`UPDATE troupe_keys_version SET version = version + 1 WHERE id = 1`
      return (yield* statement).length > 0
    }))
  return VirtualKeyStore.of({
    version: version.current,
    load: Effect.gen(function*() {
      // Before the keys: a change between the two is read again.
      const at = yield* version.latest
      const rows = yield* sql<Row>`SELECT * FROM troupe_keys`
      return { version: at, keys: rows.map(storedOf) }
    }),
    insert: (stored) =>
      change(sql`INSERT INTO troupe_keys ${sql.insert(rowOf(stored))} ON CONFLICT DO NOTHING RETURNING id`),
    rotate: (id, { begins, hash, previousUntil }) =>
      change(sql`UPDATE troupe_keys
        SET previous_hash = hash, previous_until = ${previousUntil}, hash = ${hash}, begins = ${begins}
        WHERE id = ${id} AND revoked_at IS NULL RETURNING id`),
    grant: (stored) =>
      change(sql`UPDATE troupe_keys SET grants = ${rowOf(stored).grants}
        WHERE id = ${stored.key.id} AND revoked_at IS NULL RETURNING id`),
    revoke: (id, at) =>
      change(sql`UPDATE troupe_keys SET revoked_at = ${at} WHERE id = ${id} AND revoked_at IS NULL RETURNING id`),
    touch: (uses) =>
      sql.withTransaction(Effect.forEach(
        uses,
        ({ at, id }) =>
          sql`UPDATE troupe_keys SET last_used_at = ${at}
            WHERE id = ${id} AND (last_used_at IS NULL OR last_used_at < ${at})`,
        { discard: true }
      ))
  })
})

/** Creates the table if it does not exist. */
export const layer: Layer.Layer<VirtualKeyStore, SqlError | StorageError, SqlClient> = Layer.effect(
  VirtualKeyStore,
  make
)
