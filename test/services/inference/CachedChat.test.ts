/** Chat completions of models with a cache: what is answered again, and how requests for the same share a call. */
import { assert, describe, it } from "@effect/vitest"
import { Deferred, Effect, Exit, Fiber, Layer, Metric, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { CacheSettings } from "../../../src/domain/CacheControl.ts"
import type { AnswerSink, Event, Request } from "../../../src/domain/Inference.ts"
import * as InferenceError from "../../../src/domain/InferenceError.ts"
import type { Ticket } from "../../../src/services/admission/Admission.ts"
import { Admission, free } from "../../../src/services/admission/Admission.ts"
import { Inference } from "../../../src/services/inference/Inference.ts"
import { DecisionLog } from "../../../src/services/routing/DecisionLog.ts"
import type { Setting } from "../../support/Routing.ts"
import { world } from "../../support/Routing.ts"

const always: CacheSettings = { when: "always", ttlMs: 3_600_000 }
const hello: Request = { model: "a", messages: [{ role: "user", content: "Hello" }], tenant: "one" }
const broken = new InferenceError.EngineFailed({ deployment: "a#0", detail: "It is broken." })
const usage = { promptTokens: 3, completionTokens: 2, cachedTokens: 3 }

const generate = (request: Request) => Inference.use((inference) => inference.generate(request))

const open = Effect.fnUntraced(function*(request: Request) {
  const { events, ...by } = yield* (yield* Inference).open(request)
  return { ...by, events: yield* Stream.runCollect(events) }
}, Effect.scoped)

const textOf = (events: ReadonlyArray<Event>) => events.map((event) => event.type === "text" ? event.text : "").join("")

/** Takes all events at once, and records them. */
const deliver = Effect.fnUntraced(function*(request: Request) {
  const given: { tier?: string; events: Array<Event> } = { events: [] }
  const sink: AnswerSink = {
    begin: ({ cache }) => {
      given.tier = cache?.result === "hit" ? cache.tier : cache?.result ?? "none"
    },
    events: (events) => {
      given.events.push(...events)
      return true
    },
    whenDrained: (callback) => callback()
  }
  yield* (yield* Inference).deliver(request, sink)
  return given
})

/** Each way to ask, and the text and the tier of its answer. */
const ways = {
  generate: (request: Request) =>
    Effect.map(generate(request), ({ cache, text }) => [text, cache?.result === "hit" ? cache.tier : cache?.result]),
  open: (request: Request) =>
    Effect.map(open(request), ({ cache, events }) => [
      textOf(events),
      cache?.result === "hit" ? cache.tier : cache?.result
    ]),
  deliver: (request: Request) => Effect.map(deliver(request), ({ events, tier }) => [textOf(events), tier])
} as const

type Way = keyof typeof ways
const wayNames = Object.keys(ways) as ReadonlyArray<Way>
const pairs = wayNames.flatMap((one) => wayNames.map((two) => [one, two] as const))

const answering: Setting = { models: { a: [{ pieces: ["Hi ", "there"] }] }, cache: always }
/** 100 ms until the first piece, and 100 ms between two. */
const slow: Setting = { models: { a: [{ pieces: ["Hi ", "there"], firstMs: 100, gapMs: 100 }] }, cache: always }

const run = <A, E>(
  setting: Setting,
  program: (jobs: ReadonlyArray<{ readonly left: boolean }>) => Effect.Effect<A, E, Inference | DecisionLog>
) => {
  const made = world(setting)
  return program(made.jobs).pipe(
    Effect.provide(made.layer),
    Effect.provideService(Metric.MetricRegistry, new Map())
  )
}

const latest = DecisionLog.use(({ latest }) => Effect.succeed(latest(1)[0]!))

describe("a kept answer", () => {
  it.effect.each(pairs)(
    "to %s is given again to %s",
    ([first, second]) =>
      run(answering, (jobs) =>
        Effect.gen(function*() {
          assert.deepStrictEqual(yield* ways[first](hello), ["Hi there", "miss"])
          assert.deepStrictEqual(yield* ways[second](hello), ["Hi there", "memory"])
          assert.lengthOf(jobs, 1)
        }))
  )

  it.effect("has no attempts, counts no generated tokens, and names the prompt as cached", () =>
    run(answering, () =>
      Effect.gen(function*() {
        yield* generate(hello)
        yield* TestClock.adjust("10 seconds")
        const again = yield* generate(hello)
        assert.deepInclude(again, { deployment: "a#0", attempts: 0, usage, finishReason: "stop" })
        assert.deepInclude(again.cache, { result: "hit", tier: "memory", ageMs: 10_000 })
        const record = yield* latest
        assert.strictEqual(record.id, again.decision)
        assert.deepInclude(record, { cache: "memory", answeredBy: "a#0", end: "success", attempts: [] })
        const metrics = yield* Metric.snapshot
        const stateOf = (name: string) => metrics.find(({ id }) => id === name)?.state
        assert.deepInclude(stateOf("llm_requests_total"), { count: 2 })
        assert.deepInclude(stateOf("llm_tokens_generated"), { count: 2, sum: 2 })
        assert.deepInclude(stateOf("llm_cache_hits_total"), { count: 1 })
        assert.deepInclude(stateOf("llm_cache_misses_total"), { count: 1 })
      })))

  it.effect("is not another tenant's, and ends after its time to live", () =>
    run(answering, () =>
      Effect.gen(function*() {
        yield* generate(hello)
        assert.deepStrictEqual(yield* ways.generate({ ...hello, tenant: "two" }), ["Hi there", "miss"])
        yield* TestClock.adjust("1 hour")
        assert.deepStrictEqual(yield* ways.generate(hello), ["Hi there", "miss"])
      })))

  it.effect("depends on the request's Cache-Control", () =>
    run(answering, () =>
      Effect.gen(function*() {
        const asks = (cache: Request["cache"]) => Effect.map(ways.generate({ ...hello, cache }), ([, tier]) => tier)
        assert.strictEqual(yield* asks({ noStore: true }), "bypass")
        assert.strictEqual(yield* asks({}), "miss")
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* asks({ maxAge: 10 }), "memory")
        assert.strictEqual(yield* asks({ noStore: true }), "bypass")
        assert.strictEqual(yield* asks({ maxAge: 9 }), "miss")
        assert.strictEqual(yield* asks({ maxAge: 9 }), "memory")
        assert.strictEqual(yield* asks({ maxAge: 0 }), "miss")
        yield* TestClock.adjust("10 seconds")
        assert.strictEqual(yield* asks({ noCache: true }), "miss")
        assert.strictEqual(yield* asks({ maxAge: 5 }), "memory")
      })))

  it.effect("is given with temperature 0 or a seed only, unless configured", () =>
    run({ ...answering, cache: { ...always, when: "deterministic" } }, () =>
      Effect.gen(function*() {
        const twice = (request: Request) =>
          Effect.map(Effect.all([ways.generate(request), ways.generate(request)]), ([, [, tier]]) => tier)
        assert.strictEqual(yield* twice(hello), "bypass")
        assert.strictEqual(yield* twice({ ...hello, temperature: 0.1 }), "bypass")
        assert.strictEqual(yield* twice({ ...hello, temperature: 0 }), "memory")
        assert.strictEqual(yield* twice({ ...hello, seed: 1 }), "memory")
      })))

  it.effect("is none of a model without a cache", () =>
    run({ models: answering.models }, (jobs) =>
      Effect.gen(function*() {
        assert.deepStrictEqual(yield* ways.generate(hello), ["Hi there", undefined])
        assert.deepStrictEqual(yield* ways.generate(hello), ["Hi there", undefined])
        assert.lengthOf(jobs, 2)
      })))

  it.effect.each(wayNames)(
    "is none that broke off, by %s",
    (way) =>
      run({
        models: { a: [{ pieces: ["Hi ", "there"], fails: { after: 1, reason: broken }, failures: 1 }] },
        cache: always
      }, () =>
        Effect.gen(function*() {
          assert.strictEqual((yield* Effect.flip(ways[way](hello))).reason, broken)
          assert.deepStrictEqual(yield* ways[way](hello), ["Hi there", "miss"])
        }))
  )

  it.effect("is none that is not read to its end", () =>
    run(slow, (jobs) =>
      Effect.gen(function*() {
        const inference = yield* Inference
        const fiber = yield* Effect.forkChild(Effect.scoped(
          Effect.flatMap(inference.open(hello), ({ events }) => Stream.runDrain(Stream.take(events, 1)))
        ))
        yield* TestClock.adjust("100 millis")
        yield* Fiber.join(fiber)
        assert.isTrue(jobs[0]!.left)
        const again = yield* Effect.forkChild(ways.generate(hello))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.join(again), ["Hi there", "miss"])
      })))
})

describe("requests for the same at the same time", () => {
  it.effect.each(pairs)(
    "share one call: %s begins it, and %s joins in the middle",
    ([first, second]) =>
      run(slow, (jobs) =>
        Effect.gen(function*() {
          const one = yield* Effect.forkChild(ways[first](hello))
          yield* TestClock.adjust("150 millis")
          const others = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(ways[second](hello)))
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(yield* Fiber.join(one), ["Hi there", "miss"])
          for (const other of others) assert.deepStrictEqual(yield* Fiber.join(other), ["Hi there", "flight"])
          assert.lengthOf(jobs, 1)
          assert.deepStrictEqual(yield* ways[first](hello), ["Hi there", "memory"])
        }))
  )

  it.effect.each(pairs)(
    "go on when the first leaves, and settle: %s leaves, %s stays",
    ([first, second]) =>
      run(slow, (jobs) =>
        Effect.gen(function*() {
          const one = yield* Effect.forkChild(ways[first](hello))
          yield* TestClock.adjust("50 millis")
          const two = yield* Effect.forkChild(ways[second](hello))
          yield* TestClock.adjust("100 millis")
          yield* Fiber.interrupt(one)
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(yield* Fiber.join(two), ["Hi there", "flight"])
          assert.isFalse(jobs[0]!.left)
          assert.deepStrictEqual(yield* ways[first](hello), ["Hi there", "memory"])
          const records = (yield* DecisionLog).latest(10)
          assert.deepStrictEqual(records.map(({ end }) => end), ["success", "success", "success"])
        }))
  )

  it.effect.each(pairs)(
    "count no caller that has left among those at the same time: %s leaves, %s stays",
    ([first, second]) => {
      const made = world(slow)
      let running = 0
      const admit = (): Ticket => {
        running++
        let isOver = false
        const leave = () => {
          if (!isOver) running--
          isOver = true
        }
        return { ...free, leave, end: leave }
      }
      return Effect.gen(function*() {
        const one = yield* Effect.forkChild(ways[first](hello))
        yield* TestClock.adjust("50 millis")
        const two = yield* Effect.forkChild(ways[second](hello))
        yield* TestClock.adjust("10 millis")
        assert.strictEqual(running, 2)
        yield* Fiber.interrupt(one)
        assert.strictEqual(running, 1)
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.join(two), ["Hi there", "flight"])
        assert.strictEqual(running, 0)
      }).pipe(Effect.provide(made.layer.pipe(Layer.provide(Layer.succeed(Admission, { isForAll: true, admit })))))
    }
  )

  it.effect.each(wayNames)(
    "stop their call when all have left, by %s",
    (way) =>
      run(slow, (jobs) =>
        Effect.gen(function*() {
          const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(ways[way](hello)))
          yield* TestClock.adjust("150 millis")
          for (const fiber of fibers) {
            assert.isFalse(jobs[0]!.left)
            yield* Fiber.interrupt(fiber)
          }
          assert.isTrue(jobs[0]!.left)
          const records = (yield* DecisionLog).latest(10)
          assert.deepStrictEqual(records.map(({ end }) => end), ["interruption", "interruption", "interruption"])
          const again = yield* Effect.forkChild(ways[way](hello))
          yield* TestClock.adjust("1 second")
          assert.deepStrictEqual(yield* Fiber.join(again), ["Hi there", "miss"])
        }))
  )

  it.effect.each(wayNames)(
    "fail together, each with its own decision, by %s",
    (way) =>
      run(
        { models: { a: [{ firstMs: 100, fails: { reason: broken } }] }, cache: always },
        (jobs) =>
          Effect.gen(function*() {
            const fibers = yield* Effect.forEach([1, 2, 3], () => Effect.forkChild(Effect.flip(ways[way](hello))))
            yield* TestClock.adjust("1 second")
            const errors = yield* Effect.forEach(fibers, Fiber.join)
            assert.deepStrictEqual(errors.map(({ reason }) => reason), [broken, broken, broken])
            assert.strictEqual(new Set(errors.map(({ decision }) => decision)).size, 3)
            assert.lengthOf(jobs, 1)
          })
      )
  )

  it.effect("share a call whatever their priority", () =>
    run(slow, (jobs) =>
      Effect.gen(function*() {
        const requests: ReadonlyArray<Request> = [hello, { ...hello, priority: "low" }, { ...hello, priority: "high" }]
        const fibers = yield* Effect.forEach(requests, (request) => Effect.forkChild(ways.generate(request)))
        yield* TestClock.adjust("1 second")
        yield* Effect.forEach(fibers, Fiber.join)
        assert.lengthOf(jobs, 1)
      })))

  it.effect("do not share a call that one of them must not", () =>
    run(slow, (jobs) =>
      Effect.gen(function*() {
        const requests: ReadonlyArray<Request> = [
          hello,
          { ...hello, cache: { noStore: true } },
          { ...hello, cache: { noCache: true } },
          { ...hello, tenant: "two" },
          { ...hello, identity: { keyId: "two", tenant: "", isAdmin: false, setsTenant: false } }
        ]
        const fibers = yield* Effect.forEach(requests, (request) => Effect.forkChild(ways.generate(request)))
        yield* TestClock.adjust("1 second")
        yield* Effect.forEach(fibers, Fiber.join)
        assert.lengthOf(jobs, 5)
      })))

  it.effect("wait for no reader that is slow, and give it the rest later", () =>
    run(slow, () =>
      Effect.gen(function*() {
        const gate = yield* Deferred.make<void>()
        const context = yield* Effect.context()
        const given: Array<string> = []
        const sink: AnswerSink = {
          begin: () => {},
          events: (events) => {
            given.push(textOf(events))
            return false
          },
          whenDrained: (callback) =>
            void Effect.runForkWith(context)(Effect.andThen(Deferred.await(gate), Effect.sync(callback)))
        }
        const slowReader = yield* Effect.forkChild(Effect.flatMap(Inference, ({ deliver }) => deliver(hello, sink)))
        const fast = yield* Effect.forkChild(ways.deliver(hello))
        yield* TestClock.adjust("1 second")
        assert.deepStrictEqual(yield* Fiber.join(fast), ["Hi there", "flight"])
        assert.deepStrictEqual(given, ["Hi "])
        yield* Deferred.succeed(gate, undefined)
        yield* Fiber.join(slowReader)
        assert.strictEqual(given.join(""), "Hi there")
      })))

  it.effect("are not hurt by a sink that throws", () =>
    run(slow, () =>
      Effect.gen(function*() {
        const sink: AnswerSink = {
          begin: () => {},
          events: () => {
            throw new Error("closed")
          },
          whenDrained: () => {}
        }
        const failing = yield* Effect.forkChild(
          Effect.exit(Effect.flatMap(Inference, ({ deliver }) => deliver(hello, sink)))
        )
        const other = yield* Effect.forkChild(ways.deliver(hello))
        yield* TestClock.adjust("1 second")
        assert.isTrue(Exit.isFailure(yield* Fiber.join(failing)))
        assert.deepStrictEqual(yield* Fiber.join(other), ["Hi there", "flight"])
      })))
})
