/**
 * The configured models by name. Reads are synchronous and see one immutable table, which is replaced as a whole.
 *
 * **Details**
 *
 * A program that replaces the registry provides `models` for lists and `find` for requests. Without `replace` its models
 * do not change while it runs.
 */
import { Context, Effect, Layer, Result } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { make as makeError, ModelNotFound } from "../../domain/InferenceError.ts"
import { Settings } from "../settings/Settings.ts"
import { isWildcard, Wildcards } from "./Wildcards.ts"

/** The configured models, by name. */
export class Registry extends Context.Service<Registry, {
  /** All models, in configured order. */
  readonly models: () => ReadonlyArray<Model>
  /** The model of this name or alias, or `ModelNotFound` with the names of the available models. */
  readonly find: (name: string) => Result.Result<Model, InferenceError>
  /**
   * Counts a model that is called, by its own name; why it cannot be, or undefined. Left out: there are no models that only
   * their first call makes, as those of wildcards.
   */
  readonly call?: ((name: string) => InferenceError | undefined) | undefined
  /** The wildcard that serves a name which no model has; undefined if none does. Left out: there are no wildcards. */
  readonly wildcardOf?: ((name: string) => Model | undefined) | undefined
  /** Whether a name that a wildcard serves is a label of metrics, in place of the wildcard's name. Left out: none is. */
  readonly isLabel?: ((name: string) => boolean) | undefined
  /** Replaces all models in one step. A model or deployment that stays the same object keeps its measurements. */
  readonly replace?: ((models: ReadonlyArray<Model>) => void) | undefined
  /** Calls a listener in each `replace`, after its models are in use. */
  readonly onReplace?: ((listener: (models: ReadonlyArray<Model>) => void) => void) | undefined
}>()("troupe/services/models/Registry") {}

/** The models at one time. */
interface Table {
  readonly models: ReadonlyArray<Model>
  readonly byName: ReadonlyMap<string, Model>
  readonly available: ReadonlyArray<string>
  readonly wildcards: Wildcards
  readonly hasWildcards: boolean
}

const tableOf = (models: ReadonlyArray<Model>, before?: Wildcards): Table => ({
  models,
  hasWildcards: models.some(({ name }) => isWildcard(name)),
  byName: new Map(models.flatMap((model) => [model.name, ...model.aliases ?? []].map((name) => [name, model]))),
  available: models.map(({ name }) => name),
  wildcards: before?.isOf(models) === true ? before : new Wildcards(models)
})

class Replaceable {
  #table: Table
  readonly #listeners: Array<(models: ReadonlyArray<Model>) => void> = []
  readonly #call = (name: string): InferenceError | undefined => {
    const { byName, wildcards } = this.#table
    return byName.has(name) && !isWildcard(name) ? undefined : wildcards.call(name)
  }

  readonly #wildcardOf = (name: string): Model | undefined =>
    this.#table.byName.has(name) ? undefined : this.#table.wildcards.of(name)

  constructor(models: ReadonlyArray<Model>) {
    this.#table = tableOf(models)
  }

  get wildcardOf(): Registry["Service"]["wildcardOf"] {
    return this.#table.hasWildcards ? this.#wildcardOf : undefined
  }

  readonly isLabel = (name: string): boolean => this.#table.wildcards.isLabel(name)

  get call(): Registry["Service"]["call"] {
    return this.#table.hasWildcards ? this.#call : undefined
  }

  readonly models = (): ReadonlyArray<Model> => this.#table.models

  readonly find = (name: string): Result.Result<Model, InferenceError> => {
    const { available, byName, wildcards } = this.#table
    const model = byName.get(name) ?? wildcards.find(name)
    return model === undefined
      ? Result.fail(makeError(new ModelNotFound({ model: name, available })))
      : Result.succeed(model)
  }

  readonly replace = (models: ReadonlyArray<Model>): void => {
    this.#table = tableOf(models, this.#table.wildcards)
    for (const listener of this.#listeners) listener(models)
  }

  readonly onReplace = (listener: (models: ReadonlyArray<Model>) => void): void => {
    this.#listeners.push(listener)
  }
}

/** @param models in configured order, each with a name of its own */
export const make = (models: ReadonlyArray<Model>): Registry["Service"] => Registry.of(new Replaceable(models))

const servedName = ({ model, options }: Deployment): string => isRemote(options) ? options.model : model

/** The name of the model that each deployment serves: that of its provider, or of the local model. */
export class ServedNames {
  readonly #registry: Registry["Service"]
  #models: ReadonlyArray<Model> = []
  #names = new Map<string, string>()

  constructor(registry: Registry["Service"]) {
    this.#registry = registry
  }

  /** Undefined for an answer that no deployment of the registry has generated. */
  nameOf(deployment: string): string | undefined {
    const models = this.#registry.models()
    if (models !== this.#models) {
      this.#models = models
      this.#names = new Map(models.flatMap(({ deployments }) => deployments.map((one) => [one.id, servedName(one)])))
    }
    return this.#names.get(deployment) ?? this.#ofWildcard(deployment)
  }

  #ofWildcard(id: string): string | undefined {
    const found = deploymentOfWildcard(this.#registry, id)
    return found && servedName(found)
  }
}

/** The deployment of a wildcard's model, which `models` does not list; undefined if there is none. */
export const deploymentOfWildcard = ({ find, models }: Registry["Service"], id: string): Deployment | undefined => {
  if (!models().some(({ name }) => isWildcard(name))) return undefined
  const model = find(id.slice(0, id.lastIndexOf("#")))
  return Result.isSuccess(model) ? model.success.deployments.find((one) => one.id === id) : undefined
}

/** Of these, what belongs to deployments that exist now: a reload or the end of a rollout may have removed others. */
export const ofExisting = <A extends { readonly deployment: string }>(
  registry: Registry["Service"],
  all: ReadonlyArray<A>
): ReadonlyArray<A> => {
  const ids = new Set(registry.models().flatMap(({ deployments }) => deployments.map(({ id }) => id)))
  return all.filter(({ deployment }) => ids.has(deployment) || deploymentOfWildcard(registry, deployment) !== undefined)
}

/** The own name of the model that a name or an alias selects; the name itself if there is none. */
export const namesIn = ({ models }: Registry["Service"]) => (name: string): string =>
  models().find(({ aliases }) => aliases?.includes(name) === true)?.name ?? name

/** The configured name of a model: for `openai/gpt-x`, which the wildcard `openai/*` serves, that is `openai/*`. */
export const configuredModel = ({ wildcardOf }: Registry["Service"], name: string): string =>
  wildcardOf?.(name)?.name ?? name

/** The id with another name of its model. */
const deploymentWith = (id: string, modelOf: (name: string) => string): string => {
  const end = id.lastIndexOf("#")
  return end < 0 ? id : modelOf(id.slice(0, end)) + id.slice(end)
}

/** The configured id of a deployment: for `openai/gpt-x#0` that is `openai/*#0`. */
export const configuredDeployment = (registry: Registry["Service"], id: string): string =>
  registry.wildcardOf === undefined ? id : deploymentWith(id, (name) => configuredModel(registry, name))

/** The label of a model in metrics: its own name, or that of its wildcard after the first names. */
export const modelLabel = (registry: Registry["Service"], name: string): string => {
  if (registry.wildcardOf === undefined || registry.isLabel?.(name) === true) return name
  return configuredModel(registry, name)
}

/** The label of a deployment in metrics. */
export const deploymentLabel = (registry: Registry["Service"], id: string): string =>
  registry.wildcardOf === undefined ? id : deploymentWith(id, (name) => modelLabel(registry, name))

/** The models of the settings, until they are replaced. */
export const layer: Layer.Layer<Registry, never, Settings> = Layer.effect(
  Registry,
  Effect.map(Settings, ({ models }) => make(models))
)
