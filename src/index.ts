/**
 * Everything that an embedding program imports from `troupe`. Start with `App` and `Inference`, or with `Troupe` in a program
 * without Effect.
 *
 * **Details**
 *
 * What is marked "Service" can be replaced: see `App.services`.
 */
import "./RequireNode.ts"

/**
 * The layers, wired: `App.layer()` for the whole runtime, `App.core` and its parts to compose one.
 *
 * **Example**
 *
 * ```ts
 * const app = App.core.pipe(Layer.provide(App.llama), Layer.provide(App.settings({ file: "troupe.yaml" })))
 * ```
 */
export * as App from "./App.ts"
/** Defaults of schedules, timeouts and limits; durations are Effect's `Duration`, sizes are bytes. */
export * as Defaults from "./domain/Defaults.ts"
/** Models and deployments: names, options, prices in USD per million tokens. */
export * as Deployment from "./domain/Deployment.ts"
/** What an engine is asked to generate: a prompt, sampling options, limits in tokens. */
export * as Generation from "./domain/Generation.ts"
/**
 * The one error of inference, with a `reason` that says what went wrong.
 *
 * **Example**
 *
 * ```ts
 * program.pipe(Effect.catchReason("InferenceError", "ContextLengthExceeded", (reason) => Effect.succeed(reason.promptTokens)))
 * ```
 */
export * as InferenceError from "./domain/InferenceError.ts"
/** A model as an `EmbeddingModel` of `effect/ai`: `AiEmbeddingModel.model(name)`. */
export * as AiEmbeddingModel from "./layers/ai/AiEmbeddingModel.ts"
/** A model as a `LanguageModel` of `effect/ai`: `AiModel.model(name, { temperature: 0 })`. */
export * as AiModel from "./layers/ai/AiModel.ts"
/** A model's tokenizer as a `Tokenizer` of `effect/ai`. */
export * as AiTokenizer from "./layers/ai/AiTokenizer.ts"
/** Models of `effect/ai` as deployments: `LanguageModels.layer({ name: layer })`. A part of `App.core`. */
export * as LanguageModels from "./layers/ai/LanguageModels.ts"
/** Reads `troupe.yaml`, or a configuration given as a value; fails with a `SettingsError`. */
export * as SettingsFile from "./layers/settings/SettingsFile.ts"
/** Service: earlier answers, in memory and in a store. `App.cache` provides it. */
export * as ResponseCache from "./services/cache/ResponseCache.ts"
/** Service: starts engines. What an engine is: streams events, counts tokens, holds a slot for each job. */
export * as Engine from "./services/engines/Engine.ts"
/** Service: headers of model files, and the memory in bytes that a deployment will take. */
export * as ModelFiles from "./services/engines/ModelFiles.ts"
/** Service: starts remote deployments. `App.providers` provides it. */
export * as Providers from "./services/engines/Providers.ts"
/** Service: one circuit breaker for each deployment. */
export * as Breaker from "./services/health/Breaker.ts"
/**
 * Service: requests and answers. `generate` returns a buffered answer, `stream` its events, `open` the answer from its first
 * event on; `embed`, `rerank`, `classify`, `tokenize` and `count` are the other tasks. Fails with an `InferenceError`.
 *
 * **Example**
 *
 * ```ts
 * const answer = yield* inference.generate({ model: "tiny-chat", messages: [{ role: "user", content: "Hello!" }] })
 * ```
 */
export * as Inference from "./services/inference/Inference.ts"
/** Service: total and available memory of the machine or the control group, bytes. */
export * as Memory from "./services/models/Memory.ts"
/** Service: the level of memory pressure, and what each level unloads. */
export * as MemoryPressure from "./services/models/MemoryPressure.ts"
/** Service: one actor for each deployment; leases slots, loads, unloads, reports states. */
export * as Models from "./services/models/Models.ts"
/** Service: the configured models, by name. */
export * as Registry from "./services/models/Registry.ts"
/** Where the replicas of models run on several machines, and what has to move: `Placement.plan`, a pure function. */
export * as Placement from "./services/placement/Placement.ts"
/** Service: metrics of requests; durations in seconds. `App.monitoring` provides it. */
export * as Metrics from "./services/observability/Metrics.ts"
/** Service: the backoff between two attempts at one deployment, a `Schedule`; `App.services.backoff` provides it. */
export * as Backoff from "./services/resilience/Backoff.ts"
/** Service: gradual rollouts and A/B tests. `App.layer` has it where its configuration has any: `Effect.serviceOption`. */
export * as Rollouts from "./services/rollout/Rollouts.ts"
/** Service: the latest decision records of the router. */
export * as DecisionLog from "./services/routing/DecisionLog.ts"
/** Service: chooses the deployments for a request, and explains the choice. */
export * as Router from "./services/routing/Router.ts"
/** Service: the configuration, every default filled in. */
export * as Settings from "./services/settings/Settings.ts"
/** Another configuration for a running program: what it changes, and why it does not apply. */
export * as Reload from "./services/settings/Reload.ts"
/** Service: pulls, verifies, lists and removes model files. */
export * as ModelStore from "./services/store/ModelStore.ts"
/**
 * Troupe for programs without Effect: promises and async iterables.
 *
 * **Example**
 *
 * ```ts
 * const troupe = Troupe.start({ config: { models: { chat: { deployments: [{ engine: "llama", file: "chat.gguf" }] } } } })
 * ```
 */
export * as Troupe from "./Troupe.ts"
