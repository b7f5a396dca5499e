/** An engine whose threads end without an exception: one at its first job, or while the other one loads. */
import { setTimeout as sleep } from "node:timers/promises"
import type { EngineSpec, EngineWorker } from "../../../src/domain/EngineProtocol.ts"
import { serveJobs } from "../../../src/workers/job/JobServer.ts"

/** `flags` counts the threads that have been connected. */
interface ExitingSpec extends EngineSpec {
  readonly flags: SharedArrayBuffer
  readonly loadDelayMs: number
}

export const connect: EngineWorker["connect"] = async ({ port, spec }) => {
  const { flags, loadDelayMs } = spec as ExitingSpec
  const connected = new Int32Array(flags)
  serveJobs(port, () => process.exit(3))
  if (loadDelayMs > 0) {
    if (Atomics.add(connected, 0, 1) === 0) setTimeout(() => process.exit(3), loadDelayMs)
    else await sleep(10 * loadDelayMs)
  }
  return { engine: "fake", contextWindow: 100, slots: 1, capabilities: ["generate"], details: {} }
}

export const dispose: EngineWorker["dispose"] = () => {}
