/**
 * The host's side of an engine thread: all of its jobs, over one port.
 *
 * **Gotchas**
 *
 * The child process imports this module, so it must not import `effect`.
 */
import type { MessagePort } from "node:worker_threads"
import type { FromThread, JobBatch, SendCommand, ToThread } from "../../domain/EngineProtocol.ts"
import type { EngineFailure, Job, JobCommand } from "../../domain/Job.ts"
import { failureFrom } from "../../domain/Job.ts"
import type { RunningJob } from "./JobTable.ts"
import { JobTable } from "./JobTable.ts"

/** Whether a job cannot be sent: it is not plain data, or nested so deeply that serialization overflows the stack. */
const isUnsendable = (cause: unknown): boolean =>
  (cause instanceof DOMException && cause.name === "DataCloneError") || cause instanceof RangeError

export class EngineThread {
  readonly #port: MessagePort
  readonly #jobs = new JobTable()
  readonly #idle: Array<() => void> = []
  #hasEnded = false

  constructor(port: MessagePort) {
    this.#port = port
    port.on("message", (message: FromThread) => this.#deliver(message))
    port.once("close", () => {
      this.#hasEnded = true
      this.#wakeIdle()
    })
    // Without a job, the port does not keep the program running.
    port.unref()
  }

  get running(): number {
    return this.#jobs.size
  }

  start(job: Job, onEvents: RunningJob["onEvents"]): SendCommand {
    const running = { onEvents }
    const id = this.#jobs.add(running)
    if (this.#jobs.size === 1) this.#port.ref()
    try {
      this.#port.postMessage({ type: "start", id, job } satisfies ToThread)
    } catch (cause) {
      if (!isUnsendable(cause)) throw cause
      this.#deliver([[id, [{ type: "failed", failure: failureFrom(cause, "failed") }]]])
      return () => {}
    }
    return (command) => {
      if (this.#jobs.get(id) === running) this.#command(id, command)
    }
  }

  cancelAll(): void {
    this.#jobs.forEach((_, id) => this.#command(id, { type: "cancel" }))
  }

  /** Fails all jobs for their consumers; the thread may still finish them. */
  failAll(failure: EngineFailure): void {
    this.#jobs.failAll(failure)
  }

  /** Resolves when the thread has ended all of its jobs, or itself. */
  whenIdle(): Promise<void> {
    return new Promise((resolve) => {
      this.#idle.push(resolve)
      this.#wakeIdle()
    })
  }

  close(): void {
    this.#port.close()
  }

  #command(id: number, command: JobCommand): void {
    this.#port.postMessage({ type: "command", id, command } satisfies ToThread)
  }

  #deliver(batch: JobBatch): void {
    this.#jobs.deliver(batch)
    if (this.#jobs.size > 0) return
    this.#port.unref()
    this.#wakeIdle()
  }

  #wakeIdle(): void {
    if (this.#jobs.size > 0 && !this.#hasEnded) return
    for (const resolve of this.#idle.splice(0)) resolve()
  }
}
