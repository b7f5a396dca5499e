/** What health says of models and stores, with services that the test changes. */
import { assert, describe, it } from "@effect/vitest"
import { Cause, Duration, Effect, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import type { Model } from "../../../src/domain/Deployment.ts"
import { Providers } from "../../../src/services/engines/Providers.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import * as HealthDetails from "../../../src/services/health/HealthDetails.ts"
import { Readiness } from "../../../src/services/health/Readiness.ts"
import type { Store } from "../../../src/services/health/StoreHealth.ts"
import { ask, Stores } from "../../../src/services/health/StoreHealth.ts"
import { Models } from "../../../src/services/models/Models.ts"
import { Registry } from "../../../src/services/models/Registry.ts"
import * as OperatorEvents from "../../../src/services/observability/OperatorEvents.ts"
import { ProcessGroup } from "../../../src/services/processes/ProcessGroup.ts"
import { admissionOf } from "../../../src/services/settings/AdmissionSettings.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import * as Deployments from "../../support/Deployments.ts"

const modelOf = (
  name: string
): Model => ({ name, deployments: [Deployments.deployment(`${name}#0`)] } as unknown as Model)

const budgets = (more: object) => admissionOf({ budgets: { all: { period: "day", usd: 1, ...more } } } as never)

interface World {
  models: ReadonlyArray<Model>
  open: ReadonlyArray<string>
}

const layerOf = (
  world: World,
  stores: ReadonlyArray<Store>,
  admission = admissionOf({}),
  readiness: Readiness["Service"] = Readiness.of({ status: "ready" })
) =>
  HealthDetails.layer.pipe(Layer.provide([
    Layer.mock(Models)({
      drained: new Map(),
      tryLease: () => undefined,
      renew: () => {},
      snapshot: () => ({ queued: 0, state: "ready" }),
      status: ({ id }) => Effect.succeed({ deployment: id, state: "ready", running: 0, queued: 0, memoryBytes: 0 })
    }),
    Layer.mock(Registry)({
      models: () => world.models,
      find: () => {
        throw new Error("It is not searched.")
      }
    }),
    Layer.mock(Breaker)({
      enterClosed: () => undefined,
      failures: () => undefined,
      openings: () => 0,
      closedFor: (id) => world.open.includes(id) ? 1_500 : 0
    }),
    Layer.mock(Providers)({ waitingKeys: () => undefined } as never),
    Layer.succeed(Readiness, readiness),
    Layer.succeed(Settings, Deployments.settings({ admission, sampleEvery: Duration.seconds(5) })),
    Layer.succeed(Stores, stores)
  ]))

const run = <A, E>(effect: Effect.Effect<A, E, HealthDetails.HealthDetails>, layer: ReturnType<typeof layerOf>) =>
  Effect.provideService(Effect.provide(effect, layer), Metric.MetricRegistry, new Map())

describe("health", () => {
  it.effect("names each deployment that cannot answer, and follows the models", () => {
    const world: World = { models: [modelOf("a"), modelOf("b")], open: ["a#0"] }
    return run(
      Effect.gen(function*() {
        const { ready } = yield* HealthDetails.HealthDetails
        const first = yield* ready
        assert.strictEqual(first.status, "ready")
        assert.deepStrictEqual(first.deployments.map(({ deployment, unavailable }) => [deployment, unavailable]), [
          ["a#0", "its circuit is open; a call may try it in 2 s"],
          ["b#0", undefined]
        ])
        world.models = [modelOf("a")]
        const second = yield* ready
        assert.deepInclude(second, { status: "unavailable" })
        assert.lengthOf(second.deployments, 1)
        assert.notProperty(second, "stores")
      }),
      layerOf(world, [])
    )
  })

  const storeOf = (hasCounters: boolean, ask: Store["ask"]): Store => ({ name: "redis", hasCounters, ask })
  const world: World = { models: [modelOf("a")], open: [] }

  it.effect("is not ready while a store does not answer that has the counters of a budget for all, and is again after it", () => {
    let isLost = false
    const store = storeOf(true, Effect.suspend(() => isLost ? Effect.fail("lost") : Effect.void))
    return run(
      Effect.gen(function*() {
        const { ready, report } = yield* HealthDetails.HealthDetails
        yield* TestClock.adjust(0)
        assert.deepInclude(yield* ready, {
          status: "ready",
          stores: [{ store: "redis", available: true, needed: true }]
        })
        isLost = true
        yield* TestClock.adjust("5 seconds")
        const problem = "Redis is lost: all requests get 503."
        const lost = {
          status: "unavailable",
          stores: [{ store: "redis", available: false, needed: true, problem, since: 5_000 }]
        } as const
        assert.deepInclude(yield* ready, lost)
        assert.deepInclude(yield* report, lost)
        yield* TestClock.adjust("5 seconds")
        assert.deepInclude(yield* ready, lost)
        isLost = false
        yield* TestClock.adjust("5 seconds")
        assert.deepInclude(yield* ready, { status: "ready" })
        const { windows: [window] } = yield* report
        assert.isBelow(window?.availability ?? 1, 1)
        const events = (yield* OperatorEvents.OperatorEvents).latest({ kind: "store" })
        assert.deepStrictEqual(events.map(({ message, severity }) => [severity, message]), [
          ["info", "Redis answers again."],
          ["critical", problem]
        ])
      }),
      Layer.provideMerge(layerOf(world, [store], budgets({})), OperatorEvents.layer)
    )
  })

  it.effect("has the uptime of the service, and that of a process which was started again", () =>
    Effect.gen(function*() {
      yield* TestClock.adjust("1 hour")
      const uptime = yield* HealthDetails.makeUptime
      yield* TestClock.adjust("10 seconds")
      assert.deepStrictEqual(uptime(), { uptimeSeconds: 3_610, processUptimeSeconds: [10] })
    }).pipe(Effect.provideService(ProcessGroup, {
      generation: 1,
      isBeside: false,
      index: 1,
      count: 2,
      since: 0,
      port: 3000,
      configuration: undefined,
      numbering: [],
      send: () => {},
      listen: () => {}
    })))

  it.effect("counts from when the service is first ready, and then each time in which it is not", () => {
    const readiness = Readiness.of({ status: "starting" })
    return run(
      Effect.gen(function*() {
        const { report } = yield* HealthDetails.HealthDetails
        yield* TestClock.adjust("40 seconds")
        assert.deepInclude((yield* report).windows[0], { seconds: 0, availability: 1 })
        readiness.status = "ready"
        yield* TestClock.adjust("60 seconds")
        const { uptimeSeconds, windows: [window] } = yield* report
        assert.strictEqual(uptimeSeconds, 100)
        assert.deepInclude(window, { seconds: 60, availability: 1, meetsTargets: true })
        readiness.status = "stopping"
        yield* TestClock.adjust("60 seconds")
        assert.deepInclude((yield* report).windows[0], { seconds: 120, availability: 0.5, meetsTargets: false })
      }),
      layerOf(world, [], admissionOf({}), readiness)
    )
  })

  it.effect("stays ready without a store that requests do not need, and says so", () =>
    run(
      Effect.gen(function*() {
        const { ready } = yield* HealthDetails.HealthDetails
        yield* TestClock.adjust(0)
        assert.deepInclude(yield* ready, {
          status: "ready",
          stores: [{
            store: "redis",
            available: false,
            needed: false,
            problem: "Redis is lost: requests are answered without it.",
            since: 0
          }]
        })
      }),
      layerOf(world, [storeOf(true, Effect.fail("lost"))], budgets({ mode: "shadow" }))
    ))

  it.effect("says that requests with a budget are rejected, where some have one", () =>
    Effect.gen(function*() {
      const problemsOf = (hasCounters: boolean, admission: ReturnType<typeof admissionOf>, keysHaveBudgets: boolean) =>
        Effect.map(
          ask([storeOf(hasCounters, Effect.fail("lost"))], { admission }, Effect.succeed(keysHaveBudgets)),
          (states) => states.map(({ needed, problem }) => [needed, problem])
        )
      const rejected = [[false, "Redis is lost: requests with a budget get 503."]]
      const answered = [[false, "Redis is lost: requests are answered without it."]]
      assert.deepStrictEqual(yield* problemsOf(true, budgets({ keys: ["ada"] }), false), rejected)
      assert.deepStrictEqual(yield* problemsOf(true, admissionOf({}), true), rejected)
      assert.deepStrictEqual(yield* problemsOf(true, admissionOf({}), false), answered)
      assert.deepStrictEqual(yield* problemsOf(false, budgets({ keys: ["ada"] }), true), answered)
    }))

  it.effect("counts a store that hangs, or whose client breaks, as lost, and needs the counters only", () =>
    Effect.gen(function*() {
      const stores = [storeOf(true, Effect.never), storeOf(false, Effect.die("broken")), storeOf(true, Effect.void)]
      const asked = yield* Effect.forkChild(ask(stores, { admission: budgets({}) }))
      yield* TestClock.adjust("2 seconds")
      const exit = asked.pollUnsafe()
      assert.strictEqual(exit?._tag, "Success", exit?._tag === "Failure" ? Cause.pretty(exit.cause) : "")
      if (exit?._tag !== "Success") return
      assert.deepStrictEqual(exit.value.map(({ available, needed }) => [available, needed]), [
        [false, true],
        [false, false],
        [true, true]
      ])
    }))
})
