/**
 * Changes the configuration of all processes of a service, or of none: the side of each process.
 *
 * **Details**
 *
 * A process asks the supervisor for a reload. The supervisor asks each process to make itself ready for a configuration, and then
 * whether it applies.
 */
import { Effect, Layer, Semaphore } from "effect"
import type { Complete, Report, Source } from "../settings/Reload.ts"
import { Reload, ReloadError, reloadError, Reloading, settingsOf, SettingsSource } from "../settings/Reload.ts"
import { Settings } from "../settings/Settings.ts"
import type { Prepared } from "../settings/SettingsChanges.ts"
import { SettingsChanges } from "../settings/SettingsChanges.ts"
import type { Member, ReloadOutcome, ToProcess } from "./ProcessGroup.ts"

type Question<Type> = Extract<ToProcess, { readonly type: Type }>

type Answer = (effect: Effect.Effect<Report, ReloadError>) => void

const outcomeOf = (outcome: ReloadOutcome): Effect.Effect<Report, ReloadError> =>
  outcome.report === undefined ? Effect.fail(new ReloadError(outcome)) : Effect.succeed(outcome.report)

export class MemberReload {
  readonly #complete: Complete
  readonly #member: Member
  readonly #reloading: Reloading
  readonly #source: Source | undefined
  /** Those that wait for the answer of the supervisor. */
  readonly #waiting: Array<Answer> = []
  #prepared: Prepared | undefined
  /** A `decide` that comes before the end of its `prepare` has to wait: what is ready then is canceled. */
  readonly #oneAtATime = Semaphore.makeUnsafe(1)

  /** @param fork runs until the process ends */
  constructor(
    member: Member,
    source: Source | undefined,
    reloading: Reloading,
    complete: Complete,
    fork: (effect: Effect.Effect<void>) => void
  ) {
    this.#member = member
    this.#source = source
    this.#reloading = reloading
    this.#complete = complete
    member.listen((message) => {
      const work = this.#receive(message)
      if (work !== undefined) fork(this.#oneAtATime.withPermits(1)(work))
    })
  }

  readonly run: Reload["Service"]["run"] = ({ dryRun = false }) =>
    Effect.callback((resume) => {
      this.#waiting.push(resume)
      this.#member.send({ type: "reload", dryRun })
    })

  #receive(message: ToProcess): Effect.Effect<void> | undefined {
    switch (message.type) {
      case "prepare":
        return this.#prepare(message)
      case "decide":
        return this.#decide(message)
      case "reloaded":
        this.#waiting.shift()?.(outcomeOf(message.outcome))
        return undefined
      default:
        return undefined
    }
  }

  #prepare({ configuration, numbering, question }: Question<"prepare">): Effect.Effect<void> {
    const source = this.#source && { ...this.#source, read: Effect.succeed(configuration) }
    return settingsOf(source).pipe(
      Effect.flatMap((given) => Effect.mapError(this.#complete(given), reloadError)),
      Effect.flatMap((settings) => {
        this.#source?.planned?.(this.#reloading.plan(settings, numbering).next)
        return Effect.mapError(this.#reloading.prepare(settings, numbering), reloadError)
      }),
      Effect.match({
        onSuccess: (prepared) => {
          this.#prepared = prepared
          this.#member.send({ type: "ready", question })
        },
        onFailure: ({ message }) => this.#member.send({ type: "ready", question, problem: message })
      })
    )
  }

  #decide({ applies, question }: Question<"decide">): Effect.Effect<void> {
    const prepared = this.#prepared
    this.#prepared = undefined
    if (applies) prepared?.commit()
    const cancel = applies || prepared === undefined ? Effect.void : prepared.cancel
    return Effect.andThen(cancel, Effect.sync(() => this.#member.send({ type: "ready", question })))
  }
}

/** The reload of one of several processes. */
export const layer = (member: Member, complete: Complete) =>
  Layer.effect(
    Reload,
    Effect.gen(function*() {
      const services = yield* Effect.context()
      const scope = yield* Effect.scope
      const fork = (effect: Effect.Effect<void>) => void Effect.runForkWith(services)(Effect.forkIn(effect, scope))
      const reloading = new Reloading(yield* SettingsChanges, yield* Settings)
      const { run } = new MemberReload(member, yield* SettingsSource, reloading, complete, fork)
      return Reload.of({ run })
    })
  )
