/** The registry of the models that the settings name. */
import { Effect, Layer } from "effect"
import * as InferenceError from "../../domain/InferenceError.ts"
import { Settings } from "../settings/Settings.ts"
import { Registry } from "./Registry.ts"

/** Reads `Settings` once. */
export const layer = Layer.effect(
  Registry,
  Effect.gen(function*() {
    const { models } = yield* Settings
    const byName = new Map(models.map((model) => [model.name, model]))
    const names = models.map((model) => model.name)
    return Registry.of({
      models: Effect.succeed(models),
      find: (name) => {
        const model = byName.get(name)
        return model === undefined
          ? Effect.fail(InferenceError.make(new InferenceError.ModelNotFound({ model: name, available: names })))
          : Effect.succeed(model)
      }
    })
  })
)
