/** The Engine seam's suite over a round trip: tiny-chat as a LanguageModel, and that one as a deployment. */
import { Duration, Effect, Layer } from "effect"
import * as App from "../../src/App.ts"
import * as AiModel from "../../src/layers/ai/AiModel.ts"
import * as LanguageModelsLayer from "../../src/layers/ai/LanguageModels.ts"
import * as EnginesLayer from "../../src/layers/engines/Engines.ts"
import { embedded } from "../../src/layers/SettingsFile.ts"
import { Engines } from "../../src/services/Engine.ts"
import { LanguageModels } from "../../src/services/LanguageModels.ts"
import type { Resolved } from "../../src/services/Settings.ts"
import { Settings } from "../../src/services/Settings.ts"
import { engineConformance } from "./engine.ts"
import { prompts } from "./tinyChat.ts"

const settings: Resolved = {
  environment: "test",
  server: { host: "127.0.0.1", port: 0, shutdownGrace: Duration.seconds(5), maxBodyBytes: 1000 },
  engineHost: "thread",
  logLevel: "Error",
  memory: { budgetBytes: undefined, hold: Duration.seconds(5) },
  store: { folder: "/store" },
  policies: [],
  models: [{
    name: "tiny-chat",
    deployments: [{
      id: "tiny-chat#0",
      model: "tiny-chat",
      options: embedded,
      idleUnload: Duration.minutes(10),
      preload: true,
      pinned: false,
      queueLimit: 512,
      stallAfter: Duration.minutes(2)
    }]
  }]
}

const tinyChat = AiModel.layer("tiny-chat").pipe(
  Layer.provide(App.runtime),
  Layer.provide(Layer.succeed(Settings, settings))
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
  abilities: ["generate", "tools", "format", "images"],
  keepsPrompts: true,
  ...prompts
})
