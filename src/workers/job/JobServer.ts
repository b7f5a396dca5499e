/**
 * The jobs of one thread, over the one port that connects it to its host.
 */
import type { EnginePort, FromThread, ToThread } from "../../domain/EngineProtocol.ts"
import type { JobCommand, JobEvent } from "../../domain/Job.ts"
import { failureFrom, isTerminal } from "../../domain/Job.ts"
import { JobOutbox } from "./JobOutbox.ts"
import type { JobChannel, JobTask } from "./JobRunner.ts"

let outbox: JobOutbox | undefined

/** Sends the events of this turn now: an engine calls it before it blocks the thread. */
export const flushEvents = (): void => outbox?.flush()

class RunningJob implements JobChannel {
  readonly #id: number
  readonly #outbox: JobOutbox
  /** Commands that arrived before the job has a listener. */
  #early: Array<JobCommand> = []
  #listener: ((command: JobCommand) => void) | undefined
  #hasEnded = false

  constructor(id: number, outbox: JobOutbox) {
    this.#id = id
    this.#outbox = outbox
  }

  command(command: JobCommand): void {
    if (this.#listener === undefined) this.#early.push(command)
    else this.#listener(command)
  }

  onCommand(listener: (command: JobCommand) => void): void {
    this.#listener = listener
    this.#early.splice(0).forEach(listener)
  }

  /** After the last event, the number may belong to another job. */
  emit(event: JobEvent): void {
    if (this.#hasEnded) return
    this.#hasEnded = isTerminal(event)
    this.#outbox.add(this.#id, event)
  }

  later(send: () => void, ms: number): void {
    this.#outbox.later(send, ms)
  }
}

/**
 * Runs the jobs that arrive over the port.
 *
 * @param run runs a job to its last event; rejects if the model did not load
 */
export const serveJobs = (port: EnginePort, run: (task: JobTask) => Promise<void>): void => {
  const sending = new JobOutbox((message: FromThread) => port.postMessage(message))
  outbox = sending
  // Indexed by number: the host uses the numbers of ended jobs again.
  const jobs: Array<RunningJob | undefined> = []
  port.on("message", (message: ToThread) => {
    const { id } = message
    if (message.type === "command") {
      jobs[id]?.command(message.command)
      return
    }
    const channel = new RunningJob(id, sending)
    jobs[id] = channel
    void run({ job: message.job, channel })
      .catch((cause: unknown) => channel.emit({ type: "failed", failure: failureFrom(cause, "failed") }))
      .then(() => {
        if (jobs[id] === channel) jobs[id] = undefined
      })
  })
}
