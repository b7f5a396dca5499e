import { assert, describe, it } from "@effect/vitest"
import {
  Cause,
  Deferred,
  Effect,
  Exit,
  Fiber,
  Layer,
  Metric,
  Option,
  Result,
  Stream,
  SubscriptionRef,
  Tracer
} from "effect"
import { TestClock } from "effect/testing"
import type { Generation } from "../../../src/domain/Generation.ts"
import type { Event, Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import * as ResponseCacheLayer from "../../../src/layers/cache/ResponseCache.ts"
import * as Breaker from "../../../src/services/health/Breaker.ts"
import * as InferenceLayer from "../../../src/services/inference/Inference.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import type { Level } from "../../../src/services/models/MemoryPressure.ts"
import { Pressure, sheds } from "../../../src/services/models/MemoryPressure.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import * as Metrics from "../../../src/services/observability/Metrics.ts"
import * as Backoff from "../../../src/services/resilience/Backoff.ts"
import * as DecisionLog from "../../../src/services/routing/DecisionLog.ts"
import { Router } from "../../../src/services/routing/Router.ts"
import * as Deployments from "../../support/Deployments.ts"

const deployment = Deployments.deployment("fake/a#0")

const request: Request = { model: "fake/a", messages: [{ role: "user", content: "Hello" }] }

const text = (text: string, tokens = 1): Event => ({ type: "text", text, tokens })
const finish = (completionTokens: number, reason: "stop" | "length" = "stop"): Event => ({
  type: "finish",
  reason,
  usage: { promptTokens: 7, completionTokens, cachedTokens: 0 }
})

const failed = InferenceError.make(
  new InferenceError.EngineFailed({ deployment: "fake/a#0", detail: "Out of memory." })
)
const notFound = InferenceError.make(new InferenceError.ModelNotFound({ model: "fake/a", available: [] }))

interface Stage {
  readonly generations: Array<Generation>
  readonly spans: Array<Tracer.NativeSpan>
  /** Engines that are borrowed now. */
  borrowed: number
  /** First tokens whose time was measured. */
  firstTokens: number
  /** Engine streams that have begun and have ended. */
  begun: number
  ended: number
  readonly layer: Layer.Layer<Inference>
  /** Runs with the metrics and the spans of this stage alone. */
  readonly run: <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, Exclude<R, Inference>>
}

interface Behaviour {
  /** Default normal. */
  readonly pressure?: Level
  /** What the policy has otherwise than by default. */
  readonly policy?: Partial<RoutingPolicy.Policy>

  readonly events?: Stream.Stream<Event, InferenceError.InferenceError>
  readonly borrow?: Effect.Effect<void, InferenceError.InferenceError>
  readonly route?: Result.Result<void, InferenceError.InferenceError>
}

const answer = Stream.fromArray([text("Hi "), text("there", 2), finish(3)])

const stage = (
  { borrow = Effect.void, events = answer, policy = {}, pressure = "normal", route = Result.succeed(undefined) }:
    Behaviour = {}
): Stage => {
  const engine = Deployments.engine({
    generate: (generation) => {
      made.generations.push(generation)
      return Stream.suspend(() => {
        made.begun++
        return Stream.ensuring(events, Effect.sync(() => made.ended++))
      })
    }
  })
  const models = Layer.mock(Models)({
    drained: new Map(),
    tryLease: () => undefined,
    renew: () => {},
    snapshot: () => ({ queued: 0, state: "ready" }),
    lease: () =>
      Effect.andThen(
        borrow,
        Effect.acquireRelease(
          Effect.sync(() => {
            made.borrowed++
            return engine
          }),
          () => Effect.sync(() => made.borrowed--)
        )
      )
  })
  const router = Layer.succeed(
    Router,
    Router.of({
      noteFailure: () => {},
      facts: () => [],
      route: ({ model }) =>
        Result.map(route, () => ({
          model,
          deployments: [deployment],
          fallbacks: { ordinary: [], context: [], content: [] },
          cached: false,
          decision: {
            model,
            strategy: "balanced",
            candidates: [{ deployment: deployment.id, score: 1, terms: {}, unknown: [] }],
            eligible: 1,
            excluded: []
          },
          policy: { ...RoutingPolicy.defaults, retries: 0, ...policy },
          slowestFirstTokenMs: undefined
        })),
      preview: () => {
        throw new Error("not played")
      },
      measure: () => ({ granted: () => {}, content: () => made.firstTokens++, end: () => {} })
    })
  )
  const tracer = Tracer.make({
    span: (options) => {
      const span = new Tracer.NativeSpan(options)
      made.spans.push(span)
      return span
    }
  })
  const layer = InferenceLayer.layer.pipe(Layer.provide([
    router,
    models,
    Metrics.layer,
    Layer.succeed(Registry.Registry, Registry.make([])),
    Layer.effect(Pressure, SubscriptionRef.make(pressure)),
    Breaker.layer,
    DecisionLog.layer,
    ResponseCacheLayer.layer,
    Backoff.layer
  ]))
  const registry = new Map()
  const made: Stage = {
    generations: [],
    spans: [],
    firstTokens: 0,
    borrowed: 0,
    begun: 0,
    ended: 0,
    layer,
    run: (effect) =>
      effect.pipe(
        Effect.provide(layer),
        Effect.provideService(Metric.MetricRegistry, registry),
        Effect.provideService(Tracer.Tracer, tracer)
      )
  }
  return made
}

const generate = (request: Request) => Inference.use((inference) => inference.generate(request))

const stream = (request: Request) =>
  Stream.unwrap(Inference.use((inference) => Effect.succeed(inference.stream(request))))

/** The metrics of requests by their names and labels: a count, or how many values with what sum. */
const metrics = Effect.map(
  Metric.snapshot,
  (snapshots) =>
    Object.fromEntries(
      snapshots.filter(({ id }) => id.startsWith("llm_")).map((snapshot): [string, unknown] => {
        const labels = Object.entries(snapshot.attributes ?? {}).map(([name, value]) => `${name}="${value}"`).sort()
        const key = `${snapshot.id}{${labels.join(",")}}`
        switch (snapshot.type) {
          case "Counter":
            return [key, snapshot.state.count]
          case "Histogram":
            return [key, { count: snapshot.state.count, sum: snapshot.state.sum }]
          default:
            return [key, snapshot.state]
        }
      })
    )
)

const attributesOf = (span: Tracer.NativeSpan | undefined) => Object.fromEntries(span?.attributes ?? [])

const exitOf = (span: Tracer.NativeSpan | undefined) => span?.status._tag === "Ended" ? span.status.exit : undefined

describe("Inference", () => {
  describe("generate", () => {
    it.effect("joins the texts, and returns reason, usage and deployment", () => {
      const { run } = stage()
      return Effect.gen(function*() {
        const { decision, ...answer } = yield* generate(request)
        assert.match(decision, /^dec-/)
        assert.deepStrictEqual(answer, {
          text: "Hi there",
          toolCalls: [],
          finishReason: "stop",
          usage: { promptTokens: 7, completionTokens: 3, cachedTokens: 0 },
          deployment: "fake/a#0",
          attempts: 1
        })
      }).pipe(run)
    })

    it.effect("fails with the engine's error", () => {
      const { run } = stage({ events: Stream.concat(Stream.make(text("Hi")), Stream.fail(failed)) })
      return Effect.gen(function*() {
        assert.strictEqual((yield* Effect.flip(generate(request))).reason, failed.reason)
      }).pipe(run)
    })

    it.effect("fails with the error of the route, without a call to an engine", () => {
      const actors = stage({ route: Result.fail(notFound) })
      return Effect.gen(function*() {
        const { reason, refusal } = yield* Effect.flip(generate(request))
        assert.strictEqual(reason, notFound.reason)
        assert.match(refusal ?? "", /^ref-/)
        assert.strictEqual(actors.begun, 0)
      }).pipe(actors.run)
    })

    it.effect("releases the engine at its end", () => {
      const actors = stage()
      return Effect.gen(function*() {
        yield* generate(request)
        assert.deepInclude(actors, { begun: 1, ended: 1, borrowed: 0 })
      }).pipe(actors.run)
    })

    it.effect("stops and releases the engine when it is interrupted", () => {
      const actors = stage({ events: Stream.concat(Stream.make(text("Hi")), Stream.never) })
      return Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(generate(request))
        yield* TestClock.adjust("1 minute")
        assert.deepInclude(actors, { begun: 1, ended: 0, borrowed: 1 })
        yield* Fiber.interrupt(fiber)
        assert.deepInclude(actors, { begun: 1, ended: 1, borrowed: 0 })
      }).pipe(actors.run)
    })
  })

  describe("stream", () => {
    it.effect("has the engine's events unchanged", () => {
      const { run } = stage()
      return Effect.gen(function*() {
        assert.deepStrictEqual(yield* Stream.runCollect(stream(request)), [text("Hi "), text("there", 2), finish(3)])
      }).pipe(run)
    })

    it.effect("keeps events together that arrived together", () => {
      const { run } = stage({
        events: Stream.fromArrays([text("a"), text("b")], [text("c"), finish(3)])
      })
      return Effect.gen(function*() {
        const sizes: Array<number> = []
        yield* Stream.runForEachArray(stream(request), (events) => Effect.sync(() => sizes.push(events.length)))
        assert.deepStrictEqual(sizes, [2, 2])
      }).pipe(run)
    })

    it.effect("emits an event before the next arrives", () => {
      const { run } = stage({ events: Stream.concat(Stream.make(text("Hi")), Stream.never) })
      return Effect.gen(function*() {
        const first = yield* Deferred.make<Event>()
        const fiber = yield* Effect.forkChild(
          Stream.runForEach(stream(request), (event) => Deferred.succeed(first, event))
        )
        assert.deepStrictEqual(yield* Deferred.await(first), text("Hi"))
        yield* Fiber.interrupt(fiber)
      }).pipe(run)
    })

    it.effect("that is ended early stops and releases the engine", () => {
      const actors = stage({ events: Stream.concat(Stream.make(text("Hi")), Stream.never) })
      return Effect.gen(function*() {
        assert.deepStrictEqual(yield* Stream.runCollect(Stream.take(stream(request), 1)), [text("Hi")])
        assert.deepInclude(actors, { begun: 1, ended: 1, borrowed: 0 })
      }).pipe(actors.run)
    })

    it.effect("emits the events before a failure", () => {
      const { run } = stage({ events: Stream.concat(Stream.make(text("Hi")), Stream.fail(failed)) })
      return Effect.gen(function*() {
        const events: Array<Event> = []
        const error = yield* Effect.flip(
          Stream.runForEach(stream(request), (event) => Effect.sync(() => events.push(event)))
        )
        assert.strictEqual(error, failed)
        assert.deepStrictEqual(events, [text("Hi")])
      }).pipe(run)
    })

    it.effect("does nothing until it is run", () => {
      const actors = stage()
      return Effect.gen(function*() {
        const inference = yield* Inference
        const events = inference.stream(request)
        yield* TestClock.adjust("1 minute")
        assert.deepInclude(actors, { begun: 0, borrowed: 0 })
        assert.deepStrictEqual(actors.spans, [])
        yield* Stream.runDrain(events)
        assert.strictEqual(actors.begun, 1)
      }).pipe(actors.run)
    })
  })

  describe("under memory pressure", () => {
    for (const pressure of ["normal", "warning", "critical", "emergency"] as const) {
      it.effect(`that is ${pressure}, requests of low priority are ${pressure === "normal" || pressure === "warning" ? "served" : "refused"}`, () => {
        const { run } = stage({ pressure })
        return Effect.gen(function*() {
          const low = yield* Effect.result(generate({ ...request, priority: "low" }))
          assert.strictEqual(
            Result.isFailure(low) ? low.failure.reason._tag : "served",
            sheds[pressure].refuseLowPriority ? "Overloaded" : "served"
          )
          yield* generate(request)
        }).pipe(run)
      })
    }
  })

  describe("the job of the engine", () => {
    it.effect("is the request unchanged", () => {
      const { generations, run } = stage()
      return Effect.gen(function*() {
        yield* generate({ ...request, seed: 1 })
        assert.deepStrictEqual(generations, [{
          messages: request.messages,
          sampling: { seed: 1 },
          maxTokens: undefined,
          stop: [],
          buffered: true
        }])
      }).pipe(run)
    })

    it.effect("has the fields of the request", () => {
      const { generations, run } = stage()
      return Effect.gen(function*() {
        yield* generate({ ...request, temperature: 0, topP: 0.5, seed: 0, maxTokens: 10, stop: ["\n"] })
        assert.deepStrictEqual(generations, [{
          messages: request.messages,
          sampling: { temperature: 0, topP: 0.5, seed: 0 },
          maxTokens: 10,
          stop: ["\n"],
          buffered: true
        }])
      }).pipe(run)
    })

    const policies: ReadonlyArray<readonly [string, Partial<RoutingPolicy.Policy>, boolean]> = [
      ["if no limit applies to its pieces", { timeouts: { totalMs: 1_000 } }, true],
      ["and not with a limit to the first token", { timeouts: { firstTokenMs: 1_000 } }, false],
      ["and not with a stall limit", { timeouts: { stallMs: 1_000 } }, false],
      ["and not with hedging", { hedge: { share: 0.1 } }, false]
    ]
    for (const [when, policy, isBuffered] of policies) {
      it.effect(`is buffered for generate ${when}`, () => {
        const { generations, run } = stage({ policy })
        return Effect.gen(function*() {
          yield* generate(request)
          yield* Stream.runDrain(Inference.use(({ stream }) => Effect.succeed(stream(request))).pipe(Stream.unwrap))
          assert.deepStrictEqual(generations.map(({ buffered = false }) => buffered), [isBuffered, false])
        }).pipe(run)
      })
    }

    it.effect("has no time to first token if it is buffered", () => {
      const place = stage()
      return Effect.gen(function*() {
        yield* generate(request)
        assert.strictEqual(place.firstTokens, 0)
        yield* Stream.runDrain(Inference.use(({ stream }) => Effect.succeed(stream(request))).pipe(Stream.unwrap))
        assert.strictEqual(place.firstTokens, 1)
      }).pipe(place.run)
    })

    it.effect("has no field that the request does not set", () => {
      const { generations, run } = stage()
      return Effect.gen(function*() {
        yield* generate({ model: "chat", messages: [{ role: "user", content: "Hello" }] })
        assert.deepStrictEqual(generations.map(({ maxTokens, sampling, stop }) => ({ maxTokens, sampling, stop })), [
          { maxTokens: undefined, sampling: {}, stop: [] }
        ])
      }).pipe(run)
    })
  })

  describe("a request with values that its types allow", () => {
    it.effect("is refused if its JSON is nested so deeply that it overflows a stack", () => {
      const nested = (depth: number) =>
        JSON.parse(`${"{\"a\":".repeat(depth)}1${"}".repeat(depth)}`) as Record<string, unknown>
      const place = stage()
      return Effect.gen(function*() {
        const inference = yield* Inference
        const withTool = (depth: number) =>
          inference.generate({ ...request, tools: [{ name: "deep", parameters: nested(depth) }] })
        yield* withTool(400)
        const { reason } = yield* Effect.flip(withTool(100_000))
        assert.strictEqual(reason._tag === "InvalidRequest" && reason.path, "tools[0].parameters")
        assert.isBelow(reason.message.length, 200)
      }).pipe(Effect.provide(place.layer), place.run)
    })

    it.effect("is refused without tokens to generate, except for an echo of its prompt", () => {
      const place = stage()
      return Effect.gen(function*() {
        const { generate } = yield* Inference
        const { reason } = yield* Effect.flip(generate({ ...request, maxTokens: 0 }))
        assert.strictEqual(reason._tag === "InvalidRequest" && reason.path, "maxTokens")
        const other = yield* Effect.flip(generate({ ...request, maxTokens: 0, completion: {} }))
        assert.strictEqual(other.reason._tag === "InvalidRequest" && other.reason.path, "maxTokens")
      }).pipe(Effect.provide(place.layer), place.run)
    })

    it.effect("is refused with every wrong value, before a lease", () => {
      const place = stage()
      const wrong: Request = { ...request, temperature: 9, maxTokens: -1, seed: -1 }
      return Effect.gen(function*() {
        const { reason } = yield* Effect.flip(Inference.use(({ generate }) => generate(wrong)))
        assert.strictEqual(reason._tag, "InvalidRequest")
        for (const field of ["temperature", "maxTokens", "seed"]) assert.include(reason.message, `${field}: `)
        assert.deepStrictEqual(place.generations, [])
      }).pipe(Effect.provide(place.layer), place.run)
    })
  })

  describe("an engine's stream that breaks off", () => {
    it.effect("is a failure, buffered and streamed", () => {
      const place = stage({ events: Stream.make(text("Once upon")) })
      return Effect.gen(function*() {
        const buffered = yield* Effect.flip(Inference.use(({ generate }) => generate(request)))
        assert.strictEqual(buffered.reason._tag, "EngineFailed")
        const streamed = yield* Effect.flip(Inference.use(({ stream }) => Stream.runDrain(stream(request))))
        assert.strictEqual(streamed.reason._tag, "EngineFailed")
      }).pipe(Effect.provide(place.layer), place.run)
    })
  })

  describe("spans", () => {
    it.effect("are one of the request, and one each of the selection, the attempt and its inference", () => {
      const { run, spans } = stage()
      return Effect.gen(function*() {
        yield* generate(request)
        const placeOf = ({ parent }: Tracer.NativeSpan) =>
          Option.isNone(parent) ? -1 : spans.indexOf(parent.value as never)
        assert.deepStrictEqual(spans.map((span) => [span.name, placeOf(span)]), [
          ["chat fake/a", -1],
          ["select balanced", 0],
          ["attempt fake/a#0", 0],
          ["chat fake/a", 2]
        ])
      }).pipe(run)
    })

    it.effect("have the GenAI attributes", () => {
      const { run, spans } = stage()
      return Effect.gen(function*() {
        yield* generate({ ...request, temperature: 0.5, topP: 0.9, seed: 42, maxTokens: 100, stop: ["\n"] })
        const { "troupe.decision": decision, ...attributes } = attributesOf(spans[0])
        assert.match(String(decision), /^dec-/)
        assert.deepStrictEqual(attributes, {
          "gen_ai.operation.name": "chat",
          "gen_ai.provider.name": "troupe.fake",
          "gen_ai.request.model": "fake/a",
          "gen_ai.response.model": "fake/a",
          "gen_ai.request.max_tokens": 100,
          "gen_ai.request.temperature": 0.5,
          "gen_ai.request.top_p": 0.9,
          "gen_ai.request.seed": 42,
          "gen_ai.usage.input_tokens": 7,
          "gen_ai.usage.cache_read.input_tokens": 0,
          "gen_ai.usage.output_tokens": 3,
          "gen_ai.response.finish_reasons": ["stop"],
          "troupe.component": "request",
          "troupe.deployment": "fake/a#0",
          "troupe.strategy": "balanced",
          "troupe.attempts": 1,
          "troupe.cost_usd": 0,
          "troupe.success": true
        })
        assert.isTrue(Exit.isSuccess(exitOf(spans[0])!))
        const [, selection, attempt, inference] = spans
        assert.deepStrictEqual(attributesOf(selection), {
          "troupe.component": "router",
          "troupe.strategy": "balanced",
          "troupe.eligible": 1,
          "troupe.candidates": ["fake/a#0"],
          "troupe.deployment": "fake/a#0"
        })
        assert.deepStrictEqual(attributesOf(attempt), {
          "troupe.component": "resilience",
          "troupe.deployment": "fake/a#0",
          "troupe.outcome": "answered",
          "troupe.success": true
        })
        assert.deepStrictEqual(attributesOf(inference), {
          "troupe.component": "inference",
          "troupe.deployment": "fake/a#0",
          "troupe.success": true,
          "gen_ai.operation.name": "chat",
          "gen_ai.provider.name": "troupe.fake",
          "gen_ai.request.model": "fake/a",
          "gen_ai.response.model": "fake/a",
          "gen_ai.response.finish_reasons": ["stop"],
          "gen_ai.usage.input_tokens": 7,
          "gen_ai.usage.cache_read.input_tokens": 0,
          "gen_ai.usage.output_tokens": 3
        })
      }).pipe(run)
    })

    it.effect("have no attribute for a field that the request omits", () => {
      const { run, spans } = stage()
      return Effect.gen(function*() {
        yield* generate(request)
        assert.deepStrictEqual(
          Object.keys(attributesOf(spans[0])).filter((name) => name.startsWith("gen_ai.request.")),
          ["gen_ai.request.model"]
        )
      }).pipe(run)
    })

    it.effect("have no attribute with a prompt or an answer", () => {
      const { run, spans } = stage()
      return Effect.gen(function*() {
        yield* generate(request)
        assert.notMatch(JSON.stringify(spans.map(attributesOf)), /Hello|Hi there/)
      }).pipe(run)
    })

    it.effect("last from the request to the last token", () => {
      const { run, spans } = stage({
        borrow: Effect.sleep("1 second"),
        events: Stream.concat(
          Stream.fromEffect(Effect.as(Effect.sleep("2 seconds"), text("Hi"))),
          Stream.make(finish(1))
        )
      })
      return Effect.gen(function*() {
        yield* TestClock.adjust("10 seconds")
        const fiber = yield* Effect.forkChild(Stream.runDrain(stream(request)))
        yield* TestClock.adjust("3 seconds")
        yield* Fiber.join(fiber)
        const status = spans[0]!.status
        assert.strictEqual(status.startTime, 10_000_000_000n)
        assert.strictEqual(status._tag === "Ended" ? status.endTime : undefined, 13_000_000_000n)
      }).pipe(run)
    })

    it.effect("are children of the caller's span", () => {
      const { run, spans } = stage()
      return Effect.gen(function*() {
        yield* Effect.withSpan(generate(request), "caller")
        assert.deepStrictEqual(spans.map(({ name }) => name).slice(0, 2), ["caller", "chat fake/a"])
        assert.strictEqual(Option.getOrUndefined(spans[1]!.parent), spans[0])
      }).pipe(run)
    })

    it.effect("end after an error too, and name it", () => {
      const { run, spans } = stage({ events: Stream.concat(Stream.make(text("Hi", 2)), Stream.fail(failed)) })
      return Effect.gen(function*() {
        yield* Effect.flip(generate(request))
        yield* Effect.flip(Stream.runDrain(stream(request)))
        assert.strictEqual(spans.length, 8)
        for (const span of spans.filter(({ name }) => !name.startsWith("select"))) {
          assert.deepInclude(attributesOf(span), {
            "error.type": "EngineFailed",
            "error.message": failed.message,
            "troupe.success": false
          })
          if (span.name === "chat fake/a") assert.strictEqual(attributesOf(span)["gen_ai.usage.output_tokens"], 2)
          assert.isTrue(Exit.isFailure(exitOf(span)!))
        }
      }).pipe(run)
    })

    it.effect("name the error of a failed lease", () => {
      const { run, spans } = stage({ borrow: Effect.fail(failed) })
      return Effect.gen(function*() {
        yield* Effect.flip(generate(request))
        assert.deepInclude(attributesOf(spans[0]), { "error.type": "EngineFailed", "gen_ai.usage.output_tokens": 0 })
        assert.isTrue(Exit.isFailure(exitOf(spans[0])!))
      }).pipe(run)
    })

    it.effect("end when the request is interrupted, without an error", () => {
      const { run, spans } = stage({ events: Stream.concat(Stream.make(text("Hi", 2)), Stream.never) })
      return Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(generate(request))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.interrupt(fiber)
        for (const span of spans.filter(({ name }) => !name.startsWith("select"))) {
          const exit = exitOf(span)!
          assert.isTrue(Exit.isFailure(exit) && Cause.hasInterruptsOnly(exit.cause))
        }
        assert.notProperty(attributesOf(spans[0]), "error.type")
        assert.strictEqual(attributesOf(spans[0])["gen_ai.usage.output_tokens"], 2)
      }).pipe(run)
    })
  })

  describe("metrics", () => {
    it.effect("of a success", () => {
      const { run } = stage({
        borrow: Effect.sleep("500 millis"),
        events: Stream.concat(
          Stream.make(text("Hi")),
          Stream.fromEffect(Effect.as(Effect.sleep("1 second"), finish(3)))
        )
      })
      return Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(generate(request))
        yield* TestClock.adjust("2 seconds")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(yield* metrics, {
          "llm_model_usage_total{model=\"fake/a\",operation=\"chat\"}": 1,
          "llm_requests_total{model=\"fake/a\",success=\"true\"}": 1,
          "llm_request_duration_seconds{model=\"fake/a\"}": { count: 1, sum: 1.5 },
          "llm_tokens_generated{model=\"fake/a\"}": { count: 1, sum: 3 }
        })
      }).pipe(run)
    })

    it.effect("of a failure", () => {
      const { run } = stage({ events: Stream.concat(Stream.make(text("Hi", 2)), Stream.fail(failed)) })
      return Effect.gen(function*() {
        yield* Effect.flip(Stream.runDrain(stream(request)))
        assert.deepStrictEqual(yield* metrics, {
          "llm_model_usage_total{model=\"fake/a\",operation=\"chat\"}": 1,
          "llm_requests_total{model=\"fake/a\",success=\"false\"}": 1,
          "llm_errors_total{model=\"fake/a\"}": 1,
          "llm_request_duration_seconds{model=\"fake/a\"}": { count: 1, sum: 0 },
          "llm_tokens_generated{model=\"fake/a\"}": { count: 1, sum: 2 }
        })
      }).pipe(run)
    })

    it.effect("of a failure that the caller has caused", () => {
      const reason = new InferenceError.NotSupported({ path: "n", detail: "Not here.", deployment: "fake/a#0" })
      const { run } = stage({ events: Stream.fail(InferenceError.make(reason)) })
      return Effect.gen(function*() {
        yield* Effect.flip(Stream.runDrain(stream(request)))
        const counters = (yield* Metric.snapshot).filter(({ id }) => id === "troupe_caller_errors_total")
        assert.deepStrictEqual(counters.map(({ attributes }) => attributes), [{ model: "fake/a" }])
        assert.deepInclude(yield* metrics, { "llm_errors_total{model=\"fake/a\"}": 1 })
      }).pipe(run)
    })

    const neither = {
      "llm_model_usage_total{model=\"fake/a\",operation=\"chat\"}": 1,
      "llm_request_duration_seconds{model=\"fake/a\"}": { count: 1, sum: 60 },
      "llm_tokens_generated{model=\"fake/a\"}": { count: 1, sum: 2 }
    }

    it.effect("of an interrupted request count neither success nor failure", () => {
      const { run } = stage({ events: Stream.concat(Stream.make(text("Hi", 2)), Stream.never) })
      return Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(generate(request))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* metrics, neither)
      }).pipe(run)
    })

    it.effect("of a stream that its consumer ended early count neither success nor failure", () => {
      const { run } = stage({ events: Stream.concat(Stream.make(text("Hi", 2)), Stream.never) })
      return Effect.gen(function*() {
        const patient = Stream.tap(stream(request), () => Effect.sleep("1 minute"))
        const fiber = yield* Effect.forkChild(Stream.runDrain(Stream.take(patient, 1)))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.join(fiber)
        assert.deepStrictEqual(yield* metrics, neither)
      }).pipe(run)
    })

    it.effect("of a request interrupted while it waits for the engine count neither", () => {
      const { run } = stage({ borrow: Effect.never })
      return Effect.gen(function*() {
        const fiber = yield* Effect.forkChild(generate(request))
        yield* TestClock.adjust("1 minute")
        yield* Fiber.interrupt(fiber)
        assert.deepStrictEqual(yield* metrics, {
          ...neither,
          "llm_tokens_generated{model=\"fake/a\"}": { count: 1, sum: 0 }
        })
      }).pipe(run)
    })

    it.effect("add up over requests", () => {
      const { run } = stage()
      return Effect.gen(function*() {
        yield* Effect.replicateEffect(generate(request), 3, { concurrency: "unbounded", discard: true })
        assert.deepInclude(yield* metrics, {
          "llm_model_usage_total{model=\"fake/a\",operation=\"chat\"}": 3,
          "llm_requests_total{model=\"fake/a\",success=\"true\"}": 3,
          "llm_tokens_generated{model=\"fake/a\"}": { count: 3, sum: 9 }
        })
      }).pipe(run)
    })

    it.effect("of an unknown model create no time series", () => {
      const { run } = stage({ route: Result.fail(notFound) })
      return Effect.gen(function*() {
        yield* Effect.flip(generate(request))
        assert.deepStrictEqual(yield* metrics, {})
      }).pipe(run)
    })
  })
})
