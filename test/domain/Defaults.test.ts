import { assert, describe, it } from "@effect/vitest"
import { Clock, Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as Defaults from "../../src/domain/Defaults.ts"
import * as InferenceError from "../../src/domain/InferenceError.ts"

/** When an engine that ends with the error at once is started, ms. */
const startsOf = (restarts: Partial<Defaults.EngineRestarts>, reason: InferenceError.Reason) =>
  Effect.gen(function*() {
    const starts: Array<number> = []
    const start = Effect.flatMap(Clock.currentTimeMillis, (now) => {
      starts.push(now)
      return InferenceError.make(reason)
    })
    const schedule = Defaults.restart({ ...Defaults.engineRestarts, ...restarts })
    const fiber = yield* Effect.forkChild(Effect.exit(Effect.retry(start, schedule)))
    yield* TestClock.adjust("1 hour")
    yield* Fiber.join(fiber)
    return starts
  })

const crashed = new InferenceError.EngineCrashed({ deployment: "a", detail: "Gone." })

describe("the restarts of an engine", () => {
  it.effect("come after times that double, up to the longest and their number", () =>
    Effect.gen(function*() {
      const settings = { times: 4, first: Duration.millis(50), longest: Duration.millis(150) }
      assert.deepStrictEqual(yield* startsOf(settings, crashed), [0, 50, 150, 300, 450])
    }))

  it.effect("are none where their number is 0", () =>
    Effect.gen(function*() {
      assert.deepStrictEqual(yield* startsOf({ times: 0 }, crashed), [0])
    }))

  it.effect("are none where it did not crash", () =>
    Effect.gen(function*() {
      const failed = new InferenceError.EngineFailed({ deployment: "a", detail: "No file." })
      assert.deepStrictEqual(yield* startsOf({}, failed), [0])
    }))
})
