/**
 * Process entry of an engine child: one engine, or a pool of engine threads, controlled over the IPC channel.
 *
 * **Details**
 *
 * The service starts one child for each loaded deployment, so that a native abort ends only this process. One replica runs
 * on the main thread, several on a thread each. All events of its jobs in one turn of the event loop are sent in one
 * message.
 *
 * **Gotchas**
 *
 * It must not import `effect`: see `domain/EngineProtocol`. Ctrl-C in a terminal signals every process of the group; this
 * process ignores the signals and ends when its parent closes the channel.
 */
import { flushCompileCache } from "node:module"
import type { ChildEngine, FromChild, HostOptions, ToChild } from "./domain/EngineProtocol.ts"
import { failureFrom } from "./domain/Job.ts"
import { loadOnMainThread } from "./layers/engines/MainThreadEngine.ts"

/** ms */
const memoryReportInterval = 2_000

if (process.send === undefined) {
  process.stderr.write("Troupe starts this file. Run `troupe --help`.\n")
  process.exit(64)
}

const post = (message: FromChild) => process.send?.(message)

const reportMemory = () => post({ type: "memory", residentBytes: process.memoryUsage.rss() })

/** An ordinary exit during a generation would abort with a core dump. */
const end = () => process.kill(process.pid, "SIGKILL")

/** The code of thread pools is loaded only for several replicas. */
const start = async (options: HostOptions): Promise<ChildEngine> => {
  const postEvents = (jobs: Extract<FromChild, { type: "events" }>["jobs"]) => post({ type: "events", jobs })
  if (options.replicas === 1) return loadOnMainThread(options.spec, postEvents)
  const { loadInPool } = await import("./layers/engines/PoolRelay.ts")
  return loadInPool(options, postEvents)
}

let starting: Promise<ChildEngine> | undefined
/** Set before the service sends jobs. */
let engine: ChildEngine | undefined

const load = async (options: HostOptions): Promise<void> => {
  starting = start(options)
  engine = await starting
  // The child ends when a thread dies, and the supervisor starts another. It ends by SIGKILL, since other threads may be
  // evaluating, and after all earlier messages are sent.
  void engine.ended.then(() => {
    setImmediate(() => process.send?.({ type: "events", jobs: [] } satisfies FromChild, end))
  })
  setInterval(reportMemory, memoryReportInterval).unref()
  const description = await engine.ready
  reportMemory()
  post({ type: "ready", description })
  flushCompileCache()
}

/** What fails here ends with the process. */
const close = async (): Promise<void> => {
  await (await starting)?.close().catch(() => {})
  process.exit(0)
}

for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => {})
// The parent has ended.
process.on("disconnect", end)

const obey = (message: ToChild): void => {
  switch (message.type) {
    case "load":
      load(message.options).catch((cause: unknown) =>
        post({ type: "load_failed", failure: failureFrom(cause, "load_failed") })
      )
      return
    case "start":
    case "command":
      return engine?.receive(message)
    case "close":
      void close()
  }
}

process.on("message", (messages: ReadonlyArray<ToChild>) => messages.forEach(obey))
