/** Requests whose limits and budgets are counted elsewhere: the time until they are admitted or refused is a part of theirs. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Tracer } from "effect"
import { TestClock } from "effect/testing"
import type { Reason } from "../../../src/domain/InferenceError.ts"
import { Overloaded } from "../../../src/domain/InferenceError.ts"
import type { Ticket } from "../../../src/services/admission/Admission.ts"
import { Admission, free, Later } from "../../../src/services/admission/Admission.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import type { Entry } from "../../../src/services/observability/RequestLog.ts"
import { messageOf, RequestLog } from "../../../src/services/observability/RequestLog.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import { world } from "../../support/Routing.ts"

const messages = [{ role: "user", content: "Hello" }] as const

/** The record of a request that waits for 1 s for this outcome, and the ms of its spans by name. */
const waited = Effect.fnUntraced(function*(outcome: Ticket | Reason) {
  const spans: Array<Tracer.NativeSpan> = []
  const lines: Array<Entry> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  const admit = () => new Later(Effect.as(Effect.sleep("1 second"), outcome))
  const { layer } = world({ models: { a: [{ firstMs: 100 }] } })
  const record = yield* Effect.gen(function*() {
    const inference = yield* Inference
    const fiber = yield* Effect.forkChild(Effect.exit(inference.generate({ model: "a", messages })))
    yield* TestClock.adjust("5 seconds")
    yield* Fiber.join(fiber)
    return (yield* DecisionLog).latest(1)[0]!
  }).pipe(
    Effect.provide(Layer.provide(layer, Layer.succeed(Admission, { isForAll: true, admit }))),
    Effect.provideService(Tracer.Tracer, tracer),
    Effect.provideService(RequestLog, (entry) => void lines.push(entry))
  )
  const times = spans.map(({ name, startTime, status }) =>
    [name, status._tag === "Ended" ? Number(status.endTime - startTime) / 1e6 : undefined] as const
  )
  return { lines, record, times: new Map(times) }
})

describe("the time until a request is admitted", () => {
  it.effect("is a part of its own of the request's time", () =>
    Effect.gen(function*() {
      const { record, times } = yield* waited(free)
      assert.strictEqual(record.at, 0)
      assert.strictEqual(record.admissionMs, 1_000)
      assert.strictEqual(record.tookMs, 1_100)
      assert.strictEqual(record.attempts[0]?.startedMs, 1_000)
      assert.strictEqual(times.get("wait for limits and budgets"), 1_000)
      assert.strictEqual(times.get("select balanced"), 0)
    }))

  it.effect("is that of a request which is refused", () =>
    Effect.gen(function*() {
      const { lines, record, times } = yield* waited(new Overloaded({ retryAfterMs: 1 }))
      assert.isTrue(record.refused)
      assert.deepStrictEqual(lines.map(({ decision, error, ms }) => [decision, error, ms]), [[
        record.id,
        "Overloaded",
        1_000
      ]])
      assert.deepStrictEqual(lines.map(messageOf), ["Request refused."])
      assert.strictEqual(record.at, 0)
      assert.strictEqual(record.admissionMs, 1_000)
      assert.strictEqual(record.tookMs, 1_000)
      assert.strictEqual(times.get("wait for limits and budgets"), 1_000)
    }))
})
