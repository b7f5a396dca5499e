/**
 * The state of the runtime as metrics: deployments, circuits, memory, and this process. Counted from the events of actors and
 * circuits, or sampled every `engines.sampleEvery`.
 *
 * **Gotchas**
 *
 * Values of several processes are added up; those whose name ends in `_max` are the highest one: see `WholeService.metrics`.
 */
import { Effect, Layer, Metric, Schedule, Stream } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { Breaker } from "../health/Breaker.ts"
import type { ActorEvent, Occupancy, Status } from "../models/Actor.ts"
import { Models } from "../models/Models.ts"
import { deploymentLabel, ofExisting, Registry } from "../models/Registry.ts"
import { Settings } from "../settings/Settings.ts"
import { counter, gauge, SampledGauges } from "./Series.ts"

const running = gauge("troupe_deployment_running", "Requests that hold a slot, by deployment")
const slots = gauge("troupe_deployment_slots", "Requests that may hold a slot at the same time, by loaded deployment")
const queued = gauge("troupe_deployment_queued", "Requests that wait for a slot, by deployment")
const memory = gauge("troupe_deployment_memory_bytes", "Memory of the engine processes, by deployment")
const loaded = gauge("troupe_deployment_loaded", "Whether it is loaded (1) or not (0), by deployment")
const budget = gauge("troupe_memory_budget_bytes", "Memory that local models may use together now")
const granted = gauge("troupe_memory_granted_bytes", "Memory that local models have been granted of it")
const gpuUsed = gauge("troupe_gpu_memory_used_bytes", "Memory of the GPUs in use, as the engine reports it")
const gpuTotal = gauge("troupe_gpu_memory_total_bytes", "Memory of the GPUs, as the engine reports it")
const circuit = gauge(
  "troupe_circuit_open_max",
  "Whether a circuit is closed (0), half open (1) or open (2), by deployment"
)
const loads = counter("troupe_model_loads_total", "Loads that ended well, by deployment")
const unloads = counter("troupe_model_unloads_total", "Engines that were unloaded, by deployment")
const failedLoads = counter("troupe_model_failures_total", "Deployments that went down, by deployment")
const restarts = counter("troupe_engine_restarts_total", "Engines that were started again, by deployment")
const opened = counter("troupe_circuit_opened_total", "Circuits that opened, by deployment")
const delay = gauge("troupe_event_loop_delay_seconds_max", "Longest delay of the event loop since the last sample")
const heap = gauge("troupe_heap_used_bytes", "Used heap of the service")
const cpu = gauge("troupe_process_cpu_seconds", "CPU time of the service since its start, user and system")
const uptime = gauge("troupe_uptime_seconds_max", "Time since the start of the service")

const phases = { closed: 0, "half-open": 1, open: 2 } as const

const count = (metric: Metric.Counter<number>, deployment: string): Effect.Effect<void> =>
  Metric.update(Metric.withAttributes(metric, { deployment }), 1)

/** The counter of an event; undefined if none counts it. */
const counterOf = ({ cause, state }: ActorEvent) => {
  if (state === "ready") return loads
  if (state === "gone") return unloads
  if (state === "failed") return failedLoads
  return state === "loading" && cause !== undefined ? restarts : undefined
}

/** Deployments of a wildcard that have one label are added up. */
const sampleStatus = (
  gauges: SampledGauges,
  deployment: string,
  { memoryBytes, queued: waiting, running: busy, state }: Status,
  occupancy: Occupancy | undefined
): void => {
  gauges.add(running, busy, { deployment })
  gauges.add(queued, waiting, { deployment })
  gauges.add(memory, memoryBytes, { deployment })
  gauges.raise(loaded, state === "ready" ? 1 : 0, { deployment })
  if (occupancy !== undefined) gauges.add(slots, occupancy.slots, { deployment })
}

/** What only the operating system and Node.js know. */
export interface ProcessFigures {
  /** Since the last call, s. */
  readonly eventLoopDelay: () => number
  readonly heapBytes: () => number
  readonly cpuSeconds: () => number
  readonly uptimeSeconds: () => number
}

/** Counts and samples until the scope ends. */
export const layer = (figures: ProcessFigures) =>
  Layer.effectDiscard(Effect.gen(function*() {
    const models = yield* Models
    const breaker = yield* Breaker
    const registry = yield* Registry
    const { sampleEvery = Defaults.sampleInterval } = yield* Settings
    const gauges = new SampledGauges(yield* Effect.context())
    const labelOf = (deployment: string): string => deploymentLabel(registry, deployment)
    const sample = Effect.gen(function*() {
      for (const status of yield* models.statuses) {
        sampleStatus(gauges, labelOf(status.deployment), status, yield* models.occupancy(status.deployment))
      }
      const { budgetBytes, gpu, grantedBytes } = yield* models.memory
      if (gpu !== undefined) {
        gauges.set(gpuUsed, gpu.usedBytes)
        gauges.set(gpuTotal, gpu.totalBytes)
      }
      if (Number.isFinite(budgetBytes)) gauges.set(budget, budgetBytes)
      gauges.set(granted, grantedBytes)
      for (const { deployment, phase } of ofExisting(registry, yield* breaker.states)) {
        gauges.raise(circuit, phases[phase], { deployment: labelOf(deployment) })
      }
      gauges.set(delay, figures.eventLoopDelay())
      gauges.set(heap, figures.heapBytes())
      gauges.set(cpu, figures.cpuSeconds())
      gauges.set(uptime, figures.uptimeSeconds())
      gauges.end()
    })
    yield* Effect.forkScoped(Stream.runForEach(models.events, (event) => {
      const counter = counterOf(event)
      return counter === undefined ? Effect.void : count(counter, labelOf(event.deployment))
    }))
    yield* Effect.forkScoped(Stream.runForEach(
      breaker.transitions,
      ({ deployment, to }) => to === "open" ? count(opened, labelOf(deployment)) : Effect.void
    ))
    yield* Effect.forkScoped(Effect.repeat(sample, Schedule.spaced(sampleEvery)))
  }))
