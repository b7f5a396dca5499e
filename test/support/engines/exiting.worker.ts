/** An engine whose threads end without an exception: one at its first job, or while the other one loads. */
import { setTimeout as sleep } from "node:timers/promises"
import type { MessagePort } from "node:worker_threads"
import { workerData } from "node:worker_threads"
import type { EngineDescription } from "../../../src/domain/EngineProtocol.ts"
import { serveJobs } from "../../../src/workers/job/JobServer.ts"

const { flags, loadDelayMs } = workerData as { readonly flags: SharedArrayBuffer; readonly loadDelayMs: number }

/** Threads that have been connected. */
const connected = new Int32Array(flags)

export const connect = async (port: MessagePort): Promise<EngineDescription> => {
  serveJobs(port, () => process.exit(3))
  if (loadDelayMs > 0) {
    if (Atomics.add(connected, 0, 1) === 0) setTimeout(() => process.exit(3), loadDelayMs)
    else await sleep(10 * loadDelayMs)
  }
  return { engine: "fake", contextWindow: 100, slots: 1, capabilities: ["generate"], details: {} }
}

export const dispose = (): void => {}
