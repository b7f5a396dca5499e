/**
 * Replaces the processes of a running service by new ones, with the program and the configuration of now: `troupe deploy`.
 *
 * **Details**
 *
 * The new generation starts beside the old one and must be ready. Then it gets growing shares of the new connections
 * (`services/processes/Switch`). When it fails, the old one has all of them again, and the new one is drained and ended. When the
 * last step has passed, the new one takes the port and administration over, and the old one is drained and ended.
 *
 * It has failed when one of its processes ends or is not ready, or when it fails too many requests.
 */
import { Clock, Deferred, Duration, Effect, Option, Schema, Semaphore } from "effect"
import { request } from "node:http"
import { tmpdir } from "node:os"
import { durationText } from "../../domain/Fields.ts"
import * as Time from "../../domain/Time.ts"
import type { Tally } from "../../services/processes/ProcessGroup.ts"
import { socketOf } from "../../services/processes/ProcessGroup.ts"
import { first } from "../../services/processes/Shares.ts"
import type { Steps } from "../../services/processes/Switch.ts"
import { percent, problemOf, sum } from "../../services/processes/Switch.ts"
import type { Options as ReloadOptions, ReloadError, Report } from "../../services/settings/Reload.ts"
import { fixed, logFailure, reloadFailed } from "../../services/settings/Reload.ts"
import { defaultSocket } from "../../services/settings/Resolution.ts"
import { Front } from "./Front.ts"
import type { Generation } from "./Generation.ts"
import type { GenerationOptions, Started, Supervised } from "./Supervisor.ts"

/** The service runs as before. */
export class DeployFailed extends Schema.TaggedError<DeployFailed>()("DeployFailed", { message: Schema.String }) {}

/** What a switch has reached. */
export interface Progress {
  readonly phase: "draining" | "failed" | "finished" | "moving" | "starting" | "waiting"
  readonly message: string
  /** ms since 1970. */
  readonly at: number
}

/** The next generation, and how it gets the connections. */
export interface Next {
  readonly options: GenerationOptions
  readonly steps: Steps
}

/** Limits of a switch. */
export interface Limits {
  /** How long the new generation may load its models. */
  readonly ready: Duration.Duration
  /** How long an old generation may take for its answers, before it is stopped as by SIGTERM. */
  readonly drain: Duration.Duration
  /** How often the new generation is judged. */
  readonly every: Duration.Duration
}

export const limits: Limits = { ready: Duration.minutes(10), drain: Duration.minutes(15), every: Duration.seconds(1) }

/** How often it is asked whether the new generation is ready. */
const readyEvery = Duration.millis(100)

/** The status of a process by its own account; undefined without an answer. */
const statusOf = (socketPath: string): Effect.Effect<number | undefined> =>
  Effect.callback<number | undefined>((resume) => {
    const asked = request({ socketPath, path: "/health/ready", headers: { host: "localhost" }, agent: false })
    asked.on("response", (response) => {
      response.resume()
      resume(Effect.succeed(response.statusCode))
    })
    asked.on("error", () => resume(Effect.undefined)).end()
    return Effect.sync(() => void asked.destroy())
  }).pipe(Effect.timeoutOption("5 seconds"), Effect.map(Option.getOrUndefined))

const isReady = ({ place }: Generation): Effect.Effect<boolean> => {
  const socket = defaultSocket(place.port, tmpdir(), process)
  const indexes = Array.from({ length: place.count }, (_, index) => index + 1)
  return Effect.map(
    Effect.forEach(indexes, (index) => statusOf(socketOf(socket, { generation: place.generation, index })), {
      concurrency: "unbounded"
    }),
    (statuses) => statuses.every((status) => status === 200)
  )
}

const tallyOf = (generation: Generation): Effect.Effect<Tally> =>
  Effect.map(
    generation.ask({ type: "count" }),
    (answers) => sum(answers.flatMap((answer) => answer.type === "tally" ? [answer.tally] : []))
  )

const processesText = (count: number): string => count === 1 ? "1 process" : `${count} processes`

const answersText = ({ answers, failures }: Tally): string => `${answers} answers, ${failures} failed`

const late = (ready: Duration.Duration) => () =>
  Effect.fail(
    new DeployFailed({ message: `The new processes were not ready within ${durationText(Duration.toMillis(ready))}.` })
  )

/** Waits until the processes are ready. */
const whenReady = (generation: Generation, { ready }: Limits): Effect.Effect<void, DeployFailed> => {
  const check: Effect.Effect<void, DeployFailed> = Effect.flatMap(isReady(generation), (isReady) => {
    if (generation.endings > 0) return Effect.fail(new DeployFailed({ message: "One of the new processes ended." }))
    return isReady ? Effect.void : Effect.andThen(Effect.sleep(readyEvery), check)
  })
  return Effect.timeoutOrElse(check, { duration: ready, orElse: late(ready) })
}

/** Why the generation has failed by now; undefined if it has not. */
const judge = Effect.fnUntraced(function*(generation: Generation, steps: Steps) {
  if (generation.endings > 0) return "one of its processes ended"
  if (!(yield* isReady(generation))) return "it is not ready (GET /health/ready)"
  return problemOf(yield* tallyOf(generation), steps)
})

interface Switching {
  readonly steps: Steps
  readonly limits: Limits
  readonly report: (phase: Progress["phase"], message: string) => Effect.Effect<void>
  /** Whether the user has asked for the old generation. */
  readonly isAborted: () => boolean
}

/** Gives the candidate its shares; the reason if it fails. */
const moveShares = Effect.fnUntraced(
  function*(front: Front, candidate: Generation, { isAborted, limits, report, steps }: Switching) {
    for (const share of steps.shares) {
      front.share = share
      const until = (yield* Time.now) + steps.stepMs
      yield* report(
        "moving",
        `${percent(share)} of new connections for ${durationText(steps.stepMs)} (${
          answersText(yield* tallyOf(candidate))
        })`
      )
      for (;;) {
        const left = until - (yield* Time.now)
        if (left <= 0) break
        yield* Effect.sleep(Math.min(left, Duration.toMillis(limits.every)))
        const problem = isAborted() ? "`troupe deploy rollback` was called" : yield* judge(candidate, steps)
        if (problem !== undefined) return problem
      }
    }
    return undefined
  }
)

/** Lets a generation end its answers, and ends it. */
const retire = (started: Started, { drain }: Limits): Effect.Effect<void> =>
  Effect.timeoutOption(started.generation.ask({ type: "drain" }), drain).pipe(Effect.andThen(started.stop))

const duringDeploy = reloadFailed(
  "A deploy is running, whose new processes read the configuration at its start. Try again when it has ended: see `troupe deploy status`."
)

/** The service, whose processes can be replaced. */
export class Deployment {
  readonly #supervised: Supervised
  /** The generation that has the port. */
  #current: Started
  #isRunning = false
  /** Until it is decided which generation gets the port; undefined outside a switch. */
  #undecided: Deferred.Deferred<void> | undefined
  /** Whether a changed file, or a signal, waits for that. */
  #isReloadDue = false
  /** Reloads one after another: a reload that waited has the generation that has the port then. */
  readonly #oneReload = Semaphore.makeUnsafe(1)
  #isAborted = false
  #progress: Progress | undefined

  constructor(supervised: Supervised) {
    this.#supervised = supervised
    this.#current = supervised
    supervised.generation.onReload = (options) => this.#reload(options)
  }

  /** The last step of the last switch; undefined before the first. */
  get progress(): Progress | undefined {
    return this.#progress
  }

  get generation(): number {
    return this.#current.generation.place.generation
  }

  /** Reads the configuration again, for the generation that has the port; the log has the result. During a switch, after it. */
  reload(trigger: "file" | "signal"): Effect.Effect<void> {
    return this.#reload({ trigger }).pipe(
      Effect.catch((error) => error === duringDeploy ? this.#defer(trigger) : Effect.void)
    )
  }

  /** Several changes during a switch are one. */
  #defer(trigger: "file" | "signal"): Effect.Effect<void> {
    return Effect.suspend(() => {
      if (this.#undecided === undefined) return this.reload(trigger)
      if (this.#isReloadDue) return Effect.void
      this.#isReloadDue = true
      return Effect.logInfo("A deploy is running. The configuration is read again when it has ended.").pipe(
        Effect.andThen(Deferred.await(this.#undecided)),
        Effect.andThen(Effect.suspend(() => {
          this.#isReloadDue = false
          return this.reload(trigger)
        }))
      )
    })
  }

  #reload({ dryRun = false, trigger }: ReloadOptions): Effect.Effect<Report, ReloadError> {
    const run = Effect.suspend((): Effect.Effect<Report, ReloadError> => {
      if (this.#undecided === undefined) return (this.#current.reload ?? fixed).run({ dryRun, trigger })
      const isLogged = trigger === "admin" && !dryRun
      return Effect.andThen(isLogged ? logFailure(duringDeploy, trigger) : Effect.void, Effect.fail(duringDeploy))
    })
    return this.#oneReload.withPermits(1)(run)
  }

  /** It is known which generation has the port. */
  #decide(): Effect.Effect<void> {
    return Effect.suspend(() => {
      const undecided = this.#undecided
      this.#undecided = undefined
      return undecided === undefined ? Effect.void : Deferred.succeed(undecided, undefined)
    })
  }

  /** Whether a switch runs. */
  get isRunning(): boolean {
    return this.#isRunning
  }

  /** Returns to the old generation; false if no switch runs, or it is over. */
  abort(): boolean {
    const canAbort = this.#isRunning && this.#progress?.phase !== "draining"
    if (canAbort) this.#isAborted = true
    return canAbort
  }

  /**
   * Replaces the processes; fails if the old ones stay.
   *
   * @param next is read when no reload can change the old ones any more
   */
  run(next: Effect.Effect<Next, DeployFailed>, onProgress: (progress: Progress) => void, within = limits) {
    if (this.#isRunning) {
      return Effect.fail(new DeployFailed({ message: "A deploy is running. See `troupe deploy status`." }))
    }
    this.#isRunning = true
    this.#undecided = Deferred.makeUnsafe()
    this.#isAborted = false
    const report = (phase: Progress["phase"], message: string) =>
      Effect.gen({ self: this }, function*() {
        this.#progress = { phase, message, at: yield* Clock.currentTimeMillis }
        onProgress(this.#progress)
        yield* Effect.logInfo(`Deploy: ${message}.`)
      })
    const switching = { limits: within, report, isAborted: () => this.#isAborted }
    return Effect.flatMap(next, ({ options, steps }) => this.#switch(options, { ...switching, steps })).pipe(
      Effect.tapError(({ message }) => report("failed", message.replace(/\.$/, ""))),
      Effect.ensuring(Effect.suspend(() => {
        this.#isRunning = false
        return this.#decide()
      }))
    )
  }

  #switch(next: GenerationOptions, switching: Switching) {
    const { limits, report } = switching
    const old = this.#current
    return Effect.gen({ self: this }, function*() {
      yield* report(
        "starting",
        `Generation ${old.generation.place.generation + 1} starts with ${processesText(next.count)}`
      )
      const candidate = yield* this.#supervised.startBeside(next, old.generation).pipe(
        Effect.mapError(({ message }) => new DeployFailed({ message: `The new processes do not start: ${message}` })),
        Effect.timeoutOrElse({ duration: limits.ready, orElse: late(limits.ready) })
      )
      yield* report("waiting", "It loads its models")
      yield* Effect.onError(whenReady(candidate.generation, limits), () => candidate.stop)
      const front = yield* Front.open(old.generation, candidate.generation)
      const problem = yield* moveShares(front, candidate.generation, switching)
      const [winner, other] = problem === undefined ? [candidate, old] : [old, candidate]
      yield* front.giveTo(winner.generation)
      this.#current = winner
      yield* this.#decide()
      if (problem !== undefined) {
        yield* report("draining", `Rolled back to the old generation: ${problem}. The new one ends its answers`)
        yield* retire(other, limits)
        return yield* new DeployFailed({ message: `Rolled back to the old generation: ${problem}.` })
      }
      yield* old.generation.ask({ type: "lead", isLeading: false }, first)
      yield* candidate.generation.ask({ type: "lead", isLeading: true }, first)
      yield* report("draining", "The new generation has the port; the old one ends its answers")
      yield* retire(other, limits)
      yield* report("finished", `Generation ${candidate.generation.place.generation} has replaced the old one`)
    })
  }
}
