/**
 * Deployments at runtime: adds one to a model beside its others, and retires one after its requests.
 *
 * **Details**
 *
 * The registry's table is replaced as a whole, so that a request sees the deployments before a change or those after it. A
 * request that has been routed keeps its deployments until it ends.
 *
 * Added deployments are not part of the configuration: a restart forgets them, and another configuration keeps them as long
 * as it has their model.
 *
 * **Gotchas**
 *
 * An added deployment is an ordinary one. The router may choose it as soon as `add` has ended.
 */
import { Context, Effect, Layer } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { InvalidRequest, make as makeError } from "../../domain/InferenceError.ts"
import { Models } from "./Models.ts"
import { Registry } from "./Registry.ts"

/** The deployments of the configured models, and those that were added since. */
export class Deployments extends Context.Service<Deployments, {
  /**
   * Adds a deployment to the model that it names, after its others. Fails with the error of its load, or with an
   * `InvalidRequest` if there is no such model or its id is in use; nothing has changed then.
   *
   * @param options `load`: false adds it without loading it; default true
   */
  readonly add: (
    deployment: Deployment,
    options?: { readonly load?: boolean }
  ) => Effect.Effect<void, InferenceError>
  /**
   * Removes a deployment: no request is routed to it from now on. Ends when its requests, streams included, have ended and
   * it is unloaded. Fails with an `InvalidRequest` if it is the only one of its model; an unknown id is ignored.
   */
  readonly retire: (id: string) => Effect.Effect<void, InferenceError>
  /** The models of another configuration with the deployments that were added to them; the others are forgotten. */
  readonly withAdded: (configured: ReadonlyArray<Model>) => ReadonlyArray<Model>
}>()("troupe/services/models/Deployments") {}

const refused = (detail: string) => Effect.fail(makeError(new InvalidRequest({ path: "deployment", detail })))

const fixed = refused("The program's own registry has no `replace`: its deployments cannot change.")

type Table = Pick<Registry["Service"], "models" | "replace">

const problemOf = ({ models }: Table, { id, model }: Deployment): string | undefined => {
  if (models().every(({ name }) => name !== model)) return `There is no model "${model}".`
  return models().some(({ deployments }) => deployments.some((one) => one.id === id))
    ? `The id "${id}" is in use.`
    : undefined
}

/** The models with one of them changed; the others stay the same objects. */
const change = (models: ReadonlyArray<Model>, name: string, to: (model: Model) => Model): ReadonlyArray<Model> =>
  models.map((model) => model.name === name ? to(model) : model)

const withDeployment = (deployment: Deployment) => (model: Model): Model => ({
  ...model,
  deployments: [...model.deployments, deployment]
})

const withoutDeployment = (id: string) => (model: Model): Model => {
  const [first, ...others] = model.deployments.filter((one) => one.id !== id)
  return first === undefined ? model : { ...model, deployments: [first, ...others] }
}

const make = (registry: Table, models: Models["Service"]): Deployments["Service"] => {
  const added = new Map<string, Deployment>()
  const write = (next: ReadonlyArray<Model>): void => registry.replace?.(next)
  const add = Effect.fnUntraced(function*(deployment: Deployment, { load = true }: { readonly load?: boolean } = {}) {
    if (registry.replace === undefined) return yield* fixed
    const before = problemOf(registry, deployment)
    if (before !== undefined) return yield* refused(before)
    if (load) yield* models.load(deployment)
    // Another call may have added it during the load.
    const after = problemOf(registry, deployment)
    if (after !== undefined) return yield* refused(after)
    models.renew(deployment)
    added.set(deployment.id, deployment)
    write(change(registry.models(), deployment.model, withDeployment(deployment)))
  })
  const retire = Effect.fnUntraced(function*(id: string) {
    if (registry.replace === undefined) return yield* fixed
    const model = registry.models().find(({ deployments }) => deployments.some((one) => one.id === id))
    const deployment = model?.deployments.find((one) => one.id === id)
    if (model === undefined || deployment === undefined) return
    if (model.deployments.length === 1) return yield* refused(`"${id}" is the only deployment of "${model.name}".`)
    added.delete(id)
    write(change(registry.models(), model.name, withoutDeployment(id)))
    yield* models.retire(deployment)
  })
  return Deployments.of({
    add,
    retire,
    withAdded: (configured) => {
      for (const [id, { model }] of added) if (configured.every(({ name }) => name !== model)) added.delete(id)
      return [...added.values()].reduce<ReadonlyArray<Model>>(
        (all, deployment) => change(all, deployment.model, withDeployment(deployment)),
        configured
      )
    }
  })
}

/** Over the registry and the actors of the application. */
export const layer = Layer.effect(
  Deployments,
  Effect.gen(function*() {
    return make(yield* Registry, yield* Models)
  })
)
