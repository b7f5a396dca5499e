/**
 * Notices an engine that hangs: a job of it waits for tokens, and for too long nothing at all comes.
 *
 * **Details**
 *
 * A job counts while its consumer has room for more; one whose consumer does not read waits rightly. An engine that is
 * at work on a long prompt, or on tokens that it cannot tell yet, says so (`progress`), so only silence counts.
 */
import { Clock, Duration, Effect, Schedule } from "effect"
import type { EngineHost } from "../../domain/EngineProtocol.ts"
import type { Job, JobEvent } from "../../domain/Job.ts"
import { isTerminal } from "../../domain/Job.ts"
import * as Monotonic from "../../domain/Monotonic.ts"

/** What is known of a job that runs. */
interface Watched {
  /** Tokens that its consumer has room for; a job that is answered whole always has. */
  credit: number
  /** ms */
  heardAt: number
}

const creditOf = (job: Job): number => job.kind === "generate" ? job.window : Number.POSITIVE_INFINITY

const tokensOf = (event: JobEvent): number => event.type === "tokens" || event.type === "tool_call" ? event.count : 0

/** How often it looks, as a share of the time that counts as hung. */
const looks = 4

/**
 * The host, watched until the scope ends.
 *
 * @param stallAfter silence that counts as hung; infinity turns the watch off
 */
export const watch = Effect.fnUntraced(function*(host: EngineHost, stallAfter: Duration.Duration) {
  if (!Duration.isFinite(stallAfter)) return host
  const clock = yield* Clock.Clock
  const limit = Duration.toMillis(stallAfter)
  const jobs = new Set<Watched>()
  const now = () => Monotonic.nowOf(clock)

  const look = Effect.sync(() => {
    const silentSince = now() - limit
    for (const { credit, heardAt } of jobs) {
      if (credit > 0 && heardAt <= silentSince) return host.abandon({ kind: "hung", afterMs: limit })
    }
  })
  yield* Effect.forkScoped(Effect.repeat(look, Schedule.spaced(Duration.times(stallAfter, 1 / looks))))

  const start: EngineHost["start"] = (job, onEvents) => {
    const watched: Watched = { credit: creditOf(job), heardAt: now() }
    jobs.add(watched)
    const send = host.start(job, (events) => {
      watched.heardAt = now()
      for (const event of events) {
        watched.credit -= tokensOf(event)
        if (isTerminal(event)) jobs.delete(watched)
      }
      onEvents(events)
    })
    return (command) => {
      if (command.type === "grant") {
        // An engine whose consumer had no room has had nothing to do until now.
        if (watched.credit <= 0) watched.heardAt = now()
        watched.credit += command.tokens
      }
      send(command)
    }
  }
  return { ...host, start } satisfies EngineHost
})
