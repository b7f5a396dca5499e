/**
 * Providers: engines over HTTP, with one pool of connections for each deployment.
 *
 * **Details**
 *
 * The state of a deployment's keys outlives its engine, which may be unloaded when idle.
 */
import * as NodeHttpClient from "@effect/platform-node/NodeHttpClient"
import type * as Undici from "@effect/platform-node/Undici"
import { Duration, Effect, Layer } from "effect"
import { anthropic } from "../../dialects/anthropic/Provider.ts"
import { gemini } from "../../dialects/gemini/Provider.ts"
import { ollama } from "../../dialects/ollama/Provider.ts"
import { azureHost, openAiHost, troupeHost } from "../../dialects/openai/EncodeRequest.ts"
import { azureOpenAi, openAi } from "../../dialects/openai/Provider.ts"
import { withResponses } from "../../dialects/responses/Provider.ts"
import type { Dialect } from "../../dialects/shared/ProviderDialect.ts"
import { troupe } from "../../dialects/troupe/Provider.ts"
import { mostConcurrent } from "../../domain/AdaptiveConcurrency.ts"
import * as Defaults from "../../domain/Defaults.ts"
import { isRemote } from "../../domain/Deployment.ts"
import { orOff } from "../../domain/Fields.ts"
import * as InferenceError from "../../domain/InferenceError.ts"
import type { Provider } from "../../domain/ProviderKind.ts"
import type { RemoteDeployment } from "../../domain/RemoteDeployment.ts"
import { addressOf } from "../../domain/RemoteDeployment.ts"
import { Providers } from "../../services/engines/Providers.ts"
import type { Cooldowns } from "../../services/keys/KeyPool.ts"
import * as ProxySettings from "../../services/settings/ProxySettings.ts"
import { Settings } from "../../services/settings/Settings.ts"
import { SettingsChanges } from "../../services/settings/SettingsChanges.ts"
import { limitsOf } from "./Connection.ts"
import * as DeploymentKeys from "./DeploymentKeys.ts"
import * as HttpExchange from "./HttpExchange.ts"
import * as ImageFetcher from "./ImageFetcher.ts"
import * as RemoteEngine from "./RemoteEngine.ts"

/** The codec of each provider. */
export const dialects: Readonly<Record<Provider, Dialect>> = {
  openai: withResponses(openAi, openAiHost),
  "azure-openai": withResponses(azureOpenAi, azureHost),
  anthropic,
  gemini,
  ollama,
  troupe: withResponses(troupe, troupeHost)
}

// Loaded only if a proxy is configured.
const loadUndici = Effect.promise(() => import("@effect/platform-node/Undici"))

/** The longest time that undici accepts, ms. */
const longest = 2 ** 31 - 1

/** @internal */
export const poolOptions = (options: RemoteDeployment) => {
  const idle = Duration.toMillis(orOff(options.timeouts?.idle, Defaults.upstream.idle, Duration.infinity))
  return {
    connections: mostConcurrent(options.maxConcurrent),
    keepAliveTimeout: Math.min(idle, longest),
    // Of what a provider announces.
    keepAliveMaxTimeout: Math.min(idle, longest),
    allowH2: false
  }
}

/** The deployment's own connections. Redirects are not followed, and no request is sent twice. */
const dispatcherOf = (options: RemoteDeployment, proxy: string | undefined) => {
  const pool = poolOptions(options)
  const limit = limitsOf(options).connect
  // undici's value for no limit.
  const timeout = Number.isFinite(limit) ? limit : 0
  return proxy === undefined
    ? NodeHttpClient.makeDispatcherOptions({ ...pool, connect: { timeout } })
    : Effect.acquireRelease(
      Effect.map(
        loadUndici,
        ({ ProxyAgent }): Undici.Dispatcher => new ProxyAgent({ ...pool, uri: proxy, connectTimeout: timeout })
      ),
      (dispatcher) => Effect.promise(() => dispatcher.destroy())
    )
}

/**
 * @param options of the hosts that images may come from
 * @param cooldowns how long keys are not used after they were limited or rejected
 * @param env has the variables that name proxies
 */
export const makeWith = Effect.fnUntraced(function*(
  options: ImageFetcher.Options,
  cooldowns: Cooldowns = Defaults.keyCooldowns,
  env: ProxySettings.Environment = process.env
) {
  const media = yield* ImageFetcher.make(options)
  const sources = yield* DeploymentKeys.sources
  const allKeys = new WeakMap<RemoteDeployment, DeploymentKeys.DeploymentKeys>()
  const keysOf = (options: RemoteDeployment): DeploymentKeys.DeploymentKeys => {
    const known = allKeys.get(options) ?? DeploymentKeys.make(options, sources, cooldowns)
    allKeys.set(options, known)
    return known
  }

  return Providers.of({
    start: Effect.fnUntraced(function*({ id, model }, options) {
      const dialect = dialects[options.provider]
      const { baseUrl } = addressOf(options)
      if (baseUrl === undefined) {
        const detail = `\`baseUrl\` is required for the provider ${options.provider}.`
        return yield* InferenceError.make(new InferenceError.ModelLoadFailed({ deployment: id, detail }))
      }
      const unfit = DeploymentKeys.unfitIn(options)
      if (unfit !== undefined) {
        return yield* InferenceError.make(new InferenceError.ModelLoadFailed({ deployment: id, detail: unfit }))
      }
      const target = { deployment: id, model, options }
      const dispatcher = yield* dispatcherOf(options, ProxySettings.proxyFor(baseUrl, env))
      const exchange = yield* HttpExchange.make({ target, dialect, dispatcher, keys: keysOf(options), baseUrl })
      const engine = RemoteEngine.make(dialect, target, exchange, media)
      yield* Effect.addFinalizer(() => engine.stop)
      return engine
    }),
    waitingKeys: ({ options }, now) => isRemote(options) ? allKeys.get(options)?.waiting(now) : undefined,
    resetKeys: ({ options }) => isRemote(options) ? allKeys.get(options)?.reset() : undefined
  })
})

/** Providers that fetch images from public hosts only. */
export const make = makeWith({ allowHosts: [] })

export const layer = Layer.effect(Providers, make)

/** Providers as the settings configure them. */
export const layerConfig = Layer.effect(
  Providers,
  Effect.gen(function*() {
    const { keyCooldowns, server } = yield* Settings
    // The keys of deployments read it when one fails.
    const cooldowns = { ...keyCooldowns }
    const changes = yield* SettingsChanges
    changes.follow((next) => Object.assign(cooldowns, next.keyCooldowns))
    return yield* makeWith({ allowHosts: server.media?.allowHosts ?? [] }, cooldowns)
  })
)
