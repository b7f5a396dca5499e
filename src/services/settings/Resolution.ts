/** Settings of one environment from its decoded file: with all defaults, absolute paths and model files of the store. */
import { Duration } from "effect"
import type { CacheSettings } from "../../domain/CacheControl.ts"
import * as Defaults from "../../domain/Defaults.ts"
import type { Deployment, DeploymentOptions, Model } from "../../domain/Deployment.ts"
import type { SpanOrOff } from "../../domain/Fields.ts"
import * as Problem from "../../domain/Problem.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import { filesOf, mapPaths, pathOf } from "../engines/EngineKinds.ts"
import { languageModel as languageModelKind } from "../engines/LanguageModelKind.ts"
import type { Options as CircuitOptions } from "../health/Circuit.ts"
import type { Cooldowns } from "../keys/KeyPool.ts"
import { listedId } from "../models/Numbering.ts"
import { noDeploymentOf, resolveExperiment } from "../rollout/RolloutSettings.ts"
import { shadowProblems } from "../rollout/ShadowSettings.ts"
import { scalingOf } from "../scaling/ScalingSettings.ts"
import { admissionOf } from "./AdmissionSettings.ts"
import { alertsOf } from "./AlertSettings.ts"
import { boundsOf, modelCacheOf } from "./CacheSettings.ts"
import { guardOf } from "./GuardSettings.ts"
import { keysOf } from "./KeySettings.ts"
import { policiesOf, routingFields, routingOf } from "./PolicySettings.ts"
import { prefixFilesOf } from "./PrefixFileSettings.ts"
import { decisionsOf, responsesOf } from "./ResponseSettings.ts"
import type { Source } from "./Schema.ts"
import { modelDefaults, serverDefaults } from "./Schema.ts"
import type { Environment, Resolved } from "./Settings.ts"
import { redisOf, storageOf } from "./StorageSettings.ts"
import { streamsOf } from "./StreamSettings.ts"
import { telemetryOf } from "./TelemetrySettings.ts"

const nameAfter = (scheme: string) => (path: string): string | undefined =>
  path.startsWith(scheme) ? path.slice(scheme.length) : undefined

/** The name of `store:<name>`, which stands for a path; undefined for a path. */
export const nameInStore = nameAfter("store:")

/** The name of `builtin:<name>`, which stands for the path of an embedded model; undefined for a path. */
const nameOfBuiltin = nameAfter("builtin:")

/** Whether a name stands for a path. In resolved settings: of a model that does not exist. */
export const isReference = (path: string): boolean =>
  nameInStore(path) !== undefined || nameOfBuiltin(path) !== undefined

/** A model that is part of the package. */
export interface EmbeddedModel {
  /** With absolute paths. */
  readonly options: DeploymentOptions
  /** Whether a service loads it at start, where no model is configured. */
  readonly preload: boolean
}

/** The fields of `process` that are used. */
export interface Process {
  readonly platform: string
  readonly getuid?: () => number
}

/**
 * The default socket for administration of the service that listens on this port.
 *
 * @param temporaryFolder as `node:os` gives it
 */
export const defaultSocket = (port: number, temporaryFolder: string, { getuid, platform }: Process): string =>
  platform === "win32" ? `\\\\.\\pipe\\troupe-${port}` : `${temporaryFolder}/troupe-${getuid?.() ?? 0}/${port}.sock`

/** Everything besides the file that settings depend on. */
export interface ResolveContext {
  /** The value of `NODE_ENV`. */
  readonly environment: string | undefined
  /** Environment variables for `${NAME}`. */
  readonly variables: Readonly<Record<string, string | undefined>>
  /** Whether variables of secrets may be unset, for programs that call no remote deployment; default false. */
  readonly secretsMayBeUnset?: boolean | undefined
  /** Whether a secret may be a literal: true for the configuration of a program, default false for a file. */
  readonly literalSecrets?: boolean | undefined
  /** Whether policies may name strategies of an embedding program, `custom/...`; default false. */
  readonly customStrategies?: boolean | undefined
  /** Makes a path in the file absolute. */
  readonly resolvePath: (path: string) => string
  /** By name: the models when none is configured, and those that `builtin:<name>` stands for. */
  readonly embedded: Readonly<Record<string, EmbeddedModel>>
  /** Paths of the package's LoRA adapters by name, for which `builtin:<name>` stands, too; default none. */
  readonly adapters?: Readonly<Record<string, string>> | undefined
  readonly defaultEngineHost: "process" | "thread"
  /** Folder of the model store, absolute. */
  readonly defaultStoreFolder: string
  /** Where data is stored if the file does not say; never on disk in `test`. */
  readonly defaultStorage: "sqlite" | "memory"
  /** Folder of the SQLite file, absolute. */
  readonly defaultDataFolder: string
  /** The path to load for a model in the store; undefined where the store has no such model. */
  readonly findInStore: (folder: string, name: string) => string | undefined
}

interface ModelSettings extends Omit<NonNullable<Source["models"]>[string], "deployments"> {
  readonly deployments: readonly [DeploymentOptions, ...Array<DeploymentOptions>]
}

const unlessOff = (span: SpanOrOff, off: Duration.Duration): Duration.Duration => span === false ? off : span

const isRouted = (settings: ModelSettings): boolean => Object.keys(routingFields).some((field) => field in settings)

const modelOf = (
  name: string,
  settings: ModelSettings,
  resolve: ResolveContext["resolvePath"],
  policies: ReadonlyArray<Policy> = [],
  cache?: CacheSettings
): Model => {
  const { policy: { timeouts: { loadMs } } } = routingOf(settings, policies)
  const toDeployment = (options: DeploymentOptions, index: number): Deployment => ({
    id: listedId(name, index),
    model: name,
    options: mapPaths(options, resolve),
    idleUnload: unlessOff(settings.idleUnload, Duration.infinity),
    preload: settings.preload,
    pinned: settings.pinned,
    queueLimit: settings.queueLimit,
    stallAfter: unlessOff(settings.stallAfter, Duration.infinity),
    loadTimeout: loadMs === undefined ? Defaults.loadTimeout : Duration.millis(loadMs)
  })
  const [first, ...others] = settings.deployments
  return {
    name,
    deployments: [toDeployment(first, 0), ...others.map((options, index) => toDeployment(options, index + 1))],
    ...(settings.aliases === undefined ? {} : { aliases: settings.aliases }),
    ...(isRouted(settings) ? { routing: routingOf(settings, policies) } : {}),
    ...(cache === undefined ? {} : { cache })
  }
}

/** A model that no file configures, with one deployment whose paths are absolute. */
export const modelWith = (name: string, options: DeploymentOptions): Model =>
  modelOf(name, { ...modelDefaults, deployments: [options] }, (path) => path)

/** The model of a provided language model's name. */
export const languageModel = (name: string): Model => modelWith(name, { engine: languageModelKind.name, name })

const modelsOfPackage = ({ embedded }: ResolveContext): Readonly<Record<string, ModelSettings>> =>
  Object.fromEntries(
    Object.entries(embedded).map(([name, { options, preload }]) =>
      [name, { ...modelDefaults, preload, deployments: [options] }] as const
    )
  )

const modelsOf = (
  source: Source,
  policies: ReadonlyArray<Policy>,
  environment: Environment,
  context: ResolveContext
): ReadonlyArray<Model> =>
  Object.entries<ModelSettings>(source.models ?? modelsOfPackage(context)).map(([name, settings]) => {
    const cache = modelCacheOf(source.cache, settings.cache ?? {}, environment)
    return modelOf(name, settings, context.resolvePath, policies, cache)
  })

const logLevels = { debug: "Debug", info: "Info", warn: "Warn", error: "Error" } as const
const defaultLogLevel = { development: "debug", test: "warn", production: "info" } as const

/** A host without the brackets that an IPv6 address has in URLs. */
export const bareHost = (host: string): string => host.replace(/^\[(.*)\]$/, "$1")

/** Server settings without a file. */
export const defaultServer: Resolved["server"] = {
  ...serverDefaults,
  shutdownGrace: unlessOff(serverDefaults.shutdownGrace, Duration.zero)
}

const serverOf = ({ server }: Source, { resolvePath }: ResolveContext): Resolved["server"] => {
  const { admin, host, shutdownGrace } = server
  return {
    ...server,
    host: bareHost(host),
    shutdownGrace: unlessOff(shutdownGrace, Duration.zero),
    admin: typeof admin.socket === "string" ? { ...admin, socket: resolvePath(admin.socket) } : admin
  }
}

const storeFolderOf = (source: Source, { defaultStoreFolder, resolvePath }: ResolveContext): string =>
  source.store?.folder === undefined ? defaultStoreFolder : resolvePath(source.store.folder)

/** The path of an embedded model or adapter. */
const findBuiltin = ({ adapters = {}, embedded }: ResolveContext, name: string): string | undefined => {
  if (Object.hasOwn(embedded, name)) return pathOf(embedded[name]!.options)
  return Object.hasOwn(adapters, name) ? adapters[name] : undefined
}

/** Replaces names of the store and of embedded models by paths; a name that does not exist stays. */
const withNames = (source: Source, context: ResolveContext): ResolveContext => ({
  ...context,
  resolvePath: (path) => {
    const builtin = nameOfBuiltin(path)
    if (builtin !== undefined) return findBuiltin(context, builtin) ?? path
    const name = nameInStore(path)
    if (name === undefined) return context.resolvePath(path)
    return context.findInStore(storeFolderOf(source, context), name) ?? path
  }
})

const circuitsOf = ({ circuits: { failures, openFor, probes, successes } }: Source): CircuitOptions => ({
  opensAfter: failures,
  openFor,
  closesAfter: successes,
  probes
})

const keyCooldownsOf = ({ keyCooldowns }: Source): Cooldowns => ({
  limited: Duration.toMillis(keyCooldowns.rateLimited),
  longest: Duration.toMillis(keyCooldowns.rateLimitedMax),
  refused: Duration.toMillis(keyCooldowns.rejected),
  longestRefused: Duration.toMillis(keyCooldowns.rejectedMax)
})

const storedIn = ({ storage }: Source, environment: Environment, context: ResolveContext): Resolved["storage"] =>
  storageOf(storage, {
    type: environment === "test" ? "memory" : context.defaultStorage,
    folder: context.defaultDataFolder,
    resolvePath: context.resolvePath
  })

/** What collects the log of a production service parses it, also where it is started in a terminal. */
const logFormatOf = ({ logFormat }: Source, environment: Environment): Pick<Resolved, "logFormat"> => {
  if (logFormat !== undefined) return { logFormat }
  return environment === "production" ? { logFormat: "json" } : {}
}

/** A setting of models, by their names. */
const byModel = <A>(
  { models = {} }: Source,
  of: (settings: NonNullable<Source["models"]>[string]) => A | undefined
): ReadonlyMap<string, A> | undefined => {
  const found = Object.entries(models).flatMap(([name, settings]) => {
    const value = of(settings)
    return value === undefined ? [] : [[name, value] as const]
  })
  return found.length === 0 ? undefined : new Map(found)
}

const rolloutsOf = (source: Source): Pick<Resolved, "experiments" | "rollouts" | "shadows"> => {
  const rollouts = byModel(source, ({ rollout }) => rollout)
  const experiments = byModel(source, ({ experiment }) => experiment && resolveExperiment(experiment))
  const shadows = byModel(source, ({ shadow }) => shadow)
  return {
    ...(rollouts === undefined ? {} : { rollouts }),
    ...(experiments === undefined ? {} : { experiments }),
    ...(shadows === undefined ? {} : { shadows })
  }
}

/** Problems of variants that are no deployments of their models. */
export const unknownVariants = ({ experiments = new Map(), models }: Resolved): ReadonlyArray<Problem.Problem> =>
  models.flatMap(({ deployments, name }) =>
    (experiments.get(name)?.variants ?? []).flatMap(({ deployment }, index) =>
      deployments.some(({ id }) => id === deployment) ? [] : [{
        path: Problem.formatPath(["models", name, "experiment", "variants", index, "deployment"]),
        expected: noDeploymentOf(deployment, deployments.map(({ id }) => id))
      }]
    )
  )

/** Problems of shadows, such as candidates that are no deployments of their models. */
export const wrongShadows = ({ experiments, models, shadows = new Map() }: Resolved): ReadonlyArray<Problem.Problem> =>
  shadowProblems(models, shadows, (model) => experiments?.get(model)?.variants ?? [])
    .map(({ expected, path }) => ({ path: Problem.formatPath(path), expected }))

const enginesOf = (
  { engines: { host, prefixFiles, restarts, sampleEvery, streams, streamWindow } }: Source,
  storage: Resolved["storage"],
  { defaultDataFolder, defaultEngineHost }: ResolveContext
): Pick<Resolved, "engineHost" | "engineRestarts" | "prefixFiles" | "sampleEvery" | "streams"> => ({
  engineHost: host ?? defaultEngineHost,
  engineRestarts: restarts,
  sampleEvery,
  streams: streamsOf(streamWindow, streams),
  ...prefixFilesOf(storage, defaultDataFolder, prefixFiles)
})

/** The settings of this environment. */
export const resolve = (
  source: Source,
  environment: Environment,
  context: ResolveContext,
  policies = policiesOf(source)
): Resolved => {
  const storage = storedIn(source, environment, context)
  const telemetry = telemetryOf(source.telemetry, context.variables)
  const decisions = decisionsOf(source.decisions)
  const redis = source.redis === undefined ? undefined : redisOf(source.redis)
  return {
    environment,
    server: serverOf(source, context),
    ...enginesOf(source, storage, context),
    logLevel: logLevels[source.logLevel ?? defaultLogLevel[environment]],
    ...logFormatOf(source, environment),
    ...(source.logRequests === undefined ? {} : { logRequests: source.logRequests }),
    memory: {
      budgetBytes: source.memory.budget,
      hold: unlessOff(source.memory.hold, Duration.zero),
      reserve: source.memory.reserve,
      pressure: source.memory.pressure,
      quantization: source.memory.quantization
    },
    circuits: circuitsOf(source),
    keyCooldowns: keyCooldownsOf(source),
    keys: keysOf(source.keys),
    admission: admissionOf(source),
    alerts: alertsOf(source.alerts),
    ...(decisions === undefined ? {} : { decisions }),
    embeddingBatches: source.embeddingBatches,
    deploy: source.deploy,
    reload: source.reload,
    store: { ...source.store, folder: storeFolderOf(source, context) },
    storage,
    ...(redis === undefined ? {} : { redis }),
    policies,
    responses: responsesOf(source.responses, { redis, storage }),
    cache: boundsOf(source.cache),
    guard: guardOf(source.guard),
    ...(telemetry === undefined ? {} : { telemetry }),
    ...(source.scaling === undefined ? {} : { scaling: scalingOf(source.scaling) }),
    answerModel: source.troupe.model,
    models: modelsOf(source, policies, environment, withNames(source, context)),
    ...rolloutsOf(source)
  }
}

const expectedFor = (path: string, isAdapter: boolean, { adapters = {}, embedded }: ResolveContext): string => {
  const name = nameInStore(path)
  const names = Object.keys(isAdapter ? adapters : embedded).map((one) => `builtin:${one}`)
  return name === undefined
    ? `Expected an embedded ${isAdapter ? "adapter" : "model"}: ${names.join(" or ")}`
    : `The store has no model "${name}". Pull it with: troupe models pull <source> --name ${name}`
}

/** Problems of models that do not exist: references that `resolve` did not replace. */
export const missingModels = (
  models: ReadonlyArray<Model>,
  context: ResolveContext
): ReadonlyArray<Problem.Problem> =>
  models.flatMap(({ deployments }) =>
    deployments.flatMap(({ model, options }, index) =>
      filesOf(options).filter(([, path]) => isReference(path)).map(([field, path]) => ({
        path: Problem.formatPath(["models", model, "deployments", index, ...field]),
        expected: expectedFor(path, field[0] === "lora", context)
      }))
    )
  )
