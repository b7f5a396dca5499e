import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Logger, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Verdict } from "../../../src/domain/Measurement.ts"
import * as Breaker from "../../../src/services/health/Breaker.ts"
import type { Ending } from "../../../src/services/health/Circuit.ts"
import { endingOf } from "../../../src/services/health/Circuit.ts"

const broken = Effect.fail(
  InferenceError.make(new InferenceError.EngineFailed({ deployment: "a", detail: "It broke." }))
)
const mistaken = Effect.fail(InferenceError.make(new InferenceError.InvalidRequest({ detail: "No." })))
const fine = Effect.succeed("fine")

/** Calls as an attempt does: for as long as a scope. */
const guard = (deployment: string, alone = false) => <A>(call: Effect.Effect<A, InferenceError.InferenceError>) => {
  let exit: Exit.Exit<A, InferenceError.InferenceError> = Exit.interrupt()
  const noted = Effect.onExit(call, (own) =>
    Effect.sync(() => {
      exit = own
    }))
  return Breaker.Breaker.use(({ enter }) => enter(deployment, () => endingOf(exit), alone)).pipe(
    Effect.andThen(noted),
    Effect.scoped
  )
}

const calls = Effect.fnUntraced(function*<A>(
  count: number,
  call: Effect.Effect<A, InferenceError.InferenceError>,
  deployment = "a"
) {
  return yield* Effect.forEach(Array.from({ length: count }), () => Effect.exit(call.pipe(guard(deployment))))
})

/** Whether the call was made. */
const isLetThrough = Effect.fnUntraced(function*(deployment = "a") {
  let called = false
  yield* calls(1, Effect.sync(() => (called = true)), deployment)
  return called
})

const open = calls(5, broken)

const phase = Effect.fnUntraced(function*(deployment = "a") {
  const { states } = yield* Breaker.Breaker
  return (yield* states).find((state) => state.deployment === deployment)?.phase
})

const provided = <A, E>(effect: Effect.Effect<A, E, Breaker.Breaker | Scope.Scope>) =>
  effect.pipe(Effect.provide(Breaker.layer))

describe("Breaker", () => {
  it.effect("opens after 5 failures, and refuses calls with its name and the wait", () =>
    provided(Effect.gen(function*() {
      yield* calls(4, broken)
      assert.strictEqual(yield* phase(), "closed")
      yield* calls(1, broken)
      yield* TestClock.adjust("20 seconds")
      assert.isFalse(yield* isLetThrough())
      const { reason } = yield* Effect.flip(fine.pipe(guard("a")))
      assert.deepStrictEqual(
        reason,
        new InferenceError.CircuitOpen({ deployment: "a", failures: 5, retryAfterMs: 40_000 })
      )
    })))

  it.effect("logs once that a circuit opened, with the last failure, and that it closed", () => {
    const lines: Array<string> = []
    const logger = Logger.layer([
      Logger.make(({ logLevel, message }) => void lines.push(`${logLevel} ${String(message)}`))
    ])
    return provided(Effect.gen(function*() {
      yield* open
      yield* TestClock.adjust("60 seconds")
      yield* calls(1, broken)
      yield* TestClock.adjust("60 seconds")
      yield* calls(3, fine)
      assert.deepStrictEqual(lines, [
        "Warn The circuit of \"a\" opened after 5 consecutive failures; next try in 60 s. Last failure: " +
        (yield* Effect.flip(broken)).reason.message,
        "Info The circuit of \"a\" closed."
      ])
    })).pipe(Effect.provide(logger))
  })

  it.effect("counts failures in a row", () =>
    provided(Effect.gen(function*() {
      yield* calls(4, broken)
      yield* calls(1, fine)
      yield* calls(4, broken)
      assert.strictEqual(yield* phase(), "closed")
    })))

  it.effect("keeps a circuit for each deployment", () =>
    provided(Effect.gen(function*() {
      yield* open
      assert.isFalse(yield* isLetThrough("a"))
      assert.isTrue(yield* isLetThrough("b"))
    })))

  it.effect("allows a call after 60 s, and closes after 3 successes", () =>
    provided(Effect.gen(function*() {
      yield* open
      yield* TestClock.adjust("59 seconds")
      assert.isFalse(yield* isLetThrough())
      yield* TestClock.adjust("1 second")
      assert.strictEqual(yield* phase(), "half-open")
      yield* calls(2, fine)
      assert.strictEqual(yield* phase(), "half-open")
      yield* calls(1, fine)
      assert.strictEqual(yield* phase(), "closed")
    })))

  it.effect("opens again after one failure while half open, and then needs 3 successes again", () =>
    provided(Effect.gen(function*() {
      yield* open
      yield* TestClock.adjust("60 seconds")
      yield* calls(2, fine)
      yield* calls(1, broken)
      assert.strictEqual(yield* phase(), "open")
      assert.isFalse(yield* isLetThrough())
      yield* TestClock.adjust("60 seconds")
      yield* calls(2, fine)
      assert.strictEqual(yield* phase(), "half-open")
      yield* calls(1, fine)
      assert.strictEqual(yield* phase(), "closed")
    })))

  it.effect("needs 5 failures again once it has closed", () =>
    provided(Effect.gen(function*() {
      yield* open
      yield* TestClock.adjust("60 seconds")
      yield* calls(3, fine)
      yield* calls(4, broken)
      assert.strictEqual(yield* phase(), "closed")
    })))

  it.effect("does not count invalid requests and cancelled calls", () =>
    provided(Effect.gen(function*() {
      yield* calls(10, mistaken)
      for (let left = 0; left < 10; left++) {
        const fiber = yield* Effect.forkChild(Effect.never.pipe(guard("a")), { startImmediately: true })
        yield* Fiber.interrupt(fiber)
      }
      assert.strictEqual(yield* phase(), "closed")
      assert.isTrue(yield* isLetThrough())
    })))

  it.effect("counts neither between two failures as a success", () =>
    provided(Effect.gen(function*() {
      yield* calls(4, broken)
      yield* calls(1, mistaken)
      yield* calls(1, broken)
      assert.strictEqual(yield* phase(), "open")
    })))

  it.effect("allows one call at a time while half open, and the next when that one is interrupted", () =>
    provided(Effect.gen(function*() {
      const { closedFor } = yield* Breaker.Breaker
      yield* open
      yield* TestClock.adjust("60 seconds")
      const fiber = yield* Effect.forkChild(Effect.never.pipe(guard("a")), { startImmediately: true })
      assert.isFalse(yield* isLetThrough())
      assert.isAbove(closedFor("a", 60_000), 0)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(closedFor("a", 60_000), 0)
      assert.isTrue(yield* isLetThrough())
    })))

  it.effect("ignores an earlier call while half open", () =>
    provided(Effect.gen(function*() {
      const answer = yield* Deferred.make<void>()
      const early = yield* Effect.forkChild(Deferred.await(answer).pipe(guard("a")), { startImmediately: true })
      yield* open
      yield* TestClock.adjust("60 seconds")
      const probe = yield* Effect.forkChild(Effect.never.pipe(guard("a")), { startImmediately: true })
      yield* Deferred.succeed(answer, undefined)
      yield* Fiber.join(early)
      assert.isFalse(yield* isLetThrough())
      const { states } = yield* Breaker.Breaker
      assert.strictEqual((yield* states)[0]!.successes, 0)
      yield* Fiber.interrupt(probe)
    })))

  describe("for calls that last as long as a scope", () => {
    it.effect("counts the outcome at its end", () =>
      provided(Effect.gen(function*() {
        const { enter } = yield* Breaker.Breaker
        for (let call = 0; call < 5; call++) {
          yield* Effect.scoped(enter("a", () => ({ verdict: "failure" })))
        }
        assert.strictEqual(yield* phase(), "open")
        const { reason } = yield* Effect.flip(enter("a", () => ({ verdict: "success" })))
        assert.strictEqual(reason._tag, "CircuitOpen")
      })))

    it.effect("counts nothing if its caller has disconnected", () =>
      provided(Effect.gen(function*() {
        const { closedFor, enter } = yield* Breaker.Breaker
        yield* open
        yield* TestClock.adjust("60 seconds")
        const scope = yield* Scope.make()
        yield* enter("a", () => ({ verdict: "left" })).pipe(Scope.provide(scope))
        assert.isAbove(closedFor("a", 60_000), 0)
        yield* Scope.close(scope, Exit.void)
        assert.strictEqual(closedFor("a", 60_000), 0)
        assert.strictEqual(yield* phase(), "half-open")
      })))
  })

  it.effect("publishes every change", () =>
    provided(Effect.gen(function*() {
      const { transitions } = yield* Breaker.Breaker
      const seen = yield* transitions.pipe(
        Stream.take(3),
        Stream.runCollect,
        Effect.forkChild({ startImmediately: true })
      )
      yield* open
      yield* TestClock.adjust("60 seconds")
      yield* calls(3, fine)
      assert.deepStrictEqual((yield* Fiber.join(seen)).map(({ at, from, to }) => [from, to, at]), [
        ["closed", "open", 0],
        ["open", "half-open", 60_000],
        ["half-open", "closed", 60_000]
      ])
    })))

  it.effect("publishes that a circuit without calls for a long time is closed again", () =>
    provided(Effect.gen(function*() {
      const { openings, transitions } = yield* Breaker.Breaker
      const seen = yield* transitions.pipe(
        Stream.take(2),
        Stream.runCollect,
        Effect.forkChild({ startImmediately: true })
      )
      yield* open
      assert.strictEqual(openings("a"), 1)
      yield* TestClock.adjust("2 hours")
      yield* calls(1, fine)
      assert.deepStrictEqual((yield* Fiber.join(seen)).map(({ from, to }) => [from, to]), [
        ["closed", "open"],
        ["open", "closed"]
      ])
      assert.strictEqual(openings("a"), 1)
    })))

  describe("one event", () => {
    const reasons = {
      crash: new InferenceError.EngineCrashed({ deployment: "a", detail: "SIGSEGV" }),
      hang: new InferenceError.EngineHung({ deployment: "a", afterMs: 1 }),
      "failed load": new InferenceError.ModelLoadFailed({ deployment: "a", detail: "No such file." }),
      "lost connection": new InferenceError.UpstreamFailed({ deployment: "a", kind: "cut", detail: "ECONNRESET" }),
      "refused connection": new InferenceError.UpstreamFailed({
        deployment: "a",
        kind: "network",
        detail: "ECONNREFUSED"
      }),
      "HTTP status 500": new InferenceError.UpstreamFailed({
        deployment: "a",
        kind: "status",
        status: 500,
        detail: ""
      }),
      "HTTP status 503": new InferenceError.UpstreamFailed({
        deployment: "a",
        kind: "status",
        status: 503,
        detail: ""
      }),
      "rejected key": new InferenceError.AuthenticationFailed({ deployment: "a", status: 401 }),
      "malformed answer": new InferenceError.UpstreamFailed({ deployment: "a", kind: "malformed", detail: "" }),
      "engine's failure": new InferenceError.EngineFailed({ deployment: "a", detail: "" }),
      "time-out": new InferenceError.UpstreamTimeout({ deployment: "a", phase: "first_token", afterMs: 1 }),
      "HTTP status 504": new InferenceError.UpstreamFailed({ deployment: "a", kind: "status", status: 504, detail: "" })
    }

    const copy = <A extends object>(reason: A): A =>
      Object.create(Object.getPrototypeOf(reason), Object.getOwnPropertyDescriptors(reason))

    /** Calls in flight that all end in this way. */
    const together = Effect.fnUntraced(function*(
      count: number,
      failure: (call: number) => Effect.Effect<never, InferenceError.InferenceError>
    ) {
      const event = yield* Deferred.make<void>()
      const fibers = yield* Effect.forEach(
        Array.from({ length: count }, (_, call) => call),
        (call) =>
          Effect.forkChild(Effect.andThen(Deferred.await(event), failure(call)).pipe(guard("a")), {
            startImmediately: true
          })
      )
      yield* Deferred.succeed(event, undefined)
      yield* Effect.forEach(fibers, Fiber.await)
    })

    for (const [name, reason] of Object.entries(reasons)) {
      // Each call has an error of its own.
      const fails = () => Effect.fail(InferenceError.make(copy(reason)))

      it.effect(`counts once for all calls that it ends: a ${name}`, () =>
        provided(Effect.gen(function*() {
          for (let event = 1; event <= 4; event++) {
            yield* together(8, fails)
            assert.strictEqual(yield* phase(), "closed")
          }
          yield* together(8, fails)
          assert.strictEqual(yield* phase(), "open")
        })))

      it.effect(`counts each time if calls fail one after another: a ${name}`, () =>
        provided(Effect.gen(function*() {
          for (let call = 1; call <= 5; call++) {
            assert.notStrictEqual(yield* phase(), "open")
            yield* calls(1, fails())
          }
          assert.strictEqual(yield* phase(), "open")
        })))
    }

    it.effect("is not one if calls in flight time out at different times, as with a hung provider", () =>
      provided(Effect.gen(function*() {
        const timesOut = Effect.andThen(
          Effect.sleep("30 seconds"),
          Effect.fail(InferenceError.make(reasons["time-out"]))
        )
        for (let call = 0; call < 5; call++) {
          yield* Effect.forkChild(timesOut.pipe(guard("a")), { startImmediately: true })
          yield* TestClock.adjust("1 second")
        }
        yield* TestClock.adjust("28 seconds")
        assert.strictEqual(yield* phase(), "closed")
        yield* TestClock.adjust("1 second")
        assert.strictEqual(yield* phase(), "open")
      })))

    it.effect("is another event if calls in flight fail in another way", () =>
      provided(Effect.gen(function*() {
        const kinds = [500, 503, 501, 505]
        yield* together(8, (call) =>
          InferenceError.make(
            new InferenceError.UpstreamFailed({
              deployment: "a",
              kind: "status",
              status: kinds[call % kinds.length]!,
              detail: ""
            })
          ))
        assert.strictEqual(yield* phase(), "closed")
        yield* calls(1, broken)
        assert.strictEqual(yield* phase(), "open")
      })))

    it.effect("of a host that cannot be reached opens for 1 s, then twice as long each time, up to the setting", () =>
      provided(Effect.gen(function*() {
        const refused = Effect.suspend(() => Effect.fail(InferenceError.make(reasons["refused connection"])))
        const cut = Effect.suspend(() => Effect.fail(InferenceError.make(reasons["lost connection"])))
        yield* calls(5, refused)
        for (const seconds of [1, 2, 4, 8, 16, 32, 60, 60]) {
          assert.strictEqual(yield* phase(), "open")
          yield* TestClock.adjust(Duration.millis(seconds * 1_000 - 1))
          assert.strictEqual(yield* phase(), "open")
          yield* TestClock.adjust(1)
          assert.strictEqual(yield* phase(), "half-open")
          yield* calls(1, refused)
        }
        yield* TestClock.adjust(60_000)
        yield* calls(3, Effect.void)
        assert.strictEqual(yield* phase(), "closed")
        yield* calls(5, refused)
        yield* TestClock.adjust(1_000)
        assert.strictEqual(yield* phase(), "half-open")
        yield* calls(1, cut)
        yield* TestClock.adjust(59_999)
        assert.strictEqual(yield* phase(), "open")
      })))

    it.effect("counts once if several calls get the same failure, as in one batch", () =>
      provided(Effect.gen(function*() {
        yield* together(10, () => broken)
        assert.strictEqual(yield* phase(), "closed")
        yield* calls(4, broken)
        assert.strictEqual(yield* phase(), "open")
      })))
  })

  describe("content of a call that a half-open circuit let through", () => {
    /** A call, and functions for its content and its end. */
    const begun = Effect.fnUntraced(function*() {
      const { enter } = yield* Breaker.Breaker
      const scope = yield* Scope.make()
      let ending: Ending = { verdict: "left" }
      const content = yield* enter("a", () => ending).pipe(Scope.provide(scope))
      const end = (given: Ending) => {
        ending = given
        return Scope.close(scope, Exit.void)
      }
      return { content, end }
    })

    const halfOpen = Effect.andThen(open, TestClock.adjust("60 seconds"))
    const failed: Ending = {
      verdict: "failure",
      reason: new InferenceError.EngineHung({ deployment: "a", afterMs: 1 })
    }

    it.effect("allows the next call, and three close the circuit while all of them continue", () =>
      provided(Effect.gen(function*() {
        const { closedFor, states } = yield* Breaker.Breaker
        yield* halfOpen
        for (let call = 1; call <= 3; call++) {
          const { content } = yield* begun()
          assert.isAbove(closedFor("a", 60_000), 0)
          content()
          content()
          assert.strictEqual(closedFor("a", 60_000), 0)
          assert.strictEqual((yield* states)[0]!.successes, call)
        }
        yield* begun()
        yield* begun()
        assert.strictEqual(yield* phase(), "closed")
      })))

    for (const verdict of ["success", "left"] as const) {
      it.effect(`counts once, and not again at the end: ${verdict}`, () =>
        provided(Effect.gen(function*() {
          const { states } = yield* Breaker.Breaker
          yield* halfOpen
          for (let call = 1; call <= 2; call++) {
            const { content, end } = yield* begun()
            content()
            yield* end({ verdict })
            assert.deepInclude((yield* states)[0], { phase: "half-open", successes: call })
          }
          const { content, end } = yield* begun()
          content()
          yield* end({ verdict })
          assert.strictEqual(yield* phase(), "closed")
        })))
    }

    it.effect("does not offset a later failure: the circuit opens again", () =>
      provided(Effect.gen(function*() {
        yield* halfOpen
        const { content, end } = yield* begun()
        content()
        yield* begun()
        yield* end(failed)
        assert.strictEqual(yield* phase(), "open")
        yield* TestClock.adjust("60 seconds")
        yield* calls(3, fine)
        assert.strictEqual(yield* phase(), "closed")
      })))

    it.effect("leaves a later failure to count as one if the circuit has closed since", () =>
      provided(Effect.gen(function*() {
        yield* halfOpen
        const { content, end } = yield* begun()
        content()
        yield* calls(2, fine)
        assert.strictEqual(yield* phase(), "closed")
        yield* calls(4, broken)
        yield* end(failed)
        assert.strictEqual(yield* phase(), "open")
      })))

    it.effect("is ignored if the circuit has opened again since", () =>
      provided(Effect.gen(function*() {
        const { states } = yield* Breaker.Breaker
        yield* halfOpen
        const first = yield* begun()
        first.content()
        const second = yield* begun()
        yield* first.end(failed)
        second.content()
        yield* second.end({ verdict: "success" })
        assert.deepInclude((yield* states)[0], { phase: "open", successes: 0 })
      })))
  })

  describe("if no other deployment can answer the request", () => {
    const begun = (alone: boolean) =>
      Effect.gen(function*() {
        const { enter } = yield* Breaker.Breaker
        const scope = yield* Scope.make()
        let verdict: Verdict = "left"
        yield* enter("a", () => ({ verdict }), alone).pipe(Scope.provide(scope))
        return (end: Verdict) => {
          verdict = end
          return Scope.close(scope, Exit.void)
        }
      })

    const halfOpen = Effect.andThen(open, TestClock.adjust("60 seconds"))

    it.effect("several calls probe it at a time, up to a bound", () =>
      provided(Effect.gen(function*() {
        const { closedFor } = yield* Breaker.Breaker
        yield* halfOpen
        for (let call = 0; call < 4; call++) {
          assert.strictEqual(closedFor("a", 60_000, true), 0)
          yield* begun(true)
        }
        assert.isAbove(closedFor("a", 60_000, true), 0)
        assert.isAbove(closedFor("a", 60_000), 0)
        assert.strictEqual((yield* Effect.flip(begun(true))).reason._tag, "CircuitOpen")
        assert.strictEqual((yield* Effect.flip(begun(false))).reason._tag, "CircuitOpen")
      })))

    it.effect("one call at a time probes it for a request that another can answer", () =>
      provided(Effect.gen(function*() {
        yield* halfOpen
        yield* begun(false)
        assert.strictEqual((yield* Effect.flip(begun(false))).reason._tag, "CircuitOpen")
        yield* begun(true)
      })))

    for (const order of [[0, 1, 2], [2, 1, 0], [1, 2, 0]]) {
      it.effect(`three successes of calls at a time close it, in the order ${order.join(", ")}`, () =>
        provided(Effect.gen(function*() {
          yield* halfOpen
          const ends = [yield* begun(true), yield* begun(true), yield* begun(true)]
          yield* ends[order[0]!]!("success")
          yield* ends[order[1]!]!("success")
          assert.strictEqual(yield* phase(), "half-open")
          yield* ends[order[2]!]!("success")
          assert.strictEqual(yield* phase(), "closed")
        })))

      it.effect(`one failure opens it, and the others have no effect, in the order ${order.join(", ")}`, () =>
        provided(Effect.gen(function*() {
          yield* halfOpen
          const ends = [yield* begun(true), yield* begun(true), yield* begun(true)]
          yield* ends[order[0]!]!("left")
          yield* ends[order[1]!]!("failure")
          assert.strictEqual(yield* phase(), "open")
          yield* ends[order[2]!]!("success")
          assert.strictEqual(yield* phase(), "open")
          const { openings } = yield* Breaker.Breaker
          assert.strictEqual(openings("a"), 2)
          yield* TestClock.adjust("60 seconds")
          yield* calls(3, fine)
          assert.strictEqual(yield* phase(), "closed")
        })))
    }

    it.effect("releases the probes", () =>
      provided(Effect.gen(function*() {
        yield* halfOpen
        for (let round = 0; round < 3; round++) {
          const ends = [yield* begun(true), yield* begun(true), yield* begun(true), yield* begun(true)]
          for (const end of ends) yield* end("left")
        }
        assert.strictEqual(yield* phase(), "half-open")
      })))
  })

  describe("a reset", () => {
    it.effect("closes an open circuit, and publishes it", () =>
      provided(Effect.gen(function*() {
        const { reset, transitions } = yield* Breaker.Breaker
        const seen = yield* transitions.pipe(
          Stream.take(2),
          Stream.runCollect,
          Effect.forkChild({ startImmediately: true })
        )
        yield* open
        yield* reset("a")
        assert.strictEqual(yield* phase(), "closed")
        assert.isTrue(yield* isLetThrough())
        assert.deepStrictEqual((yield* Fiber.join(seen)).map(({ from, to }) => [from, to]), [
          ["closed", "open"],
          ["open", "closed"]
        ])
      })))

    it.effect("removes failures, and ignores those of earlier calls", () =>
      provided(Effect.gen(function*() {
        const { enter, reset } = yield* Breaker.Breaker
        const before = yield* Scope.make()
        for (let call = 0; call < 5; call++) {
          yield* enter("a", () => ({ verdict: "failure" })).pipe(Scope.provide(before))
        }
        yield* calls(4, broken)
        yield* reset("a")
        yield* Scope.close(before, Exit.void)
        yield* calls(4, broken)
        assert.strictEqual(yield* phase(), "closed")
        yield* calls(1, broken)
        assert.strictEqual(yield* phase(), "open")
      })))

    it.effect("allows a call while another probes, and ignores the probe", () =>
      provided(Effect.gen(function*() {
        const { reset } = yield* Breaker.Breaker
        yield* open
        yield* TestClock.adjust("60 seconds")
        const probe = yield* Effect.forkChild(Effect.andThen(Effect.sleep("1 second"), broken).pipe(guard("a")), {
          startImmediately: true
        })
        yield* reset("a")
        assert.isTrue(yield* isLetThrough())
        yield* TestClock.adjust("1 second")
        yield* Fiber.await(probe)
        assert.strictEqual(yield* phase(), "closed")
      })))

    it.effect("of a deployment that was never called does nothing", () =>
      provided(Effect.gen(function*() {
        const { reset, states } = yield* Breaker.Breaker
        yield* reset("b")
        assert.deepStrictEqual(yield* states, [])
      })))
  })

  it.effect("uses other options if they are given", () =>
    Effect.gen(function*() {
      yield* calls(1, broken)
      assert.strictEqual(yield* phase(), "open")
      yield* TestClock.adjust("1 second")
      yield* calls(1, fine)
      assert.strictEqual(yield* phase(), "closed")
    }).pipe(
      Effect.provide(Breaker.layerWith({ opensAfter: 1, openFor: Duration.seconds(1), closesAfter: 1 }))
    ))
})
