import { assert, describe, it } from "@effect/vitest"
import { Clock, Effect, Exit, Fiber } from "effect"
import { TestClock } from "effect/testing"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import { endingOf } from "../../../src/services/health/Circuit.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { world } from "../../support/Routing.ts"

const messages = [{ role: "user", content: "Hello" }] as const
const broke = (id: string) => new InferenceError.EngineFailed({ deployment: id, detail: "It broke." })
const fails = (id: string) => ({ fails: { reason: broke(id) } })

/** In the order of the configuration. */
const inOrder: Partial<RoutingPolicy.Policy> = {
  selection: { ...RoutingPolicy.defaults.selection, strategy: "cost", keep: 9 }
}

const generate = Inference.use((inference) => inference.generate({ model: "a", messages }))

/** Opens the circuit of the deployment for 60 s. */
const open = (deployment: string) =>
  Effect.gen(function*() {
    const { enter } = yield* Breaker
    for (let failure = 0; failure < 5; failure++) {
      yield* Effect.scoped(enter(deployment, () => endingOf(Exit.fail(InferenceError.make(broke(deployment))))))
      yield* TestClock.adjust(1)
    }
  })

/** The result, and the time until then. */
const timed = Effect.gen(function*() {
  const begun = yield* Clock.currentTimeMillis
  const fiber = yield* Effect.forkChild(
    Effect.flatMap(
      Effect.result(generate),
      (result) => Effect.map(Clock.currentTimeMillis, (now) => ({ result, ms: now - begun }))
    )
  )
  yield* TestClock.adjust("1 minute")
  return yield* Fiber.join(fiber)
})

describe("a deployment whose circuit is open when a request is routed", () => {
  it.effect.each(["of the model", "of a fallback model"])(
    "answers after its wait if all others have failed: %s",
    (which) => {
      const isOwn = which === "of the model"
      const { jobs, layer } = world({
        policy: inOrder,
        models: isOwn ? { a: [{}, fails("a#1")] } : { a: [fails("a#0")], b: [{}] },
        ...(isOwn ? {} : { fallbacks: { a: ["b"] } })
      })
      const [held, other] = isOwn ? ["a#0", "a#1"] : ["b#0", "a#0"]
      return Effect.gen(function*() {
        yield* open(held)
        yield* TestClock.adjust("55 seconds")
        const { ms, result } = yield* timed
        assert.strictEqual(result._tag, "Success")
        assert.deepStrictEqual(jobs.map(({ deployment }) => deployment), [other, held])
        assert.isTrue(ms > 4_900 && ms <= 5_000, String(ms))
      }).pipe(Effect.provide(layer))
    }
  )

  it.effect("is not waited for longer than `maxWait`: the request fails at once with the failure of the others", () => {
    const { jobs, layer } = world({ policy: inOrder, models: { a: [{}, fails("a#1")] } })
    return Effect.gen(function*() {
      yield* open("a#0")
      yield* TestClock.adjust("45 seconds")
      const { ms, result } = yield* timed
      assert.isTrue(result._tag === "Failure" && result.failure.reason._tag === "EngineFailed")
      assert.deepStrictEqual({ ms, jobs: jobs.length }, { ms: 0, jobs: 1 })
    }).pipe(Effect.provide(layer))
  })

  it.effect("is waited for at most a second if all circuits are open", () => {
    const { jobs, layer } = world({ policy: inOrder, models: { a: [{}] } })
    return Effect.gen(function*() {
      yield* open("a#0")
      yield* TestClock.adjust(58_500)
      const refused = yield* Effect.result(generate)
      assert.isTrue(refused._tag === "Failure" && refused.failure.reason._tag === "NoDeployment")
      yield* TestClock.adjust(1_000)
      const { ms, result } = yield* timed
      assert.strictEqual(result._tag, "Success")
      assert.isTrue(ms > 400 && ms <= 500, String(ms))
      assert.lengthOf(jobs, 1)
    }).pipe(Effect.provide(layer))
  })

  it.effect("is waited for while its probes take all that it gets", () => {
    const { jobs, layer } = world({ policy: inOrder, models: { a: [{ firstMs: 900 }] } })
    return Effect.gen(function*() {
      yield* open("a#0")
      yield* TestClock.adjust("1 minute")
      const fibers: Array<Fiber.Fiber<unknown, unknown>> = []
      for (let request = 0; request < 6; request++) {
        fibers.push(yield* Effect.forkChild(generate, { startImmediately: true }))
      }
      yield* TestClock.adjust(1)
      assert.lengthOf(jobs, 4)
      yield* TestClock.adjust("3 seconds")
      for (const fiber of fibers) yield* Fiber.join(fiber)
      assert.lengthOf(jobs, 6)
    }).pipe(Effect.provide(layer))
  })

  it.effect("takes requests beside its probe if all others have failed", () => {
    const { jobs, layer } = world({ policy: inOrder, models: { a: [{ firstMs: 5_000 }, fails("a#1")] } })
    return Effect.gen(function*() {
      yield* open("a#0")
      yield* TestClock.adjust("1 minute")
      const probe = yield* Effect.forkChild(generate, { startImmediately: true })
      const other = yield* Effect.forkChild(generate, { startImmediately: true })
      yield* TestClock.adjust(1)
      assert.deepStrictEqual(jobs.map(({ deployment }) => deployment), ["a#0", "a#1", "a#0"])
      yield* TestClock.adjust("5 seconds")
      const answers = [yield* Fiber.join(probe), yield* Fiber.join(other)]
      assert.deepStrictEqual(answers.map(({ deployment }) => deployment), ["a#0", "a#0"])
    }).pipe(Effect.provide(layer))
  })
})
