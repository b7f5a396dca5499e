/** The phases of a request, queue, load, prefill and stream, and what limits and counts each: real actors, scripted engines. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber, Layer, Random, Stream, SubscriptionRef } from "effect"
import { TestClock } from "effect/testing"
import * as Defaults from "../../../src/domain/Defaults.ts"
import type { Model } from "../../../src/domain/Deployment.ts"
import * as RoutingPolicy from "../../../src/domain/RoutingPolicy.ts"
import type { Name } from "../../../src/domain/Strategies.ts"
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
import * as Router from "../../../src/services/routing/Router.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import { deployment } from "../../support/Deployments.ts"
import type { EngineBehaviour, ScriptedEngines } from "../../support/ScriptedEngines.ts"
import { finished, hold, scriptedEngines, settingsOf, settle, statusOf } from "../../support/ScriptedEngines.ts"

/** Deployments of `a`, whose loads take `seconds`, and the fallback `b#0`, which loads at once. */
const play = (
  behaviour: Pick<EngineBehaviour, "load">,
  policy: Partial<RoutingPolicy.Policy>,
  count = 1,
  firstMs = 0
) => {
  let run: (effect: Effect.Effect<unknown>) => unknown = () => assert.fail("not begun")
  const setup: ScriptedEngines = scriptedEngines({
    ...behaviour,
    onJob: (engine, { emit, job }) => {
      const answer = () =>
        job.kind === "embed"
          ? emit({
            type: "result",
            result: {
              kind: "embed",
              embeddings: job.inputs.map(() => ({
                ok: true,
                value: { vector: Float32Array.of(1), promptTokens: 1 }
              }))
            }
          })
          : emit({ type: "tokens", text: engine.deployment.id, count: 1 }, finished)
      run(Effect.andThen(firstMs > 0 ? Effect.sleep(firstMs) : Effect.yieldNow, Effect.sync(answer)))
      return { onCommand: ({ type }) => type === "cancel" && emit({ type: "cancelled" }), onEnd: () => {} }
    }
  })
  const own = { ...RoutingPolicy.defaults, retries: 0, ...policy }
  const [first, ...others] = Array.from({ length: count }, (_, index) => deployment(`a#${index}`))
  const models: ReadonlyArray<Model> = [
    {
      name: "a",
      deployments: [first!, ...others],
      routing: { policy: own, fallbacks: { ordinary: ["b"], context: [], content: [] } }
    },
    { name: "b", deployments: [deployment("b#0")] }
  ]
  const layer = InferenceLayer.layer.pipe(
    Layer.provideMerge(
      Layer.mergeAll(Router.layer, Metrics.layer, DecisionLog.layer, ResponseCacheLayer.layer, Backoff.layer)
    ),
    Layer.provide(Layer.effect(Pressure, SubscriptionRef.make<Level>("normal"))),
    Layer.provideMerge(Breaker.layerWith(Defaults.breaker)),
    Layer.provideMerge(Registry.layer),
    Layer.provide(Layer.succeed(Settings, { ...settingsOf({}), models })),
    Layer.provideMerge(setup.layer)
  )
  const begin = Effect.map(Effect.context(), (context) => {
    run = Effect.runForkWith(context)
  })
  return { begin, layer, setup }
}

const messages = [{ role: "user", content: "Hello" }] as const

/** Requests in three ways; each returns the deployment that answered. */
const ways = {
  buffered: Inference.use(({ generate }) => Effect.map(generate({ model: "a", messages }), ({ text }) => text)),
  stream: Inference.use(({ stream }) =>
    Effect.map(
      Stream.runCollect(stream({ model: "a", messages })),
      (events) => events.map((event) => event.type === "text" ? event.text : "").join("")
    )
  ),
  embed: Inference.use(({ embed }) =>
    Effect.map(embed({ model: "a", inputs: ["x"], route: { fallbacks: ["b"] } }), ({ deployment }) => deployment)
  )
} as const

const a = deployment("a#0")

const loadsIn = (seconds: number): Pick<EngineBehaviour, "load"> => ({
  load: (_, { id }) => id === "a#0" ? Effect.sleep(Duration.seconds(seconds)) : Effect.void
})

const loadsOf = ({ engines }: ScriptedEngines, id: string) =>
  engines.filter((engine) => engine.deployment.id === id).length

const phaseOf = Effect.map(
  Breaker.Breaker.use(({ states }) => states),
  (states) => states.find((state) => state.deployment === "a#0")?.phase
)

const outcomeOf = <A, E extends { readonly message: string }>(fiber: Fiber.Fiber<A, E>) =>
  Effect.match(Fiber.join(fiber), { onSuccess: (answer) => answer, onFailure: ({ message }) => message })

interface Limit {
  readonly policy: Partial<RoutingPolicy.Policy>
  /** Of a request for a model whose load takes 10 s. */
  readonly outcome: string
  readonly afterMs: number
}

const limits: Readonly<Record<string, Limit>> = {
  "no limit": { policy: {}, outcome: "a#0", afterMs: 10_000 },
  queue: { policy: { timeouts: { queueMs: 2_000 } }, outcome: "b#0", afterMs: 2_000 },
  "first token": { policy: { timeouts: { firstTokenMs: 2_000 } }, outcome: "a#0", afterMs: 10_000 },
  stall: { policy: { timeouts: { stallMs: 2_000 } }, outcome: "a#0", afterMs: 10_000 },
  total: {
    policy: { timeouts: { totalMs: 2_000 } },
    outcome: "\"a#0\" took longer than 2000 ms (total).",
    afterMs: 2_000
  },
  hedge: { policy: { hedge: { share: 1, afterMs: 2_000 } }, outcome: "b#0", afterMs: 2_000 }
}

describe("a load of 10 s", () => {
  for (const [name, { afterMs, outcome, policy }] of Object.entries(limits)) {
    for (const [way, ask] of Object.entries(ways)) {
      for (const shared of [false, true]) {
        it.effect(`continues under the limit ${name}: ${way}, ${shared ? "another waits" : "no other waits"}`, () => {
          const { begin, layer, setup } = play(loadsIn(10), policy)
          return Effect.gen(function*() {
            yield* begin
            const asking = yield* Effect.forkChild(ask)
            const other = shared ? yield* hold(a) : undefined
            yield* settle
            yield* TestClock.adjust(afterMs - 1)
            assert.isUndefined(asking.pollUnsafe())
            yield* TestClock.adjust(1)
            assert.strictEqual(yield* outcomeOf(asking), outcome)
            yield* TestClock.adjust(10_000 - afterMs)
            assert.strictEqual((yield* statusOf(a)).state, "ready")
            assert.strictEqual((yield* statusOf(a)).running, shared ? 1 : 0)
            assert.strictEqual(loadsOf(setup, "a#0"), 1)
            if (other !== undefined) yield* Fiber.interrupt(other)
            // It serves what comes next.
            const next = yield* Effect.forkChild(ask)
            yield* settle
            assert.strictEqual(yield* outcomeOf(next), "a#0")
          }).pipe(Effect.provide(layer), Random.withSeed("phases"))
        })
      }
    }
  }

  for (const [way, ask] of Object.entries(ways)) {
    for (const shared of [false, true]) {
      it.effect(`${shared ? "continues for another caller" : "ends"} when its caller disconnects: ${way}`, () => {
        const { begin, layer } = play(loadsIn(10), { timeouts: { queueMs: 8_000, totalMs: 9_000 } })
        return Effect.gen(function*() {
          yield* begin
          const asking = yield* Effect.forkChild(ask)
          const other = shared ? yield* hold(a) : undefined
          yield* settle
          yield* TestClock.adjust(2_000)
          yield* Fiber.interrupt(asking)
          yield* settle
          assert.strictEqual((yield* statusOf(a)).state, shared ? "loading" : "cold")
          if (other !== undefined) yield* Fiber.interrupt(other)
        }).pipe(Effect.provide(layer))
      })
    }
  }

  for (const [name, limit] of Object.entries(limits)) {
    it.effect(`opens no circuit for any number of waiting requests under the limit ${name}`, () => {
      const { begin, layer } = play(loadsIn(10), limit.policy)
      return Effect.gen(function*() {
        yield* begin
        const asking = yield* Effect.forEach(Array.from({ length: 12 }), () => Effect.forkChild(ways.buffered))
        yield* TestClock.adjust("20 seconds")
        yield* Effect.forEach(asking, outcomeOf)
        assert.strictEqual(yield* phaseOf, "closed")
      }).pipe(Effect.provide(layer))
    })
  }
})

describe("a first token", () => {
  for (const way of ["buffered", "stream"] as const) {
    it.effect(`is limited from the lease of the slot on, and a timeout counts: ${way}`, () => {
      const { begin, layer } = play(loadsIn(10), { timeouts: { firstTokenMs: 2_000 } }, 1, 3_000)
      return Effect.gen(function*() {
        yield* begin
        const asking = yield* Effect.forkChild(ways[way])
        yield* TestClock.adjust(11_999)
        assert.deepInclude(yield* statusOf(a), { running: 1 })
        yield* TestClock.adjust(1)
        assert.deepInclude(yield* statusOf(a), { running: 0 })
        yield* TestClock.adjust("1 minute")
        assert.strictEqual(yield* outcomeOf(asking), "\"b#0\" took longer than 2000 ms (first token).")
      }).pipe(Effect.provide(layer))
    })
  }
})

describe("a load that hangs", () => {
  const hangs = (times: number): Pick<EngineBehaviour, "load"> => {
    let left = times
    return { load: (_, { id }) => Effect.suspend(() => id === "a#0" && left-- > 0 ? Effect.never : Effect.void) }
  }

  it.effect("ends at its limit: waiting requests fail, and new ones are rejected until the next try", () => {
    const { begin, layer, setup } = play(hangs(1), {})
    return Effect.gen(function*() {
      yield* begin
      const { lease } = yield* Models
      const waiting = yield* Effect.forEach(
        [1, 2, 3],
        () => Effect.forkChild(Effect.flip(Effect.scoped(lease(a, {}))))
      )
      yield* TestClock.adjust(Duration.toMillis(a.loadTimeout) - 1)
      assert.isTrue(setup.engines[0]!.open)
      yield* TestClock.adjust(1)
      for (const { reason } of yield* Fiber.joinAll(waiting)) {
        assert.deepInclude(reason, { _tag: "UpstreamTimeout", phase: "load", afterMs: 300_000 })
      }
      assert.isFalse(setup.engines[0]!.open)
      const { reason } = yield* Effect.flip(Effect.scoped(lease(a, {})))
      assert.deepInclude(reason, { _tag: "DeploymentDown", retryAfterMs: 30_000 })
      yield* TestClock.adjust(Defaults.probeAfter)
      yield* Effect.scoped(lease(a, {}))
      assert.strictEqual((yield* statusOf(a)).state, "ready")
    }).pipe(Effect.provide(layer))
  })

  it.effect("sends requests to the fallback models, opens no circuit, and is tried again for later requests", () => {
    const { begin, layer } = play(hangs(1), {})
    return Effect.gen(function*() {
      yield* begin
      const asking = yield* Effect.forEach(Array.from({ length: 8 }), () => Effect.forkChild(ways.buffered))
      yield* TestClock.adjust(a.loadTimeout)
      for (const one of asking) assert.strictEqual(yield* outcomeOf(one), "b#0")
      assert.strictEqual(yield* phaseOf, "closed")
      yield* TestClock.adjust(Defaults.probeAfter)
      const later = yield* Effect.forkChild(ways.buffered)
      yield* settle
      assert.strictEqual(yield* outcomeOf(later), "a#0")
    }).pipe(Effect.provide(layer))
  })

  it.effect("of another version keeps the old one loaded", () => {
    let loads = 0
    const { begin, layer } = play({ load: () => Effect.suspend(() => loads++ === 0 ? Effect.void : Effect.never) }, {})
    return Effect.gen(function*() {
      yield* begin
      const { lease, replace } = yield* Models
      yield* Effect.scoped(lease(a, {}))
      const replacing = yield* Effect.forkChild(Effect.flip(replace(deployment("a#0", { queueLimit: 1 }))))
      yield* TestClock.adjust("4 minutes")
      assert.strictEqual(yield* ways.buffered, "a#0")
      yield* TestClock.adjust("1 minute")
      assert.deepInclude((yield* Fiber.join(replacing)).reason, { _tag: "UpstreamTimeout", phase: "load" })
      assert.strictEqual(yield* ways.buffered, "a#0")
    }).pipe(Effect.provide(layer))
  })
})

describe("latency", () => {
  const strategies: ReadonlyArray<Name> = ["balanced", "speed", "latency"]
  for (const strategy of strategies) {
    it.effect(`does not count a load or a queue: after one, a deployment has its share of 40 requests by ${strategy}`, () => {
      const policy = { selection: { ...RoutingPolicy.defaults.selection, strategy } }
      const { begin, layer, setup } = play(loadsIn(60), policy, 2, 100)
      return Effect.gen(function*() {
        yield* begin
        // Both are measured, one of them by requests that waited for its load and in its queue.
        const { generate } = yield* Inference
        const to = (id: string) => Effect.forkChild(generate({ model: "a", messages, route: { deployments: [id] } }))
        const first = [...yield* Effect.forEach(Array.from({ length: 12 }), () => to("a#0")), yield* to("a#1")]
        yield* TestClock.adjust("61 seconds")
        yield* Fiber.joinAll(first)
        const before = setup.engines.map(({ jobs }) => jobs.length)
        const asking = yield* Effect.forEach(
          Array.from({ length: 40 }, (_, index) => index),
          (index) => Effect.forkChild(Effect.delay(ways.buffered, 40 * index))
        )
        yield* TestClock.adjust("1 minute")
        yield* Fiber.joinAll(asking)
        const shares = setup.engines.map(({ deployment: { id }, jobs }, index) =>
          [id, jobs.length - before[index]!] as const
        )
        const cold = new Map(shares).get("a#0")!
        assert.isAtLeast(cold, 12, JSON.stringify(shares))
      }).pipe(Effect.provide(layer), Random.withSeed("shares"))
    })
  }
})

describe("the index of prompts", () => {
  const policy = { selection: { ...RoutingPolicy.defaults.selection, strategy: "prefix" as const } }
  const ask = (content: string) =>
    Inference.use(({ generate }) => generate({ model: "a", messages: [{ role: "user", content }] }))
  /** The share of a prompt that a deployment is taken to have. */
  const shareOf = (content: string) =>
    Router.Router.use(({ preview }) =>
      Effect.map(
        Effect.fromResult(preview({
          model: "a",
          capabilities: ["generate"],
          promptText: () => JSON.stringify([[], [{ role: "user", content }]])
        })),
        ({ decision: { candidates } }) => candidates.find(({ deployment }) => deployment === "a#0")?.terms["share"]
      )
    )
  const prompt = "In the beginning there was a long and winding text. ".repeat(20)

  it.effect("has the prompts sent to a deployment, until its unload", () => {
    const { begin, layer } = play({}, policy)
    return Effect.gen(function*() {
      yield* begin
      yield* settle
      assert.strictEqual(yield* shareOf(prompt), 0)
      yield* ask(prompt)
      assert.strictEqual(yield* shareOf(prompt), 1)
      yield* Models.use(({ unload }) => unload(a))
      yield* settle
      assert.strictEqual(yield* shareOf(prompt), 0)
    }).pipe(Effect.provide(layer))
  })

  it.effect("does not have prompts that were refused before they had a slot", () => {
    const { begin, layer } = play(loadsIn(10), { ...policy, timeouts: { queueMs: 2_000 } })
    return Effect.gen(function*() {
      yield* begin
      const asking = yield* Effect.forkChild(ask(prompt))
      yield* settle
      assert.strictEqual(yield* shareOf(prompt), 0)
      yield* TestClock.adjust("1 minute")
      assert.strictEqual((yield* Fiber.join(asking)).text, "b#0")
      assert.strictEqual((yield* statusOf(a)).state, "ready")
      assert.strictEqual(yield* shareOf(prompt), 0)
    }).pipe(Effect.provide(layer))
  })

  it.effect("covers the first 65,536 characters of a prompt", () => {
    const { begin, layer } = play({}, policy)
    const beginning = "x".repeat(65_536)
    return Effect.gen(function*() {
      yield* begin
      yield* ask(`${beginning}${"y".repeat(65_536)}`)
      assert.strictEqual(yield* shareOf(`${beginning}${"z".repeat(65_536)}`), 1)
      assert.strictEqual(yield* shareOf(`z${beginning}`), 0)
    }).pipe(Effect.provide(layer))
  })
})
