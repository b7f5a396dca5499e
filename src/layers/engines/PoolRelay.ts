/**
 * The engine of a child process with several replicas: a pool of threads, whose events it passes on.
 *
 * **Gotchas**
 *
 * The child process imports this module, so it must not import `effect`.
 */
import type { ChildEngine, HostOptions, JobBatch, SendCommand } from "../../domain/EngineProtocol.ts"
import type { JobEvent } from "../../domain/Job.ts"
import { isTerminal } from "../../domain/Job.ts"
import { makePoolHost } from "./PoolHost.ts"

/** Collects the events of all jobs in one turn of the event loop. */
const makeCollector = (post: (batch: JobBatch) => void) => {
  let turn: Map<number, Array<JobEvent>> | undefined
  return (id: number, events: ReadonlyArray<JobEvent>): void => {
    if (turn === undefined) {
      turn = new Map()
      setImmediate(() => {
        const jobs = [...turn!]
        turn = undefined
        post(jobs)
      })
    }
    const collected = turn.get(id)
    if (collected === undefined) turn.set(id, [...events])
    else collected.push(...events)
  }
}

/** @param post sends the events of all jobs in one turn of the event loop */
export const loadInPool = (options: HostOptions, post: (batch: JobBatch) => void): ChildEngine => {
  const host = makePoolHost(options)
  const commands = new Map<number, SendCommand>()
  const collect = makeCollector(post)
  return {
    ready: host.ready,
    ended: host.exited.then(({ kind }) => kind === "stopped" ? new Promise<void>(() => {}) : undefined),
    receive(message) {
      const { id } = message
      if (message.type === "command") return commands.get(id)?.(message.command)
      const send = host.start(message.job, (events) => {
        collect(id, events)
        if (events.some(isTerminal)) commands.delete(id)
      })
      commands.set(id, send)
    },
    close: () => host.close()
  }
}
