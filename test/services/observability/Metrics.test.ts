/** Memory and queues, as they are sampled for the metrics. */
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Layer, Metric } from "effect"
import { TestClock } from "effect/testing"
import { none as noCache, ResponseCache } from "../../../src/services/cache/ResponseCache.ts"
import type { Status } from "../../../src/services/models/Actor.ts"
import { Models } from "../../../src/services/models/Models.ts"
import * as Registry from "../../../src/services/models/Registry.ts"
import * as Metrics from "../../../src/services/observability/Metrics.ts"
import { Settings } from "../../../src/services/settings/Settings.ts"
import * as Deployments from "../../support/Deployments.ts"

const gauge = (id: string) =>
  Effect.map(Metric.snapshot, (snapshots) => {
    const found = snapshots.find((one) => one.id === id)
    return found?.type === "Gauge" ? Number(found.state.value) : Number.NaN
  })

describe("the sampler", () => {
  it.effect("sets the gauges to the sums over all deployments, as often as the settings say", () => {
    let statuses: ReadonlyArray<Status> = []
    const status = (queued: number, memoryBytes: number): Status => ({
      deployment: "a",
      state: "ready",
      running: 0,
      queued,
      memoryBytes,
      limit: 10 + queued
    })
    const models = Layer.mock(Models)({
      drained: new Map(),
      tryLease: () => undefined,
      renew: () => {},
      snapshot: () => ({ queued: 0, state: "ready" }),
      statuses: Effect.sync(() => statuses)
    })
    const contents = {
      ...noCache.contents(),
      memory: { entries: 1, bytes: 5 },
      compact: { entries: 2, bytes: 7 },
      semantic: { entries: 3, bytes: 9, hits: 0, questions: [] }
    }
    const settings = Layer.succeed(Settings, Deployments.settings({ models: [], sampleEvery: Duration.seconds(7) }))
    const cache = Layer.succeed(ResponseCache, { ...noCache, contents: () => contents })
    return Effect.gen(function*() {
      yield* TestClock.adjust(0)
      assert.strictEqual(yield* gauge("llm_queue_size"), 0)
      assert.strictEqual(yield* gauge("llm_cache_bytes"), 5)
      const own = yield* gauge("llm_memory_usage_bytes")
      assert.isAbove(own, 0)
      statuses = [status(3, 2 ** 40), status(4, 2 ** 40)]
      yield* TestClock.adjust("7 seconds")
      assert.strictEqual(yield* gauge("llm_queue_size"), 7)
      assert.isAbove(yield* gauge("llm_memory_usage_bytes"), 2 ** 41)
      assert.strictEqual(yield* gauge("troupe_concurrency_limit"), 14)
      statuses = []
      yield* TestClock.adjust("7 seconds")
      assert.notInclude((yield* Metric.snapshot).map(({ id }) => id), "troupe_concurrency_limit")
    }).pipe(
      Effect.provide(
        Layer.provide(Metrics.layerSampler, [
          models,
          cache,
          settings,
          Layer.succeed(Registry.Registry, Registry.make([]))
        ])
      ),
      Effect.provideService(Metric.MetricRegistry, new Map())
    )
  })
})
