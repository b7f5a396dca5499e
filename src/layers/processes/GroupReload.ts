/**
 * Changes the configuration of all processes of a service, or of none: the supervisor's side.
 *
 * **Details**
 *
 * The supervisor reads and checks the configuration once. Then every process makes itself ready (`prepare`), which loads changed
 * models beside those in use; when all are, each of them changes (`decide`). If one of them cannot, or one ends or starts
 * meanwhile, none changes. A process that is starting is waited for first: before it takes requests, it may miss a question.
 */
import { Deferred, Duration, Effect, Semaphore } from "effect"
import * as Defaults from "../../domain/Defaults.ts"
import { isRemote } from "../../domain/Deployment.ts"
import { numberingOf } from "../../services/models/Numbering.ts"
import type { Place, ToProcess, ToSupervisor } from "../../services/processes/ProcessGroup.ts"
import * as Shares from "../../services/processes/Shares.ts"
import type { ReloadError, Report, Source, Trigger } from "../../services/settings/Reload.ts"
import {
  logFailure,
  logReport,
  reloadError,
  reloadFailed,
  Reloading,
  reportOf
} from "../../services/settings/Reload.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import * as SettingsDiff from "../../services/settings/SettingsDiff.ts"

/** The processes, as a reload needs them. */
export interface Processes {
  /** Those that run now, by another number for each start. */
  readonly running: () => ReadonlyMap<number, (message: ToProcess) => void>
  /** Whether one of them does not take requests yet. */
  readonly isStarting: () => boolean
  /** Whether all of them are ended, and none starts again. */
  readonly isEnding: () => boolean
  /** What processes that start from now on get, and the limits that the processes share. */
  readonly adopt: (
    start: Pick<Place, "configuration" | "numbering">,
    limits: ReadonlyMap<string, Shares.LeasedLimit>
  ) => void
}

const ended = "A service process ended meanwhile. Try again."

const inTime = Duration.format(Defaults.reloadProcess)

const slowStart = reloadFailed(`A service process has been starting for ${inTime}. Try again when it takes requests.`)

type Asking = Extract<ToProcess, { readonly type: "decide" | "prepare" }>
type Ready = Extract<ToSupervisor, { readonly type: "ready" }>

/** How long the processes may take to make themselves ready: they load one model after another. */
const prepareLimit = (before: Resolved, after: Resolved): Duration.Duration => {
  const kept = new Set(before.models.flatMap(({ deployments }) => deployments))
  return after.models.flatMap(({ deployments }) => deployments)
    .filter((deployment) => !kept.has(deployment) && !isRemote(deployment.options))
    .reduce((sum, { loadTimeout }) => Duration.sum(sum, loadTimeout), Defaults.reloadProcess)
}

/** The answers of the processes to one question. */
class Answers {
  readonly question: number
  readonly #left: Set<number>
  readonly done = Deferred.makeUnsafe<void, ReloadError>()

  constructor(question: number, processes: ReadonlyArray<number>) {
    this.question = question
    this.#left = new Set(processes)
    if (processes.length === 0) Deferred.doneUnsafe(this.done, Effect.void)
  }

  /** An answer that comes after the limit of its question is not one to the next. */
  note(process: number, { problem, question }: Ready): void {
    if (question !== this.question) return
    if (problem !== undefined) return this.fail(problem)
    this.#left.delete(process)
    if (this.#left.size === 0) Deferred.doneUnsafe(this.done, Effect.void)
  }

  fail(problem: string): void {
    Deferred.doneUnsafe(this.done, Effect.fail(reloadFailed(problem)))
  }
}

/** A deployment that some processes call without a share of its limit cannot get one while they run. */
const sharingProblem = (before: Resolved, after: Resolved): string | undefined => {
  const [now, then] = [Shares.leasedLimits(before.models), Shares.leasedLimits(after.models)]
  const ids = (settings: Resolved) => settings.models.flatMap(({ deployments }) => deployments.map(({ id }) => id))
  const kept = new Set(ids(after))
  const id = ids(before).find((one) => kept.has(one) && now.has(one) !== then.has(one))
  return id && `Whether all processes serve "${id}" changes with this configuration: restart the service to apply it.`
}

export class GroupReload {
  readonly #processes: Processes
  readonly #source: Source
  readonly #reloading: Reloading
  #settings: Resolved
  readonly #oneAtATime = Semaphore.makeUnsafe(1)
  #answers: Answers | undefined
  #questions = 0
  /** Called when a process takes requests, or has ended. */
  #onChange = () => {}

  constructor(source: Source, settings: Resolved, processes: Processes) {
    const nothing = { prepare: () => Effect.succeed({ commit: () => {}, cancel: Effect.void }) }
    this.#source = source
    this.#settings = settings
    this.#processes = processes
    this.#reloading = new Reloading(nothing, settings)
  }

  /** A process has answered. */
  receive(process: number, ready: Ready): void {
    this.#answers?.note(process, ready)
  }

  /** A process takes requests. */
  note(): void {
    this.#onChange()
  }

  /** A process has ended. */
  leave(): void {
    this.#answers?.fail(ended)
    this.#onChange()
  }

  run(
    { dryRun = false, trigger }: { readonly dryRun?: boolean | undefined; readonly trigger: Trigger }
  ): Effect.Effect<Report, ReloadError> {
    const logged = this.#change(dryRun).pipe(
      Effect.tap((report) => dryRun ? Effect.void : logReport(report, trigger)),
      Effect.tapError((error) => dryRun ? Effect.void : logFailure(error, trigger))
    )
    return this.#oneAtATime.withPermits(1)(Effect.uninterruptible(logged))
  }

  readonly #change = Effect.fnUntraced({ self: this }, function*(this: GroupReload, dryRun: boolean) {
    const text = yield* Effect.mapError(this.#source.read, reloadError)
    const given = yield* Effect.mapError(this.#source.resolve(text), reloadError)
    const { changes: found, next } = this.#reloading.plan(given)
    const changes = SettingsDiff.shown(found)
    const problem = sharingProblem(this.#settings, next)
    if (problem !== undefined) return yield* reloadFailed(problem)
    if (dryRun || found.every(SettingsDiff.needsRestart)) return reportOf({ applied: false, changes }, next)
    yield* this.#apply(text, next, prepareLimit(this.#settings, next))
    const prepared = yield* Effect.mapError(this.#reloading.prepare(given), reloadError)
    prepared?.commit()
    this.#settings = next
    return reportOf({ applied: true, changes }, next)
  })

  /** Waits until every process takes requests. */
  #whenStarted(): Effect.Effect<void, ReloadError> {
    const started = Effect.callback<void>((resume) => {
      this.#onChange = () => {
        if (!this.#processes.isStarting()) resume(Effect.void)
      }
      this.#onChange()
    })
    return Effect.timeoutOrElse(Effect.interruptible(started), {
      duration: Defaults.reloadProcess,
      orElse: () => Effect.fail(slowStart)
    })
  }

  /** Asks all processes, and waits for their answers. */
  readonly #ask = (
    message:
      | Omit<Extract<Asking, { type: "decide" }>, "question">
      | Omit<Extract<Asking, { type: "prepare" }>, "question">,
    processes: ReadonlyMap<number, (message: ToProcess) => void>,
    limit: Duration.Duration
  ) =>
    Effect.suspend(() => {
      const running = this.#processes.running()
      const asked = [...processes].filter(([process]) => running.has(process))
      const answers = new Answers(++this.#questions, asked.map(([process]) => process))
      this.#answers = answers
      for (const [, send] of asked) send({ ...message, question: answers.question })
      const silent = `A service process did not answer within ${
        Duration.format(limit)
      }. If it stays so, restart the service.`
      return Effect.timeoutOrElse(Effect.interruptible(Deferred.await(answers.done)), {
        duration: limit,
        orElse: () => Effect.fail(reloadFailed(silent))
      })
    })

  readonly #apply = Effect.fnUntraced(
    { self: this },
    function*(this: GroupReload, configuration: string | undefined, next: Resolved, limit: Duration.Duration) {
      yield* this.#whenStarted()
      if (this.#processes.isEnding()) return yield* reloadFailed(ended)
      const processes = this.#processes.running()
      const start = { configuration, numbering: numberingOf(next.models) }
      const decide = (applies: boolean) => this.#ask({ type: "decide", applies }, processes, Defaults.reloadProcess)
      yield* Effect.tapError(
        Effect.andThen(
          this.#ask({ type: "prepare", ...start }, processes, limit),
          Effect.suspend(() => {
            const now = this.#processes.running()
            return now.size === processes.size && [...now.keys()].every((one) => processes.has(one))
              ? Effect.void
              : Effect.fail(reloadFailed("A service process started meanwhile. Try again."))
          })
        ),
        () => Effect.ignore(decide(false))
      )
      this.#processes.adopt(start, Shares.leasedLimits(next.models))
      // One that ends now has the new configuration when it starts again.
      yield* Effect.ignore(decide(true))
    }
  )
}
