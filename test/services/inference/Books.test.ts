/** A request's and an attempt's books, whose callers leave at any moment. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber } from "effect"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as Policy from "../../../src/domain/RoutingPolicy.ts"
import type { Breaker } from "../../../src/services/health/Breaker.ts"
import * as Trials from "../../../src/services/inference/AttemptScope.ts"
import * as Operation from "../../../src/services/inference/RequestTelemetry.ts"
import * as GuardedCallbacks from "../../../src/services/observability/GuardedCallbacks.ts"
import { Metrics } from "../../../src/services/observability/Metrics.ts"
import * as DecisionLog from "../../../src/services/routing/DecisionLog.ts"
import type { Route } from "../../../src/services/routing/Route.ts"
import type { Router } from "../../../src/services/routing/Router.ts"
import { deployment } from "../../support/Deployments.ts"

const route: Route = {
  model: "a",
  deployments: [deployment()],
  fallbacks: { ordinary: [], context: [], content: [] },
  cached: false,
  decision: { model: "a", strategy: "balanced", candidates: [], eligible: 1, excluded: [] },
  policy: Policy.defaults,
  slowestFirstTokenMs: undefined
}

/** Metrics that take a turn of the scheduler, as anything may. */
const counted = () => {
  const counts = { begun: 0, ended: 0 }
  const metrics = Metrics.of({
    begin: () => Effect.andThen(Effect.sync(() => counts.begun++), Effect.yieldNow),
    end: () => Effect.sync(() => counts.ended++)
  })
  return { counts, metrics }
}

/** Interrupted after so many turns. */
const leftAfter = <A, E, R>(turns: number, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect)
    yield* Effect.repeat(Effect.yieldNow, { times: turns })
    yield* Fiber.interrupt(fiber)
  })

describe("an attempt that its circuit refuses", () => {
  it.effect("is measured and recorded to its end", () => {
    const { metrics } = counted()
    const ends: Array<readonly [string, number]> = []
    const router: Partial<Router["Service"]> = {
      measure: () => ({ granted: () => {}, content: () => {}, end: (verdict, tokens) => ends.push([verdict, tokens]) })
    }
    const refusal = InferenceError.make(new InferenceError.CircuitOpen({ deployment: "a", retryAfterMs: 1_000 }))
    const breaker: Partial<Breaker["Service"]> = { enter: () => Effect.fail(refusal), openings: () => 0 }
    return Effect.gen(function*() {
      const callbacks = yield* GuardedCallbacks.make
      const enter = Trials.make({
        breaker: breaker as Breaker["Service"],
        callbacks,
        router: router as Router["Service"],
        now: () => 0
      })
      const decisions = yield* DecisionLog.DecisionLog
      const progress = yield* Operation.begin({ metrics, decisions, callbacks }, "chat", route, {})
      assert.strictEqual(yield* Effect.flip(enter({ route, progress }, deployment(), false)), refusal)
      assert.deepStrictEqual(ends, [["left", 0]])
      assert.deepStrictEqual(progress.record.attempts, [{
        deployment: "a",
        startedMs: 0,
        tookMs: 0,
        outcome: "failed",
        error: { reason: "CircuitOpen", message: refusal.message }
      }])
    }).pipe(Effect.scoped, Effect.provide(DecisionLog.layer))
  })
})

describe("books", () => {
  for (const turns of [0, 1, 2, 3]) {
    it.effect(`of a request are settled once for each that was begun, left after ${turns} turns`, () => {
      const { counts, metrics } = counted()
      return Effect.gen(function*() {
        const decisions = yield* DecisionLog.DecisionLog
        const request = Effect.scoped(
          Operation.begin({ metrics, decisions, callbacks: yield* GuardedCallbacks.make }, "chat", route, {})
        )
        yield* leftAfter(turns, request)
        assert.strictEqual(counts.ended, counts.begun)
        for (const { end } of decisions.latest(1)) assert.isDefined(end)
      }).pipe(Effect.provide(DecisionLog.layer))
    })

    it.effect(`of an attempt are settled once for each that was begun, left after ${turns} turns`, () => {
      const { counts, metrics } = counted()
      const measured = { begun: 0, ended: 0 }
      const router: Partial<Router["Service"]> = {
        measure: () => {
          measured.begun++
          return { granted: () => {}, content: () => {}, end: () => measured.ended++ }
        }
      }
      const breaker: Partial<Breaker["Service"]> = {
        enter: (_, ending) =>
          Effect.andThen(
            Effect.yieldNow,
            Effect.as(Effect.addFinalizer(() => Effect.sync(ending)), () => {})
          ),
        openings: () => 0
      }
      return Effect.gen(function*() {
        const enter = Trials.make({
          breaker: breaker as Breaker["Service"],
          callbacks: yield* GuardedCallbacks.make,
          router: router as Router["Service"],
          now: () => 0
        })
        const attempt = Effect.flatMap(
          Operation.begin(
            { metrics, decisions: yield* DecisionLog.DecisionLog, callbacks: yield* GuardedCallbacks.make },
            "chat",
            route,
            {}
          ),
          (progress) => enter({ route, progress }, deployment(), false)
        )
        yield* leftAfter(turns, Effect.scoped(attempt))
        assert.deepStrictEqual(measured.ended, measured.begun)
        assert.strictEqual(counts.ended, counts.begun)
      }).pipe(Effect.provide(DecisionLog.layer))
    })
  }
})
