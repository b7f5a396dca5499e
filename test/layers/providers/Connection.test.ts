/** The time of a deployment's exchanges, of which one fiber takes care. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
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
