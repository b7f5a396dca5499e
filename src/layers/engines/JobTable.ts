/** The running jobs of an engine by their numbers, which are used again so that the table does not grow. */
import type { JobBatch } from "../../domain/EngineProtocol.ts"
import type { EngineFailure, JobEvent } from "../../domain/Job.ts"
import { isTerminal } from "../../domain/Job.ts"

/** A job and the receiver of its events. */
export interface RunningJob {
  onEvents: (events: ReadonlyArray<JobEvent>) => void
}

const ignore = (): void => {}

export class JobTable {
  readonly #jobs: Array<RunningJob | undefined> = []
  readonly #free: Array<number> = []

  get size(): number {
    return this.#jobs.length - this.#free.length
  }

  /** The number of the added job. */
  add(job: RunningJob): number {
    const id = this.#free.pop() ?? this.#jobs.length
    this.#jobs[id] = job
    return id
  }

  get(id: number): RunningJob | undefined {
    return this.#jobs[id]
  }

  forEach(use: (job: RunningJob, id: number) => void): void {
    this.#jobs.forEach((job, id) => {
      if (job !== undefined) use(job, id)
    })
  }

  /** Passes events on; the last one removes their job. */
  deliver(batch: JobBatch): void {
    for (const [id, events] of batch) {
      const job = this.#jobs[id]
      if (job === undefined) continue
      if (events.some(isTerminal)) {
        this.#jobs[id] = undefined
        this.#free.push(id)
      }
      job.onEvents(events)
    }
  }

  /** Fails all jobs for their receivers. They stay in the table, since the engine may still run them. */
  failAll(failure: EngineFailure): void {
    this.forEach((job) => {
      const { onEvents } = job
      job.onEvents = ignore
      onEvents([{ type: "failed", failure }])
    })
  }
}
