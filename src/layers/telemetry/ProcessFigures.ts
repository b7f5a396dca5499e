/**
 * The figures of this process that Node.js measures, for its metrics.
 *
 * **Details**
 *
 * The delay of the event loop is how much later than due a timer of 20 ms runs, at most, since the last reading: while it is long,
 * requests, streams and time limits of this process are late by as much.
 */
import { Effect, Layer } from "effect"
import { monitorEventLoopDelay } from "node:perf_hooks"
import { getHeapStatistics } from "node:v8"
import type { ProcessFigures } from "../../services/observability/RuntimeMetrics.ts"
import * as RuntimeMetrics from "../../services/observability/RuntimeMetrics.ts"

/** How often the timer runs, ms. */
const resolution = 20

const nanosPerSecond = 1e9
const microsPerSecond = 1e6

/** Measures until the scope ends. */
const make = Effect.acquireRelease(
  Effect.sync(() => {
    const delays = monitorEventLoopDelay({ resolution })
    delays.enable()
    return delays
  }),
  (delays) => Effect.sync(() => void delays.disable())
).pipe(Effect.map((delays): ProcessFigures => ({
  eventLoopDelay: () => {
    const longest = Math.max(0, delays.max / nanosPerSecond - resolution / 1000)
    delays.reset()
    return longest
  },
  heapBytes: () => getHeapStatistics().used_heap_size,
  cpuSeconds: () => {
    const { system, user } = process.cpuUsage()
    return (system + user) / microsPerSecond
  },
  uptimeSeconds: () => process.uptime()
})))

/** Metrics of the runtime and of this process. */
export const layer = Layer.unwrap(Effect.map(make, RuntimeMetrics.layer))
