/** Answers that go on at another deployment, over engines that play a part each. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Effect, Exit, Fiber, Layer, Logger, Metric, Result, Stream, SubscriptionRef } from "effect"
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
import { Pressure } from "../../../src/services/models/MemoryPressure.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import * as Metrics from "../../../src/services/observability/Metrics.ts"
import * as Backoff from "../../../src/services/resilience/Backoff.ts"
import * as DecisionLog from "../../../src/services/routing/DecisionLog.ts"
import { Router } from "../../../src/services/routing/Router.ts"
import { deployment, engine } from "../../support/Deployments.ts"

const deploymentOf = (id: string) => deployment(id, { model: "m" })

type Played = Stream.Stream<Event, InferenceError.InferenceError>

const text = (text: string, tokens = 1): Event => ({ type: "text", text, tokens })
const finish = (completionTokens: number, promptTokens = 7): Event => ({
  type: "finish",
  reason: "stop",
  usage: { promptTokens, completionTokens, cachedTokens: 0 }
})
const handoff = (deployment: string): Event => ({ type: "handoff", deployment })
const crashed = (deployment: string) =>
  InferenceError.make(new InferenceError.EngineCrashed({ deployment, detail: "It died." }))

const says = (...events: ReadonlyArray<Event>): Played => Stream.fromArray(events)
const cut = (deployment: string, ...events: ReadonlyArray<Event>): Played =>
  Stream.concat(says(...events), Stream.fail(crashed(deployment)))

const request: Request = { model: "m", messages: [{ role: "user", content: "Hello" }], seed: 1 }

/** One deployment each, by name, in order; those of `behind` are another model's. */
const stage = (
  parts: Readonly<Record<string, Played>>,
  policy: Partial<RoutingPolicy.Policy> = { continue: true },
  behind: ReadonlyArray<string> = [],
  release: (id: string) => Effect.Effect<void> = () => Effect.void
) => {
  const asked: Array<readonly [deployment: string, generation: Generation]> = []
  let borrowed = 0
  const engineOf = (id: string) =>
    engine({
      generate: (generation) => {
        asked.push([id, generation])
        return parts[id]!
      }
    })
  const models = Layer.mock(Models)({
    drained: new Map(),
    tryLease: () => undefined,
    renew: () => {},
    snapshot: () => ({ queued: 0, state: "ready" }),
    lease: ({ id }) =>
      Effect.acquireRelease(
        Effect.sync(() => {
          borrowed++
          return engineOf(id)
        }),
        () => Effect.andThen(Effect.sync(() => borrowed--), release(id))
      )
  })
  const [first, ...others] = Object.keys(parts).filter((id) => !behind.includes(id)).map(deploymentOf)
  const router = Layer.succeed(
    Router,
    Router.of({
      noteFailure: () => {},
      facts: () => [],
      route: ({ model }) =>
        Result.succeed({
          model,
          deployments: [first!, ...others],
          fallbacks: { ordinary: behind.map(deploymentOf), context: [], content: [] },
          decision: { model, strategy: "balanced", candidates: [], eligible: 1, excluded: [] },
          policy: { ...RoutingPolicy.defaults, retries: 0, ...policy },
          slowestFirstTokenMs: undefined,
          cached: false
        }),
      preview: () => {
        throw new Error("not played")
      },
      measure: () => ({ granted: () => {}, content: () => {}, end: () => {} })
    })
  )
  const shared = Layer.mergeAll(DecisionLog.layer, Breaker.layer)
  const layer = InferenceLayer.layer.pipe(
    Layer.provide([
      router,
      models,
      Metrics.layer,
      Layer.succeed(Registry.Registry, Registry.make([])),
      ResponseCacheLayer.layer,
      Backoff.layer,
      Layer.effect(Pressure, SubscriptionRef.make<Level>("normal"))
    ]),
    Layer.provideMerge(shared)
  )
  const registry = new Map()
  return {
    asked,
    borrowed: () => borrowed,
    run: <A, E>(effect: Effect.Effect<A, E, Inference | DecisionLog.DecisionLog | Breaker.Breaker>) =>
      effect.pipe(Effect.provide(layer), Effect.provideService(Metric.MetricRegistry, registry))
  }
}

/** All that a reader gets, and how it ends. */
const read = Effect.fnUntraced(function*(request: Request) {
  const inference = yield* Inference
  const events: Array<Event> = []
  const exit = yield* Effect.exit(
    Stream.runForEach(inference.stream(request), (event) => Effect.sync(() => events.push(event)))
  )
  return { events, error: Exit.isFailure(exit) ? Cause.squash(exit.cause) as InferenceError.InferenceError : undefined }
})

const textOf = (events: ReadonlyArray<Event>) => events.map((event) => event.type === "text" ? event.text : "").join("")

describe("an answer whose deployment fails in the middle", () => {
  it.effect("is continued by the next deployment from the text so far, with a handoff event between the two texts", () => {
    const { asked, borrowed, run } = stage({
      a: cut("a", text("Hello "), text("wor", 2)),
      b: says(text("ld"), text("!"), finish(2, 11))
    })
    return Effect.gen(function*() {
      const { error, events } = yield* read({ ...request, maxTokens: 10 })
      assert.isUndefined(error)
      assert.deepStrictEqual(events, [
        text("Hello "),
        text("wor", 2),
        handoff("b"),
        text("ld"),
        text("!"),
        finish(5, 11)
      ])
      assert.deepStrictEqual(
        asked.map(([id, { assistantPrefix, maxTokens }]) => [id, assistantPrefix, maxTokens]),
        [["a", undefined, 10], ["b", "Hello wor", 7]]
      )
      assert.strictEqual(borrowed(), 0)
    }).pipe(run)
  })

  it.effect("is recorded with both attempts, as the answer of the last", () => {
    const { run } = stage({ a: cut("a", text("Hello ")), b: says(text("world"), finish(1)) })
    return Effect.gen(function*() {
      yield* read(request)
      const [record] = (yield* DecisionLog.DecisionLog).latest(1)
      assert.deepInclude(record, { answeredBy: "b", end: "success" })
      assert.deepStrictEqual(
        record!.attempts.map(({ deployment, error, outcome }) => [deployment, outcome, error?.reason]),
        [["a", "failed", "EngineCrashed"], ["b", "answered", undefined]]
      )
      const snapshot = yield* Metric.snapshot
      const tokens = snapshot.find(({ id }) => id === "llm_tokens_generated")
      assert.deepInclude(tokens?.state, { sum: 2 })
    }).pipe(run)
  })

  it.effect("is continued only if the policy says so", () => {
    const { asked, run } = stage({ a: cut("a", text("Hello ")), b: says(text("world"), finish(1)) }, {})
    return Effect.gen(function*() {
      const { error, events } = yield* read(request)
      assert.strictEqual(textOf(events), "Hello ")
      assert.strictEqual(error?.reason._tag, "EngineCrashed")
      assert.strictEqual(asked.length, 1)
    }).pipe(run)
  })

  it.effect("is continued by all remaining deployments, including those of fallback models", () => {
    const { asked, run } = stage(
      { a: cut("a", text("one ")), b: cut("b", text("two ")), c: says(text("three"), finish(1)) },
      { continue: true },
      ["c"]
    )
    return Effect.gen(function*() {
      const { events } = yield* read(request)
      assert.deepStrictEqual(events, [
        text("one "),
        handoff("b"),
        text("two "),
        handoff("c"),
        text("three"),
        finish(3)
      ])
      assert.deepStrictEqual(asked.map(([, { assistantPrefix }]) => assistantPrefix), [undefined, "one", "one two"])
    }).pipe(run)
  })

  it.effect("has at most the attempts that the policy allows in total", () => {
    const parts = { a: cut("a", text("1")), b: cut("b", text("2")), c: says(text("3"), finish(1)) }
    const { asked, run } = stage(parts, { continue: true, maxAttempts: 2 })
    return Effect.gen(function*() {
      const { error, events } = yield* read(request)
      assert.strictEqual(textOf(events), "12")
      assert.deepStrictEqual(error?.attempts?.map(({ deployment }) => deployment), ["a", "b"])
      assert.strictEqual(asked.length, 2)
    }).pipe(run)
  })

  it.effect("fails with the reason of the cut if no other deployment continues it, and lists all attempts", () => {
    const hung = InferenceError.make(new InferenceError.EngineHung({ deployment: "b", afterMs: 5 }))
    const { borrowed, run } = stage({ a: cut("a", text("Hello ")), b: Stream.fail(hung) })
    return Effect.gen(function*() {
      const { error, events } = yield* read(request)
      assert.deepStrictEqual(events, [text("Hello ")])
      assert.strictEqual(error?.reason._tag, "EngineCrashed")
      assert.deepStrictEqual(error?.attempts?.map(({ reason }) => reason._tag), ["EngineCrashed", "EngineHung"])
      assert.strictEqual(borrowed(), 0)
      assert.strictEqual((yield* DecisionLog.DecisionLog).latest(1)[0]?.end, "failure")
    }).pipe(run)
  })

  const tokens = Effect.map(
    Metric.snapshot,
    (metrics) => metrics.find(({ id }) => id === "llm_tokens_generated")?.state
  )

  const losses: ReadonlyArray<readonly [how: string, tokens: number, b: Played | undefined]> = [
    ["no deployment is left", 2, undefined],
    ["the next fails", 2, Stream.fail(crashed("b"))],
    ["the next is cut too", 3, cut("b", text("!"))]
  ]
  for (const [how, sum, b] of losses) {
    it.effect(`counts the tokens of all deployments that sent content if it fails: ${how}`, () => {
      const { run } = stage({ a: cut("a", text("Hello "), text("world")), ...(b === undefined ? {} : { b }) })
      return Effect.gen(function*() {
        assert.isDefined((yield* read(request)).error)
        assert.deepInclude(yield* tokens, { count: 1, sum })
      }).pipe(run)
    })
  }

  it.effect("counts the tokens so far if the reader disconnects before another deployment sends content", () => {
    const { run } = stage({ a: cut("a", text("Hello "), text("world")), b: Stream.never })
    return Effect.gen(function*() {
      const reading = yield* Effect.forkChild(read(request))
      yield* TestClock.adjust(50)
      yield* Fiber.interrupt(reading)
      assert.deepInclude(yield* tokens, { count: 1, sum: 2 })
    }).pipe(run)
  })

  it.effect("omits the white space at the end of the text so far from the request and from the continuation", () => {
    const { asked, run } = stage({ a: cut("a", text("One.\n\n")), b: says(text("\n"), text("\n\nTwo"), finish(2)) })
    return Effect.gen(function*() {
      assert.strictEqual(textOf((yield* read(request)).events), "One.\n\n\nTwo")
      assert.strictEqual(asked[1]![1].assistantPrefix, "One.")
    }).pipe(run)
  })

  const call: Event = { type: "tool_call", index: 0, id: "1", name: "f", arguments: "{", tokens: 1 }
  const native = (hasMore: boolean): Event => ({
    type: "native",
    native: { dialect: "openai", form: "chunk", body: {}, hasMore },
    content: true,
    tokens: 0
  })
  const unsound: ReadonlyArray<readonly [why: string, request: Partial<Request>, ...said: ReadonlyArray<Event>]> = [
    ["a tool call has begun", { tools: [{ name: "f" }] }, text("x"), call],
    ["the model has reasoned before", {}, { type: "thoughts", text: "Hm", tokens: 1 }, text("x")],
    ["the model reasons within its text", {}, text("x"), { type: "thoughts", text: "Hm", tokens: 1 }],
    ["its provider has sent more than text", {}, native(true), text("x")],
    ["its provider has sent more than text, and no text", {}, native(true)],
    ["its text is JSON", { format: { type: "json_object" } }, text("{")],
    ["log-probabilities are asked for", { logprobs: 1 }, text("x")],
    ["it must call a tool", { tools: [{ name: "f" }], toolChoice: "required" }, text(" ")],
    ["all of its tokens are said", { maxTokens: 2 }, text("x", 2)]
  ]
  for (const [why, more, ...said] of unsound) {
    it.effect(`fails if ${why}`, () => {
      const { asked, run } = stage({ a: cut("a", ...said), b: says(text("world"), finish(1)) })
      return Effect.gen(function*() {
        const { error, events } = yield* read({ ...request, ...more })
        assert.deepStrictEqual(events, said)
        assert.strictEqual(error?.reason._tag, "EngineCrashed")
        assert.strictEqual(asked.length, 1)
      }).pipe(run)
    })
  }

  for (const said of [[native(false), text("Hello ")], [native(false)]]) {
    it.effect(`requests no native answer from the next after ${said.length} native events`, () => {
      const { asked, run } = stage({ a: cut("a", ...said), b: says(text("world"), finish(1)) })
      return Effect.gen(function*() {
        const { error, events } = yield* read(request)
        assert.isUndefined(error)
        assert.deepStrictEqual(events.slice(0, said.length + 1), [...said, handoff("b")])
        assert.deepStrictEqual(asked.map(([, { resumed }]) => resumed), [undefined, true])
      }).pipe(run)
    })
  }

  it.effect("counts against its deployment's circuit", () => {
    const { asked, run } = stage({ a: cut("a", text("Hello ")), b: says(text("world"), finish(1)) })
    return Effect.gen(function*() {
      yield* Effect.replicateEffect(read(request), 6)
      assert.deepStrictEqual(asked.slice(-1).map(([id]) => id), ["b"])
      assert.strictEqual(asked.filter(([id]) => id === "a").length, 5)
    }).pipe(run)
  })

  it.effect("is continued, after a hedged attempt has won, by the deployment that was only slower", () => {
    let times = 0
    const { asked, borrowed, run } = stage(
      {
        a: Stream.suspend(() => times++ === 0 ? Stream.never : says(text("world"), finish(1))),
        b: cut("b", text("Hello "))
      },
      { continue: true, hedge: { share: 1, afterMs: 50 } }
    )
    return Effect.gen(function*() {
      const reading = yield* Effect.forkChild(read(request))
      yield* TestClock.adjust(50)
      assert.deepStrictEqual((yield* Fiber.join(reading)).events, [
        text("Hello "),
        handoff("a"),
        text("world"),
        finish(2)
      ])
      assert.deepStrictEqual(asked.map(([id]) => id), ["a", "b", "a"])
      assert.strictEqual(borrowed(), 0)
    }).pipe(run)
  })

  it.effect("is repeated from the beginning by another deployment if no part of it was sent", () => {
    const { asked, run } = stage({ a: cut("a", text("Hello ")), b: says(text("Hi"), finish(1)) })
    return Effect.gen(function*() {
      const answer = yield* Inference.use((inference) => inference.generate(request))
      assert.deepInclude(answer, { text: "Hi", deployment: "b", attempts: 2 })
      assert.isUndefined(asked[1]![1].assistantPrefix)
    }).pipe(run)
  })
})

describe("a request with a text so far", () => {
  it.effect("gets an answer that continues that text", () => {
    const { asked, run } = stage({ a: cut("a", text("b")), b: says(text("c"), finish(1)) })
    return Effect.gen(function*() {
      assert.strictEqual(textOf((yield* read({ ...request, assistantPrefix: "a" })).events), "bc")
      assert.deepStrictEqual(asked.map(([, { assistantPrefix }]) => assistantPrefix), ["a", "ab"])
    }).pipe(run)
  })

  it.effect("has no format", () => {
    const { run } = stage({ a: says(finish(1)) })
    return Effect.gen(function*() {
      const { error } = yield* read({ ...request, assistantPrefix: "{", format: { type: "json_object" } })
      assert.strictEqual(error?.reason._tag === "InvalidRequest" && error.reason.path, "assistantPrefix")
    }).pipe(run)
  })
})

describe("a defect of an engine", () => {
  const broken = new Error("secret words")

  it.effect("is a failure like others; only the log has its message", () => {
    const { run } = stage({ a: Stream.die(broken) }, {})
    const logged: Array<unknown> = []
    const logger = Logger.make(({ cause, message }) => logged.push(message, Cause.pretty(cause)))
    return Effect.gen(function*() {
      const error = yield* Effect.flip(Inference.use((inference) => inference.generate(request)))
      assert.strictEqual(error.reason._tag, "EngineFailed")
      assert.notInclude(JSON.stringify([error, error.message, (yield* DecisionLog.DecisionLog).latest(1)]), "secret")
      assert.include(String(logged), "secret words")
    }).pipe(run, Effect.provide(Logger.layer([logger])))
  })

  const release = (id: string) => id === "a" ? Effect.die(broken) : Effect.void
  const answering = { b: says(text("Hi"), finish(1)) }
  for (const [how, hedge] of [["in turn", undefined], ["beside each other", { share: 0, afterMs: 50 }]] as const) {
    it.effect(`during the release of its resources does not prevent an answer, ${how}`, () => {
      const { run } = stage({ a: cut("a"), ...answering }, { hedge }, [], release)
      return Effect.gen(function*() {
        const answer = yield* Effect.forkChild(Inference.use((inference) => inference.generate(request)))
        yield* TestClock.adjust(100)
        assert.deepInclude(yield* Fiber.join(answer), { text: "Hi", deployment: "b", attempts: 2 })
      }).pipe(run)
    })
  }

  it.effect("in a slower attempt does not affect the answer", () => {
    const { run } = stage(
      { a: Stream.never, ...answering },
      { hedge: { share: 1, afterMs: 50 } },
      [],
      release
    )
    return Effect.gen(function*() {
      const reading = yield* Effect.forkChild(read(request))
      yield* TestClock.adjust(50)
      assert.deepStrictEqual(yield* Fiber.join(reading), { events: [text("Hi"), finish(1)], error: undefined })
    }).pipe(run)
  })
})
