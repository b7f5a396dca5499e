/**
 * The engine of a child process with one replica, on the process's main thread.
 *
 * **Details**
 *
 * A thread of its own would start later, take memory for a second heap, and send each message of its jobs to the main
 * thread first. llama.cpp computes on other threads; onnxruntime blocks this one between two messages.
 *
 * **Gotchas**
 *
 * The child process imports this module, so it must not import `effect`.
 */
import type {
  ChildEngine,
  EnginePort,
  EngineSpec,
  EngineWorker,
  JobBatch,
  ToThread
} from "../../domain/EngineProtocol.ts"
import { isTerminal } from "../../domain/Job.ts"
import { workerOf } from "./EngineWorkers.ts"

class RunningJobs implements EnginePort {
  readonly #running = new Set<number>()
  readonly #post: (batch: JobBatch) => void
  #receive: (message: ToThread) => void = () => {}
  #idle: (() => void) | undefined

  constructor(post: (batch: JobBatch) => void) {
    this.#post = post
  }

  on(_: "message", listener: (message: ToThread) => void): void {
    this.#receive = listener
  }

  postMessage(batch: JobBatch): void {
    for (const [id, events] of batch) if (events.some(isTerminal)) this.#running.delete(id)
    this.#post(batch)
    if (this.#running.size === 0) this.#idle?.()
  }

  receive(message: ToThread): void {
    if (message.type === "start") this.#running.add(message.id)
    this.#receive(message)
  }

  /** Resolves when all jobs have ended. */
  cancelAll(): Promise<void> | undefined {
    if (this.#running.size === 0) return undefined
    const idle = new Promise<void>((resolve) => {
      this.#idle = resolve
    })
    for (const id of this.#running) this.#receive({ type: "command", id, command: { type: "cancel" } })
    return idle
  }
}

/** @param post sends the events of all jobs in one turn of the event loop */
export const loadOnMainThread = (spec: EngineSpec, post: (batch: JobBatch) => void): ChildEngine => {
  const jobs = new RunningJobs(post)
  const worker = import(workerOf(spec.engine)) as Promise<EngineWorker>
  return {
    ready: worker.then(({ connect }) => connect({ port: jobs, spec })),
    ended: new Promise(() => {}),
    receive: (message) => jobs.receive(message),
    async close() {
      await jobs.cancelAll()
      await (await worker).dispose()
    }
  }
}
