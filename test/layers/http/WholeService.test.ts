import { assert, describe, it } from "@effect/vitest"
import type { Deployment } from "../../../src/layers/http/AdminSchema.ts"
import * as WholeService from "../../../src/layers/http/WholeService.ts"
import * as Availability from "../../../src/services/health/Availability.ts"
import type * as HealthDetails from "../../../src/services/health/HealthDetails.ts"

const deployment = (more: Partial<Deployment> = {}): Deployment => ({
  deployment: "a#0",
  state: "ready",
  running: 1,
  queued: 2,
  memoryBytes: 10,
  model: "a",
  engine: "openai",
  pinned: false,
  ...more
})

describe("WholeService", () => {
  it("adds what the caches of the processes hold, questions by model and tenant", () => {
    const row = (tenant: string, entries: number) => ({ model: "a", tenant, entries, bytes: 10 * entries, hits: 1 })
    const one = { entries: 1, bytes: 2 }
    const contents = (...questions: ReadonlyArray<ReturnType<typeof row>>) => ({
      memory: one,
      compact: one,
      store: true,
      // A list may be cut: the sums are of all.
      semantic: { entries: 9, bytes: 90, hits: 5, questions }
    })
    const two = { entries: 2, bytes: 4 }
    const merged = WholeService.cacheContents(contents(row("x", 3), row("y", 2)), [contents(row("y", 4))])
    assert.deepStrictEqual(merged, {
      memory: two,
      compact: two,
      store: true,
      semantic: { entries: 18, bytes: 180, hits: 10, questions: [{ ...row("y", 6), hits: 2 }, row("x", 3)] }
    })
  })

  it("adds the samples of each series, with the lines of a metric together", () => {
    const one = [
      "# HELP llm_requests_total Requests",
      "# TYPE llm_requests_total counter",
      "llm_requests_total{model=\"a b\",success=\"true\"} 2",
      "# HELP llm_seconds Duration",
      "# TYPE llm_seconds histogram",
      "llm_seconds_bucket{le=\"0.1\"} 1",
      "llm_seconds_bucket{le=\"+Inf\"} 2",
      "llm_seconds_sum 0.5",
      "llm_seconds_count 2",
      ""
    ].join("\n")
    const other = [
      "# HELP llm_requests_total Requests",
      "# TYPE llm_requests_total counter",
      "llm_requests_total{model=\"a b\",success=\"true\"} 3",
      "llm_requests_total{model=\"b } 7\",success=\"false\"} 1",
      "# HELP llm_queue Waiting",
      "# TYPE llm_queue gauge",
      "llm_queue 4",
      ""
    ].join("\n")
    assert.strictEqual(
      WholeService.metrics(one, [other, one]),
      [
        "# HELP llm_requests_total Requests",
        "# TYPE llm_requests_total counter",
        "llm_requests_total{model=\"a b\",success=\"true\"} 7",
        "llm_requests_total{model=\"b } 7\",success=\"false\"} 1",
        "# HELP llm_seconds Duration",
        "# TYPE llm_seconds histogram",
        "llm_seconds_bucket{le=\"0.1\"} 2",
        "llm_seconds_bucket{le=\"+Inf\"} 4",
        "llm_seconds_sum 1",
        "llm_seconds_count 4",
        "# HELP llm_queue Waiting",
        "# TYPE llm_queue gauge",
        "llm_queue 4",
        ""
      ].join("\n")
    )
  })

  it("shows the highest value of what each process knows as a whole", () => {
    const textOf = (value: number) =>
      [
        "troupe_uptime_seconds_max",
        "troupe_memory_budget_bytes",
        "troupe_model_available{model=\"a\"}",
        "llm_queue_size"
      ]
        .map((series) => `${series} ${value}\n`).join("")
    assert.strictEqual(
      WholeService.metrics(textOf(1), [textOf(0)]),
      textOf(1)
    )
    assert.include(WholeService.metrics(textOf(2), [textOf(3)]), "troupe_memory_budget_bytes 3\n")
    assert.include(WholeService.metrics(textOf(2), [textOf(3)]), "llm_queue_size 5\n")
  })

  it("adds what the processes run of a deployment, and shows the state that takes most requests", () => {
    const [whole] = WholeService.deployments([deployment({ state: "cold", running: 0 })], [
      { deployments: [deployment({ circuit: { phase: "open", retryAfterMs: 5 }, lastFailure: "It broke." })] },
      { deployments: [deployment({ state: "loading" }), deployment({ deployment: "b#0", running: 7 })] }
    ])
    assert.deepStrictEqual(
      whole,
      deployment({
        state: "ready",
        running: 2,
        queued: 6,
        memoryBytes: 30,
        circuit: { phase: "open", retryAfterMs: 5 },
        lastFailure: "It broke."
      })
    )
  })

  it("has the health of all processes: a deployment that one of them can use is available", () => {
    const window = { window: "5m" as const, seconds: 300, requests: 4, failed: 0, availability: 1, meetsTargets: true }
    const down = {
      deployment: "a#0",
      state: "ready" as const,
      running: 1,
      queued: 0,
      unavailable: "its circuit is open"
    }
    const { unavailable: _, ...up } = down
    const reportOf = (deployment: typeof up, failed: number, uptimeSeconds: number): HealthDetails.Report => ({
      status: "ready",
      uptimeSeconds,
      targets: Availability.targets,
      windows: [{ ...window, failed }],
      models: [{ model: "a", available: !("unavailable" in deployment), deployments: [deployment] }]
    })
    const merged = (isOfFirst: boolean, ...[own, other]: readonly [HealthDetails.Report, HealthDetails.Report]) =>
      WholeService.health(own, [other], () => isOfFirst)
    const { models, uptimeSeconds, windows } = merged(false, reportOf(down, 0, 10), reportOf(up, 2, 20))
    assert.strictEqual(uptimeSeconds, 20)
    const started = { uptimeSeconds: 100, processUptimeSeconds: [5] }
    const crashed = { uptimeSeconds: 99, processUptimeSeconds: [90] }
    assert.deepStrictEqual(WholeService.uptimeOf([started, crashed]), {
      uptimeSeconds: 100,
      processUptimeSeconds: [5, 90]
    })
    assert.deepInclude(windows[0], { requests: 8, failed: 2, errorRate: 0.25, meetsTargets: false })
    assert.deepStrictEqual(models, [{ model: "a", available: true, deployments: [{ ...up, running: 2 }] }])
    const local = merged(true, reportOf(down, 0, 10), reportOf(up, 0, 20))
    assert.deepStrictEqual(local.models, [{ model: "a", available: false, deployments: [down] }])
    const both = merged(false, reportOf(down, 0, 10), reportOf(down, 0, 20))
    assert.deepInclude(both.models[0], { available: false })
    assert.deepInclude(both.models[0]?.deployments[0], { unavailable: "its circuit is open" })
  })

  it("has the adaptive limit of all processes, as the latest of them knows it", () => {
    const limitOf = (...limits: ReadonlyArray<number | undefined>) => {
      const all = limits.map((limit) => deployment(limit === undefined ? {} : { limit }))
      const [whole] = WholeService.deployments(all.slice(0, 1), [{ deployments: all.slice(1) }])
      return whole?.limit
    }
    assert.deepStrictEqual([limitOf(3, 4), limitOf(undefined, 4), limitOf(undefined, undefined)], [4, 4, undefined])
  })

  it("shows a deployment as drained that is in all processes", () => {
    const drainOf = (...all: ReadonlyArray<"drained" | "draining" | undefined>) => {
      const [own, ...others] = all.map((drain) => deployment(drain === undefined ? {} : { drain }))
      return WholeService.deployments([own!], [{ deployments: others }])[0]!.drain
    }
    assert.deepStrictEqual([
      drainOf("drained", "drained", "drained"),
      drainOf("drained", "draining", "drained"),
      drainOf("draining", undefined),
      drainOf(undefined, "drained")
    ], ["drained", "draining", undefined, undefined])
  })

  it("shows the circuit that lets least through, of all deployments that a process has called", () => {
    const circuit = (deployment: string, phase: "closed" | "half-open" | "open") => ({
      deployment,
      phase,
      retryAfterMs: 0,
      successes: 0
    })
    assert.deepStrictEqual(
      WholeService.circuits([circuit("a#0", "closed")], [
        { circuits: [circuit("a#0", "open"), circuit("b#0", "closed")] },
        { circuits: [circuit("a#0", "half-open")] }
      ]),
      [circuit("a#0", "open"), circuit("b#0", "closed")]
    )
  })
})
