/** Callers that disconnect and consumers that fail: circuits, records, metrics, spans, and the consumer's result. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Data, Effect, Exit, Fiber, Metric, Scope, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import { isCancellation } from "../../../src/domain/FailureClass.ts"
import type { OpenedAnswer } from "../../../src/domain/Inference.ts"
import type { InferenceError } from "../../../src/domain/InferenceError.ts"
import { EngineCrashed } from "../../../src/domain/InferenceError.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import { endingOf } from "../../../src/services/health/Circuit.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import { world } from "../../support/Routing.ts"

const messages = [{ role: "user", content: "Hello" }] as const

class Mine extends Data.TaggedError("Mine")<{}> {}
const mine = new Mine()
const defect = new Error("A defect of the consumer.")

/** As Effect's HTTP server ends a request whose caller hangs up. */
const interruptAndDie = Cause.combine(Cause.interrupt(1), Cause.die(new Error("The client has gone.")))

type Effects<A, E> = Effect.Effect<A, E, Inference | Scope.Scope>

const open = Inference.use((inference) => inference.open({ model: "a", messages }))

const read = (consume: (events: OpenedAnswer["events"]) => Effects<unknown, InferenceError | Mine>) =>
  Effect.flatMap(open, ({ events }) => consume(events))

const drained = read(Stream.runDrain)
const streamed = Inference.use((inference) => Stream.runDrain(inference.stream({ model: "a", messages })))
const buffered = Inference.use((inference) => inference.generate({ model: "a", messages }))
const embedded = Inference.use((inference) => inference.embed({ model: "a", inputs: ["Hello"] }))

/** What is cut off, and when, ms. */
const operations: Readonly<Record<string, readonly [atMs: number, operation: Effects<unknown, unknown>]>> = {
  "before the first content": [50, drained],
  "before the first content of a plain stream": [50, streamed],
  "in the middle of a stream": [150, drained],
  "in the middle of a plain stream": [150, streamed],
  "in a buffered answer": [150, buffered],
  "in embeddings": [50, embedded]
}

/** Runs for so long and is interrupted; then its scope is closed with the cause. */
const leave = (atMs: number, operation: Effects<unknown, unknown>, cause: Cause.Cause<unknown>) =>
  Effect.gen(function*() {
    const scope = yield* Scope.make()
    const fiber = yield* Effect.forkChild(Scope.provide(operation, scope))
    yield* TestClock.adjust(atMs)
    yield* Fiber.interrupt(fiber)
    yield* Scope.close(scope, Exit.failCause(cause))
  })

/** What the consumer does at the first event, and how its own effect ends. */
const consumers: Readonly<Record<string, readonly [Effect.Effect<void, Mine>, Exit.Exit<void, Mine>]>> = {
  "fails by its own error": [Effect.fail(mine), Exit.fail(mine)],
  "dies": [Effect.die(defect), Exit.die(defect)]
}

const isError = ({ id }: Metric.Metric.Snapshot) => id === "llm_errors_total"

const setting = { models: { a: [{ firstMs: 100, gapMs: 100, pieces: ["x", "y", "z"] }] } }

/** Runs five times over fresh books, and checks that nothing counts against the deployment. */
const uncounted = (end: "interruption" | "failure", once: Effect.Effect<void, unknown, Inference>) => {
  const spans: Array<Tracer.NativeSpan> = []
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      spans.push(span)
      return span
    }
  })
  return Effect.gen(function*() {
    for (let call = 0; call < 5; call++) yield* once
    const { states } = yield* Breaker
    assert.deepStrictEqual((yield* states).map(({ phase }) => phase), ["closed"])
    const records = yield* DecisionLog.use(({ latest }) => Effect.succeed(latest(5)))
    assert.lengthOf(records, 5)
    for (const record of records) {
      assert.strictEqual(record.end, end)
      assert.deepStrictEqual(record.attempts.map(({ error, outcome }) => [outcome, error]), [["left", undefined]])
    }
    const errors = (yield* Metric.snapshot).filter(isError)
    assert.isTrue(errors.every((one) => one.type === "Counter" && one.state.count === 0))
    const requests = spans.filter(({ attributes }) => attributes.get("troupe.component") === "request")
    assert.lengthOf(requests, 5)
    for (const { status } of requests) {
      assert.isTrue(
        status._tag === "Ended" && Exit.isFailure(status.exit) && Cause.hasInterruptsOnly(status.exit.cause)
      )
    }
    const next = yield* Effect.forkChild(Effect.scoped(drained))
    yield* TestClock.adjust("1 second")
    yield* Fiber.join(next)
  }).pipe(
    Effect.provide(world(setting).layer),
    Effect.provideService(Metric.MetricRegistry, new Map()),
    Effect.provideService(Tracer.Tracer, tracer)
  )
}

describe("a caller that disconnects does not count against a deployment", () => {
  for (const [phase, [atMs, operation]] of Object.entries(operations)) {
    for (const [how, cause] of [["interrupted", Cause.interrupt(1)], ["by a defect too", interruptAndDie]] as const) {
      it.effect(`${phase}, ${how}`, () => uncounted("interruption", leave(atMs, operation, cause)))
    }
  }

  it.effect("when it stops reading", () =>
    uncounted(
      "interruption",
      Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(
          Effect.scoped(read((events) => Stream.runDrain(Stream.take(events, 1))))
        )
        yield* TestClock.adjust(150)
        yield* Fiber.join(fiber)
      })
    ))

  it.effect("between two attempts", () => {
    const { layer } = world({
      policy: { retries: 1, backoff: { initialMs: 1_000, factor: 1, capMs: 1_000 } },
      models: { a: [{ fails: { reason: new EngineCrashed({ deployment: "a#0", detail: "SIGSEGV" }) } }] }
    })
    return Effect.gen(function*() {
      yield* leave(500, drained, interruptAndDie)
      const [record] = yield* DecisionLog.use(({ latest }) => Effect.succeed(latest(1)))
      assert.strictEqual(record!.end, "interruption")
      assert.deepStrictEqual(record!.attempts.map(({ outcome }) => outcome), ["failed"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("during two attempts, of which one was cancelled as the slower", () => {
    const policy = { hedge: { afterMs: 50, share: 1 }, selection: { ...RoutingPolicy.defaults.selection, keep: 9 } }
    const { layer } = world({ policy, models: { a: [{ firstMs: 500 }, { firstMs: 500 }] } })
    return Effect.gen(function*() {
      for (let call = 0; call < 5; call++) yield* leave(300, drained, interruptAndDie)
      const { states } = yield* Breaker
      assert.deepStrictEqual((yield* states).map(({ phase }) => phase), ["closed", "closed"])
      const records = yield* DecisionLog.use(({ latest }) => Effect.succeed(latest(5)))
      for (const { attempts, end } of records) {
        assert.strictEqual(end, "interruption")
        assert.deepStrictEqual(attempts.map(({ outcome }) => outcome), ["left", "left"])
      }
    }).pipe(Effect.provide(layer))
  })
})

describe("a consumer's own failure keeps its type and counts against nothing", () => {
  for (const [how, [consume, expected]] of Object.entries(consumers)) {
    const uses: Readonly<Record<string, Effects<void, InferenceError | Mine>>> = {
      stream: Inference.use((inference) =>
        Stream.runForEach(inference.stream({ model: "a", messages }), () => consume)
      ),
      "open, reading": Effect.asVoid(read(Stream.runForEach(() => consume))),
      "open, before it reads": Effect.asVoid(read(() => consume))
    }
    for (const [use, effect] of Object.entries(uses)) {
      it.effect(`in ${use}: it ${how}`, () =>
        uncounted(
          "interruption",
          Effect.gen(function*() {
            const fiber = yield* Effect.forkChild(Effect.exit(Effect.scoped(effect)))
            yield* TestClock.adjust(150)
            assert.deepStrictEqual(yield* Fiber.join(fiber), expected)
          })
        ))
    }
  }
})

describe("isCancellation", () => {
  it("is true for any cause that has an interruption", () => {
    const error = Cause.fail("x")
    const die = Cause.die(defect)
    for (const cause of [Cause.interrupt(1), interruptAndDie, Cause.combine(error, Cause.interrupt(1))]) {
      assert.isTrue(isCancellation(cause))
      assert.deepStrictEqual(endingOf(Exit.failCause(cause as Cause.Cause<never>)), { verdict: "left" })
    }
    for (const cause of [error, die, Cause.combine(error, die)]) assert.isFalse(isCancellation(cause))
  })
})
