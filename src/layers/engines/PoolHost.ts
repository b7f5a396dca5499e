/**
 * An engine host in this process: one Piscina pool, whose threads are the model's replicas.
 *
 * **Gotchas**
 *
 * The child process imports this module, so it must not import `effect`. No task is given a `signal`: aborting one
 * terminates its thread, and a native engine that is evaluating then aborts the process.
 *
 * `--no-wasm-code-gc`: with threads that run WebAssembly (the onnx engine on wasm, Node's module lexer), Node 24 frees
 * code that is in use and ends with SIGTRAP or SIGSEGV (https://github.com/nodejs/node/issues/66366). The option only
 * keeps code longer that a better compilation has replaced.
 */
import { setFlagsFromString } from "node:v8"
import { MessageChannel } from "node:worker_threads"
import { Piscina } from "piscina"
import { engineEnvironment } from "../../domain/EngineEnvironment.ts"
import type { EngineDescription, EngineHost, HostOptions, SendCommand } from "../../domain/EngineProtocol.ts"
import type { EngineFailure, Job, JobEvent } from "../../domain/Job.ts"
import { failureFrom, isTerminal } from "../../domain/Job.ts"

// `tsc` rewrites import paths but not URLs; the extension is this file's own.
const extension = import.meta.url.slice(-3)

const workerOf = (engine: string): string => new URL(`../../workers/${engine}.worker${extension}`, import.meta.url).href

const stopped: EngineFailure = { kind: "stopped" }

/** Young generation of a thread's heap, MB. V8's default uses 50 MB more and is not faster; a quarter of this is slower. */
const youngGeneration = 12

const makePool = ({ replicas, spec }: HostOptions) => {
  setFlagsFromString("--no-wasm-code-gc")
  return new Piscina({
    filename: workerOf(spec.engine),
    workerData: spec,
    env: engineEnvironment(process.env),
    execArgv: [],
    resourceLimits: { maxYoungGenerationSizeMb: youngGeneration },
    minThreads: replicas,
    maxThreads: replicas,
    idleTimeout: Number.POSITIVE_INFINITY,
    concurrentTasksPerWorker: spec.slots,
    // A thread that waits in `Atomics.wait` would starve the engine's own callbacks.
    atomics: "disabled",
    recordTiming: false
  })
}

/** Whether a job cannot be sent: it is not plain data, or nested so deeply that serialization overflows the stack. */
const isUnsendable = (cause: unknown): boolean =>
  (cause instanceof DOMException && cause.name === "DataCloneError") || cause instanceof RangeError

interface Running {
  readonly send: SendCommand
  /** Fails the job for its consumer; the thread may still finish it. */
  readonly fail: (failure: EngineFailure) => void
  /** Resolves when the thread has ended the job, or has ended itself. */
  readonly finished: Promise<void>
}

/** Runs one job on a thread of the pool; `onThreadEnd` is called if its thread ends. */
const startJob = (
  pool: Piscina,
  job: Job,
  onEvents: (events: ReadonlyArray<JobEvent>) => void,
  onThreadEnd: (failure: EngineFailure) => void
): Running => {
  const { port1, port2 } = new MessageChannel()
  const finished = Promise.withResolvers<void>()
  let isObserved = true
  let live = true
  const settle = () => {
    live = false
    port1.close()
    finished.resolve()
  }
  const fail = (failure: EngineFailure) => {
    if (isObserved) onEvents([{ type: "failed", failure }])
    isObserved = false
  }
  port1.on("message", (events: ReadonlyArray<JobEvent>) => {
    const last = events.some(isTerminal)
    if (last) settle()
    if (isObserved) onEvents(events)
    if (last) isObserved = false
  })
  pool.run({ port: port2, job }, { transferList: [port2] }).catch((cause: unknown) => {
    // Otherwise its thread has ended.
    if (isUnsendable(cause)) fail(failureFrom(cause, "failed"))
    else onThreadEnd(failureFrom(cause, "crashed"))
    settle()
  })
  return {
    send: (command) => {
      if (live) port1.postMessage(command)
    },
    finished: finished.promise,
    fail
  }
}

/** Starts a pool of engine threads in this process. */
export const makePoolHost = (options: HostOptions): EngineHost => {
  const pool = makePool(options)
  const running = new Set<Running>()
  const exited = Promise.withResolvers<EngineFailure>()
  let isAbandoned = false
  /** The reason why the host accepts no more jobs. */
  let over: EngineFailure | undefined

  const exit = (failure: EngineFailure) => {
    over ??= failure
    exited.resolve(failure)
    for (const job of running) job.fail(failure)
  }
  // Only this event reports the end of an idle thread.
  pool.on("error", (cause) => exit(failureFrom(cause, "crashed")))

  const onEveryThread = (name: string): Promise<Array<EngineDescription>> =>
    // Piscina gives a task to the least busy thread, so a number of tasks equal to that of the threads reaches all of
    // them.
    Promise.all(Array.from({ length: options.replicas }, () => pool.run(undefined, { name })))

  const ready = onEveryThread("describe").then(([description]) => description!)
  ready.catch(() => {})

  let closing: Promise<void> | undefined
  const close = async () => {
    if (isAbandoned) return
    const orderly = over === undefined
    over ??= stopped
    for (const job of running) job.send({ type: "cancel" })
    await Promise.all([...running].map((job) => job.finished))
    if (orderly) await onEveryThread("dispose").catch(() => {})
    exited.resolve(stopped)
    await pool.destroy()
  }

  return {
    ready,
    exited: exited.promise,
    isOver: () => over !== undefined,
    memoryBytes: () => 0,
    abandon: (failure) => {
      isAbandoned = true
      exit(failure)
    },
    start(job, onEvents) {
      if (over !== undefined) {
        onEvents([{ type: "failed", failure: over }])
        return () => {}
      }
      const started = startJob(pool, job, onEvents, exit)
      running.add(started)
      void started.finished.then(() => running.delete(started))
      return started.send
    },
    // A second call waits for the first: ending a thread that disposes of its model is not safe.
    close: () => closing ??= close()
  }
}
