/**
 * An engine host in this process: one Piscina pool, whose threads are the model's replicas.
 *
 * **Gotchas**
 *
 * The child process imports this module, so it must not import `effect`. No task of Piscina's is given a `signal`: aborting one
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
import type { EngineDescription, EngineHost, GpuMemory, HostOptions } from "../../domain/EngineProtocol.ts"
import type { EngineFailure } from "../../domain/Job.ts"
import { failureFrom } from "../../domain/Job.ts"
import { EngineThread } from "./EngineThread.ts"

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
    env: engineEnvironment(process.env),
    execArgv: [],
    resourceLimits: { maxYoungGenerationSizeMb: youngGeneration },
    minThreads: replicas,
    maxThreads: replicas,
    idleTimeout: Number.POSITIVE_INFINITY,
    concurrentTasksPerWorker: 1,
    // A thread that waits in `Atomics.wait` would starve the engine's own callbacks.
    atomics: "disabled",
    recordTiming: false
  })
}

const leastBusy = (threads: ReadonlyArray<EngineThread>): EngineThread =>
  threads.reduce((least, thread) => thread.running < least.running ? thread : least)

/** Connects a port to each thread; resolves with the description of the model. */
const connect = (pool: Piscina, { replicas, spec }: HostOptions) => {
  const ports = Array.from({ length: replicas }, () => new MessageChannel())
  // Piscina gives a task to the least busy thread, so that each of these tasks gets a thread of its own.
  const tasks = ports.map(({ port2 }): Promise<EngineDescription> =>
    pool.run({ port: port2, spec }, { name: "connect", transferList: [port2] })
  )
  return {
    threads: ports.map(({ port1 }) => new EngineThread(port1)),
    ready: Promise.all(tasks).then(([description]) => description!)
  }
}

/**
 * Calls `exit` with the reason when a thread ends and all have loaded their models. Piscina replaces a thread that ends
 * earlier, but the new one is not connected.
 */
const onThreadEnd = (pool: Piscina, ready: Promise<unknown>, exit: (failure: EngineFailure) => void): void => {
  for (const thread of pool.threads) {
    thread.once("exit", (code) => {
      const failure: EngineFailure = { kind: "crashed", message: `The engine thread ended with exit code ${code}.` }
      ready.then(() => exit(failure), () => {})
    })
  }
}

/** Reads the memory of the GPU in the background; each call returns what was read last. */
const makeGpuMemory = (pool: Piscina, { spec }: HostOptions) => {
  let last: GpuMemory | undefined
  let reading: Promise<void> | undefined
  const read = async () => {
    last = await (pool.run(undefined, { name: "gpuMemory" }) as Promise<GpuMemory | undefined>).catch(() => undefined)
    reading = undefined
  }
  return {
    get: (): GpuMemory | undefined => {
      if (spec["gpu"] !== undefined) reading ??= read()
      return last
    },
    /** A thread that reads would not get its task to dispose of the model. */
    ended: async () => {
      await reading
    }
  }
}

/** Starts a pool of engine threads in this process. */
export const makePoolHost = (options: HostOptions): EngineHost => {
  const pool = makePool(options)
  const { ready, threads } = connect(pool, options)
  const exited = Promise.withResolvers<EngineFailure>()
  const gpuMemory = makeGpuMemory(pool, options)
  let isAbandoned = false
  /** The reason why the host accepts no more jobs. */
  let over: EngineFailure | undefined

  const exit = (failure: EngineFailure) => {
    over ??= failure
    exited.resolve(failure)
    for (const thread of threads) thread.failAll(failure)
  }
  // Exceptions of a thread are reported here, and precede its end.
  pool.on("error", (cause) => exit(failureFrom(cause, "crashed")))
  ready.catch(() => {})
  onThreadEnd(pool, ready, exit)

  let closing: Promise<void> | undefined
  const close = async () => {
    if (isAbandoned) return
    const orderly = over === undefined
    over ??= stopped
    for (const thread of threads) thread.cancelAll()
    await Promise.all(threads.map((thread) => thread.whenIdle()))
    await gpuMemory.ended()
    // As many tasks as threads reach all of them.
    if (orderly) await Promise.all(threads.map(() => pool.run(undefined, { name: "dispose" }))).catch(() => {})
    exited.resolve(stopped)
    for (const thread of threads) thread.close()
    await pool.destroy()
  }

  return {
    ready,
    exited: exited.promise,
    isOver: () => over !== undefined,
    memoryBytes: () => 0,
    gpuMemory: () => over === undefined ? gpuMemory.get() : undefined,
    abandon: (failure) => {
      isAbandoned = true
      exit(failure)
    },
    start(job, onEvents) {
      if (over === undefined) return leastBusy(threads).start(job, onEvents)
      onEvents([{ type: "failed", failure: over }])
      return () => {}
    },
    // A second call waits for the first: ending a thread that disposes of its model is not safe.
    close: () => closing ??= close()
  }
}
