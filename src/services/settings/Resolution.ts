/**
 * What the settings of one environment come to: every default filled in, every path absolute.
 */
import type { Redacted } from "effect"
import { Duration } from "effect"
import * as Policies from "../../domain/Defaults.ts"
import type { Deployment, DeploymentOptions, Model } from "../../domain/Deployment.ts"
import { defaultIdleUnload } from "../../domain/Deployment.ts"
import { orOff } from "../../domain/Fields.ts"
import type { Policy } from "../../domain/RoutingPolicy.ts"
import { mapPaths } from "../engines/EngineKinds.ts"
import { languageModel as languageModelKind } from "../engines/LanguageModelKind.ts"
import type { Options as CircuitOptions } from "../health/Circuit.ts"
import type { Rests } from "../keys/KeyPool.ts"
import { policiesOf, routingFields, routingOf } from "./PolicySettings.ts"
import type { Source } from "./Schema.ts"
import { nameInStore } from "./StoreReferences.ts"

/** The environments there are; `NODE_ENV` chooses, and development is the default. */
export const environments = ["development", "test", "production"] as const
export type Environment = typeof environments[number]

/** Settings, every default filled in. */
export interface Resolved {
  readonly environment: Environment
  readonly server: {
    readonly host: string
    readonly port: number
    readonly shutdownGrace: Duration.Duration
    readonly maxBodyBytes: number
    /** Of all request bodies together, bytes; left out, a quarter of the heap. */
    readonly maxRequestMemory?: number
    /** Whose `X-Forwarded-For` is believed. */
    readonly trustedProxies: ReadonlyArray<string>
    /** For the headers of one request, from the first byte. */
    readonly headersTimeout: Duration.Duration
    /** Between two pieces of a request's body. */
    readonly bodyTimeout: Duration.Duration
    /** Open at once. */
    readonly maxConnections: number
    readonly admin: {
      /** Absolute; `false` for none; left out, the one that `AdminListener` names after the port. */
      readonly socket?: string | false
      /** Of 127.0.0.1; left out, none. */
      readonly port?: number
      readonly token?: Redacted.Redacted
    }
    /** Origins whose web pages may call the service; left out, none. */
    readonly cors?: { readonly origins?: ReadonlyArray<string> }
    /** Hosts that may be asked for images though they are not in the public Internet; left out, none. */
    readonly media?: { readonly allowHosts?: ReadonlyArray<string> }
  }
  readonly engineHost: "process" | "thread"
  readonly logLevel: "Debug" | "Info" | "Warn" | "Error"
  /** Left out, `text` in a terminal, else `json`. */
  readonly logFormat?: "text" | "json"
  readonly memory: {
    /** What all models together may use; undefined, what the machine has less a reserve. */
    readonly budgetBytes: number | undefined
    /** How long a loaded model stays at least, before another that needs its memory may have it. */
    readonly hold: Duration.Duration
  }
  readonly circuits: CircuitOptions
  /** How long providers' keys are not used after they were limited or rejected. */
  readonly keyCooldowns: Rests
  /** Where pulled models lie, and how many bytes they may take; left out, what the disk has. */
  readonly store: { readonly folder: string; readonly maxBytes?: number | undefined }
  /** `default` first. */
  readonly policies: ReadonlyArray<Policy>
  readonly models: ReadonlyArray<Model>
}

/** What `Settings.decode` needs besides the file's content. */
export interface Surroundings {
  /** The value of `NODE_ENV`. */
  readonly environment: string | undefined
  /** Environment variables for `${NAME}`. */
  readonly variables: Readonly<Record<string, string | undefined>>
  /** Whether remote deployments' secrets may be unset, for whoever calls none of them; default false. */
  readonly secretsMayBeUnset?: boolean | undefined
  /** Whether a secret may be a literal, as in a program's own configuration; default false, as in a file. */
  readonly literalSecrets?: boolean | undefined
  /** Whether policies may name strategies of an embedding program, `custom/...`; default false. */
  readonly customStrategies?: boolean | undefined
  /** Makes a path in the file absolute. */
  readonly resolvePath: (path: string) => string
  /** What serves `tiny-chat` when no model is configured. */
  readonly embedded: DeploymentOptions
  readonly defaultEngineHost: "process" | "thread"
  /** Of the model store. */
  readonly defaultStoreFolder: string
  /** What to load of a model in the store; undefined where it has no such model. */
  readonly findInStore: (folder: string, name: string) => string | undefined
}

interface ModelSettings extends Omit<NonNullable<Source["models"]>[string], "deployments"> {
  readonly deployments: readonly [DeploymentOptions, ...Array<DeploymentOptions>]
}

const isRouted = (settings: ModelSettings): boolean => Object.keys(routingFields).some((field) => field in settings)

const modelOf = (
  name: string,
  settings: ModelSettings,
  resolve: Surroundings["resolvePath"],
  policies: ReadonlyArray<Policy> = []
): Model => {
  const { policy: { timeouts: { loadMs } } } = routingOf(settings, policies)
  const toDeployment = (options: DeploymentOptions, index: number): Deployment => ({
    id: `${name}#${index}`,
    model: name,
    options: mapPaths(options, resolve),
    idleUnload: orOff(settings.idleUnload, defaultIdleUnload, Duration.infinity),
    preload: settings.preload ?? true,
    pinned: settings.pinned ?? false,
    queueLimit: settings.queueLimit ?? Policies.queueLimit,
    stallAfter: orOff(settings.stallAfter, Policies.stallAfter, Duration.infinity),
    loadTimeout: loadMs === undefined ? Policies.loadTimeout : Duration.millis(loadMs)
  })
  const [first, ...others] = settings.deployments
  return {
    name,
    deployments: [toDeployment(first, 0), ...others.map((options, index) => toDeployment(options, index + 1))],
    ...(isRouted(settings) ? { routing: routingOf(settings, policies) } : {})
  }
}

/** A model that no file configures, with one deployment whose paths are absolute. */
export const modelWith = (name: string, options: DeploymentOptions): Model =>
  modelOf(name, { deployments: [options] }, (path) => path)

/** The model of a provided language model's name. */
export const languageModel = (name: string): Model => modelWith(name, { engine: languageModelKind.name, name })

const modelsOf = (
  source: Source,
  policies: ReadonlyArray<Policy>,
  { embedded, resolvePath }: Surroundings
): ReadonlyArray<Model> =>
  Object.entries<ModelSettings>(source.models ?? { "tiny-chat": { deployments: [embedded] } }).map(
    ([name, settings]) => modelOf(name, settings, resolvePath, policies)
  )

const logLevels = { debug: "Debug", info: "Info", warn: "Warn", error: "Error" } as const
const defaultLogLevel = { development: "info", test: "warn", production: "info" } as const

export const defaultServer: Resolved["server"] = {
  host: "127.0.0.1",
  port: 3000,
  shutdownGrace: Duration.seconds(30),
  maxBodyBytes: 10 * 1024 * 1024,
  headersTimeout: Duration.seconds(15),
  bodyTimeout: Duration.seconds(30),
  maxConnections: 16_384,
  admin: {},
  trustedProxies: []
}

/** An IPv6 address as `[::1]` is taken without the brackets that only URLs need. */
export const bareHost = (host: string): string => host.replace(/^\[(.*)\]$/, "$1")

const serverOf = ({ server }: Source, { resolvePath }: Surroundings): Resolved["server"] => {
  const settings = { ...defaultServer, ...server }
  const { socket } = settings.admin
  return {
    ...settings,
    host: bareHost(settings.host),
    shutdownGrace: orOff(server?.shutdownGrace, defaultServer.shutdownGrace, Duration.zero),
    admin: typeof socket === "string" ? { ...settings.admin, socket: resolvePath(socket) } : settings.admin
  }
}

const storeFolderOf = (source: Source, { defaultStoreFolder, resolvePath }: Surroundings): string =>
  source.store?.folder === undefined ? defaultStoreFolder : resolvePath(source.store.folder)

/** Names of the store become paths; what it does not have stays as it is. */
const withStore = (source: Source, surroundings: Surroundings): Surroundings => ({
  ...surroundings,
  resolvePath: (path) => {
    const name = nameInStore(path)
    if (name === undefined) return surroundings.resolvePath(path)
    return surroundings.findInStore(storeFolderOf(source, surroundings), name) ?? path
  }
})

const circuitsOf = ({ circuits = {} }: Source): CircuitOptions => {
  const { breaker } = Policies
  return {
    opensAfter: circuits.failures ?? breaker.opensAfter,
    openFor: circuits.openFor ?? breaker.openFor,
    closesAfter: circuits.successes ?? breaker.closesAfter,
    probes: circuits.probes ?? breaker.probes
  }
}

const msOr = (span: Duration.Duration | undefined, otherwise: number): number =>
  span === undefined ? otherwise : Duration.toMillis(span)

const keyCooldownsOf = ({ keyCooldowns = {} }: Source): Rests => {
  const { longest, longestRefused, limited, refused } = Policies.keyRests
  return {
    limited: msOr(keyCooldowns.rateLimited, limited),
    longest: msOr(keyCooldowns.rateLimitedMax, longest),
    refused: msOr(keyCooldowns.rejected, refused),
    longestRefused: msOr(keyCooldowns.rejectedMax, longestRefused)
  }
}

/** Settings of what a file says, for this environment. */
export const resolve = (
  source: Source,
  environment: Environment,
  surroundings: Surroundings,
  policies = policiesOf(source)
): Resolved => ({
  environment,
  server: serverOf(source, surroundings),
  engineHost: source.engines?.host ?? surroundings.defaultEngineHost,
  logLevel: logLevels[source.logLevel ?? defaultLogLevel[environment]],
  ...(source.logFormat === undefined ? {} : { logFormat: source.logFormat }),
  memory: {
    budgetBytes: source.memory?.budget,
    hold: orOff(source.memory?.hold, Policies.memoryHold, Duration.zero)
  },
  circuits: circuitsOf(source),
  keyCooldowns: keyCooldownsOf(source),
  store: { ...source.store, folder: storeFolderOf(source, surroundings) },
  policies,
  models: modelsOf(source, policies, withStore(source, surroundings))
})
