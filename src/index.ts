/**
 * What an embedding program imports.
 *
 * - `App`: the layers, wired. Provide `App.layer()` and use `Inference`.
 * - `Inference`, `InferenceError`: the front door and what can go wrong.
 * - `AiModel`, `AiEmbeddingModel`, `AiTokenizer`: a model as `effect/ai`'s services.
 * - `LanguageModels`: any of `effect/ai`'s `LanguageModel`s as a model of Troupe.
 * - `Troupe`: the same for programs without Effect.
 * - The services, for who replaces one by a layer of their own.
 */
export * as App from "./App.ts"
export * as AiEmbeddingModel from "./layers/ai/AiEmbeddingModel.ts"
export * as AiModel from "./layers/ai/AiModel.ts"
export * as AiTokenizer from "./layers/ai/AiTokenizer.ts"
export * as LanguageModels from "./layers/ai/LanguageModels.ts"
export * as SettingsFile from "./layers/SettingsFile.ts"
export * as Engine from "./services/Engine.ts"
export * as Inference from "./services/Inference.ts"
export * as InferenceError from "./services/InferenceError.ts"
export * as Metrics from "./services/Metrics.ts"
export * as Model from "./services/Model.ts"
export * as ModelFiles from "./services/ModelFiles.ts"
export * as Models from "./services/Models.ts"
export * as ModelStore from "./services/ModelStore.ts"
export * as Policies from "./services/Policies.ts"
export * as Registry from "./services/Registry.ts"
export * as Selector from "./services/Selector.ts"
export * as Settings from "./services/Settings.ts"
export * as Troupe from "./Troupe.ts"
