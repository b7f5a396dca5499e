/**
 * Process entry of an engine child: one pool of engine threads, spoken to over the IPC channel.
 *
 * **Details**
 *
 * The service starts one of these for each loaded deployment, so that a native abort ends this process and nothing
 * else. Everything that happens to its jobs in one turn of the event loop leaves in one message.
 *
 * **Gotchas**
 *
 * It must not import `effect`: see `domain/EngineProtocol`. Ctrl-C in a terminal, or its end, reaches the whole process
 * group; this process leaves the decision to its parent and ends when the channel does.
 */
import type { EngineHost, FromChild, HostOptions, SendCommand, ToChild } from "./domain/EngineProtocol.ts"
import type { JobEvent } from "./domain/Job.ts"
import { failureFrom, isTerminal } from "./domain/Job.ts"
import { makePoolHost } from "./layers/engines/PoolHost.ts"

/** ms */
const memoryReportInterval = 2_000

if (process.send === undefined) {
  process.stderr.write("This file is started by Troupe itself. Run `troupe --help`.\n")
  process.exit(64)
}

const commands = new Map<number, SendCommand>()
let turn: Map<number, Array<JobEvent>> | undefined

const post = (message: FromChild) => process.send?.(message)

const reportMemory = () => post({ type: "memory", residentBytes: process.memoryUsage.rss() })

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

/** An ordinary exit in mid-generation would abort with a core dump. */
const end = () => process.kill(process.pid, "SIGKILL")

const load = (options: HostOptions): EngineHost => {
  const host = makePoolHost(options)
  host.ready.then(
    (description) => {
      reportMemory()
      post({ type: "ready", description })
    },
    (cause: unknown) => post({ type: "load_failed", failure: failureFrom(cause, "load_failed") })
  )
  // A thread that dies takes the child with it: the supervisor starts another. By SIGKILL, as other threads may be
  // evaluating, and after what was said before.
  void host.exited.then(({ kind }) => {
    if (kind !== "stopped") setImmediate(() => process.send?.({ type: "events", jobs: [] } satisfies FromChild, end))
  })
  setInterval(reportMemory, memoryReportInterval).unref()
  return host
}

let host: EngineHost | undefined

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {})
// The parent is gone.
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
