/**
 * Reads the configuration again and changes to it while the service runs.
 *
 * **Details**
 *
 * The configuration is checked as a whole first: one that is invalid, or whose changed models do not load, changes nothing. Then
 * everything that differs applies in one step (`SettingsChanges`), except what is read at the start only
 * (`SettingsDiff.needsRestart`): those settings stay as they are, and each later report names them again.
 *
 * One change runs at a time.
 */
import { Context, Effect, Layer, Schema, Semaphore } from "effect"
import type { InferenceError } from "../../domain/InferenceError.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Numbering } from "../models/Numbering.ts"
import { numbered, renumberedIds } from "../models/Numbering.ts"
import { reconcile, reconcileNumbered } from "../models/Reconcile.ts"
import type { Resolved, SettingsError } from "./Settings.ts"
import { Settings } from "./Settings.ts"
import type { Participants, Prepared } from "./SettingsChanges.ts"
import { SettingsChanges } from "./SettingsChanges.ts"
import * as SettingsDiff from "./SettingsDiff.ts"

/** What a reload did, or would do. */
export interface Report {
  /** Whether something has changed: false for a dry run, and where everything that differs needs a restart. */
  readonly applied: boolean
  readonly changes: ReadonlyArray<SettingsDiff.ShownChange>
  /** What is probably not meant; left out, nothing. */
  readonly warnings?: ReadonlyArray<string>
}

/** A report with what the settings in use from now on warn of. */
export const reportOf = (report: Omit<Report, "warnings">, next: Resolved): Report => {
  const warnings = renumberedIds(next).map(Problem.format)
  return warnings.length === 0 ? report : { ...report, warnings }
}

/** Why the configuration stays as it is. */
export class ReloadError extends Schema.TaggedError<ReloadError>()("ReloadError", {
  message: Schema.String,
  /** Of a configuration that is invalid. */
  problems: Schema.Array(Problem.Problem)
}) {}

/** What asked for it. */
export type Trigger = "admin" | "file" | "program" | "signal"

/** Where the configuration comes from. */
export interface Source {
  /** The text of the file; undefined if there is none. */
  readonly read: Effect.Effect<string | undefined, SettingsError>
  /** The settings of a text, checked. */
  readonly resolve: (text: string | undefined) => Effect.Effect<Resolved, SettingsError>
  /** Told of the settings that are about to be prepared, with the ids that their deployments keep. */
  readonly planned?: ((next: Resolved) => void) | undefined
}

/** The source of the application's settings; undefined if they cannot be read again. */
export const SettingsSource = Context.Reference<Source | undefined>("troupe/services/settings/Reload/SettingsSource", {
  defaultValue: () => undefined
})

/** How a reload is done. */
export interface Options {
  readonly trigger: Trigger
  /** Only says what would change. */
  readonly dryRun?: boolean | undefined
  /** The settings to change to; left out, those of the source. */
  readonly settings?: Effect.Effect<Resolved, SettingsError> | undefined
}

/** Changes the configuration of a running application. */
export class Reload extends Context.Service<Reload, {
  readonly run: (options: Options) => Effect.Effect<Report, ReloadError>
}>()("troupe/services/settings/Reload") {}

const stays = "The configuration in use stays."

/** @param message with or without the sentence about the configuration in use: that of another process has it */
export const reloadFailed = (message: string, problems: ReloadError["problems"] = []): ReloadError =>
  new ReloadError({ message: message.endsWith(stays) ? message : `${message}\n${stays}`, problems })

/** A failure to read, check or load a configuration, as the error of the reload. */
export const reloadError = (error: InferenceError | SettingsError): ReloadError =>
  reloadFailed(error.message, "problems" in error ? error.problems : [])

/** The settings in use, and those that are about to be. */
export class Reloading {
  readonly #changes: Pick<Participants, "prepare">
  #current: Resolved

  constructor(changes: Pick<Participants, "prepare">, current: Resolved) {
    this.#changes = changes
    this.#current = current
  }

  /**
   * The settings to use: those of the next configuration, and the present ones where a restart is needed.
   *
   * @param numbering the ids to use, if another process has decided them
   */
  plan(
    given: Resolved,
    numbering?: Numbering
  ): { readonly next: Resolved; readonly changes: ReadonlyArray<SettingsDiff.Change> } {
    const before = this.#current
    const { models } = numbering === undefined
      ? reconcile(before.models, given.models)
      : reconcileNumbered(before.models, numbered(given.models, numbering))
    const changes = SettingsDiff.diff(before, { ...given, models })
    const now = changes.filter((change) => !SettingsDiff.needsRestart(change))
    const applied = SettingsDiff.apply(before, now)
    return { next: { ...applied, models, policies: given.policies, admission: given.admission }, changes }
  }

  /** Makes everything ready for the given settings; undefined if nothing differs that can change now. */
  prepare(given: Resolved, numbering?: Numbering): Effect.Effect<Prepared | undefined, InferenceError> {
    const { changes, next } = this.plan(given, numbering)
    if (changes.every(SettingsDiff.needsRestart)) return Effect.undefined
    return Effect.map(this.#changes.prepare(next, this.#current), ({ cancel, commit }) => ({
      cancel,
      commit: () => {
        this.#current = next
        commit()
      }
    }))
  }
}

/** One line for a change of the configuration, with all differences as data. */
export const logReport = ({ applied, changes, warnings = [] }: Report, trigger: Trigger): Effect.Effect<void> => {
  const later = changes.filter(({ needsRestart }) => needsRestart)
  const count = changes.length - later.length
  const restart = later.length === 0 ? "" : ` Needs a restart: ${later.map(({ path }) => path).join(", ")}.`
  const message = applied
    ? `Applied another configuration with ${count === 1 ? "1 change" : `${count} changes`}.`
    : "Read the configuration again; nothing changes."
  return Effect.andThen(
    Effect.annotateLogs(Effect.logInfo(`${message}${restart}`), { event: "settings_reloaded", trigger, changes }),
    Effect.forEach(warnings, (warning) => Effect.logWarning(warning), { discard: true })
  )
}

/** Logs why nothing has changed. */
export const logFailure = ({ message }: ReloadError, trigger: Trigger): Effect.Effect<void> =>
  Effect.annotateLogs(Effect.logError(`The configuration was not reloaded. ${message}`), { trigger })

const noSource = new ReloadError({
  message: "The settings of this program are fixed: it was started without a source that can be read again.",
  problems: []
})

/** The settings of the source. */
export const settingsOf = (source: Source | undefined): Effect.Effect<Resolved, ReloadError> =>
  source === undefined
    ? Effect.fail(noSource)
    : Effect.mapError(Effect.flatMap(source.read, source.resolve), reloadError)

/** Completes settings by what the application has, as it did at the start. */
export type Complete = (settings: Resolved) => Effect.Effect<Resolved, SettingsError>

const make = (complete: Complete) =>
  Effect.gen(function*() {
    const source = yield* SettingsSource
    const reloading = new Reloading(yield* SettingsChanges, yield* Settings)
    const oneAtATime = Semaphore.makeUnsafe(1)
    const change = Effect.fnUntraced(function*({ dryRun = false, settings }: Options) {
      const read = settings === undefined ? settingsOf(source) : Effect.mapError(settings, reloadError)
      const given = yield* Effect.mapError(complete(yield* read), reloadError)
      const { changes: found, next } = reloading.plan(given)
      const changes = SettingsDiff.shown(found)
      if (dryRun) return reportOf({ applied: false, changes }, next)
      const prepared = yield* Effect.mapError(reloading.prepare(given), reloadError)
      prepared?.commit()
      return reportOf({ applied: prepared !== undefined, changes }, next)
    })
    return Reload.of({
      run: (options) => {
        const logged = change(options).pipe(
          Effect.tap((report) => options.dryRun === true ? Effect.void : logReport(report, options.trigger)),
          Effect.tapError((error) => options.dryRun === true ? Effect.void : logFailure(error, options.trigger))
        )
        return oneAtATime.withPermits(1)(Effect.uninterruptible(logged))
      }
    })
  })

/** @param complete as the settings were completed at the start */
export const layer = (complete: Complete) => Layer.effect(Reload, make(complete))

/** For an application whose settings stay as they are. */
export const fixed = Reload.of({ run: () => Effect.fail(noSource) })
