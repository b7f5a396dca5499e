/**
 * An engine host in this process: one Piscina pool, whose threads are the model's replicas.
 *
 * **Gotchas**
 *
 * The child process imports this module, so it must not import `effect`. No task is given a `signal`: aborting one
 * terminates its thread, and a native engine that is evaluating then takes the process down.
 */
import { MessageChannel } from "node:worker_threads"
import { Piscina } from "piscina"
import type {
  EngineDescription,
  EngineFailure,
  EngineHost,
  HostOptions,
  JobEvent
} from "../../services/EngineProtocol.ts"
import { failureFrom, isTerminal } from "../../services/EngineProtocol.ts"

// `tsc` rewrites import paths but not URLs; the extension is this file's own.
const extension = import.meta.url.slice(-3)

const workerOf = (engine: string): string => new URL(`../../workers/${engine}.worker${extension}`, import.meta.url).href

const stopped: EngineFailure = { kind: "crashed", message: "The engine has stopped." }

interface Job {
  readonly cancel: () => void
  readonly fail: (failure: EngineFailure) => void
  /** The thread has let go of the job, or is no more. */
  readonly finished: Promise<void>
}

/** Starts a pool of engine threads in this process. */
export const makePoolHost = ({ replicas, spec }: HostOptions): EngineHost => {
  const pool = new Piscina({
    filename: workerOf(spec.engine),
    workerData: spec,
    execArgv: [],
    minThreads: replicas,
    maxThreads: replicas,
    idleTimeout: Number.POSITIVE_INFINITY,
    concurrentTasksPerWorker: spec.slots,
    // A thread that waits in `Atomics.wait` would starve the engine's own callbacks.
    atomics: "disabled",
    recordTiming: false
  })
  const running = new Set<Job>()
  const exited = Promise.withResolvers<EngineFailure>()
  let closed = false

  /** Tells every consumer at once; threads that still live finish or cancel their jobs unheard. */
  const exit = (failure: EngineFailure) => {
    closed = true
    exited.resolve(failure)
    for (const job of running) job.fail(failure)
  }
  // The death of an idle thread is only this event.
  pool.on("error", (cause) => exit(failureFrom(cause, "crashed")))

  const onEveryThread = (name: string): Promise<Array<EngineDescription>> =>
    // Piscina gives a task to the least busy thread, so as many at once as there are threads reach them all.
    Promise.all(Array.from({ length: replicas }, () => pool.run(undefined, { name })))

  const ready = onEveryThread("describe").then(([description]) => description!)
  ready.catch(() => {})

  const start: EngineHost["start"] = (job, onEvents) => {
    if (closed) {
      onEvents([{ type: "failed", failure: stopped }])
      return () => {}
    }
    const { port1, port2 } = new MessageChannel()
    const finished = Promise.withResolvers<void>()
    let heard = true
    const settle = () => {
      running.delete(record)
      port1.close()
      finished.resolve()
    }
    const record: Job = {
      cancel: () => port1.postMessage({ type: "cancel" }),
      finished: finished.promise,
      fail(failure) {
        if (heard) onEvents([{ type: "failed", failure }])
        heard = false
      }
    }
    running.add(record)
    port1.on("message", (events: ReadonlyArray<JobEvent>) => {
      if (events.some(isTerminal)) settle()
      if (heard) onEvents(events)
    })
    pool.run({ port: port2, job }, { transferList: [port2] }).catch((cause) => {
      // A task rejects only because its thread has ended.
      exit(failureFrom(cause, "crashed"))
      settle()
    })
    return (command) => {
      if (running.has(record)) port1.postMessage(command)
    }
  }

  const close = async () => {
    const orderly = !closed
    closed = true
    for (const job of running) job.cancel()
    await Promise.all([...running].map((job) => job.finished))
    if (orderly) await onEveryThread("dispose").catch(() => {})
    await pool.destroy()
    exited.resolve(stopped)
  }

  return { ready, exited: exited.promise, start, memoryBytes: () => 0, close }
}
