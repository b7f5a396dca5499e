/**
 * Models that are named on the command line: configured ones, models of the store, and sources (`hf:org/repo`,
 * `https://host/model.gguf`), which are pulled if the store does not have them, or paths.
 */
import { Effect, Layer, Option, Stream } from "effect"
import { existsSync } from "node:fs"
import { resolve } from "node:path"
import * as App from "../App.ts"
import * as SettingsFile from "../layers/settings/SettingsFile.ts"
import type { Resolved } from "../services/settings/Settings.ts"
import { Settings } from "../services/settings/Settings.ts"
import { nameOf } from "../services/store/ModelSource.ts"
import { ModelStore } from "../services/store/ModelStore.ts"
import { CommandFailed } from "./Flags.ts"
import { asInvoked } from "./Output.ts"
import { makeProgressPrinter } from "./PullProgress.ts"

/** A model by its name, and its file if it is in neither the configuration nor the store. */
export interface Named {
  readonly name: string
  readonly path?: string
}

const isPath = (text: string): boolean => /^(?:\.{0,2}\/|.*\.gguf$)/i.test(text) && !isRemote(text)

const isRemote = (text: string): boolean => /^(?:hf:|[a-z][a-z0-9+.-]*:\/\/|hf\.co\/|huggingface\.co\/)/i.test(text)

/** Pulls a source with its progress on standard error, and gives the model's name in the store. */
export const pull = Effect.fnUntraced(
  function*(source: string, options: Parameters<ModelStore["Service"]["pull"]>[1] = {}) {
    const store = yield* ModelStore
    const printer = makeProgressPrinter(process.stderr)
    const last = yield* store.pull(source, options).pipe(
      Stream.tap((progress) => Effect.sync(() => printer.print(progress))),
      Stream.runLast,
      Effect.ensuring(Effect.sync(() => printer.end()))
    )
    return Option.match(last, {
      onNone: () => undefined,
      onSome: (progress) => progress.type === "done" ? progress : undefined
    })
  }
)

const ofSource = Effect.fnUntraced(function*(source: string) {
  const stored = yield* (yield* ModelStore).pulledFrom(source)
  const model = stored ?? (yield* pull(source))?.model
  return model?.manifest.name ?? (yield* new CommandFailed({ message: `${source} was not pulled.` }))
})

/**
 * Finds what a command names. A source is pulled unless the store has a model that was pulled from it.
 *
 * @param settings of the configuration
 */
export const find = Effect.fnUntraced(function*(settings: Resolved, named: string) {
  if (settings.models.some(({ name }) => name === named)) return { name: named } satisfies Named
  if (isRemote(named)) {
    const name = yield* Effect.provide(
      ofSource(named),
      Layer.provideMerge(App.store, Layer.succeed(Settings, settings))
    )
    return { name } satisfies Named
  }
  if (!isPath(named)) return { name: named } satisfies Named
  if (!existsSync(named)) return yield* new CommandFailed({ message: `No such file or folder: ${named}` })
  return { name: nameOf(named), path: resolve(named) } satisfies Named
})

/**
 * The settings with the named models; fails for one that is neither configured nor in the store.
 *
 * @param areConfigured whether the models of the settings are of a configuration: the defaults give way to named ones
 */
export const withAll = Effect.fnUntraced(function*(
  settings: Resolved,
  named: ReadonlyArray<Named>,
  areConfigured: boolean
) {
  let all = named.length === 0 || areConfigured ? settings : { ...settings, models: [] }
  for (const one of named) {
    all = SettingsFile.withModel(all, one)
    if (all.models.some(({ name }) => name === one.name)) continue
    return yield* new CommandFailed({
      message: `The model "${one.name}" is neither configured nor in the store. ` +
        `${asInvoked("troupe models ls")} lists the models of the store; hf:org/repo pulls one.`
    })
  }
  return all
})
