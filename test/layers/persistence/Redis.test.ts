/** The client of Redis when Redis stops, returns, or refuses. */
import { assert } from "@effect/vitest"
import { Effect, Layer, Logger, Redacted, Schedule } from "effect"
import { Redis } from "effect/persistence/Redis"
import { describe, it } from "vitest"
import * as Storage from "../../../src/layers/persistence/Storage.ts"
import { installed, mustRun, startRedis } from "../../support/DatabaseServers.ts"

const layerAt = (url: string) => Storage.redisAt(Redacted.make(url))

const setPassword = Effect.flatMap(Redis, (redis) => redis.send("CONFIG", "SET", "requirepass", "correct"))

const ping = Effect.flatMap(Redis, (redis) => redis.send("PING"))

describe.skipIf(!installed.redis && !mustRun)("a client of Redis", () => {
  it("fails commands at once while Redis is lost, and logs the loss and the return", async () => {
    const log: Array<string> = []
    const server = await startRedis()
    const port = Number(new URL(server.url).port)
    const lost = Effect.gen(function*() {
      assert.strictEqual(yield* ping, "PONG")
      yield* Effect.promise(server.stop)
      assert.strictEqual((yield* Effect.flip(ping))._tag, "RedisError")
      const again = yield* Effect.promise(() => startRedis(port))
      yield* Effect.retry(ping, { while: () => true, schedule: Schedule.spaced("20 millis") })
      yield* Effect.promise(again.stop)
    })
    await Effect.runPromise(
      Effect.provide(
        lost,
        Layer.provideMerge(
          layerAt(server.url),
          Logger.layer([Logger.make(({ message }) => void log.push(String(message)))])
        )
      )
    )
    assert.match(log[0]!, new RegExp(`^Redis at 127.0.0.1:${port} is lost \\(.+\\). Connecting again.$`))
    assert.strictEqual(log[1], `Redis at 127.0.0.1:${port} is connected again.`)
  })

  it("fails with one line if Redis cannot be reached or rejects the password, which the line does not have", async () => {
    const server = await startRedis()
    const port = new URL(server.url).port
    await Effect.runPromise(Effect.provide(setPassword, layerAt(server.url)))
    const secret = await Effect.runPromise(
      Effect.flip(Effect.provide(ping, layerAt(`redis://:hunter2@127.0.0.1:${port}`)))
    )
    assert.match(
      secret.message,
      /^Redis at 127\.0\.0\.1:\d+ rejected the user or the password \(.+\)\. Check .+ redis\.url\.$/
    )
    assert.notInclude(secret.message, "hunter2")
    await server.stop()
    const stopped = await Effect.runPromise(Effect.flip(Effect.provide(ping, layerAt(server.url))))
    assert.match(
      stopped.message,
      /^Redis at .+ cannot be reached \(.+ECONNREFUSED.+\)\. Start Redis, or check redis\.url\.$/
    )
  })
})
