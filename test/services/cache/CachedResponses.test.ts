/** Cached responses: what is kept, and how the fallback returns an earlier answer. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Metric, Stream } from "effect"
import type { Event, Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as CachedResponses from "../../../src/services/cache/CachedResponses.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import type { Router } from "../../../src/services/routing/Router.ts"
import type { Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

const broken = new InferenceError.EngineFailed({ deployment: "a#0", detail: "It is broken." })
const mistake = new InferenceError.InvalidRequest({ path: "stop", detail: "Expected shorter ones" })
const tooLong = new InferenceError.ContextLengthExceeded({
  model: "a",
  promptTokens: 5_000,
  contextWindow: 4_096
})

const hello: Request = { model: "a", messages: [{ role: "user", content: "Hello" }], tenant: "one" }

/** `a` answers once and then fails with this reason. */
const setting = (reason: InferenceError.Reason = broken, fallbacks = ["cached-responses"]): Setting => ({
  models: {
    a: [{ pieces: ["Hi ", "there"], fails: { reason }, successes: 1 }],
    b: [{ pieces: ["b stands in"], fails: { reason }, successes: 1 }]
  },
  fallbacks: { a: fallbacks }
})

const generate = (request: Request) => Inference.use((inference) => inference.generate(request))

const open = Effect.fnUntraced(function*(request: Request) {
  const inference = yield* Inference
  const { events, ...by } = yield* inference.open(request)
  return { ...by, events: yield* Stream.runCollect(events) }
}, Effect.scoped)

const textOf = (events: ReadonlyArray<Event>) => events.map((event) => event.type === "text" ? event.text : "").join("")

const latest = DecisionLog.use(({ latest }) => Effect.succeed(latest(1)[0]!))

/** Runs the program with its own services and the number of jobs that the engines received. */
const run = <A, E>(
  setting: Setting,
  program: (jobs: () => number) => Effect.Effect<A, E, Inference | DecisionLog | Router>
) => {
  const made = world(setting)
  return program(() => made.jobs.length).pipe(
    Effect.provide(made.layer),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
}

const usage = { promptTokens: 3, completionTokens: 2, cachedTokens: 3 }

describe("cached-responses", () => {
  it("is only the last entry of the fallbacks", () => {
    const indexes = [[], ["a"], ["a", "cached-responses"], ["cached-responses", "a"], [
      "cached-responses",
      "cached-responses"
    ]].map(CachedResponses.misplaced)
    assert.deepStrictEqual(indexes, [-1, -1, -1, 0, 0])
  })

  it.effect("returns the earlier answer, buffered and streamed", () =>
    Effect.forEach([generate, open], (first) =>
      run(setting(), () =>
        Effect.gen(function*() {
          yield* first(hello)
          const buffered = yield* generate(hello)
          assert.deepInclude(buffered, {
            text: "Hi there",
            finishReason: "stop",
            usage,
            deployment: "cached-responses",
            attempts: 2
          })
          const { events, ...by } = yield* open({ ...hello, seed: 7 })
          assert.deepInclude(by, { deployment: "cached-responses", attempts: 2 })
          assert.strictEqual(textOf(events), "Hi there")
          assert.deepStrictEqual(events.at(-1), { type: "finish", reason: "stop", usage })
        }))))

  it.effect("records the attempt, and counts the request once", () =>
    run(setting(), () =>
      Effect.gen(function*() {
        yield* generate(hello)
        yield* open(hello)
        const record = yield* latest
        assert.deepInclude(record, { answeredBy: "cached-responses", end: "success" })
        assert.deepStrictEqual(record.fallbacks.ordinary, ["cached-responses"])
        assert.deepStrictEqual(record.attempts.map(({ deployment, outcome }) => [deployment, outcome]), [
          ["a#0", "failed"],
          ["cached-responses", "answered"]
        ])
        const metrics = yield* Metric.snapshot
        const stateOf = (name: string) =>
          metrics.find(({ attributes, id }) => id === name && attributes?.["model"] === "a")?.state
        assert.deepInclude(stateOf("llm_requests_total"), { count: 2 })
        assert.deepInclude(stateOf("llm_tokens_generated"), { count: 2, sum: 2 })
        assert.isUndefined(stateOf("llm_errors_total"))
      })))

  it.effect("fails with the last error if no answer is kept, and records the attempt", () =>
    run(setting(), () =>
      Effect.gen(function*() {
        yield* generate(hello)
        const others: ReadonlyArray<Request> = [
          { ...hello, tenant: "two" },
          { ...hello, temperature: 0 }
        ]
        for (const other of others) {
          assert.strictEqual((yield* Effect.flip(generate(other))).reason, broken)
          assert.strictEqual((yield* Effect.flip(open(other))).reason, broken)
        }
        const record = yield* latest
        assert.strictEqual(record.end, "failure")
        assert.deepInclude(record.attempts.at(-1), { deployment: "cached-responses", outcome: "failed" })
        assert.strictEqual(record.attempts.at(-1)?.error?.reason, "NotCached")
      })))

  it.effect("does not replace an error that the caller caused", () =>
    Effect.forEach([mistake, tooLong], (reason) =>
      run(setting(reason), () =>
        Effect.gen(function*() {
          yield* generate(hello)
          assert.strictEqual((yield* Effect.flip(generate(hello))).reason, reason)
          assert.lengthOf((yield* latest).attempts, 1)
        }))))

  it.effect("follows the fallback models, and keeps their answers", () =>
    run(setting(broken, ["b", "cached-responses"]), () =>
      Effect.gen(function*() {
        yield* generate(hello)
        assert.strictEqual((yield* generate(hello)).deployment, "b#0")
        assert.deepInclude(yield* generate(hello), { deployment: "cached-responses", text: "b stands in", attempts: 3 })
      })))

  it.effect("answers without a call when every circuit is open", () =>
    run(setting(), (jobs) =>
      Effect.gen(function*() {
        yield* generate(hello)
        for (let index = 0; index < 5; index++) yield* generate(hello)
        const before = jobs()
        assert.deepInclude(yield* generate(hello), { deployment: "cached-responses", attempts: 1 })
        assert.deepInclude(yield* open(hello), { deployment: "cached-responses", attempts: 1 })
        const none = yield* Effect.flip(generate({ ...hello, tenant: "two" }))
        assert.strictEqual(none.reason._tag, "NoDeployment")
        assert.include(none.message, "a#0: its circuit is open after")
        assert.strictEqual(jobs(), before)
      })))

  it.effect("does not keep an answer that breaks off or is not read to its end", () => {
    const cut: Setting = {
      models: { a: [{ pieces: ["Hi ", "there"], fails: { after: 1, reason: broken } }] },
      fallbacks: { a: ["cached-responses"] }
    }
    return run(cut, () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* Effect.flip(open(hello))).reason, broken)
        assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
      })).pipe(Effect.andThen(run(setting(), () =>
        Effect.gen(function*() {
          const inference = yield* Inference
          yield* Effect.scoped(
            Effect.flatMap(inference.open(hello), ({ events }) => Stream.runDrain(Stream.take(events, 1)))
          )
          assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
        }))))
  })

  it.effect("is off for models without the entry, and a request can add it", () =>
    run(setting(broken, []), () =>
      Effect.gen(function*() {
        const optingIn: Request = { ...hello, route: { fallbacks: ["cached-responses"] } }
        yield* generate(hello)
        assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
        assert.strictEqual((yield* Effect.flip(generate(optingIn))).reason, broken)
        const misplaced: Request = { ...hello, route: { fallbacks: ["cached-responses", "b"] } }
        const refused = (yield* Effect.flip(generate(misplaced))).reason
        assert.deepInclude(refused, { _tag: "InvalidRequest", path: "route.fallbacks[0]" })
      })))
})
