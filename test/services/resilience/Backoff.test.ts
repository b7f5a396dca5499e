/** The backoff schedule: its delays, and how the attempts of a request use it. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Random, Schedule } from "effect"
import { TestClock } from "effect/testing"
import * as fc from "fast-check"
import { draw } from "../../../src/domain/Hashing.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Policy } from "../../../src/domain/RoutingPolicy.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import * as Backoff from "../../../src/services/resilience/Backoff.ts"
import type { Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

const reason = new InferenceError.UpstreamFailed({ deployment: "a", kind: "network", detail: "It broke." })

/** A source of random numbers that a test repeats. */
const randomOf = (seed: number) => {
  let draws = 0
  const nextDoubleUnsafe = () => draw(seed, draws++)
  return { nextDoubleUnsafe, nextIntUnsafe: () => Math.floor(nextDoubleUnsafe() * Number.MAX_SAFE_INTEGER) }
}

const delaysOf = (policy: Policy, count: number, seed: number): ReadonlyArray<number | undefined> => {
  const delays = Backoff.make(Backoff.fromPolicy, policy)
  return Effect.runSync(
    Effect.replicateEffect(delays.next("a", reason, 0), count).pipe(
      Effect.provideService(Random.Random, randomOf(seed))
    )
  )
}

/** The delay before the `retry`th attempt after the first, by the formula in the documentation. */
const delayOf = ({ backoff: { capMs, factor, initialMs } }: Policy, retry: number, random: number): number => {
  const delay = Math.min(capMs, initialMs * factor ** (retry - 1))
  return Math.round(delay * (Backoff.jitter.least + (Backoff.jitter.most - Backoff.jitter.least) * random))
}

const policies = fc.record({
  initialMs: fc.integer({ min: 1, max: 60_000 }),
  factor: fc.double({ min: 1, max: 10, noNaN: true }),
  capMs: fc.integer({ min: 1, max: 600_000 })
}).map((backoff): Policy => ({ ...RoutingPolicy.defaults, backoff }))

describe("the schedule of a policy", () => {
  it("has the delays of the exponential formula with jitter, capped", () => {
    fc.assert(fc.property(policies, fc.nat(), (policy, seed) => {
      const random = randomOf(seed)
      const delays = delaysOf(policy, 8, seed)
      for (const [index, delay] of delays.entries()) {
        assert.approximately(delay!, delayOf(policy, index + 1, random.nextDoubleUnsafe()), 1)
      }
    }))
  })

  it("stays within the jitter of the capped delay, however often it is stepped", () => {
    fc.assert(fc.property(policies, fc.nat(), (policy, seed) => {
      const { capMs, initialMs } = policy.backoff
      for (const delay of delaysOf(policy, 50, seed)) {
        assert.isAtLeast(delay!, Math.floor(Math.min(capMs, initialMs) * Backoff.jitter.least))
        assert.isAtMost(delay!, Math.ceil(capMs * Backoff.jitter.most))
      }
    }))
  })

  it.effect("is separate for each deployment, and starts again after a reset", () =>
    Effect.gen(function*() {
      const exact = () => Schedule.exponential(100, 2)
      const { next, reset } = Backoff.make(exact, RoutingPolicy.defaults)
      const step = (deployment: string) => next(deployment, reason, 0)
      assert.deepStrictEqual([yield* step("a"), yield* step("a"), yield* step("b")], [100, 200, 100])
      reset("a")
      assert.deepStrictEqual([yield* step("a"), yield* step("b")], [100, 200])
    }))

  it.effect("has no delay after its end", () =>
    Effect.gen(function*() {
      const { next } = Backoff.make(() => Schedule.recurs(1), RoutingPolicy.defaults)
      const step = next("a", reason, 0)
      assert.deepStrictEqual([yield* step, yield* step], [0, undefined])
    }))
})

describe("a program's own schedule", () => {
  const ask = Inference.use((inference) =>
    inference.generate({ model: "a", messages: [{ role: "user", content: "Hello" }] })
  )

  /** One deployment that fails twice and then answers. */
  const setting = (backoff?: Backoff.MakeSchedule): Setting => ({
    models: { a: [{ pieces: ["Hello"], fails: { reason }, failures: 2 }] },
    policy: { retries: 2, maxWaitMs: 86_400_000 },
    ...(backoff === undefined ? {} : { backoff })
  })

  it.effect("replaces the policy's delays", () => {
    const { jobs, layer } = world(setting(() => Schedule.spaced("1 hour")))
    return Effect.gen(function*() {
      const answer = yield* Effect.forkChild(ask)
      yield* TestClock.adjust("59 minutes")
      assert.lengthOf(jobs, 1)
      yield* TestClock.adjust("1 minute")
      assert.lengthOf(jobs, 2)
      yield* TestClock.adjust("1 hour")
      assert.strictEqual((yield* Fiber.join(answer)).attempts, 3)
    }).pipe(Effect.provide(layer))
  })

  it.effect("ends the retries at a deployment where it ends", () => {
    const { jobs, layer } = world(setting(() => Schedule.recurs(0)))
    return Effect.gen(function*() {
      assert.strictEqual((yield* Effect.flip(ask)).reason, reason)
      assert.lengthOf(jobs, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("fails no request if it throws", () => {
    const broken = () => {
      throw new Error("A defect of the program.")
    }
    const { layer } = world(setting(broken))
    return Effect.gen(function*() {
      assert.strictEqual((yield* Effect.flip(ask)).reason, reason)
    }).pipe(Effect.provide(Layer.fresh(layer)))
  })
})
