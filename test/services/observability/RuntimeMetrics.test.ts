/** The state of the runtime as metrics, of services that the test changes. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Metric, Stream } from "effect"
import { TestClock } from "effect/testing"
import type { Model } from "../../../src/domain/Deployment.ts"
import type { State } from "../../../src/services/health/Breaker.ts"
import { Breaker } from "../../../src/services/health/Breaker.ts"
import type { Occupancy, Status } from "../../../src/services/models/Actor.ts"
import type { MemoryUse } from "../../../src/services/models/Models.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import { mostLabels } from "../../../src/services/models/Wildcards.ts"
import * as RuntimeMetrics from "../../../src/services/observability/RuntimeMetrics.ts"
import { modelWith } from "../../../src/services/settings/Resolution.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import * as Deployments from "../../support/Deployments.ts"

/** The values of all gauges whose names begin so, by name and labels. */
const gauges = (prefix: string) =>
  Effect.map(Metric.snapshot, (snapshots) =>
    Object.fromEntries(
      snapshots.filter(({ id }) => id.startsWith(prefix)).map(({ attributes, id, state }) => [
        [id, ...Object.values(attributes ?? {})].join(" "),
        "value" in state ? Number(state.value) : Number.NaN
      ])
    ))

const noCircuits = {
  enterClosed: () => undefined,
  failures: () => undefined,
  openings: () => 0,
  closedFor: () => 0
}

const modelsOf = (...ids: ReadonlyArray<string>): ReadonlyArray<Model> => [
  { name: "chat", deployments: ids.map((id) => Deployments.deployment(id)) } as unknown as Model
]

describe("the sampler of the runtime", () => {
  it.effect("has slots, circuits and memory, and nothing of what is gone", () => {
    const status: Status = { deployment: "a", state: "ready", running: 2, queued: 1, memoryBytes: 30 }
    const world = {
      statuses: [status] as ReadonlyArray<Status>,
      occupancy: { demand: 3, slots: 4, replicas: 1, isLoading: false } as Occupancy | undefined,
      memory: { budgetBytes: 100, grantedBytes: 40, gpu: { usedBytes: 3, totalBytes: 8 } } as MemoryUse,
      circuits: ["a", "b"].map((deployment): State => ({ deployment, phase: "open", retryAfterMs: 1, successes: 0 }))
    }
    const models = Layer.mock(Models)({
      drained: new Map(),
      tryLease: () => undefined,
      renew: () => {},
      snapshot: () => ({ queued: 0, state: "ready" }),
      events: Stream.never,
      statuses: Effect.sync(() => world.statuses),
      occupancy: () => Effect.sync(() => world.occupancy),
      memory: Effect.sync(() => world.memory)
    })
    const breaker = Layer.mock(Breaker)({
      ...noCircuits,
      states: Effect.sync(() => world.circuits),
      transitions: Stream.never
    })
    const registry = Registry.make(modelsOf("a", "b"))
    const settings = Layer.succeed(Settings, Deployments.settings({ sampleEvery: Duration.seconds(5) }))
    const figures = { eventLoopDelay: () => 0, heapBytes: () => 1, cpuSeconds: () => 2, uptimeSeconds: () => 3 }
    return Effect.gen(function*() {
      yield* TestClock.adjust(0)
      assert.deepStrictEqual(yield* gauges("troupe_deployment"), {
        "troupe_deployment_running a": 2,
        "troupe_deployment_queued a": 1,
        "troupe_deployment_memory_bytes a": 30,
        "troupe_deployment_loaded a": 1,
        "troupe_deployment_slots a": 4
      })
      assert.deepStrictEqual(yield* gauges("troupe_memory"), {
        "troupe_memory_budget_bytes": 100,
        "troupe_memory_granted_bytes": 40
      })
      assert.deepStrictEqual(yield* gauges("troupe_gpu"), {
        "troupe_gpu_memory_used_bytes": 3,
        "troupe_gpu_memory_total_bytes": 8
      })
      assert.deepStrictEqual(yield* gauges("troupe_circuit"), {
        "troupe_circuit_open_max a": 2,
        "troupe_circuit_open_max b": 2
      })
      registry.replace?.(modelsOf("a"))
      world.occupancy = undefined
      world.memory = { budgetBytes: Number.POSITIVE_INFINITY, grantedBytes: 0, gpu: undefined }
      yield* TestClock.adjust("5 seconds")
      assert.notProperty(yield* gauges("troupe_deployment"), "troupe_deployment_slots a")
      assert.deepStrictEqual(yield* gauges("troupe_circuit"), { "troupe_circuit_open_max a": 2 })
      assert.deepStrictEqual(yield* gauges("troupe_memory"), { "troupe_memory_granted_bytes": 0 })
      assert.deepStrictEqual(yield* gauges("troupe_gpu"), {})
      world.statuses = []
      world.circuits = []
      yield* TestClock.adjust("5 seconds")
      assert.deepStrictEqual({ ...yield* gauges("troupe_deployment"), ...yield* gauges("troupe_circuit") }, {})
      assert.containsAllKeys(yield* gauges("troupe_"), ["troupe_heap_used_bytes", "troupe_uptime_seconds_max"])
    }).pipe(
      Effect.provide(
        Layer.provide(RuntimeMetrics.layer(figures), [
          models,
          breaker,
          settings,
          Layer.succeed(Registry.Registry, registry)
        ])
      ),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })

  it.effect("adds up the deployments of a wildcard that are not labels", () => {
    const ids = Array.from({ length: mostLabels + 2 }, (_, index) => `w/${index}#0`)
    const models = Layer.mock(Models)({
      tryLease: () => undefined,
      renew: () => {},
      snapshot: () => ({ queued: 0, state: "ready" }),
      events: Stream.never,
      statuses: Effect.succeed(
        ids.map((deployment): Status => ({ deployment, state: "ready", running: 2, queued: 1, memoryBytes: 0 }))
      ),
      occupancy: () => Effect.succeed(undefined),
      memory: Effect.succeed({ budgetBytes: 100, grantedBytes: 0, gpu: undefined })
    })
    const breaker = Layer.mock(Breaker)({
      ...noCircuits,
      states: Effect.succeed(ids.map((deployment, index): State => ({
        deployment,
        phase: index === mostLabels ? "open" : "closed",
        retryAfterMs: 1,
        successes: 0
      }))),
      transitions: Stream.never
    })
    const registry = Registry.make([modelWith("w/*", { engine: "remote", provider: "openai", model: "*" })])
    for (const id of ids) registry.call?.(id.slice(0, -2))
    const settings = Layer.succeed(Settings, Deployments.settings({ sampleEvery: Duration.seconds(5) }))
    const figures = { eventLoopDelay: () => 0, heapBytes: () => 1, cpuSeconds: () => 2, uptimeSeconds: () => 3 }
    return Effect.gen(function*() {
      yield* TestClock.adjust(0)
      const running = yield* gauges("troupe_deployment_running")
      assert.lengthOf(Object.keys(running), mostLabels + 1)
      assert.deepInclude(running, {
        [`troupe_deployment_running w/${mostLabels - 1}#0`]: 2,
        "troupe_deployment_running w/*#0": 4
      })
      assert.propertyVal(yield* gauges("troupe_deployment_loaded"), "troupe_deployment_loaded w/*#0", 1)
      const circuits = yield* gauges("troupe_circuit")
      assert.lengthOf(Object.keys(circuits), mostLabels + 1)
      assert.propertyVal(circuits, "troupe_circuit_open_max w/*#0", 2)
    }).pipe(
      Effect.provide(
        Layer.provide(RuntimeMetrics.layer(figures), [
          models,
          breaker,
          settings,
          Layer.succeed(Registry.Registry, registry)
        ])
      ),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })
})
