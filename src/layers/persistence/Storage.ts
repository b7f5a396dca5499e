/**
 * What the settings choose: the `SqlClient` of an SQLite file, of memory or of Postgres, and the client of Redis.
 *
 * **Details**
 *
 * A driver is imported when the layer is built: a program that stores nothing loads none. A layer fails with a
 * `StorageError`, one line that says what is wrong, where, and what to do.
 */
import type { Redacted } from "effect"
import { Effect, Layer } from "effect"
import { Redis } from "effect/persistence/Redis"
import { SqlClient } from "effect/sql/SqlClient"
import { join } from "node:path"
import type { Store } from "../../services/health/StoreHealth.ts"
import { Stores } from "../../services/health/StoreHealth.ts"
import type { StorageError } from "../../services/persistence/StorageError.ts"
import { missingPackage } from "../../services/persistence/StorageError.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import type { StorageLocation } from "../../services/settings/StorageSettings.ts"

/** The SQLite file in the folder of `storage`. */
export const fileIn = (folder: string): string => join(folder, "troupe.sqlite")

const sqlite = (file: string): Effect.Effect<Layer.Layer<SqlClient, StorageError>> =>
  Effect.map(Effect.promise(() => import("./Sqlite.ts")), ({ layer }) => layer(file))

/** Its driver is an optional dependency. */
const postgres = (url: Redacted.Redacted): Effect.Effect<Layer.Layer<SqlClient, StorageError>, StorageError> =>
  Effect.tryPromise({
    try: () => import("./Postgres.ts"),
    catch: () => missingPackage("@effect/sql-pg", "storage.type: postgres")
  }).pipe(Effect.map(({ layer }) => layer(url)))

const layerOf = (location: StorageLocation): Effect.Effect<Layer.Layer<SqlClient, StorageError>, StorageError> => {
  switch (location.type) {
    case "memory":
      return sqlite(":memory:")
    case "sqlite":
      return sqlite(fileIn(location.folder))
    case "postgres":
      return postgres(location.url)
  }
}

/** The database of a location. */
export const layerAt = (location: StorageLocation): Layer.Layer<SqlClient, StorageError> =>
  Layer.unwrap(Effect.suspend(() => layerOf(location)))

/** The database of the settings. */
export const layer: Layer.Layer<SqlClient, StorageError, Settings> = Layer.unwrap(
  Effect.map(Settings, ({ storage }) => layerAt(storage))
)

/** The Redis at a URL. */
export const redisAt = (url: Redacted.Redacted): Layer.Layer<Redis, StorageError> =>
  Layer.unwrap(Effect.map(Effect.promise(() => import("./Redis.ts")), ({ layer }) => layer(url)))

/** The Redis of the settings, one client for all uses of this layer. Only for settings with `redis`. */
export const layerRedis: Layer.Layer<Redis, StorageError, Settings> = Layer.unwrap(
  Effect.flatMap(
    Settings,
    ({ redis }) => redis === undefined ? Effect.die("The settings have no `redis`") : Effect.succeed(redisAt(redis.url))
  )
)

/**
 * It has the counters of budgets if it is Postgres and there is no Redis: see `App`. SQLite answers as long as its file can be read,
 * also with a full disk: rows that cannot be written are counted in `llm_storage_lost_rows_total`.
 */
const databaseOf = ({ redis, storage }: Pick<Resolved, "redis" | "storage">, sql: SqlClient): ReadonlyArray<Store> =>
  storage.type === "memory"
    ? []
    : [{ name: "database", hasCounters: redis === undefined && storage.type === "postgres", ask: sql`SELECT 1` }]

const redisOf = ({ send }: Redis["Service"]): Store => ({ name: "redis", hasCounters: true, ask: send("PING") })

/**
 * The stores whose loss health reports: the database of the settings, unless it is in memory, and their Redis. Requires `Settings` and
 * the `SqlClient` of the settings.
 */
export const layerStores: Layer.Layer<never, StorageError, Settings | SqlClient> = Layer.unwrap(
  Effect.map(Settings, (settings): typeof layerStores => {
    const database = Effect.map(SqlClient, (sql) => databaseOf(settings, sql))
    return settings.redis === undefined
      ? Layer.effect(Stores, database)
      : Layer.effect(Stores, Effect.zipWith(database, Redis, (all, redis) => [...all, redisOf(redis)])).pipe(
        Layer.provide(layerRedis)
      )
  })
)
