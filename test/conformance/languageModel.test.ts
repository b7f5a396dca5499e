/** The engine suite for a round trip: tiny-chat as a LanguageModel, and that one as a deployment. */
import { Effect, Layer } from "effect"
import * as App from "../../src/App.ts"
import * as AiModel from "../../src/layers/ai/AiModel.ts"
import * as LanguageModelsLayer from "../../src/layers/ai/LanguageModels.ts"
import * as EnginesLayer from "../../src/layers/engines/Engines.ts"
import { embedded } from "../../src/layers/settings/SettingsFile.ts"
import { Engines } from "../../src/services/engines/Engine.ts"
import { LanguageModels } from "../../src/services/engines/LanguageModelKind.ts"
import { Settings } from "../../src/services/settings/Settings.ts"
import { deployment, settings } from "../support/Deployments.ts"
import { engineConformance } from "./engine.ts"
import { prompts } from "./tinyChat.ts"

const tiny = deployment("tiny-chat#0", { options: embedded["tiny-chat"]!.options })

const tinyChat = AiModel.layer("tiny-chat").pipe(
  Layer.provide(App.runtime),
  Layer.provide(Layer.succeed(Settings, settings({ models: [{ name: "tiny-chat", deployments: [tiny] }] })))
)

const engines = Layer.effect(Engines, Effect.map(LanguageModels, (provided) => EnginesLayer.make("thread", provided)))

engineConformance({
  name: "a language model",
  where: "thread",
  options: { engine: "language-model", name: "tiny", contextSize: 512, slots: 4 },
  engines: Layer.provide(
    engines,
    LanguageModelsLayer.layer({ tiny: { layer: tinyChat, configure: AiModel.configure } })
  ),
  capabilities: ["generate", "tools", "format", "images"],
  cachesPrompts: true,
  ...prompts
})
