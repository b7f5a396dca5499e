/**
 * Effect's `Redis` over the client `redis`: one connection, and more for commands that block.
 *
 * **Details**
 *
 * A lost connection is opened again, after 50 ms to 2 s. Until then each command fails at once with a `RedisError`. The loss
 * and the return are a log line each. A connection on which nothing arrives for 10 s, not even the answer to a ping, counts
 * as lost.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { Effect, Layer, Redacted, References } from "effect"
import type { Redis } from "effect/persistence/Redis"
import { placeOf, redisError } from "../../services/persistence/StorageError.ts"
import type { StorageError } from "../../services/persistence/StorageError.ts"

const connectTimeoutMs = 5000
const pingIntervalMs = 3000
const silenceMs = 10_000

const pauseMs = (retries: number): number => Math.min(50 * 2 ** retries, 2000)

/** Logs a loss once, however many attempts to connect fail, and the return. */
const logLosses = Effect.fnUntraced(function*(place: string) {
  const { client } = yield* NodeRedis.NodeRedis
  const run = Effect.runForkWith(yield* Effect.context())
  let isLost = false
  client.on("error", (error: Error) => {
    if (isLost) return
    isLost = true
    run(Effect.logWarning(`Redis at ${place} is lost (${error.message}). Connecting again.`))
  })
  client.on("ready", () => {
    if (isLost) run(Effect.logInfo(`Redis at ${place} is connected again.`))
    isLost = false
  })
})

const make = (url: Redacted.Redacted) =>
  Effect.gen(function*() {
    const place = placeOf(Redacted.value(url), 6379)
    let isReady = false
    const client = NodeRedis.layer({
      url: Redacted.value(url),
      disableOfflineQueue: true,
      pingInterval: pingIntervalMs,
      socket: {
        connectTimeout: connectTimeoutMs,
        socketTimeout: silenceMs,
        reconnectStrategy: (retries, cause) => isReady ? pauseMs(retries) : cause
      }
    }).pipe(
      // Its log of an error is one line for each attempt to connect.
      Layer.provide(Layer.succeed(References.MinimumLogLevel, "None")),
      Layer.catchTag("RedisError", ({ cause }) =>
        Layer.effectContext<Redis | NodeRedis.NodeRedis, StorageError, never>(redisError(Redacted.value(url), cause)))
    )
    return Layer.effectDiscard(Effect.gen(function*() {
      isReady = true
      yield* logLosses(place)
    })).pipe(Layer.provideMerge(client))
  })

/**
 * The client of a Redis.
 *
 * @param url as `redis://user:password@host:6379/0`, or `rediss:` for TLS. A Redis that cannot be reached fails the layer
 * with a `StorageError`.
 */
export const layer = (url: Redacted.Redacted): Layer.Layer<Redis, StorageError> => Layer.unwrap(make(url))
