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
import { Effect, Layer, Option } from "effect"
import type { SqlClient } from "effect/sql/SqlClient"
import * as AppOptions from "./AppOptions.ts"
import * as AppParts from "./AppParts.ts"
import * as AppState from "./AppState.ts"
import type * as Problem from "./domain/Problem.ts"
import type { Custom as Strategy } from "./domain/SelectionOptions.ts"
import * as LanguageModels from "./layers/ai/LanguageModels.ts"
import * as AlertWebhook from "./layers/alerts/AlertWebhook.ts"
import * as ResponseCache from "./layers/cache/ResponseCache.ts"
import * as Engines from "./layers/engines/Engines.ts"
import * as ModelFiles from "./layers/engines/ModelFiles.ts"
import * as Webhook from "./layers/guard/Webhook.ts"
import * as Server from "./layers/http/Server.ts"
import * as WebHandler from "./layers/http/WebHandler.ts"
import { machine } from "./layers/models/Machine.ts"
import * as Memory from "./layers/models/Memory.ts"
import * as Storage from "./layers/persistence/Storage.ts"
import * as Providers from "./layers/providers/Providers.ts"
import * as SettingsFile from "./layers/settings/SettingsFile.ts"
import * as ModelStore from "./layers/store/ModelStore.ts"
import * as ProcessFigures from "./layers/telemetry/ProcessFigures.ts"
import * as Traces from "./layers/telemetry/Traces.ts"
import * as Accounts from "./services/admission/Accounts.ts"
import * as Alerts from "./services/alerts/Alerts.ts"
import * as BudgetLevels from "./services/alerts/BudgetLevels.ts"
import { none as noCache, ResponseCache as ResponseCacheService } from "./services/cache/ResponseCache.ts"
import * as FakeKind from "./services/engines/FakeKind.ts"
import * as LlamaKind from "./services/engines/LlamaKind.ts"
import * as OnnxKind from "./services/engines/OnnxKind.ts"
import { none as noProviders, Providers as ProvidersService } from "./services/engines/Providers.ts"
import type { Hooks } from "./services/guard/Hooks.ts"
import { GuardHooks } from "./services/guard/Hooks.ts"
import * as RequestGuard from "./services/guard/RequestGuard.ts"
import * as SecurityEvents from "./services/guard/SecurityEvents.ts"
import * as Breaker from "./services/health/Breaker.ts"
import * as HealthDetails from "./services/health/HealthDetails.ts"
import * as Readiness from "./services/health/Readiness.ts"
import * as Inference from "./services/inference/Inference.ts"
import type { Compare } from "./services/inference/ShadowCopies.ts"
import { CustomComparison } from "./services/inference/ShadowCopies.ts"
import * as TaskBatcher from "./services/inference/TaskBatcher.ts"
import * as Ledger from "./services/ledger/Ledger.ts"
import * as Deployments from "./services/models/Deployments.ts"
import * as MemoryPressure from "./services/models/MemoryPressure.ts"
import * as ModelChanges from "./services/models/ModelChanges.ts"
import * as Models from "./services/models/Models.ts"
import * as Registry from "./services/models/Registry.ts"
import * as EventSources from "./services/observability/EventSources.ts"
import * as Metrics from "./services/observability/Metrics.ts"
import * as OperatorEvents from "./services/observability/OperatorEvents.ts"
import * as RequestLog from "./services/observability/RequestLog.ts"
import * as Backoff from "./services/resilience/Backoff.ts"
import * as ExperimentStore from "./services/rollout/ExperimentStore.ts"
import * as Rollouts from "./services/rollout/Rollouts.ts"
import * as RolloutStore from "./services/rollout/RolloutStore.ts"
import * as Shadows from "./services/rollout/Shadows.ts"
import { Splits, takingRequests } from "./services/rollout/Split.ts"
import * as Standing from "./services/rollout/Standing.ts"
import * as DecisionLog from "./services/routing/DecisionLog.ts"
import * as Router from "./services/routing/Router.ts"
import * as Autoscaler from "./services/scaling/Autoscaler.ts"
import { Machine } from "./services/scaling/Machine.ts"
import { Settings, SettingsError } from "./services/settings/Settings.ts"
import * as SettingsChanges from "./services/settings/SettingsChanges.ts"

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
  pressure: MemoryPressure.layer,
  decisionLog: DecisionLog.layer,
  responseCache: ResponseCache.layerSettings,
  backoff: Backoff.layer,
  admission: Accounts.layer,
  inference: Inference.layer
}

/**
 * The services that a program can replace, by name. Each is a layer that provides the service and may require what the
 * layer in its place requires.
 */
export type Services = typeof services

/** The memory of this machine. */
export const memory = Memory.layer

/** Every service, wired. */
const assemble = (all: Services) =>
  all.inference.pipe(
    Layer.provide([RequestGuard.layerSettings, Webhook.layer, Accounts.layerForCopies]),
    Layer.provideMerge(
      Layer.mergeAll(
        all.router,
        all.metrics,
        all.pressure,
        all.decisionLog,
        all.responseCache,
        all.backoff,
        all.admission,
        Autoscaler.layer
      )
    ),
    Layer.provide(AppParts.partOr(Ledger.Ledger, Ledger.none)),
    Layer.provideMerge(AppParts.reload),
    Layer.provideMerge(Layer.provideMerge(ModelChanges.layer, Deployments.layer)),
    Layer.provideMerge(all.breaker),
    Layer.provideMerge(Layer.provideMerge(Standing.layer, Shadows.layer)),
    Layer.provideMerge(Layer.merge(all.registry, all.models)),
    Layer.provide(Layer.mergeAll(all.engines, all.memory, AppParts.partOr(Machine, machine))),
    Layer.provideMerge(all.providers),
    Layer.provide(store),
    Layer.provide(Layer.mergeAll(MemoryPressure.layerOptions, TaskBatcher.layerOptions, Memory.layerCollector)),
    Layer.provideMerge(AppParts.settings)
  )

/** As `assemble`, with optional services as parts. */
const assembleParts = (replaced: Partial<Services>) =>
  assemble({
    ...services,
    ...replaced,
    providers: AppParts.partOr(ProvidersService, noProviders),
    metrics: AppParts.partOr(Metrics.Metrics, { begin: () => {}, end: () => {} }),
    responseCache: AppParts.partOr(ResponseCacheService, noCache)
  })

/**
 * The runtime without parts: it routes, queues, retries and records decisions, and has no engine. Requires `Settings`.
 *
 * **Details**
 *
 * A program adds each part that it wants with `Layer.provide`, then the settings, which some parts require too. If the
 * configuration needs a missing part, the layer fails with a `MissingPartError`. Without `cache` nothing is cached;
 * without `monitoring` no metrics are kept.
 *
 * **Example**
 *
 * ```ts
 * const app = App.core.pipe(
 *   Layer.provide(App.llama),
 *   Layer.provide(App.providers),
 *   Layer.provide(App.cache),
 *   Layer.provide(App.monitoring),
 *   Layer.provide(App.settings({ file: "troupe.yaml" }))
 * )
 * ```
 *
 * **Gotchas**
 *
 * A part in the surrounding context is used as well, such as the `Metrics` of another Troupe.
 */
export const core = Layer.fresh(assembleParts({}))

/**
 * As `core`, with services in place of Troupe's own; `metrics`, `providers` and `responseCache` are parts.
 *
 * **Example**
 *
 * ```ts
 * const app = App.coreWith({ router }).pipe(Layer.provide(App.llama), Layer.provide(App.settings({ file: "troupe.yaml" })))
 * ```
 */
export const coreWith = (replaced: Partial<Omit<Services, "metrics" | "providers" | "responseCache">>) =>
  Layer.fresh(assembleParts(replaced))

/** The engine for GGUF files (llama.cpp). A part of `core`. */
export const llama = Engines.layerKind(LlamaKind.llama)

/** The engine for ONNX folders (onnxruntime). A part of `core`. */
export const onnx = Engines.layerKind(OnnxKind.onnx)

/** The engine without weights, for tests: deterministic tokens, delays and faults. A part of `core`. */
export const fake = Engines.layerKind(FakeKind.fake)

/** Every engine that runs on this machine: `llama`, `onnx` and `fake`. A part of `core`. */
export const engines = Layer.mergeAll(llama, onnx, fake)

/** Remote deployments: their connections, keys and images. Requires `Settings`. A part of `core`. */
export const providers = Layer.fresh(services.providers)

/** Earlier answers, for models with `cache` and for those whose last fallback is `cached-responses`. A part of `core`. */
export const cache = Layer.fresh(services.responseCache)

/** Metrics of requests, in Effect's metric registry. A part of `core`. */
export const monitoring = Layer.fresh(services.metrics)

/**
 * A strategy of the program's own, which policies and models name. A part of `core` and of `layer`.
 *
 * @param custom its name, which begins with `custom/`, and its `score`: a finite number for each deployment that can
 * take the request; the highest goes first. If it throws or is not finite, the deployment goes last. The layer fails
 * with a `SettingsError` if the name or the function is invalid.
 *
 * **Example**
 *
 * ```ts
 * const widest = App.strategy({ name: "custom/widest", score: ({ contextWindow = 0 }) => contextWindow })
 * const app = App.layer({ config: { policies: { default: { strategy: "custom/widest" } } } }).pipe(Layer.provide(widest))
 * ```
 */
export const strategy = (custom: Strategy): Layer.Layer<never, SettingsError> => {
  const problems = AppOptions.strategyProblems(custom)
  return problems.length === 0
    ? Layer.succeed(AppParts.customStrategy(custom.name), custom)
    : Layer.effectDiscard(Effect.fail(new SettingsError({ source: "the options of App.strategy", problems })))
}

/**
 * Hooks that see each request before it is routed, and each answer before it is given. A part of `core` and of `layer`.
 *
 * @param hooks `before` and `after`, effects that allow, flag, reject or redact; `onFailure`, default `reject`
 *
 * **Example**
 *
 * ```ts
 * const polite = App.hooks({
 *   before: ({ texts }) =>
 *     Effect.succeed({ action: texts.some(({ text }) => text.includes("stupid")) ? "reject" : "allow" })
 * })
 * const app = App.layer().pipe(Layer.provide(polite))
 * ```
 */
export const hooks = (hooks: Hooks): Layer.Layer<never> => Layer.succeed(GuardHooks, hooks)

/**
 * How the answers to copies of requests are compared with those of the callers, for models with `shadow.compare: custom`. A part
 * of `core` and of `layer`.
 *
 * @param compare an effect with a number from 0, nothing in common, to 1. If it fails, or takes longer than 5 s, the pair is
 * not compared.
 *
 * **Example**
 *
 * ```ts
 * const sameNumbers = App.shadowComparison(({ candidate, primary }) =>
 *   Effect.succeed(String(candidate.text.match(/\d+/g)) === String(primary.text.match(/\d+/g)) ? 1 : 0)
 * )
 * const app = App.layer({ file: "troupe.yaml" }).pipe(Layer.provide(sameNumbers))
 * ```
 */
export const shadowComparison = (compare: Compare): Layer.Layer<never> => Layer.succeed(CustomComparison, compare)

/** The runtime with every part, some services replaced. Requires only `Settings`. */
export const runtimeWith = (replaced: Partial<Services>) => {
  const { metrics, providers, responseCache } = { ...services, ...replaced }
  return assembleParts(replaced).pipe(
    Layer.provide(Layer.mergeAll(engines, providers, metrics, responseCache))
  )
}

/** The runtime with its own services. Requires only `Settings`. */
export const runtime = runtimeWith({})

/** The content of `troupe.yaml` as a typed value. */
export type Config = SettingsFile.Config

/** Options for embedding. */
export interface Options<R = never> extends SettingsFile.Options {
  /**
   * Language models of `effect/ai`, by name. Each becomes a model of its name, unless the settings have a model of that
   * name, which may use the language model as a deployment.
   */
  readonly languageModels?: Readonly<Record<string, LanguageModels.Provided<unknown, R>>> | undefined
  /**
   * Services in place of Troupe's own, each a layer: `{ metrics: Layer.succeed(Metrics.Metrics, mine) }`. Everything that
   * uses the service uses the given one.
   */
  readonly services?: Partial<Services> | undefined
}

/** Problems of the services that replace Troupe's own. */
const serviceProblems = (replaced: object): ReadonlyArray<Problem.Problem> => [
  ...AppOptions.unknownIn(["services"], replaced, Object.keys(services)),
  ...Object.entries(replaced).flatMap(([name, service]) =>
    Layer.isLayer(service) ? [] : [{ path: `services.${name}`, expected: "Expected a layer" }]
  )
]

/**
 * Reads and checks settings. Fails with a `SettingsError` that names every problem.
 *
 * @param mayBeEmpty whether a file without content stands for the defaults
 * @internal
 */
export const loadSettings = (
  options: SettingsFile.Options = {},
  problems: ReadonlyArray<Problem.Problem> = AppOptions.problemsOf(options, AppOptions.settingNames),
  mayBeEmpty = true
): Effect.Effect<Settings["Service"], SettingsError> =>
  problems.length === 0
    ? SettingsFile.load({ customStrategies: true, ...options, mayBeEmpty })
    : Effect.fail(new SettingsError({ source: "the options of Troupe", problems }))

/**
 * The settings that `core` and its parts require. Fails with a `SettingsError` that names every problem.
 *
 * @param options `config`, the configuration as a value, or `file`; default `troupe.yaml` in the current folder, or the
 * embedded `tiny-chat`
 */
export const settings = (options: SettingsFile.Options = {}) => Layer.effect(Settings, loadSettings(options))

/** A layer that is built once wherever it is used, and shares nothing with another. */
const isolated = <A, E, R>(layer: Layer.Layer<A, E, R>): Layer.Layer<A, E, R> =>
  Layer.fromBuildMemo((_, scope) => Layer.buildWithMemoMap(layer, Layer.makeMemoMapUnsafe(), scope))

/** The database of the settings. Requires only `Settings`. */
export const storage = Storage.layer

/** Gradual rollouts, as the database has them. */
const rollouts = Layer.provide(Rollouts.layer, [RolloutStore.layer, ExperimentStore.layer, ModelFiles.layer])

/** Whether the settings have a rollout or an A/B test. */
const hasRollouts = ({ experiments, models, rollouts }: Settings["Service"]): boolean =>
  experiments !== undefined || rollouts !== undefined ||
  models.some(({ deployments }) => deployments.some(({ options }) => options.rollout === "candidate"))

type RolloutsInside = Layer.Layer<
  never,
  Layer.Error<typeof rollouts> | Layer.Error<typeof storage>,
  Exclude<Layer.Services<typeof rollouts>, SqlClient> | Settings
>

/** The rollouts and A/B tests of an embedded runtime, where its settings have any. */
const configuredRollouts: RolloutsInside = Layer.unwrap(
  Effect.map(
    Settings,
    (settings): RolloutsInside => hasRollouts(settings) ? Layer.provide(rollouts, storage) : Layer.empty
  )
)

/** The runtime of these options, over what stores its state. */
const embedded = <R, A, E>(all: Options<R>, state: Layer.Layer<A, E, Settings>) => {
  const own = AppOptions.problemsOf(all, [...AppOptions.settingNames, "languageModels", "services"])
  const { languageModels = {}, services: replaced = {}, ...options }: Options<R> = own.length === 0 ? all : {}
  const problems = [...own, ...serviceProblems(replaced)]
  return isolated(
    configuredRollouts.pipe(
      Layer.provideMerge(runtimeWith(problems.length === 0 ? replaced : {})),
      Layer.provide(LanguageModels.layer(languageModels)),
      Layer.provideMerge(state),
      Layer.provideMerge(SettingsChanges.layer),
      Layer.provide(Layer.effect(Settings, loadSettings(options, problems)))
    )
  )
}

/**
 * The runtime with every part and its settings, for embedding: engines run on threads of this process.
 *
 * Two of them in one program share nothing. If the settings have `rollout`, `experiment` or a deployment with `rollout: candidate`,
 * the context has `Rollouts` too, with which a program starts rollouts.
 *
 * @param options where the settings come from; default `troupe.yaml` in the current folder, or the embedded model
 */
export const layer = <R = never>(options: Options<R> = {}) => embedded(options, Layer.empty)

/** Loads what takes requests, so that a service that reports to be ready can answer. */
const preload = Layer.effectDiscard(Effect.gen(function*() {
  const registry = yield* Registry.Registry
  const models = yield* Models.Models
  const readiness = yield* Readiness.Readiness
  const splits = yield* Splits
  // The setting is the model's; a deployment that a rollout has added does not have it.
  const loaded = registry.models().filter(({ deployments }) => deployments[0].preload)
  for (const model of loaded) {
    const [first, ...others] = takingRequests(model, splits?.of?.(model.name))
    // If an operator unloads a model before it is loaded, the service starts all the same.
    yield* Effect.catchIf(
      models.load(first),
      ({ reason }) => reason._tag === "EngineStopped" && reason.by === "unload",
      () => Effect.void
    )
    // The first answers for a version that does not load.
    yield* Effect.forEach(others, (one) => Effect.ignore(models.load(one)), { discard: true })
  }
  readiness.status = "ready"
}))

/** Who may call the service. Requires only `Settings`. */
export const keys = AppState.keys

/** The ledger in the database. Requires `SqlClient`, which `storage` provides. A part of `layer` and of `core`. */
export const ledger = Ledger.layer

/**
 * Sends the traces of requests to an OpenTelemetry collector, as `telemetry` in the settings and OpenTelemetry's variables say;
 * none without an endpoint. Requires `Settings`. A part of `layer` and of `core`.
 */
export const telemetry = Traces.layer

/** The alerts of a service, and where they are sent. */
const alertsWith = ({ memory }: Services) =>
  Layer.provide(Alerts.layer, Layer.mergeAll(AlertWebhook.layer, memory, Memory.layerCollector))

/** As `service`, some services replaced. Requires only `Settings`. */
export const serviceWith = (replaced: Partial<Services>) =>
  Layer.mergeAll(preload, Metrics.layerSampler, ProcessFigures.layer, EventSources.layer).pipe(
    Layer.provideMerge(Layer.provide(Server.layer, Layer.mergeAll(SecurityEvents.layerRefusals, store, rollouts))),
    Layer.provide(Layer.provideMerge(alertsWith({ ...services, ...replaced }), HealthDetails.layer)),
    Layer.provideMerge(Layer.merge(runtimeWith(replaced), Readiness.layer)),
    Layer.provideMerge(AppState.state),
    Layer.provideMerge(Layer.mergeAll(telemetry, RequestLog.layer, OperatorEvents.layer, BudgetLevels.layer)),
    Layer.provideMerge(SettingsChanges.layer)
  )

/** The service: the runtime behind HTTP, every model loaded. Requires only `Settings`. */
export const service = serviceWith({})

/**
 * As `layer`, with the state of a service where the settings have `storage` or `redis`: the ledger, the shared counters, stored
 * answers and responses.
 *
 * @param options as those of `layer`
 */
export const hosted = <R = never>(options: Options<R> = {}) =>
  embedded(
    options,
    Layer.unwrap(Effect.map(Settings, (settings): Layer.Layer<never, Layer.Error<typeof AppState.state>, Settings> =>
      AppState.keepsState(settings) ? AppState.state : Layer.empty))
  )

/** The state of `hosted` if it keeps any. */
const stateOfWeb: typeof AppState.stateInMemory = Layer.unwrap(
  Effect.map(
    Effect.serviceOption(Ledger.Ledger),
    (found) =>
      Option.isSome(found)
        ? Layer.effectContext(Effect.context()) as unknown as typeof AppState.stateInMemory
        : AppState.stateInMemory
  )
)

/** Takes requests at once: a model is loaded by its first request. */
const ready = Layer.sync(Readiness.Readiness, () => Readiness.Readiness.of({ status: "ready" }))

/** Those that the runtime has, else rollouts of their own. */
const rolloutsOfWeb: typeof rollouts = Layer.unwrap(
  Effect.map(
    Effect.serviceOption(Rollouts.Rollouts),
    (found) => Option.isSome(found) ? Layer.succeed(Rollouts.Rollouts, found.value) : rollouts
  )
)

/** The HTTP interface of `hosted` as a function of web requests, for a server of the program's own. */
export const web = WebHandler.layer.pipe(
  Layer.provide(Layer.mergeAll(SecurityEvents.layerRefusals, store, ready, rolloutsOfWeb)),
  Layer.provide(stateOfWeb)
)
