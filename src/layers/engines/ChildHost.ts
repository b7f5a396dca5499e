/**
 * An engine host in a child process: the same pool, behind an IPC channel.
 *
 * **Details**
 *
 * A native abort, or the kernel's out-of-memory killer, ends the child and fails its jobs with `crashed`; this process
 * continues.
 */
import type { ChildProcess } from "node:child_process"
import { fork } from "node:child_process"
import { availableParallelism } from "node:os"
import { fileURLToPath } from "node:url"
import { engineEnvironment } from "../../domain/EngineEnvironment.ts"
import type {
  EngineDescription,
  EngineHost,
  FromChild,
  GpuMemory,
  HostOptions,
  ToChild
} from "../../domain/EngineProtocol.ts"
import type { EngineFailure } from "../../domain/Job.ts"
import { failureFrom } from "../../domain/Job.ts"
import { plainText } from "../../domain/Text.ts"
import type { RunningJob } from "./JobTable.ts"
import { JobTable } from "./JobTable.ts"

const entry = fileURLToPath(new URL(`../../host${import.meta.url.slice(-3)}`, import.meta.url))

/** Half of the young generation of the process's heap, MB: see `PoolHost`. */
const semiSpace = 4

/** `--no-wasm-code-gc`: see `PoolHost`. */
const spawnChild = (options: HostOptions) =>
  fork(entry, [], {
    execArgv: [`--max-semi-space-size=${semiSpace}`, "--no-wasm-code-gc"],
    serialization: "advanced",
    stdio: ["ignore", "ignore", "pipe", "ipc"],
    env: {
      ...engineEnvironment(process.env),
      // Sampling runs on libuv's pool, whose default of 4 threads would compete with the compute threads for cores.
      UV_THREADPOOL_SIZE: String(Math.min(options.replicas, availableParallelism()))
    }
  })

/** Passes on the output of native code, which may quote bytes of a model file. */
const passOnErrors = (child: ChildProcess) =>
  child.stderr?.setEncoding("utf8").on("data", (text: string) => void process.stderr.write(plainText(text)))

/** Calls `ended` with the reason once the child has ended. */
const onEnd = (child: ChildProcess, ended: (failure: EngineFailure) => void) => {
  child.on("error", (cause) => {
    // An unsent message is an error event too; the end of the process has its own event.
    if (child.pid === undefined) {
      ended({ kind: "crashed", message: `The engine process did not start: ${cause.message}` })
    }
  })
  child.on("exit", (code, signal) =>
    ended({
      kind: "crashed",
      message: signal === null
        ? `The engine process ended with exit code ${code}.`
        : `The engine process was ended by ${signal}.`
    }))
}

/** The state of the child, from its messages and its end. */
const observe = (child: ChildProcess) => {
  const jobs = new JobTable()
  const ready = Promise.withResolvers<EngineDescription>()
  const exited = Promise.withResolvers<EngineFailure>()
  const state = {
    dead: undefined as EngineFailure | undefined,
    abandoned: undefined as EngineFailure | undefined,
    closing: false,
    residentBytes: 0,
    gpu: undefined as GpuMemory | undefined
  }
  ready.promise.catch(() => {})
  onEnd(child, (cause) => {
    if (state.dead !== undefined) return
    const failure: EngineFailure = state.abandoned ?? (state.closing ? { kind: "stopped" } : cause)
    state.dead = failure
    state.residentBytes = 0
    state.gpu = undefined
    ready.reject(failure)
    jobs.failAll(failure)
    exited.resolve(failure)
  })
  child.on("message", (message: FromChild) => {
    switch (message.type) {
      case "ready":
        return ready.resolve(message.description)
      case "load_failed":
        return ready.reject(message.failure)
      case "memory":
        state.residentBytes = message.residentBytes
        state.gpu = message.gpu
        return
      case "events":
        return jobs.deliver(message.jobs)
    }
  })
  return { jobs, state, ready: ready.promise, exited: exited.promise }
}

/**
 * Sends the messages of one turn of the event loop as one.
 *
 * @param refused called with a message that cannot be serialized, and why
 */
const makeOutbox = (child: ChildProcess, refused: (message: ToChild, cause: unknown) => void) => {
  let turn: Array<ToChild> = []
  const send = (messages: ReadonlyArray<ToChild>) => {
    try {
      // A message to a child that has just ended is lost; `exit` reports the end.
      child.send([...messages], () => {})
    } catch (cause) {
      if (messages.length === 1) return refused(messages[0]!, cause)
      for (const message of messages) send([message])
    }
  }
  return (message: ToChild) => {
    turn.push(message)
    if (turn.length > 1) return
    setImmediate(() => {
      const messages = turn
      turn = []
      if (child.connected) send(messages)
    })
  }
}

/** Starts a child process that holds a pool of engine threads. */
export const makeChildHost = (options: HostOptions): EngineHost => {
  const child = spawnChild(options)
  passOnErrors(child)
  const { exited, jobs, ready, state } = observe(child)
  const post = makeOutbox(child, (message, cause) => {
    if (message.type === "start") {
      jobs.deliver([[message.id, [{ type: "failed", failure: failureFrom(cause, "failed") }]]])
    }
  })
  post({ type: "load", options })
  /** A cancelled job that does not end would hold its slot forever, so the child is killed and all of its jobs fail. */
  const endIfHung = (id: number, job: RunningJob) => {
    if (jobs.get(id) === job) child.kill("SIGKILL")
  }

  return {
    ready,
    exited,
    isOver: () => (state.dead ?? state.abandoned) !== undefined || state.closing,
    memoryBytes: () => state.residentBytes,
    gpuMemory: () => state.gpu,
    abandon(failure) {
      state.abandoned ??= failure
      child.kill("SIGKILL")
    },
    start(job, onEvents) {
      if (state.dead !== undefined) {
        onEvents([{ type: "failed", failure: state.dead }])
        return () => {}
      }
      const running = { onEvents }
      const id = jobs.add(running)
      post({ type: "start", id, job })
      return (command) => {
        if (jobs.get(id) !== running) return
        post({ type: "command", id, command })
        if (command.type === "cancel") setTimeout(() => endIfHung(id, running), options.cancelGraceMs).unref()
      }
    },
    async close() {
      if (state.dead !== undefined) return
      if (state.closing) return void await exited
      state.closing = true
      post({ type: "close" })
      const timer = setTimeout(() => child.kill("SIGKILL"), options.closeGraceMs)
      await exited
      clearTimeout(timer)
    }
  }
}
