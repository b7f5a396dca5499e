/** Requests that Troupe itself sends: they have a record that says so, and count in no figure of callers. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Metric } from "effect"
import { TestClock } from "effect/testing"
import { CheckOf } from "../../../src/domain/Caller.ts"
import * as Defaults from "../../../src/domain/Defaults.ts"
import { EngineCrashed } from "../../../src/domain/InferenceError.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import * as DecisionSummary from "../../../src/services/routing/DecisionSummary.ts"
import { world } from "../../support/Routing.ts"

const messages = [{ role: "user", content: "Hello" }] as const

const setting = { models: { a: [{ fails: { reason: new EngineCrashed({ deployment: "a#0", detail: "Gone." }) } }] } }

/** Sends a request to a model, which fails; returns its record, the records of groups, and the names of counted metrics. */
const sent = (model: string, check: "health" | "probe" | undefined) =>
  Effect.gen(function*() {
    const inference = yield* Inference
    const decisions = yield* DecisionLog
    const grouped: Array<string> = []
    const collection = decisions.collect!((records) => void grouped.push(...records.map(({ id }) => id)))
    const fiber = yield* Effect.forkChild(
      Effect.exit(inference.generate({ model, messages })).pipe(
        Effect.provideService(CheckOf, check)
      )
    )
    yield* TestClock.adjust("1 minute")
    yield* Fiber.join(fiber)
    collection.flush()
    const counted = (yield* Metric.snapshot).flatMap((one) =>
      one.type === "Counter" && Number(one.state.count) > 0 ? [one.id] : []
    )
    return { record: decisions.latest(1)[0]!, grouped, counted }
  }).pipe(Effect.provide(world(setting).layer), Effect.provideService(Metric.MetricRegistry, new Map()))

describe("a request that Troupe itself sends", () => {
  it.effect("has a record that says so, and counts nowhere where it fails", () =>
    Effect.gen(function*() {
      const { counted, grouped, record } = yield* sent("a", "health")
      assert.strictEqual(record.end, "failure")
      assert.strictEqual(record.check, "health")
      assert.strictEqual(DecisionSummary.of(record).check, "health")
      assert.deepStrictEqual(grouped, [])
      assert.notIncludeMembers(counted, ["llm_errors_total", "llm_requests_total", "llm_model_usage_total"])
      assert.notInclude(counted, "troupe_attempts_total")
    }))

  it.effect.each([["health", "closed"], ["probe", "open"], [undefined, "open"]] as const)(
    "counts against the circuit, unless it is a health check: %s",
    ([check, phase]) =>
      Effect.gen(function*() {
        const inference = yield* Inference
        const breaker = yield* Breaker
        for (let call = 0; call < 2 * Defaults.breaker.opensAfter; call++) {
          const fiber = yield* Effect.forkChild(
            Effect.exit(inference.generate({ model: "a", messages, route: { retries: 0 } })).pipe(
              Effect.provideService(CheckOf, check)
            )
          )
          yield* TestClock.adjust("1 second")
          yield* Fiber.join(fiber)
        }
        assert.deepStrictEqual((yield* breaker.states).map(({ phase }) => phase), [phase])
      }).pipe(Effect.provide(world(setting).layer))
  )

  it.effect("counts nowhere where it is refused", () =>
    Effect.gen(function*() {
      const { counted, grouped, record } = yield* sent("none", "probe")
      assert.isTrue(record.refused)
      assert.strictEqual(record.check, "probe")
      assert.deepStrictEqual(grouped, [])
      assert.deepStrictEqual(counted, [])
    }))

  it.effect("is told from that of a caller, which counts", () =>
    Effect.gen(function*() {
      const { counted, grouped, record } = yield* sent("a", undefined)
      assert.isUndefined(record.check)
      assert.deepStrictEqual(grouped, [record.id])
      assert.includeMembers(counted, ["llm_errors_total", "llm_requests_total", "troupe_attempts_total"])
    }))
})
