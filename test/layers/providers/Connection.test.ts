/** Exchanges side by side: their time, of which one fiber takes care, and their pauses. */
import type * as Undici from "@effect/platform-node/Undici"
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { once } from "node:events"
import type { ServerResponse } from "node:http"
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"
import * as Connection from "../../../src/layers/providers/Connection.ts"
import { pendingTimers } from "../../support/Timers.ts"
import { engineAt, fixture, outcome, served } from "./support.ts"

const limits: Connection.Limits = {
  connect: 1_000,
  first_byte: 3_000,
  first_token: 5_000,
  stall: 2_000,
  total: 20_000
}

/** When each of some exchanges was ended, ms after it had begun. */
const endings = (watcher: Connection.ExchangeTimeouts) => {
  const ended: Array<readonly [name: string, afterMs: number, phase: string]> = []
  const begin = Effect.fnUntraced(function*(name: string, streamed = true) {
    const clock = yield* Clock.Clock
    const start = clock.currentTimeMillisUnsafe()
    const own: Connection.WatchedExchange = watcher.add(streamed, () => {
      const reason = own.reason()
      if (reason?._tag !== "UpstreamTimeout") return
      ended.push([name, clock.currentTimeMillisUnsafe() - start, reason.phase])
    })
    return own
  })
  return { ended, begin }
}

describe("Watch", () => {
  it.effect("ends each exchange at its own limit, regardless of others", () =>
    Effect.gen(function*() {
      const watcher = yield* Connection.makeTimeouts("remote/one", limits)
      const { begin, ended } = endings(watcher)
      yield* begin("silent")
      yield* TestClock.adjust(1_700)
      yield* begin("later")
      const gone = yield* begin("gone")
      const stalled = yield* begin("stalled")
      stalled.headers()
      stalled.content()
      stalled.wait()
      const buffered = yield* begin("buffered", false)
      buffered.wait()
      yield* TestClock.adjust(600)
      gone.remove()
      // To the tenth of a second, by many looks.
      for (let tenth = 0; tenth < 300; tenth++) yield* TestClock.adjust(100)
      assert.deepStrictEqual(ended.toSorted(([one], [two]) => one.localeCompare(two)), [
        ["buffered", 20_000, "total"],
        ["later", 3_000, "first_byte"],
        ["silent", 3_000, "first_byte"],
        ["stalled", 2_000, "stall"]
      ])
    }))

  it.effect("watches again after a time without exchanges", () =>
    Effect.gen(function*() {
      const watcher = yield* Connection.makeTimeouts("remote/one", limits)
      const { begin, ended } = endings(watcher)
      const answered = yield* begin("answered")
      answered.remove()
      yield* TestClock.adjust(60_000)
      yield* begin("silent")
      yield* TestClock.adjust(3_000)
      assert.deepStrictEqual(ended, [["silent", 3_000, "first_byte"]])
    }))

  it.effect("watches on after an exchange whose end has ended others", () =>
    Effect.gen(function*() {
      const watcher = yield* Connection.makeTimeouts("remote/one", limits)
      const { begin, ended } = endings(watcher)
      const others = [yield* begin("one"), yield* begin("two")]
      const last: Connection.WatchedExchange = watcher.add(true, () => {
        for (const watched of [...others, last]) watched.remove()
      })
      yield* TestClock.adjust(3_000)
      assert.deepStrictEqual(ended, [])
      yield* begin("later")
      yield* TestClock.adjust(3_000)
      assert.deepStrictEqual(ended, [["later", 3_000, "first_byte"]])
    }))

  it.live("has no timer after the engine has ended, for every outcome of an exchange", () =>
    Effect.gen(function*() {
      const timers = yield* pendingTimers
      const { stream: pieces } = fixture("openai").text
      const server = yield* served((index) =>
        index === 1
          ? { pieces, fault: { kind: "cut", after: 2 } }
          : index === 2
          ? { pieces: [], silent: "stall" }
          : { pieces }
      )
      yield* Effect.scoped(Effect.gen(function*() {
        const engine = yield* engineAt(server.url)
        assert.isUndefined((yield* outcome(engine)).reason)
        assert.isDefined((yield* outcome(engine)).reason)
        const left = yield* Effect.forkChild(outcome(engine))
        yield* Effect.promise(() => server.came(2))
        assert.isAbove(timers(), 0)
        yield* Fiber.interrupt(left)
      }))
      assert.strictEqual(timers(), 0)
    }))
})

/** A server that begins the response to `/open` and leaves the rest to the test, and a dispatcher. */
const withOpenResponse = Effect.acquireRelease(
  Effect.promise(async () => {
    const server = createServer((request, response) => {
      request.resume()
      if (request.url !== "/open") return response.end("short")
      opened = response
      return response.write("one")
    })
    let opened: ServerResponse | undefined
    await once(server.listen(0, "127.0.0.1"), "listening")
    const { port } = server.address() as AddressInfo
    const { Agent } = await import("@effect/platform-node/Undici")
    const agent = new Agent()
    const open = (path: string, receiver?: Connection.Receiver) =>
      Connection.open(agent, { origin: `http://127.0.0.1:${port}`, path, headers: [], body: "" }, receiver)
    return { agent, open, response: () => opened!, server }
  }),
  ({ agent, server }) =>
    Effect.promise(async () => {
      await agent.destroy()
      server.closeAllConnections()
      server.close()
    })
)

/** Receives a response into promises. `onEnd` is called while the dispatcher parses the response. */
const receiver = (onBegin: () => void = () => {}, onEnd: () => void = () => {}) => {
  const data = Promise.withResolvers<void>()
  const end = Promise.withResolvers<string>()
  // A paused exchange that is left fails.
  end.promise.catch(() => {})
  let text = ""
  const all: Connection.Receiver = {
    head: () => {},
    data: (piece) => {
      if (text === "") onBegin()
      text += Buffer.from(piece).toString()
      data.resolve()
    },
    end: () => {
      try {
        onEnd()
        end.resolve(text)
      } catch (defect) {
        end.reject(defect)
      }
    },
    error: end.reject
  }
  return { ...all, began: data.promise, ended: end.promise }
}

describe("a paused exchange, at the end of another one", () => {
  /** Pauses one exchange, and calls `act` with it while the other one ends. */
  const pausedAtEnd = Effect.fnUntraced(function*(act: (paused: Connection.Connection) => void) {
    const { open, response } = yield* withOpenResponse
    const first = receiver(() => paused.pause())
    const paused = open("/open", first)
    yield* Effect.promise(() => first.began)
    const other = receiver(undefined, () => act(paused))
    open("/short", other)
    assert.strictEqual(yield* Effect.promise(() => other.ended), "short")
    return { first, paused, response: response() }
  })

  it.live("is resumed", () =>
    Effect.gen(function*() {
      const { first, response } = yield* pausedAtEnd((paused) => paused.resume())
      response.end("two")
      assert.strictEqual(yield* Effect.promise(() => first.ended), "onetwo")
    }))

  it.live("is read without its receiver", () =>
    Effect.gen(function*() {
      const { paused, response } = yield* pausedAtEnd((paused) => paused.detach())
      response.end("two")
      assert.strictEqual(Buffer.from(yield* paused.pull).toString(), "two")
    }))

  it.live("is closed", () =>
    Effect.gen(function*() {
      const { paused, response } = yield* pausedAtEnd((paused) => {
        paused.detach()
        paused.close()
      })
      assert.isTrue(paused.isOver())
      if (!response.closed) yield* Effect.promise(() => once(response, "close"))
    }))
})

describe("an exchange that is paused at once after it was resumed", () => {
  it.effect("stays paused", () =>
    Effect.gen(function*() {
      let isPaused = false
      const controller = {
        pause: () => {
          isPaused = true
        },
        resume: () => {
          isPaused = false
        }
      } as Undici.Dispatcher.DispatchController
      const dispatcher = {
        dispatch: (_: unknown, handler: Undici.Dispatcher.DispatchHandler) => {
          handler.onRequestStart?.(controller, undefined)
          return true
        }
      } as unknown as Undici.Dispatcher
      const exchange = Connection.open(dispatcher, { origin: "", path: "", headers: [], body: "" }, receiver())
      exchange.pause()
      exchange.resume()
      exchange.pause()
      yield* Effect.promise(() => Promise.resolve())
      assert.isTrue(isPaused)
      exchange.resume()
      yield* Effect.promise(() => Promise.resolve())
      assert.isFalse(isPaused)
    }))
})
