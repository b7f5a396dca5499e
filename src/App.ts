/**
 * The composition root: every layer wired once, for the service and for embedding alike.
 *
 * **Example** (an embedding program)
 *
 * ```ts
 * const program = Effect.gen(function*() {
 *   const inference = yield* Inference.Inference
 *   return yield* inference.generate({ model: "tiny-chat", messages: [{ role: "user", content: "Hello!" }] })
 * })
 * await Effect.runPromise(program.pipe(Effect.provide(App.layer())))
 * ```
 */
import { Effect, Layer } from "effect"
import * as Problems from "./domain/Problem.ts"
import * as LanguageModels from "./layers/ai/LanguageModels.ts"
import * as CachedResponses from "./layers/cache/CachedResponses.ts"
import * as Engines from "./layers/engines/Engines.ts"
import * as ModelFiles from "./layers/engines/ModelFiles.ts"
import * as Server from "./layers/http/Server.ts"
import * as Memory from "./layers/models/Memory.ts"
import * as Providers from "./layers/providers/Providers.ts"
import * as SettingsFile from "./layers/settings/SettingsFile.ts"
import * as ModelStore from "./layers/store/ModelStore.ts"
import * as Breaker from "./services/health/Breaker.ts"
import * as Inference from "./services/inference/Inference.ts"
import * as Pressure from "./services/models/MemoryPressure.ts"
import * as Models from "./services/models/Models.ts"
import { Readiness } from "./services/models/Readiness.ts"
import { Registry as RegistryService } from "./services/models/Registry.ts"
import * as Registry from "./services/models/Registry.ts"
import * as Metrics from "./services/observability/Metrics.ts"
import * as DecisionLog from "./services/routing/DecisionLog.ts"
import * as Router from "./services/routing/Router.ts"
import { languageModel, Settings, SettingsError } from "./services/settings/Settings.ts"

/** Models on this machine's disk, before they are loaded. Requires only `Settings`. */
export const store = Layer.provideMerge(ModelStore.layer, ModelFiles.layer)

/**
 * Every service of the runtime, as the layer that provides it unless a program replaces it. A replacement that adds to
 * one of these is built on it with `Layer.provide`.
 */
export const services = {
  providers: Providers.layerConfig,
  engines: Engines.layer,
  memory: Memory.layer,
  registry: Registry.layer,
  models: Models.layer,
  breaker: Breaker.layerSettings,
  router: Router.layer,
  metrics: Metrics.layer,
  pressure: Pressure.layer,
  decisionLog: DecisionLog.layer,
  cachedResponses: CachedResponses.layer,
  inference: Inference.layer
}

/**
 * The services that a program can replace, by name. Each is a layer that provides the service and may require what the
 * layer in its place requires.
 */
export type Services = typeof services

/** The URL that a remote deployment is called at, and the headers that its key goes into. */
export const addressOf = Providers.addressOf

/** The memory that this machine has. */
export const memory = Memory.layer

/** The runtime: `Inference` and the services below it, some of them replaced. Requires only `Settings`. */
export const runtimeWith = (replaced: Partial<Services>) => {
  const all: Services = { ...services, ...replaced }
  return all.inference.pipe(
    Layer.provideMerge(
      Layer.mergeAll(all.router, all.metrics, all.pressure, all.decisionLog, all.cachedResponses)
    ),
    Layer.provideMerge(all.breaker),
    Layer.provideMerge(Layer.mergeAll(all.registry, all.models)),
    Layer.provide(Layer.merge(all.engines, all.memory)),
    Layer.provideMerge(all.providers),
    Layer.provide(store)
  )
}

/** The runtime with its own services. Requires only `Settings`. */
export const runtime = runtimeWith({})

/** What `troupe.yaml` can say, as a typed value. */
export type Config = SettingsFile.Config

/** Options for embedding. */
export interface Options<R = never> extends SettingsFile.Options {
  /**
   * Language models of `effect/ai`, each a model of its name beside those of the settings; where the settings have a
   * model of that name, that one answers, of which a language model may be a deployment.
   */
  readonly languageModels?: Readonly<Record<string, LanguageModels.Provided<unknown, R>>> | undefined
  /**
   * Services in place of Troupe's own, each a layer: `{ metrics: Layer.succeed(Metrics.Metrics, mine) }`. Everything that
   * uses the service uses the given one.
   */
  readonly services?: Partial<Services> | undefined
}

/** Options beside `languageModels` and `services`. */
const optionNames = [
  "config",
  "file",
  "engineHost",
  "secretsMayBeUnset"
] as const satisfies ReadonlyArray<keyof SettingsFile.Options>

/** Names that do not exist: programs without types may misspell one. */
const unknownIn = (
  path: ReadonlyArray<string>,
  given: object,
  names: ReadonlyArray<string>
): ReadonlyArray<Problems.Problem> =>
  Object.keys(given).filter((name) => !names.includes(name)).map((name) => ({
    path: Problems.formatPath([...path, name]),
    expected: Problems.noSuchField(name, path.length === 0 ? [...names, "languageModels", "services"] : names)
  }))

/**
 * The runtime with its settings, for embedding: engines run on threads of this process.
 *
 * Two of them in one program share nothing.
 *
 * @param options where the settings come from; default `troupe.yaml` in the current folder, or the embedded model
 */
export const layer = <R = never>({ languageModels = {}, services: replaced = {}, ...options }: Options<R> = {}) => {
  const provided = Object.keys(languageModels).map(languageModel)
  const problems = [...unknownIn([], options, optionNames), ...unknownIn(["services"], replaced, Object.keys(services))]
  const loaded = problems.length === 0
    ? SettingsFile.load(options)
    : Effect.fail(new SettingsError({ source: "the options of Troupe", problems }))
  const settings = Effect.map(loaded, ({ models, ...rest }) => ({
    ...rest,
    models: [...models, ...provided.filter(({ name }) => models.every((model) => model.name !== name))]
  }))
  // Layers are built once in a program: without `fresh`, a second Troupe would get the services of the first.
  return Layer.fresh(
    runtimeWith(replaced).pipe(
      Layer.provideMerge(Layer.effect(Settings, settings)),
      Layer.provide(LanguageModels.layer(languageModels))
    )
  )
}

/** Loads what a request can be routed to, so that what the service says it serves can answer. */
const preload = Layer.effectDiscard(Effect.gen(function*() {
  const registry = yield* RegistryService
  const models = yield* Models.Models
  const readiness = yield* Readiness
  const deployments = registry.models().map(({ deployments }) => deployments[0])
  yield* Effect.forEach(
    deployments.filter((deployment) => deployment.preload),
    (deployment) =>
      // An operator may unload a model before it is loaded, which is no reason not to start.
      Effect.catchIf(
        models.load(deployment),
        ({ reason }) => reason._tag === "EngineStopped" && reason.by === "unload",
        () => Effect.void
      ),
    { discard: true }
  )
  readiness.stage = "ready"
}))

/** The service: the runtime behind HTTP, every model loaded. Requires only `Settings`. */
export const service = Layer.mergeAll(preload, Metrics.layerSampler).pipe(
  Layer.provideMerge(Server.layer),
  Layer.provideMerge(Layer.merge(runtime, Layer.sync(Readiness, () => Readiness.of({ stage: "starting" }))))
)
