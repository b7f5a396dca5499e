/**
 * One snapshot of the service for an operator: requests, deployments, memory, cache, and how each deployment did lately.
 *
 * **Details**
 *
 * `make` counts the requests of this process from then on. The process that answers for the whole service adds what the others
 * answer; `sumOf` is pure.
 */
import { Clock, Effect, Metric, Option, Schedule, SubscriptionRef } from "effect"
import { readFileSync } from "node:fs"
import * as Time from "../../domain/Time.ts"
import { ResponseCache } from "../../services/cache/ResponseCache.ts"
import * as Availability from "../../services/health/Availability.ts"
import { HealthDetails, makeUptime } from "../../services/health/HealthDetails.ts"
import { Readiness } from "../../services/health/Readiness.ts"
import { Pressure } from "../../services/models/MemoryPressure.ts"
import { Models } from "../../services/models/Models.ts"
import { configuredDeployment, configuredModel, Registry } from "../../services/models/Registry.ts"
import type { Figures } from "../../services/observability/RecentFigures.ts"
import * as RecentFigures from "../../services/observability/RecentFigures.ts"
import { DecisionLog } from "../../services/routing/DecisionLog.ts"
import * as AdminDeployments from "./AdminDeployments.ts"
import type { Overview } from "./OverviewSchema.ts"
import { PeerProcesses } from "./Peers.ts"
import * as WholeService from "./WholeService.ts"

/** Undefined where the package's file is not beside the code, as in a bundle of a program that embeds Troupe. */
const readVersion = (): string | undefined => {
  try {
    return (JSON.parse(readFileSync(new URL("../../../package.json", import.meta.url), "utf8")) as {
      readonly version?: string
    }).version
  } catch {
    return undefined
  }
}

/** How the response cache took part in requests, by the metrics. */
const cacheUse = Effect.map(Metric.snapshot, (snapshots): Pick<Overview["cache"], "bypasses" | "hits" | "misses"> => {
  const hits: Record<string, number> = {}
  let bypasses = 0
  let misses = 0
  for (const { attributes, id, state, type } of snapshots) {
    if (type !== "Counter") continue
    const count = Number(state.count)
    const { tier = "" } = attributes ?? {}
    if (id === "llm_cache_hits_total") hits[tier] = (hits[tier] ?? 0) + count
    if (id === "llm_cache_misses_total") misses += count
    if (id === "llm_cache_bypasses_total") bypasses += count
  }
  return { hits, misses, bypasses }
})

/** Requests of the last minute, a second, and how many of the last five minutes have failed. */
const ratesOf = (figures: ReadonlyArray<Figures>): Pick<Overview["service"], "errorRate" | "requestsPerSecond"> => {
  const [minute, five] = figures
  const rate = minute === undefined || minute.seconds === 0 ? 0 : minute.requests / minute.seconds
  return {
    requestsPerSecond: Math.round(100 * rate) / 100,
    ...(five === undefined || five.requests === 0 ? {} : { errorRate: five.failed / five.requests })
  }
}

/** How often the figures get the requests that have ended. */
const collected = "1 second"

/** Counts the requests of this process in windows, until the scope ends. */
const makeFigures = Effect.gen(function*() {
  const clock = yield* Clock.Clock
  const decisions = yield* DecisionLog
  const registry = yield* Registry
  // A wildcard has the figures of all names that it serves.
  const figures = new RecentFigures.RecentFigures(Time.nowOf(clock), {
    model: (name) => configuredModel(registry, name),
    deployment: (id) => configuredDeployment(registry, id)
  })
  const collection = decisions.collect?.((records) => {
    const now = Time.nowOf(clock)
    for (const record of records) figures.add(record, now)
  })
  if (collection === undefined) return { figures, flush: Effect.void }
  const flush = Effect.sync(collection.flush)
  yield* Effect.addFinalizer(() => Effect.sync(collection.end))
  yield* Effect.forkScoped(Effect.repeat(flush, Schedule.spaced(collected)))
  return { figures, flush }
})

/** The state and the requests of this process. */
const makeService = Effect.fnUntraced(function*(figures: RecentFigures.RecentFigures) {
  const decisions = yield* DecisionLog
  const details = yield* Effect.serviceOption(HealthDetails)
  const readiness = yield* Readiness
  const uptime = yield* makeUptime
  const version = readVersion() ?? "unknown"
  const health = Option.isNone(details)
    ? Effect.sync(() => ({ status: readiness.status, targets: Availability.targets, windows: [] }))
    : Effect.map(
      details.value.report,
      ({ models: _, processUptimeSeconds: __, uptimeSeconds: ___, ...health }) => health
    )
  return Effect.fnUntraced(function*(now: number) {
    const all = figures.ofAll(now)
    return {
      version,
      ...uptime(),
      processes: 1,
      inFlight: decisions.running?.() ?? 0,
      ...ratesOf(all),
      ...yield* health,
      figures: all
    }
  })
})

/** The memory of this process and of its engines. */
const makeMemory = Effect.gen(function*() {
  const models = yield* Models
  const pressure = yield* Effect.serviceOption(Pressure)
  return Effect.fnUntraced(function*(engineBytes: number) {
    const { budgetBytes, grantedBytes } = yield* models.memory
    return {
      ...(Number.isFinite(budgetBytes) ? { budgetBytes: Math.round(budgetBytes) } : {}),
      grantedBytes,
      processBytes: process.memoryUsage.rss(),
      engineBytes,
      pressure: Option.isNone(pressure) ? "normal" as const : SubscriptionRef.getUnsafe(pressure.value)
    }
  })
})

/** The snapshot of this process. */
const makeOwn = Effect.gen(function*() {
  const cache = yield* ResponseCache
  const describe = yield* AdminDeployments.make
  const { figures, flush } = yield* makeFigures
  const memoryOf = yield* makeMemory
  const registry = yield* Registry
  const serviceOf = yield* makeService(figures)
  return Effect.gen(function*() {
    yield* flush
    const now = yield* Time.now
    const configured = registry.models()
    const described = yield* describe(configured.flatMap(({ deployments }) => deployments))
    const deployments = described.map((one) => ({ ...one, figures: figures.ofDeployment(one.deployment, now) }))
    const overview: Overview = {
      at: yield* Clock.currentTimeMillis,
      service: yield* serviceOf(now),
      memory: yield* memoryOf(described.reduce((sum, { memoryBytes }) => sum + memoryBytes, 0)),
      deployments,
      models: configured.map(({ name }) => ({ model: name, figures: figures.ofModel(name, now) })),
      cache: { ...cache.contents(), ...yield* cacheUse }
    }
    return overview
  })
})

const addHits = (one: Readonly<Record<string, number>>, other: Readonly<Record<string, number>>) => {
  const sum = { ...one }
  for (const [tier, count] of Object.entries(other)) sum[tier] = (sum[tier] ?? 0) + count
  return sum
}

const addService = (one: Overview["service"], other: Overview["service"]): Overview["service"] => {
  const figures = RecentFigures.sumOf(one.figures, other.figures)
  const { errorRate: _, ...own } = one
  return {
    ...own,
    ...WholeService.uptimeOf([one, other]),
    processes: one.processes + other.processes,
    inFlight: one.inFlight + other.inFlight,
    ...ratesOf(figures),
    windows: one.windows.map((window) =>
      Availability.sumOf(window, other.windows.filter((same) => same.window === window.window))
    ),
    figures
  }
}

/** The snapshots of two processes as one. */
const add = (one: Overview, other: Overview): Overview => {
  const figuresOf = new Map(other.deployments.map(({ deployment, figures }) => [deployment, figures]))
  const modelsOf = new Map(other.models.map(({ figures, model }) => [model, figures]))
  return {
    at: one.at,
    service: addService(one.service, other.service),
    // Only the first process has local models: the budget is its own.
    memory: {
      ...one.memory,
      processBytes: one.memory.processBytes + other.memory.processBytes,
      engineBytes: one.memory.engineBytes + other.memory.engineBytes
    },
    deployments: WholeService.deployments(one.deployments, [other]).map((deployment, index) => ({
      ...deployment,
      figures: RecentFigures.sumOf(one.deployments[index]!.figures, figuresOf.get(deployment.deployment) ?? [])
    })),
    models: one.models.map(({ figures, model }) => ({
      model,
      figures: RecentFigures.sumOf(figures, modelsOf.get(model) ?? [])
    })),
    cache: {
      ...WholeService.cacheContents(one.cache, [other.cache]),
      hits: addHits(one.cache.hits, other.cache.hits),
      misses: one.cache.misses + other.cache.misses,
      bypasses: one.cache.bypasses + other.cache.bypasses
    }
  }
}

/** The snapshots of all processes as one. */
export const sumOf = (own: Overview, others: ReadonlyArray<Overview>): Overview => others.reduce(add, own)

/** The snapshot of the service, or of this process if another one asks. */
export const make = Effect.gen(function*() {
  const own = yield* makeOwn
  const peers = yield* PeerProcesses
  return peers?.isFirst === true
    ? Effect.zipWith(own, peers.askJson<Overview>("GET", "/admin/overview"), sumOf, { concurrent: true })
    : own
})
