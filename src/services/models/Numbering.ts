/**
 * The ids of deployments that differ from those of the configuration file. Pure.
 *
 * **Details**
 *
 * A start numbers the deployments of a model by their list. A reload keeps the ids of those that have moved (`Reconcile`), so the
 * ids in use can differ from those of the list. The processes of a service share circuits, limits, drains and A/B tests by
 * ids: a process gets the numbering together with the configuration.
 */
import type { Model } from "../../domain/Deployment.ts"
import type { Problem } from "../../domain/Problem.ts"
import { formatPath } from "../../domain/Problem.ts"
import { sourceOf } from "../engines/EngineKinds.ts"
import type { Resolved } from "../settings/Settings.ts"

/** Models with their ids in the order of their deployments. */
export type Numbering = ReadonlyArray<readonly [model: string, ids: ReadonlyArray<string>]>

/** The id of a deployment by its place in the list of its model. */
export const listedId = (model: string, index: number): string => `${model}#${index}`

/** The models whose ids are not those of their lists. */
export const numberingOf = (models: ReadonlyArray<Model>): Numbering =>
  models
    .filter(({ deployments, name }) => deployments.some(({ id }, index) => id !== listedId(name, index)))
    .map(({ deployments, name }) => [name, deployments.map(({ id }) => id)])

/** The models of a file with these ids. */
export const numbered = (models: ReadonlyArray<Model>, numbering: Numbering): ReadonlyArray<Model> => {
  if (numbering.length === 0) return models
  const idsOf = new Map(numbering)
  return models.map((model) => {
    const ids = idsOf.get(model.name)
    if (ids === undefined) return model
    const [first, ...others] = model.deployments.map((one, index) => ({ ...one, id: ids[index] ?? one.id }))
    return { ...model, deployments: [first!, ...others] }
  })
}

/** Where the A/B test and the shadow of a model name deployments by their ids. */
const placesOf = ({ experiments, shadows }: Resolved, model: string): ReadonlyArray<readonly [string, string]> => {
  const candidate = shadows?.get(model)?.candidate
  return [
    ...(experiments?.get(model)?.variants ?? []).map(({ deployment }, index) =>
      [formatPath(["models", model, "experiment", "variants", index, "deployment"]), deployment] as const
    ),
    ...(candidate === undefined ? [] : [[formatPath(["models", model, "shadow", "candidate"]), candidate] as const])
  ]
}

/** Ids in A/B tests and shadows that name another deployment now than after a restart. */
export const renumberedIds = (settings: Resolved): ReadonlyArray<Problem> =>
  settings.models.flatMap(({ deployments, name }) => {
    const place = (id: string, idAt: (index: number) => string): number =>
      deployments.findIndex((_, index) => idAt(index) === id)
    const shown = (index: number): string =>
      index < 0 ? "no deployment" : `deployment ${index + 1} of the list (${sourceOf(deployments[index]!.options)})`
    return placesOf(settings, name).flatMap(([path, id]) => {
      const now = place(id, (index) => deployments[index]!.id)
      const later = place(id, (index) => listedId(name, index))
      return now === later ? [] : [{
        path,
        expected: `"${id}" is ${shown(now)} until a restart, and ${shown(later)} after it, ` +
          "because deployments have moved in the list. Restart the service, or restore the order of the list"
      }]
    })
  })
