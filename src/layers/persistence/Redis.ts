/**
 * Effect's `Redis` over the client `redis`: one connection, and more for commands that block.
 *
 * **Details**
 *
 * A command fails if Redis does not answer within 1 s. From then on Redis counts as lost until it answers a ping, and each
 * command fails at once with a `RedisError`, unsent. The same holds while a connection is closed, which is opened again after
 * 50 ms to 2 s. A connection on which nothing arrives for 10 s, not even the answer to a ping, is closed. The loss and the
 * return are a log line each.
 *
 * **Gotchas**
 *
 * A command without an answer may have been executed, or be executed when Redis runs on.
 */
import * as NodeRedis from "@effect/platform-node/NodeRedis"
import { Effect, Layer, Redacted, References } from "effect"
import * as Redis from "effect/persistence/Redis"
import { placeOf, redisError } from "../../services/persistence/StorageError.ts"
import type { StorageError } from "../../services/persistence/StorageError.ts"

const connectTimeoutMs = 5000
const pingIntervalMs = 3000
const silenceMs = 10_000

/** How long a command waits for its answer, ms. */
const answerMs = 1000

const pauseMs = (retries: number): number => Math.min(50 * 2 ** retries, 2000)

/** In halves: a stall of this process is not one of Redis, and in the second half answers that came meanwhile are read. */
const patience = Effect.andThen(Effect.sleep(answerMs / 2), Effect.sleep(answerMs / 2))

const noAnswer = new Redis.RedisError({ cause: new Error(`no answer within ${answerMs} ms`) })

type Client = NodeRedis.NodeRedis["Service"]["client"]

/** Whether Redis can be used. A loss is logged once, however many commands and attempts to connect fail, and the return. */
class Presence {
  readonly #client: Client
  readonly #place: string
  readonly #run: (effect: Effect.Effect<void>) => unknown
  #isLost = false
  /** Connected, but without an answer. */
  #isSilent = false

  /** @param run runs an effect in the background */
  constructor(client: Client, place: string, run: (effect: Effect.Effect<void>) => unknown) {
    this.#client = client
    this.#place = place
    this.#run = run
    client.on("error", ({ message }: Error) => this.#lose(message, "Connecting again."))
    client.on("ready", () => this.#return("is connected again"))
  }

  /** Sends a command if Redis answers, and fails if it does not in time. */
  bounded<A>(sent: Effect.Effect<A, Redis.RedisError>): Effect.Effect<A, Redis.RedisError> {
    return Effect.suspend(() => this.#isSilent ? noAnswer : Effect.raceFirst(sent, this.#timeout))
  }

  /** The end of the client waits for all answers. */
  readonly close = Effect.sync(() => {
    if (this.#isSilent && this.#client.isOpen) this.#client.destroy()
  })

  readonly #timeout = Effect.andThen(
    patience,
    Effect.suspend(() => {
      this.#silence()
      return noAnswer
    })
  )

  /** Redis answers in order: the answer to the ping is later than all that are missing. A closed connection gives none. */
  #silence(): void {
    if (this.#isSilent) return
    this.#isSilent = true
    this.#lose(`no answer within ${answerMs} ms`, "It is used again when it answers.")
    this.#client.sendCommand(["PING"]).then(() => this.#return("answers again"), () => {})
  }

  #lose(why: string, next: string): void {
    if (this.#isLost) return
    this.#isLost = true
    this.#run(Effect.logWarning(`Redis at ${this.#place} is lost (${why}). ${next}`))
  }

  #return(how: string): void {
    if (this.#isLost) this.#run(Effect.logInfo(`Redis at ${this.#place} ${how}.`))
    this.#isLost = false
    this.#isSilent = false
  }
}

/** The Redis of the context, all of whose commands and scripts are bounded in time. */
const bounded = Effect.fnUntraced(function*(place: string) {
  const { client } = yield* NodeRedis.NodeRedis
  const redis = yield* Redis.Redis
  const presence = new Presence(client, place, Effect.runForkWith(yield* Effect.context()))
  yield* Effect.addFinalizer(() => presence.close)
  const send: Redis.Redis["Service"]["send"] = (command, ...args) => presence.bounded(redis.send(command, ...args))
  // Loads scripts with `send`. Further connections are those of `redis`.
  const unused = Effect.die("Only `eval` is used")
  const scripts = yield* Redis.make({ send, connect: unused, subscribe: () => unused })
  return Redis.Redis.of({ ...redis, send, eval: scripts.eval })
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
        Layer.effectContext<Redis.Redis | NodeRedis.NodeRedis, StorageError, never>(
          redisError(Redacted.value(url), cause)
        ))
    )
    return Layer.provide(
      Layer.effect(
        Redis.Redis,
        Effect.suspend(() => {
          isReady = true
          return bounded(place)
        })
      ),
      client
    )
  })

/**
 * The client of a Redis.
 *
 * @param url as `redis://user:password@host:6379/0`, or `rediss:` for TLS. A Redis that cannot be reached fails the layer
 * with a `StorageError`.
 */
export const layer = (url: Redacted.Redacted): Layer.Layer<Redis.Redis, StorageError> => Layer.unwrap(make(url))
