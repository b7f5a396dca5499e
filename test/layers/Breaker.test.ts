import { assert, describe, it } from "@effect/vitest"
import { Deferred, Duration, Effect, Exit, Fiber, Scope, Stream } from "effect"
import { TestClock } from "effect/testing"
import * as BreakerLayer from "../../src/layers/Breaker.ts"
import { Breaker, endingOf } from "../../src/services/Breaker.ts"
import * as InferenceError from "../../src/services/InferenceError.ts"

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
  return Breaker.use(({ enter }) => enter(deployment, () => endingOf(exit), alone)).pipe(
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
  const { states } = yield* Breaker
  return (yield* states).find((state) => state.deployment === deployment)?.phase
})

const provided = <A, E>(effect: Effect.Effect<A, E, Breaker | Scope.Scope>) =>
  effect.pipe(Effect.provide(BreakerLayer.layer))

describe("Breaker", () => {
  it.effect("opens after 5 failures, and refuses without calling, by name and wait", () =>
    provided(Effect.gen(function*() {
      yield* calls(4, broken)
      assert.strictEqual(yield* phase(), "closed")
      yield* calls(1, broken)
      yield* TestClock.adjust("20 seconds")
      assert.isFalse(yield* isLetThrough())
      const { reason } = yield* Effect.flip(fine.pipe(guard("a")))
      assert.deepStrictEqual(reason, new InferenceError.CircuitOpen({ deployment: "a", retryAfterMs: 40_000 }))
    })))

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

  it.effect("lets a call through after 60 s, and closes after 3 successes", () =>
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

  it.effect("opens again at one failure while half open, and then needs 3 successes anew", () =>
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

  it.effect("takes 5 failures again once it has closed", () =>
    provided(Effect.gen(function*() {
      yield* open
      yield* TestClock.adjust("60 seconds")
      yield* calls(3, fine)
      yield* calls(4, broken)
      assert.strictEqual(yield* phase(), "closed")
    })))

  it.effect("does not count a caller's mistakes, nor who leaves", () =>
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

  it.effect("lets one call at a time through while half open, and the next when that one is interrupted", () =>
    provided(Effect.gen(function*() {
      const { closedFor } = yield* Breaker
      yield* open
      yield* TestClock.adjust("60 seconds")
      const fiber = yield* Effect.forkChild(Effect.never.pipe(guard("a")), { startImmediately: true })
      assert.isFalse(yield* isLetThrough())
      assert.isAbove(closedFor("a", 60_000), 0)
      yield* Fiber.interrupt(fiber)
      assert.strictEqual(closedFor("a", 60_000), 0)
      assert.isTrue(yield* isLetThrough())
    })))

  it.effect("takes no notice while half open of a call from before", () =>
    provided(Effect.gen(function*() {
      const answer = yield* Deferred.make<void>()
      const early = yield* Effect.forkChild(Deferred.await(answer).pipe(guard("a")), { startImmediately: true })
      yield* open
      yield* TestClock.adjust("60 seconds")
      const probe = yield* Effect.forkChild(Effect.never.pipe(guard("a")), { startImmediately: true })
      yield* Deferred.succeed(answer, undefined)
      yield* Fiber.join(early)
      assert.isFalse(yield* isLetThrough())
      const { states } = yield* Breaker
      assert.strictEqual((yield* states)[0]!.successes, 0)
      yield* Fiber.interrupt(probe)
    })))

  describe("for calls that last as long as a scope", () => {
    it.effect("counts what its end means", () =>
      provided(Effect.gen(function*() {
        const { enter } = yield* Breaker
        for (let call = 0; call < 5; call++) {
          yield* Effect.scoped(enter("a", () => ({ verdict: "failure" })))
        }
        assert.strictEqual(yield* phase(), "open")
        const { reason } = yield* Effect.flip(enter("a", () => ({ verdict: "success" })))
        assert.strictEqual(reason._tag, "CircuitOpen")
      })))

    it.effect("counts nothing where its caller has left", () =>
      provided(Effect.gen(function*() {
        const { closedFor, enter } = yield* Breaker
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

  it.effect("tells of every change", () =>
    provided(Effect.gen(function*() {
      const { transitions } = yield* Breaker
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

  it.effect("tells that a circuit is closed again which nobody has used for long", () =>
    provided(Effect.gen(function*() {
      const { openings, transitions } = yield* Breaker
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

  it.effect("goes by other figures where it is told to", () =>
    Effect.gen(function*() {
      yield* calls(1, broken)
      assert.strictEqual(yield* phase(), "open")
      yield* TestClock.adjust("1 second")
      yield* calls(1, fine)
      assert.strictEqual(yield* phase(), "closed")
    }).pipe(
      Effect.provide(BreakerLayer.layerWith({ opensAfter: 1, openFor: Duration.seconds(1), closesAfter: 1 }))
    ))
})
