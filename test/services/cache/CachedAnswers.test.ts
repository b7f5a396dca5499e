/** The last link of a model's fallbacks: an earlier answer to the same request, where nobody else can answer. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Metric, Stream } from "effect"
import type { Event, Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { Decisions } from "../../../src/services/routing/DecisionLog.ts"
import type { Selector } from "../../../src/services/routing/Router.ts"
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

/** `a` answers once and then fails so; what stands in for it is told. */
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

const latest = Decisions.use(({ latest }) => Effect.succeed(latest(1)[0]!))

/** Runs in a world of its own; tells how many jobs its engines had. */
const played = <A, E>(
  setting: Setting,
  program: (jobs: () => number) => Effect.Effect<A, E, Inference | Decisions | Selector>
) => {
  const made = world(setting)
  return program(() => made.jobs.length).pipe(
    Effect.provide(made.layer),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
}

const usage = { promptTokens: 3, completionTokens: 2, cachedTokens: 3 }

describe("cached-responses", () => {
  it.effect("gives the earlier answer, whole and streamed, however that was given", () =>
    Effect.forEach([generate, open], (first) =>
      played(setting(), () =>
        Effect.gen(function*() {
          yield* first(hello)
          const whole = yield* generate(hello)
          assert.deepInclude(whole, {
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

  it.effect("notes the attempt, and keeps the request's books once", () =>
    played(setting(), () =>
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

  it.effect("fails as everything else has where nothing is kept, and notes that", () =>
    played(setting(), () =>
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

  it.effect("is no way around the caller's own mistake", () =>
    Effect.forEach([mistake, tooLong], (reason) =>
      played(setting(reason), () =>
        Effect.gen(function*() {
          yield* generate(hello)
          assert.strictEqual((yield* Effect.flip(generate(hello))).reason, reason)
          assert.lengthOf((yield* latest).attempts, 1)
        }))))

  it.effect("comes after the models that stand in, whose answers it keeps too", () =>
    played(setting(broken, ["b", "cached-responses"]), () =>
      Effect.gen(function*() {
        yield* generate(hello)
        assert.strictEqual((yield* generate(hello)).deployment, "b#0")
        assert.deepInclude(yield* generate(hello), { deployment: "cached-responses", text: "b stands in", attempts: 3 })
      })))

  it.effect("answers also where nobody may be asked, and asks nobody", () =>
    played(setting(), (jobs) =>
      Effect.gen(function*() {
        yield* generate(hello)
        for (let index = 0; index < 5; index++) yield* generate(hello)
        const before = jobs()
        assert.deepInclude(yield* generate(hello), { deployment: "cached-responses", attempts: 1 })
        assert.deepInclude(yield* open(hello), { deployment: "cached-responses", attempts: 1 })
        const none = yield* Effect.flip(generate({ ...hello, tenant: "two" }))
        assert.strictEqual(none.reason._tag, "NoDeployment")
        assert.include(none.message, "a#0: it failed too often")
        assert.strictEqual(jobs(), before)
      })))

  it.effect("keeps nothing of an answer that breaks off, or that nobody reads to its end", () => {
    const cut: Setting = {
      models: { a: [{ pieces: ["Hi ", "there"], fails: { after: 1, reason: broken } }] },
      fallbacks: { a: ["cached-responses"] }
    }
    return played(cut, () =>
      Effect.gen(function*() {
        assert.strictEqual((yield* Effect.flip(open(hello))).reason, broken)
        assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
      })).pipe(Effect.andThen(played(setting(), () =>
        Effect.gen(function*() {
          const inference = yield* Inference
          yield* Effect.scoped(
            Effect.flatMap(inference.open(hello), ({ events }) => Stream.runDrain(Stream.take(events, 1)))
          )
          assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
        }))))
  })

  it.effect("is not there for models without the link, unless a request asks for it", () =>
    played(setting(broken, []), () =>
      Effect.gen(function*() {
        const wishing: Request = { ...hello, route: { fallbacks: ["cached-responses"] } }
        yield* generate(hello)
        assert.strictEqual((yield* Effect.flip(generate(hello))).reason, broken)
        assert.strictEqual((yield* Effect.flip(generate(wishing))).reason, broken)
        const misplaced: Request = { ...hello, route: { fallbacks: ["cached-responses", "b"] } }
        const refused = (yield* Effect.flip(generate(misplaced))).reason
        assert.deepInclude(refused, { _tag: "InvalidRequest", path: "route.fallbacks[0]" })
      })))
})
