/**
 * An engine host in a child process: the same pool, behind an IPC channel.
 *
 * **Details**
 *
 * What kills the child (a native abort, the kernel's out-of-memory killer) ends its jobs with `crashed` and leaves this
 * process alone.
 */
import { fork } from "node:child_process"
import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import type {
  EngineDescription,
  EngineFailure,
  EngineHost,
  FromChild,
  HostOptions,
  JobEvent,
  ToChild
} from "../../services/EngineProtocol.ts"
import { isTerminal } from "../../services/EngineProtocol.ts"

const entry = fileURLToPath(new URL(`../../host${import.meta.url.slice(-3)}`, import.meta.url))

/** How long a child may take to end in order, ms. */
const closeGrace = 5_000

/** Starts a child process that holds a pool of engine threads. */
export const makeChildHost = (options: HostOptions): EngineHost & { readonly pid: number | undefined } => {
  const child = fork(entry, [], {
    execArgv: [],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "inherit", "ipc"],
    env: {
      ...process.env,
      // Sampling runs on libuv's pool: with its default of 4 threads they fight the compute threads for the cores.
      UV_THREADPOOL_SIZE: String(Math.min(options.replicas, availableParallelism()))
    }
  })
  const jobs = new Map<number, (events: ReadonlyArray<JobEvent>) => void>()
  const ready = Promise.withResolvers<EngineDescription>()
  const exited = Promise.withResolvers<EngineFailure>()
  ready.promise.catch(() => {})
  let nextId = 0
  let residentBytes = 0
  let dead: EngineFailure | undefined

  const post = (message: ToChild) => {
    if (child.connected) child.send(message)
  }

  const die = (failure: EngineFailure) => {
    if (dead !== undefined) return
    dead = failure
    residentBytes = 0
    ready.reject(failure)
    const listeners = [...jobs.values()]
    jobs.clear()
    for (const onEvents of listeners) onEvents([{ type: "failed", failure }])
    exited.resolve(failure)
  }

  post({ type: "load", options })
  child.on("error", (cause) => die({ kind: "crashed", message: `The engine process did not start: ${cause.message}` }))
  child.on("exit", (code, signal) =>
    die({
      kind: "crashed",
      message: signal === null
        ? `The engine process ended with exit code ${code}.`
        : `The engine process was ended by ${signal}.`
    }))
  child.on("message", (message: FromChild) => {
    switch (message.type) {
      case "ready":
        return ready.resolve(message.description)
      case "load_failed":
        return ready.reject(message.failure)
      case "memory":
        residentBytes = message.residentBytes
        return
      case "events":
        for (const [id, events] of message.jobs) {
          const onEvents = jobs.get(id)
          if (onEvents === undefined) continue
          if (events.some(isTerminal)) jobs.delete(id)
          onEvents(events)
        }
    }
  })

  const start: EngineHost["start"] = (job, onEvents) => {
    if (dead !== undefined) {
      onEvents([{ type: "failed", failure: dead }])
      return () => {}
    }
    const id = nextId++
    jobs.set(id, onEvents)
    post({ type: "start", id, job })
    return (command) => {
      if (jobs.has(id)) post({ type: "command", id, command })
    }
  }

  const close = async () => {
    if (dead !== undefined) return
    post({ type: "close" })
    const timer = setTimeout(() => child.kill("SIGKILL"), closeGrace)
    await exited.promise
    clearTimeout(timer)
  }

  return {
    pid: child.pid,
    ready: ready.promise,
    exited: exited.promise,
    start,
    memoryBytes: () => residentBytes,
    close
  }
}
