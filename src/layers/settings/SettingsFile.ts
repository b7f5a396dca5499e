/** Settings from `troupe.yaml`, from the configuration of a program, or the embedded default if there is neither. */
import { Effect, Layer, Schema } from "effect"
import { Yaml } from "effect/encoding"
import { existsSync, readFileSync } from "node:fs"
import { readFile } from "node:fs/promises"
import { homedir } from "node:os"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import type { Deployment, EngineDeployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { Problem } from "../../domain/Problem.ts"
import { formatPath } from "../../domain/Problem.ts"
import * as EngineKinds from "../../services/engines/EngineKinds.ts"
import { diagnose } from "../../services/settings/Decode.ts"
import type { ResolveContext } from "../../services/settings/Resolution.ts"
import { isReference, modelWith } from "../../services/settings/Resolution.ts"
import type { File } from "../../services/settings/Schema.ts"
import type { Resolved } from "../../services/settings/Settings.ts"
import { Settings, SettingsError } from "../../services/settings/Settings.ts"
import * as YamlBounds from "../../services/settings/YamlBounds.ts"
import * as YamlErrors from "../../services/settings/YamlErrors.ts"
import * as YamlPositions from "../../services/settings/YamlPositions.ts"
import { isName } from "../../services/store/ModelSource.ts"
import { Manifest } from "../../services/store/ModelStore.ts"

/** The default file, in the current folder. */
export const defaultFile = "troupe.yaml"

const pathOf = (name: string): string => fileURLToPath(new URL(`../../../models/${name}`, import.meta.url))

/** The options of a kind that runs on threads. */
const optionsOf = (name: string): EngineDeployment => EngineKinds.fromPath(pathOf(name))

/** The models that this package ships: small enough for every machine, and fastest on one compute thread. */
export const embedded: ResolveContext["embedded"] = {
  "tiny-chat": { options: { ...optionsOf("tiny-chat-q8_0.gguf"), slots: 8, threads: 1 }, preload: true },
  // Its engine is a process of its own, which most services that only chat never need.
  "tiny-embed": { options: { ...optionsOf("tiny-embed"), threads: 1 }, preload: false }
}

/** The LoRA adapters that this package ships. */
const adapters: ResolveContext["adapters"] = { "tiny-chat-recall": pathOf("tiny-chat-recall.gguf") }

/** The content of `troupe.yaml` as a typed value: the same fields, units and defaults. */
export type Config = typeof File.Encoded

/** Where settings come from. */
export interface Options {
  /** Default: `troupe.yaml` in the current folder, if there is one. */
  readonly file?: string | undefined
  /**
   * The configuration itself, in place of a file. Relative paths are relative to the current folder, `${NAME}` stands for
   * an environment variable as in a file, and a key may be the value itself: `key: process.env.OPENAI_API_KEY`.
   */
  readonly config?: Config | undefined
  readonly engineHost?: "process" | "thread" | undefined
  /** Whether variables of keys and headers may be unset, for programs that call no remote deployment. */
  readonly secretsMayBeUnset?: boolean | undefined
  /** The text of the file where it has been read already: undefined in it, there is no file. */
  readonly read?: { readonly text: string | undefined } | undefined
  /** Whether policies may name strategies of the program, `custom/...`; default false. */
  readonly customStrategies?: boolean | undefined
}

/** Options that programs do not have. */
interface ServiceOptions extends Options {
  /** Where data is stored if the configuration does not say; default memory. */
  readonly defaultStorage?: "sqlite" | "memory" | undefined
  /** Whether a file without content stands for the defaults; default true. */
  readonly mayBeEmpty?: boolean | undefined
}

const unusable = (source: string, expected: string) => new SettingsError({ source, problems: [{ path: "", expected }] })

/** Why a file cannot be read, by the code of the error. */
const readProblems: Readonly<Record<string, string>> = {
  EACCES: "This user may not read the file. Change its permissions, or name another file with --config",
  EISDIR: "Expected a file, but this is a folder",
  ENOENT: "No such file",
  ENOTDIR: "No such file"
}

/** The text of the file; undefined if it does not exist and is not required. */
const read = (file: string, required: boolean): Effect.Effect<string | undefined, SettingsError> =>
  !required && !existsSync(file) ? Effect.undefined : Effect.tryPromise({
    try: () => readFile(file, "utf8"),
    catch: (cause) => {
      const { code, message } = cause as NodeJS.ErrnoException
      return unusable(file, readProblems[code ?? ""] ?? message)
    }
  })

const parse = (file: string, text: string): Effect.Effect<unknown, SettingsError> => {
  const tooLarge = YamlBounds.problemOfText(text)
  if (tooLarge !== undefined) return Effect.fail(unusable(file, tooLarge))
  return Effect.flatMap(parseYaml(file, text), (tree) => {
    const tooMuch = YamlBounds.problemOfTree(tree)
    return tooMuch === undefined ? Effect.succeed(tree) : Effect.fail(unusable(file, tooMuch))
  })
}

const parseYaml = (file: string, text: string): Effect.Effect<unknown, SettingsError> =>
  Effect.try({
    try: () => Yaml.parse(text),
    catch: (cause) => {
      if (cause instanceof RangeError) {
        return unusable(file, `Mappings and lists are nested deeper than ${YamlBounds.most.levels} levels`)
      }
      // The name of an alias may be a secret that begins with an asterisk; no other message contains a value.
      const message = (cause as Error).message.replace(/'\*.*'/, "(its name is not shown)")
      return unusable(file, `Invalid YAML: ${YamlErrors.describe(text, message)}`)
    }
  })

/** The content of a YAML file that a command reads, within the bounds of a configuration. */
export const readYaml = Effect.fnUntraced(function*(file: string) {
  const text = (yield* read(file, true))!
  return { text, value: yield* parse(file, text) }
})

const decodeManifest = Schema.decodeSync(Schema.fromJsonString(Manifest))

/** The XDG base directory specification's data folder, and Windows' own. */
const dataFolder = (): string =>
  process.env["XDG_DATA_HOME"] || (process.platform === "win32" && process.env["LOCALAPPDATA"]) ||
  join(homedir(), ".local/share")

const storeFolder = (): string => resolve(process.env["TROUPE_MODELS"] || join(dataFolder(), "troupe/models"))

const storageFolder = (): string => resolve(process.env["TROUPE_DATA"] || join(dataFolder(), "troupe/data"))

/** Also finds quarantined models, whose load fails with the reason. */
const findInStore = (folder: string, name: string): string | undefined => {
  if (!isName(name)) return undefined
  try {
    const manifest = decodeManifest(readFileSync(join(folder, name, "model.json"), "utf8"))
    return manifest.kind === "gguf" ? join(folder, name, manifest.files[0].path) : join(folder, name)
  } catch {
    return undefined
  }
}

const contextOf = (
  folder: string,
  { customStrategies, defaultStorage = "memory", engineHost = "thread", secretsMayBeUnset }: ServiceOptions
): ResolveContext => ({
  customStrategies,
  environment: process.env["NODE_ENV"],
  variables: process.env,
  secretsMayBeUnset,
  resolvePath: (path) => resolve(folder, path),
  embedded,
  adapters,
  defaultEngineHost: engineHost,
  defaultStoreFolder: storeFolder(),
  defaultStorage,
  defaultDataFolder: storageFolder(),
  findInStore
})

/** The configuration to decode, and its name in errors. */
interface Given {
  readonly source: string
  readonly folder: string
  /** Text of the file; undefined if there is none. */
  readonly text: string | undefined
  readonly json: unknown
  /** Whether a secret may be a literal: in the configuration of a program, never in a file. */
  readonly literalSecrets: boolean
}

/** What is wrong without a file, and with `NODE_ENV`, is wrong there. */
const environmentVariables = "the environment variables"

const readFrom = Effect.fnUntraced(function*({ config, file, read: known }: Options) {
  if (config === undefined) {
    const path = resolve(file ?? defaultFile)
    const text = known === undefined ? yield* read(path, file !== undefined) : known.text
    const json = yield* parse(path, text ?? "")
    const source = text === undefined ? environmentVariables : path
    return { source, folder: dirname(path), text, json, literalSecrets: false } satisfies Given
  }
  const source = "the option `config`"
  if (file !== undefined) return yield* unusable(source, "Set either `config` or `file`, not both")
  return { source, folder: process.cwd(), text: undefined, json: config, literalSecrets: true } satisfies Given
})

const inLineOrder = (one: Problem, other: Problem): number =>
  (one.line ?? 0) - (other.line ?? 0) || (one.column ?? 0) - (other.column ?? 0)

/** Problems with their lines and columns in the text, if there is one, in this order. */
export const located = (text: string | undefined, problems: ReadonlyArray<Problem>): ReadonlyArray<Problem> => {
  if (problems.length === 0 || text === undefined) return problems
  const positionOf = YamlPositions.make(text)
  return problems.map((problem) => ({ ...problem, ...positionOf(problem.path) })).toSorted(inLineOrder)
}

/** The text of the file; undefined if there is none and none is named. */
export const textOf = (file: string | undefined, required: boolean): Effect.Effect<string | undefined, SettingsError> =>
  read(resolve(file ?? defaultFile), required || file !== undefined)

/** Of a service that runs: a file that is being written, or could not be, is empty. */
const emptied = "The file is empty. Restart the service to use the defaults"

/** Reads a configuration: every problem, and the settings of its valid part. Fails if the file is not YAML. */
export const inspect = Effect.fnUntraced(function*(options: ServiceOptions = {}) {
  const { folder, json, literalSecrets, source, text } = yield* readFrom(options)
  const { problems, settings } = diagnose(json, { ...contextOf(folder, options), literalSecrets })
  const isEmpty = text !== undefined && (json === null || json === undefined)
  const problemsOfText = isEmpty && options.mayBeEmpty === false ? [{ path: "", expected: emptied }] : problems
  const isOfEnvironment = settings === undefined && problems.length > 0 &&
    problems.every(({ path }) => path === "NODE_ENV")
  return {
    source: isOfEnvironment ? environmentVariables : source,
    text,
    isEmpty,
    problems: located(text, problemsOfText),
    settings
  }
})

/** Reads, decodes and checks the settings. */
export const load = Effect.fnUntraced(function*(options: ServiceOptions = {}) {
  const { problems, settings, source } = yield* inspect(options)
  return settings === undefined || problems.length > 0
    ? yield* new SettingsError({ source, problems: [...problems] })
    : settings
})

/** The missing file or folder of one field of a deployment. */
interface Missing {
  readonly place: string
  readonly path: string
  readonly expected: string
}

/** Missing files and folders of a deployment: one problem for each path. */
const missingOf = ({ options }: Deployment): ReadonlyArray<Missing> => {
  const paths = EngineKinds.filesOf(options).map(([field, path]) => ({ place: formatPath(field), path }))
  const [own] = paths
  if (own === undefined || isRemote(options)) return []
  const files = EngineKinds.kindOf(options).filesIn?.(options) ?? []
  if (files.length === 0 || !existsSync(own.path)) {
    return paths.filter(({ path }) => !existsSync(path))
      .map(({ path, place }) => ({ place, path, expected: `No such file or folder: ${path}` }))
  }
  const missing = files.filter((name) => !existsSync(join(own.path, name)))
  return missing.length === 0
    ? []
    : [{ ...own, expected: `The folder ${own.path} has no ${missing.join(", no ")}` }]
}

/** Problems of missing model files, which would otherwise appear when an engine loads them. */
export const missingFiles = (settings: Resolved): ReadonlyArray<Problem> =>
  settings.models.flatMap(({ deployments, name }) =>
    deployments.flatMap((deployment, index) =>
      missingOf(deployment)
        // The store reports its own missing and quarantined files.
        .filter(({ path }) => !isReference(path) && !path.startsWith(settings.store.folder))
        .map(({ expected, place }) => ({
          path: `${formatPath(["models", name, "deployments", index])}.${place}`,
          expected
        }))
    )
  )

/**
 * The settings with a model added by its name, unless a model of that name is configured or the store has none.
 *
 * @param path of its file; by default the model of the store
 */
export const withModel = (
  settings: Resolved,
  { name, path: given }: { readonly name: string; readonly path?: string }
): Resolved => {
  if (settings.models.some((model) => model.name === name)) return settings
  const path = given ?? findInStore(settings.store.folder, name)
  if (path === undefined) return settings
  return { ...settings, models: [...settings.models, modelWith(name, EngineKinds.fromPath(path))] }
}

/** The settings, read once. */
export const layer = (options?: Options): Layer.Layer<Settings, SettingsError> => Layer.effect(Settings, load(options))
