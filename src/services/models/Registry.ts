/**
 * The configured models by name. Reads are synchronous and see one immutable snapshot.
 *
 * **Details**
 *
 * A program that replaces the registry provides both methods: `models` for lists, `find` for requests.
 */
import { Context, Effect, Layer, Result } from "effect"
import type { Model } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { make as makeError, ModelNotFound } from "../../domain/InferenceError.ts"
import { Settings } from "../settings/Settings.ts"

/** The configured models, by name. */
export class Registry extends Context.Service<Registry, {
  /** All models, in configured order. */
  readonly models: () => ReadonlyArray<Model>
  /** The model of this name, or `ModelNotFound` with the names of the available models. */
  readonly find: (name: string) => Result.Result<Model, InferenceError>
}>()("troupe/services/models/Registry") {}

/** @param models in configured order, each with a name of its own */
export const make = (models: ReadonlyArray<Model>): Registry["Service"] => {
  const byName = new Map(models.map((model) => [model.name, model]))
  const available = [...byName.keys()]
  return Registry.of({
    models: () => models,
    find: (name) => {
      const model = byName.get(name)
      return model === undefined
        ? Result.fail(makeError(new ModelNotFound({ model: name, available })))
        : Result.succeed(model)
    }
  })
}

/** The models of the settings, which are read once. */
export const layer: Layer.Layer<Registry, never, Settings> = Layer.effect(
  Registry,
  Effect.map(Settings, ({ models }) => make(models))
)
