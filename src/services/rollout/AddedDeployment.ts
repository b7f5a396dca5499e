/**
 * A deployment that a rollout adds to its model: as one that the model has, with another model of its provider or another file.
 *
 * **Details**
 *
 * The store has what it is made of (`Added`), not its options: keys and headers are those of the deployment beside it, as the
 * configuration has them now. Each process adds it when it reads the rollout, and retires it when the rollout has taken all
 * requests from it, or when the configuration has a deployment that serves the same.
 *
 * **Gotchas**
 *
 * One whose sibling is no longer configured cannot be made again.
 */
import { Effect } from "effect"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { isRemote } from "../../domain/Deployment.ts"
import type { InferenceError } from "../../domain/InferenceError.ts"
import { pathsOf, withPath } from "../engines/EngineKinds.ts"
import type { ModelFiles } from "../engines/ModelFiles.ts"
import type { Deployments } from "../models/Deployments.ts"
import * as KnownDeployment from "./KnownDeployment.ts"
import { noDeployment, notReadable } from "./RolloutError.ts"
import type { Stored } from "./RolloutStore.ts"
import * as Standing from "./Standing.ts"

/** Whether it can be made: another model of the provider, or another file in place of the only one. */
export const canBeMade = ({ options }: Deployment): boolean => isRemote(options) || pathsOf(options).length === 1

/**
 * The sibling with another model or file.
 *
 * @param id beginning with the name of the model and `#`
 * @param to the name of the model at the provider, or the path of the file
 */
export const make = (sibling: Deployment, id: string, to: string): Deployment => ({
  ...sibling,
  id,
  preload: false,
  options: isRemote(sibling.options) ? { ...sibling.options, model: to } : withPath(sibling.options, to)
})

/**
 * The deployment to roll out: one that the model has, or one that is made for the rollout.
 *
 * @param siblings that take requests now
 * @param rollout its id
 */
export const choose = Effect.fnUntraced(function*(
  files: Pick<ModelFiles["Service"], "describe">,
  model: Model,
  siblings: ReadonlyArray<Deployment>,
  to: string,
  rollout: string
) {
  const configured = model.deployments.find(({ id }) => id === to)
  if (configured !== undefined) return { candidate: configured, added: undefined }
  const sibling = siblings.find(canBeMade)
  if (sibling === undefined || to.includes("#")) return yield* noDeployment(model, to)
  const made = make(sibling, `${model.name}#${rollout}`, to)
  const known = KnownDeployment.findKnown(model, KnownDeployment.knownOf(made))
  if (known !== undefined) return { candidate: known, added: undefined }
  yield* Effect.mapError(files.describe(made.options), (error) => notReadable(model, error))
  return { candidate: made, added: { sibling: KnownDeployment.knownOf(sibling), to } }
})

/** The deployment that a process has to add for a rollout; undefined: it has it, or cannot have it. */
const lacking = (model: Model, { added, candidate }: Stored): Deployment | undefined => {
  if (added === undefined || KnownDeployment.findKnown(model, candidate) !== undefined) return undefined
  const sibling = KnownDeployment.findKnown(model, added.sibling)
  return sibling && make(sibling, candidate.id, added.to)
}

/** Whether the model has another deployment that serves the same: the result of the rollout was made permanent. */
const isConfigured = ({ deployments }: Model, { candidate: { id, options } }: Stored): boolean =>
  deployments.some((one) => one.id !== id && KnownDeployment.optionsText(one) === options)

/** Whether requests may go to the candidate, now or later. */
const isNeeded = (model: Model, stored: Stored): boolean =>
  Standing.isRunning(stored.rollout) || (Standing.weightOf(stored.rollout) > 0 && !isConfigured(model, stored))

/**
 * Adds or retires the deployment of one rollout, as its state says.
 *
 * @param inBackground for the end of its requests
 */
export const settle = (
  deployments: Deployments["Service"],
  model: Model,
  stored: Stored,
  inBackground: (effect: Effect.Effect<void, InferenceError>) => void
): Effect.Effect<void, InferenceError> => {
  if (stored.added === undefined) return Effect.void
  if (isNeeded(model, stored)) {
    const deployment = lacking(model, stored)
    return deployment === undefined ? Effect.void : deployments.add(deployment, { load: false })
  }
  const { id } = stored.candidate
  if (model.deployments.some((one) => one.id === id)) inBackground(deployments.retire(id))
  return Effect.void
}
