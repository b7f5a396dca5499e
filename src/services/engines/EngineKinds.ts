/** The kinds of engines, and the properties of a deployment that depend on its kind. */
import { Schema } from "effect"
import type { DeploymentOptions, EngineDeployment } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { EngineCapability } from "../../domain/EngineProtocol.ts"
import type { Adapter } from "../../domain/LoraAdapter.ts"
import { providerKindOf } from "../../domain/ProviderKind.ts"
import { RemoteDeployment } from "../../domain/RemoteDeployment.ts"
import type { EngineKind, ModelFormat } from "./EngineKind.ts"
import { fake } from "./FakeKind.ts"
import { languageModel } from "./LanguageModelKind.ts"
import { llama } from "./LlamaKind.ts"
import type { Lora } from "./LoraOption.ts"
import * as LoraOption from "./LoraOption.ts"
import { onnx } from "./OnnxKind.ts"

/** Every kind. Messages list them in this order. */
export const engineKinds = [llama, onnx, fake, languageModel] as const

type Kinds = typeof engineKinds
type OptionsOf<List extends Kinds> = { readonly [Index in keyof List]: List[Index]["options"] }

const members = engineKinds.map(({ options }) => options) as unknown as OptionsOf<Kinds>

/** The options of a deployment, of every kind and remote. */
export const Options = Schema.Union([...members, RemoteDeployment])
export type Options = typeof Options.Type

const byName = new Map<string, EngineKind>(engineKinds.map((kind): [string, EngineKind] => [kind.name, kind]))

/** The kinds with a worker, which run on threads. */
export const threadKinds: ReadonlyArray<EngineKind> = engineKinds.filter((kind) => "spec" in kind)

/** The kind of a deployment that is not remote. */
export const kindOf = ({ engine }: EngineDeployment): EngineKind => byName.get(engine)!

const localKindOf = (options: DeploymentOptions): EngineKind | undefined =>
  isRemote(options) ? undefined : kindOf(options)

/** Whether a deployment loads files from disk. */
export const hasPath = (options: DeploymentOptions): options is EngineDeployment =>
  localKindOf(options)?.path !== undefined

/** The path of the model: a file or a folder. */
export const pathOf = (options: DeploymentOptions): string | undefined => {
  if (isRemote(options)) return undefined
  const { path } = kindOf(options)
  return path === undefined ? undefined : options[path] as string
}

/** A path in a deployment's options, and its field: `["file"]`, `["variants", 0]`. */
export type PathField = readonly [field: ReadonlyArray<string | number>, path: string]

const variantsOf = (kind: EngineKind, options: EngineDeployment): ReadonlyArray<string> =>
  kind.variants === undefined ? [] : (options[kind.variants] ?? []) as ReadonlyArray<string>

/** Every path of the model in a deployment's options, the model's own first. */
export const pathsOf = (options: DeploymentOptions): ReadonlyArray<PathField> => {
  const path = pathOf(options)
  if (path === undefined || isRemote(options)) return []
  const kind = kindOf(options)
  return [
    [[kind.path!], path],
    ...variantsOf(kind, options).map((variant, index): PathField => [[kind.variants!, index], variant])
  ]
}

const loraOf = (options: DeploymentOptions): Lora | undefined => {
  const field = localKindOf(options)?.adapters
  return field === undefined ? undefined : (options as EngineDeployment)[field] as Lora | undefined
}

/** The LoRA adapters of a deployment. */
export const adaptersOf = (options: DeploymentOptions): ReadonlyArray<Adapter> => LoraOption.adaptersOf(loraOf(options))

/** The paths of a deployment's LoRA adapters, and their fields: `["lora"]`, `["lora", 0, "path"]`. */
export const adapterPathsOf = (options: DeploymentOptions): ReadonlyArray<PathField> =>
  LoraOption.placesOf(loraOf(options)).map(([place, path]): PathField => [["lora", ...place], path])

/** Every path in a deployment's options: the model's, and those of its LoRA adapters. */
export const filesOf = (options: DeploymentOptions): ReadonlyArray<PathField> => [
  ...pathsOf(options),
  ...adapterPathsOf(options)
]

/** A deployment's options once for each of its paths, with that path as the model's. */
export const alternativesOf = (
  options: DeploymentOptions
): ReadonlyArray<{ readonly field: PathField[0]; readonly path: string; readonly options: DeploymentOptions }> =>
  pathsOf(options).map(([field, path]) => ({ field, path, options: withPath(options, path) }))

/** The same options with another path of the model. */
export const withPath = <A extends DeploymentOptions>(options: A, path: string): A => {
  const kind = localKindOf(options)
  return kind?.path === undefined ? options : { ...options, [kind.path]: path }
}

/** The same options with every path changed. */
export const mapPaths = <A extends DeploymentOptions>(options: A, change: (path: string) => string): A => {
  const path = pathOf(options)
  if (path === undefined || isRemote(options)) return options
  const kind = kindOf(options)
  const lora = loraOf(options)
  return {
    ...withPath(options, change(path)),
    ...(kind.variants === undefined || options[kind.variants] === undefined
      ? {}
      : { [kind.variants]: variantsOf(kind, options).map(change) }),
    ...(lora === undefined ? {} : { lora: LoraOption.mapAdapters(lora, change) })
  }
}

/** The kind that loads this format of the model store. */
export const ofFormat = (format: ModelFormat): EngineKind =>
  engineKinds.find((kind) => "format" in kind && kind.format === format)!

const optionsFor = ({ name, path }: EngineKind, place: string): EngineDeployment => ({ engine: name, [path!]: place })

/** Options to load a model of the store. */
export const fromFormat = (format: ModelFormat, path: string): EngineDeployment => optionsFor(ofFormat(format), path)

/** Options to load a path: by its extension, else as a folder. */
export const fromPath = (path: string): EngineDeployment => {
  const kinds: ReadonlyArray<EngineKind> = engineKinds
  const kind = kinds.find(({ extension }) => extension !== undefined && path.endsWith(extension)) ??
    kinds.find((one) => one.path === "folder")!
  return optionsFor(kind, path)
}

/** Capabilities that a configuration excludes only with another one: they are a form of it. */
const formsOf: { readonly [Form in EngineCapability]?: EngineCapability } = { echo: "complete", embedTokens: "embed" }

/** The capabilities of a deployment's kind, as far as its configuration does not exclude them. */
export const capabilitiesOf = (options: DeploymentOptions): ReadonlyArray<EngineCapability> => {
  const possible = isRemote(options) ? providerKindOf(options.provider).capabilities : kindOf(options).capabilities
  const { abilities: configured } = options
  return configured === undefined
    ? possible
    : possible.filter((capability) => configured.includes(formsOf[capability] ?? capability))
}

/** Where a deployment's model comes from, for lists. */
export const sourceOf = (options: DeploymentOptions): string =>
  isRemote(options)
    ? `${options.provider}: ${options.model}`
    : pathOf(options) ?? kindOf(options).source?.(options) ?? options.engine
