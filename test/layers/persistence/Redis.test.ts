/** The client of Redis when Redis stops, hangs, returns, or refuses. */
import { assert, it as effectIt } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Redacted, Schedule } from "effect"
import { Redis, script } from "effect/persistence/Redis"
import { TestClock } from "effect/testing"
import { once } from "node:events"
import { createServer } from "node:net"
import type { AddressInfo, Socket } from "node:net"
import { describe, it } from "vitest"
import * as Storage from "../../../src/layers/persistence/Storage.ts"
import { installed, mustRun, startRedis } from "../../support/DatabaseServers.ts"

const layerAt = (url: string) => Storage.redisAt(Redacted.make(url))

const setPassword = Effect.flatMap(Redis, (redis) => redis.send("CONFIG", "SET", "requirepass", "correct"))

const scripted = script(() => [], { lua: "return 1", numberOfKeys: 0 })

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

/** A server that accepts connections and commands, and answers them unless it hangs: one that is stopped by SIGSTOP. */
const startHanging = async () => {
  let isHanging = false
  let waiting: Array<() => void> = []
  const received: Array<string> = []
  const sockets = new Set<Socket>()
  let arrived = () => {}
  const answerOf = (name: string) =>
    name === "HELLO" ? "%1\r\n+proto\r\n:3\r\n" : name === "PING" ? "+PONG\r\n" : "+OK\r\n"
  const server = createServer((socket) => {
    sockets.add(socket.on("error", () => {}))
    let text = ""
    socket.on("data", (chunk: Buffer) => {
      text += chunk.toString()
      for (let command = takeFrom(text); command !== undefined; command = takeFrom(text)) {
        text = text.slice(command.length)
        const { name } = command
        received.push(name)
        const answer = () => void socket.write(answerOf(name))
        if (isHanging) waiting.push(answer)
        else answer()
        arrived()
      }
    })
  }).listen(0, "127.0.0.1")
  await once(server, "listening")
  return {
    url: `redis://127.0.0.1:${(server.address() as AddressInfo).port}`,
    received,
    hang: () => void (isHanging = true),
    goOn: () => {
      isHanging = false
      for (const answer of waiting) answer()
      waiting = []
    },
    /** Waits for this number of commands of a name. */
    until: (name: string, count: number) =>
      new Promise<void>((resolve) => {
        arrived = () => {
          if (received.filter((one) => one === name).length >= count) resolve()
        }
        arrived()
      }),
    stop: () => {
      for (const socket of sockets) socket.destroy()
      server.close()
    }
  }
}

/** The first command of a text of RESP, and the characters that it has. */
const takeFrom = (text: string): { readonly name: string; readonly length: number } | undefined => {
  const [head = "", ...lines] = text.split("\r\n")
  const count = 2 * Number(head.slice(1))
  if (head === "" || lines.length <= count) return undefined
  return { name: lines[1]!, length: [head, ...lines.slice(0, count)].reduce((sum, line) => sum + line.length + 2, 0) }
}

const answering = Effect.acquireRelease(Effect.promise(startHanging), ({ stop }) => Effect.sync(stop))

describe("a client of a Redis that hangs", () => {
  effectIt.effect(
    "fails commands after 1 s, later ones at once and unsent, until Redis answers again",
    () =>
      Effect.gen(function*() {
        const log: Array<string> = []
        const server = yield* answering
        const commands = Effect.gen(function*() {
          const redis = yield* Redis
          assert.strictEqual(yield* ping, "PONG")
          server.hang()
          const waiting = yield* Effect.forkChild(
            Effect.all([Effect.flip(redis.send("GET", "a")), Effect.flip(redis.eval(scripted)())], {
              concurrency: "unbounded"
            })
          )
          yield* Effect.promise(() => server.until("GET", 1))
          yield* Effect.promise(() => server.until("SCRIPT", 1))
          yield* TestClock.adjust("999 millis")
          assert.isUndefined(waiting.pollUnsafe())
          yield* TestClock.adjust("1 millis")
          const failed = yield* Fiber.join(waiting)
          // The clock stands still: these fail without waiting.
          failed.push(yield* Effect.flip(redis.send("GET", "b")), yield* Effect.flip(redis.eval(scripted)()))
          for (const error of failed) {
            assert.strictEqual(error._tag, "RedisError")
            assert.include(String(error.cause), "no answer within 1000 ms")
          }
          yield* Effect.promise(() => server.until("PING", 2))
          assert.lengthOf(server.received.filter((name) => name === "GET" || name === "SCRIPT"), 2)
          server.goOn()
          yield* Effect.promise(async () => {
            while (log.length < 2) await new Promise(setImmediate)
          })
          assert.strictEqual(yield* redis.send("GET", "c"), "OK")
        })
        yield* Effect.provide(
          commands,
          Layer.provideMerge(
            layerAt(server.url),
            Logger.layer([Logger.make(({ message }) => void log.push(String(message)))])
          )
        )
        assert.match(
          log[0]!,
          /^Redis at 127.0.0.1:\d+ is lost \(no answer within 1000 ms\)\. It is used again when it answers\.$/
        )
        assert.match(log[1]!, /^Redis at 127.0.0.1:\d+ answers again\.$/)
      })
  )

  effectIt.effect("ends without the missing answers", () =>
    Effect.gen(function*() {
      const server = yield* answering
      const lost = Effect.gen(function*() {
        server.hang()
        const waiting = yield* Effect.forkChild(Effect.flip(ping))
        yield* Effect.promise(() => server.until("PING", 1))
        yield* TestClock.adjust("1 second")
        yield* Fiber.join(waiting)
      })
      yield* Effect.provide(lost, layerAt(server.url))
      assert.include(server.received, "PING")
    }))
})
