/** What a service stores and counts, wired: in its database and in Redis, as the settings say. */
import { Effect, Layer, Random } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import type { SqlError } from "effect/sql/SqlError"
import * as AnswerStore from "./layers/cache/AnswerStore.ts"
import * as VirtualKeys from "./layers/keys/VirtualKeys.ts"
import * as Storage from "./layers/persistence/Storage.ts"
import type { CountersLost } from "./services/admission/Counters.ts"
import { SharedCounters } from "./services/admission/Counters.ts"
import { SharedMakers } from "./services/inference/ReasoningMakers.ts"
import * as Ledger from "./services/ledger/Ledger.ts"
import type { StorageError } from "./services/persistence/StorageError.ts"
import * as Responses from "./services/responses/Responses.ts"
import { cachedResponses } from "./services/routing/DecisionRecord.ts"
import { Settings } from "./services/settings/Settings.ts"

/** Whether a model keeps answers. */
const keepsAnswers = ({ models }: Settings["Service"]): boolean =>
  models.some(({ cache, routing }) => cache !== undefined || routing?.fallbacks.ordinary.at(-1) === cachedResponses)

/** Where answers outlive the process, if models keep any: Redis if the settings have one, else the database. */
const answers: Layer.Layer<never, StorageError, Settings | SqlClient> = Layer.unwrap(
  Effect.map(Settings, (settings): Layer.Layer<never, StorageError, Settings | SqlClient> => {
    const { redis, storage } = settings
    const isKept = keepsAnswers(settings)
    // A Redis that cannot be reached ends the start, whatever uses it later.
    if (redis !== undefined) return Layer.provide(isKept ? AnswerStore.layerRedis : Layer.empty, Storage.layerRedis)
    if (!isKept) return Layer.empty
    return storage.type === "memory" ? Layer.empty : AnswerStore.layerSqlWith(settings.cache.storedEntries)
  })
)

/** Another for each process. */
const instanceName = Effect.map(Random.nextIntBetween(0, Number.MAX_SAFE_INTEGER), (number) => number.toString(36))

/**
 * Where limits and budgets are counted if instances share them: in Redis if the settings have one, else in Postgres. The
 * processes of one service on SQLite have those of their supervisor.
 */
const counters: Layer.Layer<never, StorageError | CountersLost | SqlError, Settings | SqlClient> = Layer.unwrap(
  Effect.map(Settings, ({ redis, storage }): typeof counters => {
    if (redis !== undefined) {
      const make = Effect.flatMap(
        Effect.promise(() => import("./services/admission/RedisCounters.ts")),
        (module) => Effect.flatMap(instanceName, (instance) => module.make(redis.prefix, instance))
      )
      return Layer.provide(Layer.effect(SharedCounters, make), Storage.layerRedis)
    }
    if (storage.type !== "postgres") return Layer.empty
    const make = Effect.flatMap(
      Effect.promise(() => import("./services/admission/SqlCounters.ts")),
      (module) => Effect.flatMap(instanceName, module.make)
    )
    return Layer.effect(SharedCounters, make)
  })
)

/** Where the makers of signed reasoning outlive the process: in Redis if the settings have one, else in the database. */
const makers: Layer.Layer<never, StorageError | SqlError, Settings | SqlClient> = Layer.unwrap(
  Effect.map(Settings, ({ redis, storage }): typeof makers => {
    if (redis !== undefined) {
      const make = Effect.flatMap(
        Effect.promise(() => import("./services/inference/RedisMakers.ts")),
        (module) => module.make(redis.prefix)
      )
      return Layer.provide(Layer.effect(SharedMakers, make), Storage.layerRedis)
    }
    if (storage.type === "memory") return Layer.empty
    const make = Effect.flatMap(
      Effect.promise(() => import("./services/inference/SqlMakers.ts")),
      (module) => module.make
    )
    return Layer.effect(SharedMakers, make)
  })
)

/** Who may call the service. Requires only `Settings`. */
export const keys = Layer.provide(VirtualKeys.layer, Storage.layer)

/** Responses and conversations, in the database or in Redis. */
const responses: Layer.Layer<never, StorageError | Layer.Error<typeof Responses.layer>, Settings | SqlClient> = Layer
  .unwrap(
    Effect.map(Settings, ({ redis, responses: { store } }): typeof responses =>
      store === "redis" && redis !== undefined
        ? Layer.provide(Responses.layerRedis(redis.prefix), Storage.layerRedis)
        : Responses.layer)
  )

/** What a service stores and counts, in its database and in Redis. Requires only `Settings`. */
export const state = Layer.mergeAll(keys, Ledger.layer, responses, answers, counters, makers, Storage.layerStores).pipe(
  Layer.provideMerge(Storage.layer)
)

/** State in memory, without a ledger, which grows. */
export const stateInMemory = Layer.mergeAll(keys, responses, Layer.succeed(Ledger.Ledger, Ledger.none)).pipe(
  Layer.provideMerge(Storage.layer)
)

/** Whether the settings say where state is kept. */
export const keepsState = ({ redis, storage }: Settings["Service"]): boolean =>
  redis !== undefined || storage.type !== "memory"
