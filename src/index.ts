/**
 * What an embedding program imports.
 *
 * - `App`: the layers, wired. Provide `App.layer()` and use `Inference`.
 * - `Inference`, `InferenceError`: the front door and what can go wrong.
 * - `AiModel`, `AiEmbeddingModel`, `AiTokenizer`: a model as `effect/ai`'s services.
 * - `LanguageModels`: any of `effect/ai`'s `LanguageModel`s as a model of Troupe.
 * - `Troupe`: the same for programs without Effect.
 * - `Breaker`, `CachedResponses`, `Metrics` and the other services: to replace one, see `App.services`.
 */
import "./RequireNode.ts"

export * as App from "./App.ts"
export * as Policies from "./domain/Defaults.ts"
export * as Model from "./domain/Deployment.ts"
export * as Generation from "./domain/Generation.ts"
export * as InferenceError from "./domain/InferenceError.ts"
export * as AiEmbeddingModel from "./layers/ai/AiEmbeddingModel.ts"
export * as AiModel from "./layers/ai/AiModel.ts"
export * as AiTokenizer from "./layers/ai/AiTokenizer.ts"
export * as LanguageModels from "./layers/ai/LanguageModels.ts"
export * as SettingsFile from "./layers/settings/SettingsFile.ts"
export * as CachedResponses from "./services/cache/CachedResponses.ts"
export * as Engine from "./services/engines/Engine.ts"
export * as ModelFiles from "./services/engines/ModelFiles.ts"
export * as Providers from "./services/engines/Providers.ts"
export * as Breaker from "./services/health/Breaker.ts"
export * as Circuit from "./services/health/Circuit.ts"
export * as Inference from "./services/inference/Inference.ts"
export * as Memory from "./services/models/Memory.ts"
export * as Pressure from "./services/models/MemoryPressure.ts"
export * as Models from "./services/models/Models.ts"
export * as Registry from "./services/models/Registry.ts"
export * as Metrics from "./services/observability/Metrics.ts"
export * as DecisionLog from "./services/routing/DecisionLog.ts"
export * as Router from "./services/routing/Router.ts"
export * as Settings from "./services/settings/Settings.ts"
export * as ModelStore from "./services/store/ModelStore.ts"
export * as Troupe from "./Troupe.ts"
