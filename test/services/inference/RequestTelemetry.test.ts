/** Telemetry and attempt scopes, whose callers disconnect at any moment. */
import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { free } from "../../../src/services/admission/Admission.ts"
import type { Breaker } from "../../../src/services/health/Breaker.ts"
import * as AttemptScope from "../../../src/services/inference/AttemptScope.ts"
import { ReasoningMakers } from "../../../src/services/inference/ReasoningMakers.ts"
import * as RequestTelemetry from "../../../src/services/inference/RequestTelemetry.ts"
import type { Models } from "../../../src/services/models/Models.ts"
import * as GuardedCallbacks from "../../../src/services/observability/GuardedCallbacks.ts"
import type { Outcome } from "../../../src/services/observability/Metrics.ts"
import { Metrics } from "../../../src/services/observability/Metrics.ts"
import * as DecisionLog from "../../../src/services/routing/DecisionLog.ts"
import type { Route } from "../../../src/services/routing/Route.ts"
import type { Router } from "../../../src/services/routing/Router.ts"
import { deployment } from "../../support/Deployments.ts"

const start = { type: "start", attempt: 1, deployment: "a", afterMs: 0, hedge: false, lowPriority: false } as const

const route: Route = {
  model: "a",
  deployments: [deployment()],
  fallbacks: { ordinary: [], context: [], content: [] },
  cached: false,
  decision: { model: "a", strategy: "balanced", candidates: [], eligible: 1, excluded: [] },
  policy: RoutingPolicy.defaults,
  slowestFirstTokenMs: undefined
}

/** Metrics that yield to the scheduler. */
const counted = () => {
  const counts = { begun: 0, ended: 0 }
  const metrics = Metrics.of({
    begin: () => Effect.andThen(Effect.sync(() => counts.begun++), Effect.yieldNow),
    end: () => Effect.sync(() => counts.ended++)
  })
  return { counts, metrics }
}

/** A request whose scope completes it. */
const begun = (metrics: Metrics["Service"]) =>
  Effect.gen(function*() {
    const parts = {
      metrics,
      decisions: yield* DecisionLog.DecisionLog,
      callbacks: yield* GuardedCallbacks.make,
      clock: yield* Clock.Clock
    }
    return yield* Effect.acquireRelease(
      Effect.withFiber((fiber) =>
        Effect.sync(() => RequestTelemetry.begin(parts, fiber, "chat", route, undefined, free, 0, {}))
      ),
      (state) => Effect.sync(() => RequestTelemetry.complete(parts, "chat", state))
    )
  })

describe("the metrics of a request", () => {
  it.effect("have its time before the first attempt and after the last one, and to the first token of the one that answered", () => {
    const ends: Array<Outcome> = []
    const metrics: Metrics["Service"] = { begin: () => {}, end: (outcome) => void ends.push(outcome) }
    return Effect.scoped(Effect.gen(function*() {
      const state = yield* begun(metrics)
      state.attemptedAt = 2
      yield* TestClock.adjust("100 millis")
      state.leftAt = 97
      const attempt = (deployment: string, startedMs: number) => {
        DecisionLog.addAttempt(state.record, deployment, startedMs).firstTokenMs = 10
      }
      attempt("a", 2)
      attempt("b", 40)
      state.record.answeredBy = "b"
    })).pipe(
      Effect.andThen(Effect.sync(() => {
        assert.closeTo(ends[0]?.overheadSeconds ?? 0, 0.005, 1e-9)
        assert.strictEqual(ends[0]?.firstTokenSeconds, 0.05)
      })),
      Effect.provide(DecisionLog.layer)
    )
  })
})

/** Interrupts after this number of scheduler turns. */
const interruptAfter = <A, E, R>(turns: number, effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function*() {
    const fiber = yield* Effect.forkChild(effect)
    yield* Effect.repeat(Effect.yieldNow, { times: turns })
    yield* Fiber.interrupt(fiber)
  })

describe("an attempt that its circuit rejects", () => {
  it.effect("is measured and recorded to its end", () => {
    const { metrics } = counted()
    const ends: Array<readonly [string, number]> = []
    const router: Partial<Router["Service"]> = {
      measure: () => ({ granted: () => {}, content: () => {}, end: (verdict, tokens) => ends.push([verdict, tokens]) })
    }
    const rejection = InferenceError.make(new InferenceError.CircuitOpen({ deployment: "a", retryAfterMs: 1_000 }))
    const breaker: Partial<Breaker["Service"]> = { enter: () => Effect.fail(rejection), openings: () => 0 }
    return Effect.gen(function*() {
      const callbacks = yield* GuardedCallbacks.make
      const open = AttemptScope.make({
        breaker: breaker as Breaker["Service"],
        callbacks,
        makers: new ReasoningMakers(),
        metrics,
        models: {} as Models["Service"],
        router: router as Router["Service"],
        now: () => 0,
        precise: () => 0,
        watch: () => {
          throw new Error("It is not watched.")
        }
      })
      const state = yield* begun(metrics)
      assert.strictEqual(
        yield* Effect.flip(open({ request: {}, route, state }, deployment(), start, undefined)),
        rejection
      )
      assert.deepStrictEqual(ends, [["left", 0]])
      assert.deepStrictEqual(DecisionLog.recordOf(state.record).attempts, [{
        deployment: "a",
        startedMs: 0,
        tookMs: 0,
        outcome: "failed",
        error: { reason: "CircuitOpen", message: rejection.message }
      }])
    }).pipe(Effect.scoped, Effect.provide(DecisionLog.layer))
  })
})

describe("telemetry", () => {
  for (const turns of [0, 1, 2, 3]) {
    it.effect(`completes each request once, if the caller disconnects after ${turns} turns`, () => {
      const { counts, metrics } = counted()
      return Effect.gen(function*() {
        const decisions = yield* DecisionLog.DecisionLog
        yield* interruptAfter(turns, Effect.scoped(begun(metrics)))
        assert.strictEqual(counts.ended, counts.begun)
        for (const { end } of decisions.latest(1)) assert.isDefined(end)
      }).pipe(Effect.provide(DecisionLog.layer))
    })

    it.effect(`completes each attempt once, if the caller disconnects after ${turns} turns`, () => {
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
        const callbacks = yield* GuardedCallbacks.make
        const open = AttemptScope.make({
          breaker: breaker as Breaker["Service"],
          callbacks,
          makers: new ReasoningMakers(),
          metrics,
          models: {} as Models["Service"],
          router: router as Router["Service"],
          now: () => 0,
          precise: () => 0,
          watch: () => {
            throw new Error("It is not watched.")
          }
        })
        const attempt = Effect.flatMap(
          begun(metrics),
          (state) => open({ request: {}, route, state }, deployment(), start, undefined)
        )
        yield* interruptAfter(turns, Effect.scoped(attempt))
        yield* Effect.yieldNow
        assert.deepStrictEqual(measured.ended, measured.begun)
        assert.strictEqual(counts.ended, counts.begun)
      }).pipe(Effect.provide(DecisionLog.layer))
    })
  }
})
