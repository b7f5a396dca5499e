/**
 * Preloaded by the service in `requestCost`: counts the operations of fibers and the garbage collections. On SIGUSR2 it writes
 * them and the used heap to the file that `BENCH_COUNTS` names.
 */
import { writeFileSync } from "node:fs"
import { registerHooks } from "node:module"
import { PerformanceObserver } from "node:perf_hooks"

/** What the preload has counted. */
export interface Counts {
  /** Operations of all fibers. */
  readonly operations: number
  readonly heapBytes: number
  readonly collections: number
  /** The main thread's pauses for them, ms. */
  readonly pausedMs: number
}

const counter = globalThis as unknown as { troupeOperations: number }
counter.troupeOperations = 0

/** The statement of Effect's run loop that runs once for every operation. */
const statement = "this.currentOpCount++;"

registerHooks({
  load: (url, context, next) => {
    const loaded = next(url, context)
    if (!url.endsWith("/effect/dist/internal/effect.js")) return loaded
    const source = Buffer.from(loaded.source as Uint8Array).toString()
    if (!source.includes(statement)) throw new Error("Effect's run loop has changed: its operations cannot be counted.")
    return { ...loaded, source: source.replace(statement, `${statement} globalThis.troupeOperations++;`) }
  }
})

let collections = 0
let pausedMs = 0
new PerformanceObserver((list) => {
  for (const { duration } of list.getEntries()) {
    collections++
    pausedMs += duration
  }
}).observe({ entryTypes: ["gc"] })

process.on("SIGUSR2", () => {
  const counts: Counts = {
    operations: counter.troupeOperations,
    heapBytes: process.memoryUsage().heapUsed,
    collections,
    pausedMs
  }
  writeFileSync(process.env["BENCH_COUNTS"]!, JSON.stringify(counts))
})
