/**
 * Process entry of an engine child: one pool of engine threads, controlled over the IPC channel.
 *
 * **Details**
 *
 * The service starts one child for each loaded deployment, so that a native abort ends only this process. All events of
 * its jobs in one turn of the event loop are sent in one message.
 *
 * **Gotchas**
 *
 * It must not import `effect`: see `domain/EngineProtocol`. Ctrl-C in a terminal signals every process of the group; this
 * process ignores the signals and ends when its parent closes the channel.
 */
import { setEnvironmentData } from "node:worker_threads"
import type { EngineHost, FromChild, HostOptions, SendCommand, ToChild } from "./domain/EngineProtocol.ts"
import { engineProcess } from "./domain/EngineProtocol.ts"
import type { JobEvent } from "./domain/Job.ts"
import { failureFrom, isTerminal } from "./domain/Job.ts"
import { makePoolHost } from "./layers/engines/PoolHost.ts"

/** ms */
const memoryReportInterval = 2_000

if (process.send === undefined) {
  process.stderr.write("Troupe starts this file. Run `troupe --help`.\n")
  process.exit(64)
}

setEnvironmentData(engineProcess, true)

const commands = new Map<number, SendCommand>()
let turn: Map<number, Array<JobEvent>> | undefined

const post = (message: FromChild) => process.send?.(message)

const reportMemory = (host: EngineHost) =>
  post({ type: "memory", residentBytes: process.memoryUsage.rss(), gpu: host.gpuMemory?.() })

const collect = (id: number, events: ReadonlyArray<JobEvent>) => {
  if (turn === undefined) {
    turn = new Map()
    setImmediate(() => {
      const jobs = [...turn!]
      turn = undefined
      post({ type: "events", jobs })
    })
  }
  const collected = turn.get(id)
  if (collected === undefined) turn.set(id, [...events])
  else collected.push(...events)
  if (events.some(isTerminal)) commands.delete(id)
}

/** An ordinary exit during a generation would abort with a core dump. */
const end = () => process.kill(process.pid, "SIGKILL")

const load = (options: HostOptions): EngineHost => {
  const host = makePoolHost(options)
  host.ready.then(
    (description) => {
      reportMemory(host)
      post({ type: "ready", description })
    },
    (cause: unknown) => post({ type: "load_failed", failure: failureFrom(cause, "load_failed") })
  )
  // The child ends when a thread dies, and the supervisor starts another. It ends by SIGKILL, since other threads may be
  // evaluating, and after all earlier messages are sent.
  void host.exited.then(({ kind }) => {
    if (kind !== "stopped") setImmediate(() => process.send?.({ type: "events", jobs: [] } satisfies FromChild, end))
  })
  setInterval(() => reportMemory(host), memoryReportInterval).unref()
  return host
}

let host: EngineHost | undefined

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {})
// The parent has ended.
process.on("disconnect", end)

const obey = (message: ToChild) => {
  switch (message.type) {
    case "load":
      host = load(message.options)
      return
    case "start":
      commands.set(message.id, host!.start(message.job, (events) => collect(message.id, events)))
      return
    case "command":
      return commands.get(message.id)?.(message.command)
    case "close":
      void (host?.close() ?? Promise.resolve()).then(() => process.exit(0))
  }
}

process.on("message", (messages: ReadonlyArray<ToChild>) => messages.forEach(obey))
