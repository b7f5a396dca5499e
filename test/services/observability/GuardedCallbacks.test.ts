/** What a program provides beside its requests may throw or die: no answer changes, no request hangs, nothing is leaked. */
import { assert, describe, it } from "@effect/vitest"
import { Effect, Fiber, Layer, Logger, Schedule, Stream, Tracer } from "effect"
import { TestClock } from "effect/testing"
import * as Defaults from "../../../src/domain/Defaults.ts"
import { UpstreamFailed } from "../../../src/domain/InferenceError.ts"
import type { LatencySample } from "../../../src/domain/Measurement.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import * as ResponseCache from "../../../src/services/cache/ResponseCache.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import type { Metrics } from "../../../src/services/observability/Metrics.ts"
import type { Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

const defect = new Error("A defect of the program's.")
const thrown = (): never => {
  throw defect
}

const metrics: Metrics["Service"] = { begin: () => Effect.void, end: () => Effect.void }
const trial: LatencySample = { granted: () => {}, content: () => {}, end: () => {} }

const tracerWith = (broken: Partial<Tracer.Span>) =>
  Tracer.make({ span: (options) => Object.assign(new Tracer.NativeSpan(options), broken) })

interface Fault extends Partial<Setting> {
  readonly tracer?: Tracer.Tracer
  /** What its one line in the log begins with. */
  readonly logged: string
}

const ofMetrics = { logged: "The metrics failed" }
const cached = ResponseCache.none
const ofCache = { fallbacks: { a: ["cached-responses"] }, logged: "The response cache failed" }
const ofDecisionLog = { logged: "The decision log failed" }
const ofTracer = { logged: "The tracer failed" }
const ofMeasurements = { logged: "The router's measurements failed" }

const faults: Readonly<Record<string, Fault>> = {
  "metrics that throw at the beginning": { metrics: { ...metrics, begin: thrown }, ...ofMetrics },
  "metrics that die at the beginning": { metrics: { ...metrics, begin: () => Effect.die(defect) }, ...ofMetrics },
  "metrics that interrupt themselves": { metrics: { ...metrics, begin: () => Effect.interrupt }, ...ofMetrics },
  "metrics that throw at the end": { metrics: { ...metrics, end: thrown }, ...ofMetrics },
  "metrics that die at the end": { metrics: { ...metrics, end: () => Effect.die(defect) }, ...ofMetrics },
  "metrics that never end at the beginning": { metrics: { ...metrics, begin: () => Effect.never }, ...ofMetrics },
  "metrics that never end at the end": { metrics: { ...metrics, end: () => Effect.never }, ...ofMetrics },
  "metrics that cannot be interrupted": {
    metrics: { ...metrics, end: () => Effect.uninterruptible(Effect.never) },
    ...ofMetrics
  },
  "a cache that never keeps an answer": { responseCache: { ...cached, keep: () => Effect.never }, ...ofCache },
  "a cache that throws where it keeps an answer": { responseCache: { ...cached, keep: thrown }, ...ofCache },
  "a cache that dies where it keeps an answer": {
    responseCache: { ...cached, keep: () => Effect.die(defect) },
    ...ofCache
  },
  "a decision log that throws": {
    decisionLog: { begin: thrown, find: () => undefined, latest: () => [] },
    ...ofDecisionLog
  },
  "a tracer that throws": { tracer: Tracer.make({ span: thrown }), ...ofTracer },
  "a span that takes no attributes": { tracer: tracerWith({ attribute: thrown }), ...ofTracer },
  "a span that does not end": { tracer: tracerWith({ end: thrown }), ...ofTracer },
  "measurements that do not begin": { measure: thrown, ...ofMeasurements },
  "measurements that take no first content": { measure: () => ({ ...trial, content: thrown }), ...ofMeasurements },
  "measurements that do not end": { measure: () => ({ ...trial, end: thrown }), ...ofMeasurements },
  "a strategy that throws": {
    policy: { selection: { ...RoutingPolicy.defaults.selection, strategy: { name: "custom/mine", score: thrown } } },
    logged: "The strategy \"custom/mine\" failed"
  },
  "a strategy that returns no number": {
    policy: {
      selection: { ...RoutingPolicy.defaults.selection, strategy: { name: "custom/mine", score: () => Number.NaN } }
    },
    logged: "The strategy \"custom/mine\" failed"
  }
}

const unavailable = new UpstreamFailed({ deployment: "a#0", kind: "status", status: 503, detail: "overloaded" })

const asked = { model: "a", messages: [{ role: "user", content: "Hello" }] } as const

const buffered = Inference.use((inference) => Effect.map(inference.generate(asked), ({ text }) => text))
const streamed = Inference.use((inference) =>
  Effect.map(
    Stream.runCollect(inference.stream(asked)),
    (events) => events.map((event) => event.type === "text" ? event.text : "").join("")
  )
)
const embedded = Inference.use((inference) =>
  Effect.map(inference.embed({ model: "a", inputs: ["Hello"] }), ({ vectors }) => vectors.length)
)

const operations = {
  "a buffered answer": [buffered, "xy"],
  "a stream": [streamed, "xy"],
  embeddings: [embedded, 1]
} as const

/** The log's lines. */
const logged = () => {
  const lines: Array<string> = []
  const logger = Logger.make(({ message }) => {
    lines.push(String(message))
  })
  return { lines, layer: Logger.layer([logger]) }
}

const models: Setting["models"] = { a: [{ pieces: ["x", "y"] }, { pieces: ["x", "y"] }] }

describe("a request that fails gets the failure of its last attempt", () => {
  const failing = { models: { a: [{ fails: { reason: unavailable } }] } }

  it.effect.each<readonly [string, Setting]>([
    ["a cache that throws during its lookup", {
      ...failing,
      responseCache: { ...cached, recall: thrown },
      fallbacks: ofCache.fallbacks
    }],
    ["a cache that never finds an answer", {
      ...failing,
      responseCache: { ...cached, recallStored: () => Effect.never },
      fallbacks: ofCache.fallbacks
    }],
    ["a backoff that never ends", {
      ...failing,
      policy: { retries: 1 },
      backoff: () => Schedule.addDelay(Schedule.forever, () => Effect.never)
    }]
  ])("in spite of %s", ([, setting]) =>
    Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(Effect.flip(buffered))
      yield* TestClock.adjust(Defaults.callbackLimit)
      assert.strictEqual((yield* Fiber.join(fiber)).reason._tag, unavailable._tag)
    }).pipe(Effect.provide(world(setting).layer)))
})

describe("metrics that return effects", () => {
  const slow = () => {
    const events: Array<string> = []
    const after = (event: string, ms: number) => Effect.delay(Effect.sync(() => void events.push(event)), ms)
    const ends: Metrics["Service"] = { begin: () => after("begin", 2_000), end: () => after("end", 1_000) }
    return { events, layer: world({ models, metrics: ends }).layer }
  }

  it.effect("end in their order, after the answer", () => {
    const { events, layer } = slow()
    return Effect.gen(function*() {
      yield* buffered
      assert.deepStrictEqual(events, [])
      yield* TestClock.adjust("3 seconds")
      assert.deepStrictEqual(events, ["begin", "end"])
    }).pipe(Effect.provide(layer))
  })

  it.effect("end before the runtime does", () => {
    const { events, layer } = slow()
    return Effect.gen(function*() {
      const fiber = yield* Effect.forkChild(Effect.provide(buffered, layer))
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(fiber)
      assert.deepStrictEqual(events, ["begin", "end"])
    })
  })
})

describe("a failing callback of the program does not change an answer, and is logged once", () => {
  for (const [fault, { logged: line, tracer = Tracer.nativeTracer, ...setting }] of Object.entries(faults)) {
    for (const [name, [operation, expected]] of Object.entries(operations)) {
      const noContent = name === "embeddings" &&
        (fault === "measurements that take no first content" || setting.responseCache !== undefined)
      it.effect(`${fault}: ${name}`, () => {
        const { layer, lines } = logged()
        return Effect.gen(function*() {
          for (let call = 0; call < 3; call++) assert.strictEqual(yield* operation, expected)
          yield* TestClock.adjust(Defaults.callbackLimit)
          assert.deepStrictEqual(lines.map((text) => text.startsWith(line)), noContent ? [] : [true])
        }).pipe(
          Effect.provide(Layer.provideMerge(world({ models, ...setting }).layer, layer)),
          Effect.provideService(Tracer.Tracer, tracer)
        )
      })
    }
  }

  for (const [name, [operation, expected]] of Object.entries(operations)) {
    it.effect(`an engine that cannot release its resources: ${name}`, () => {
      const { layer } = logged()
      const { layer: worldLayer } = world({
        models,
        disguise: (engine) => ({
          ...engine,
          generate: (generation) => Stream.ensuring(engine.generate(generation), Effect.die(defect)),
          embed: engine.embed
        })
      })
      return Effect.gen(function*() {
        for (let call = 0; call < 3; call++) assert.strictEqual(yield* operation, expected)
      }).pipe(Effect.provide(Layer.provideMerge(worldLayer, layer)))
    })
  }
})
