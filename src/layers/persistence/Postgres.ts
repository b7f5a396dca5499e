/**
 * Effect's `SqlClient` over `@effect/sql-pg`: a pool of connections to Postgres.
 *
 * **Details**
 *
 * `BIGINT` is read as a number, as on SQLite, and so are sums of it, which Postgres returns as `NUMERIC`. Values beyond
 * 2^53 fail.
 */
import * as PgClient from "@effect/sql-pg/PgClient"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import type { Layer } from "effect"
import { Effect, Redacted, Result } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { StorageError } from "../../services/persistence/StorageError.ts"
import { postgresError } from "../../services/persistence/StorageError.ts"

/** Connections at most, of each instance. */
const maxConnections = 10

/** The format of values on the wire. */
const binary = 1

const codecOf = <A>(oid: number): PgTypes.Codec<A> => ({
  encode: (value) => PgTypes.encode(value, oid),
  decode: (bytes) => PgTypes.decode(bytes, oid, binary) as Result.Result<A, PgTypes.CodecError>
})

/** Whole numbers as JavaScript has them. */
const types = (): PgTypes.Registry => {
  const int8 = codecOf<bigint>(PgTypes.OID.int8)
  const numeric = codecOf<string>(PgTypes.OID.numeric)
  const registry = PgTypes.makeRegistry()
  const safe = (value: bigint | string): Result.Result<number, PgTypes.CodecError> => {
    const number = Number(value)
    return Number.isInteger(number) && !Number.isSafeInteger(number)
      ? Result.fail(new PgTypes.CodecError({ message: `The integer ${value} is beyond 2^53` }))
      : Result.succeed(number)
  }
  registry.register<number>(PgTypes.OID.int8, {
    encode: (value) => int8.encode(BigInt(value)),
    decode: (bytes) => Result.flatMap(int8.decode(bytes), safe)
  })
  registry.register<number>(PgTypes.OID.numeric, {
    encode: (value) => numeric.encode(String(value)),
    decode: (bytes) => Result.flatMap(numeric.decode(bytes), safe)
  })
  return registry
}

/**
 * The client of a database.
 *
 * @param url as `postgres://user:password@host:5432/database`. A database that cannot be reached fails the layer with a
 * `StorageError`.
 */
export const layer = (url: Redacted.Redacted): Layer.Layer<SqlClient, StorageError> =>
  PgClient.layerFrom(
    Effect.tap(
      PgClient.make({ url, maxConnections, connectTimeout: "5 seconds", applicationName: "troupe", types: types() }),
      (sql) => sql`SELECT 1`
    ).pipe(Effect.mapError((error) => postgresError(Redacted.value(url), error)))
  )
