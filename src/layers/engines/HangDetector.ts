/**
 * Detects a hung engine: a job expects tokens, and no event arrives for `stallAfter`.
 *
 * **Details**
 *
 * A job expects tokens while its consumer has room in the window; a job whose consumer does not read is not hung. An
 * engine that computes a long prompt, or tokens that cannot be sent yet, reports `progress`, so only silence counts.
 */
import { Clock, Duration, Effect, Schedule } from "effect"
import type { EngineHost } from "../../domain/EngineProtocol.ts"
import type { Job, JobEvent } from "../../domain/Job.ts"
import { isTerminal } from "../../domain/Job.ts"
import * as Time from "../../domain/Time.ts"

/** A running job. */
interface Watched {
  /** Tokens that its consumer has room for; unlimited for a task. */
  credit: number
  /** When its last event arrived, ms. */
  lastEventAt: number
}

const creditOf = (job: Job): number => job.kind === "generate" ? job.window : Number.POSITIVE_INFINITY

const tokensOf = (event: JobEvent): number => "count" in event ? event.count : 0

/** Checks per `stallAfter`. */
const checks = 4

/**
 * The host with hang detection until the scope ends.
 *
 * @param stallAfter silence that counts as hung; infinity turns the detection off
 */
export const watch = Effect.fnUntraced(function*(host: EngineHost, stallAfter: Duration.Duration) {
  if (!Duration.isFinite(stallAfter)) return host
  const clock = yield* Clock.Clock
  const limit = Duration.toMillis(stallAfter)
  const jobs = new Set<Watched>()
  const now = () => Time.nowOf(clock)

  const check = Effect.sync(() => {
    const silentSince = now() - limit
    for (const { credit, lastEventAt } of jobs) {
      if (credit > 0 && lastEventAt <= silentSince) return host.abandon({ kind: "hung", afterMs: limit })
    }
  })
  yield* Effect.forkScoped(Effect.repeat(check, Schedule.spaced(Duration.times(stallAfter, 1 / checks))))

  const start: EngineHost["start"] = (job, onEvents) => {
    const watched: Watched = { credit: creditOf(job), lastEventAt: now() }
    jobs.add(watched)
    const send = host.start(job, (events) => {
      watched.lastEventAt = now()
      for (const event of events) {
        watched.credit -= tokensOf(event)
        if (isTerminal(event)) jobs.delete(watched)
      }
      onEvents(events)
    })
    return (command) => {
      if (command.type === "grant") {
        // Without room in the window, the engine had nothing to do until now.
        if (watched.credit <= 0) watched.lastEventAt = now()
        watched.credit += command.tokens
      }
      send(command)
    }
  }
  return { ...host, start } satisfies EngineHost
})
