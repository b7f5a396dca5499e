/**
 * The stores whose loss health reports: the database of the settings, unless it is in memory, and their Redis.
 *
 * **Details**
 *
 * The database has the counters of budgets if it is Postgres and there is no Redis: see `App`. SQLite answers as long as its file can
 * be read, also with a full disk: rows that cannot be written are counted in `llm_storage_lost_rows_total`.
 */
import { Effect, Layer } from "effect"
import { Redis } from "effect/persistence/Redis"
import { SqlClient } from "effect/sql/SqlClient"
import type { Store } from "../../services/health/StoreHealth.ts"
import { Stores } from "../../services/health/StoreHealth.ts"
import type { StorageError } from "../../services/persistence/StorageError.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import * as Storage from "./Storage.ts"

const databaseOf = ({ redis, storage }: Pick<Resolved, "redis" | "storage">, sql: SqlClient): ReadonlyArray<Store> =>
  storage.type === "memory"
    ? []
    : [{ name: "database", hasCounters: redis === undefined && storage.type === "postgres", ask: sql`SELECT 1` }]

const redisOf = ({ send }: Redis["Service"]): Store => ({ name: "redis", hasCounters: true, ask: send("PING") })

/** Requires `Settings` and the `SqlClient` of the settings. */
export const layer: Layer.Layer<never, StorageError, Settings | SqlClient> = Layer.unwrap(
  Effect.map(Settings, (settings): typeof layer => {
    const database = Effect.map(SqlClient, (sql) => databaseOf(settings, sql))
    return settings.redis === undefined
      ? Layer.effect(Stores, database)
      : Layer.effect(Stores, Effect.zipWith(database, Redis, (all, redis) => [...all, redisOf(redis)])).pipe(
        Layer.provide(Storage.layerRedis)
      )
  })
)
