/** Why a rollout cannot be started or changed, each with what to do. */
import { Schema } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import type { Deployment, Model } from "../../domain/Deployment.ts"
import { didYouMean, didYouMeanId } from "../../domain/NearestName.ts"
import { cutList, cutName } from "../../domain/Text.ts"
import type { ModelFileError } from "../engines/ModelFiles.ts"
import { summaryOf } from "../persistence/StorageError.ts"
import type { Rollout } from "./Rollout.ts"

export class RolloutError extends Schema.TaggedError<RolloutError>()("RolloutError", {
  code: Schema.Literals([
    "rollout_not_found",
    "rollout_running",
    "rollout_refused",
    "deployment_not_found",
    "deployment_in_use",
    "storage_failed"
  ]),
  message: Schema.String
}) {}

export const storageFailed = (error: SqlError): RolloutError =>
  new RolloutError({ code: "storage_failed", message: `Rollouts cannot be stored: ${summaryOf(error)}.` })

/** @param models that are configured */
export const notFound = (
  name: string,
  known: ReadonlyArray<Rollout>,
  models: ReadonlyArray<Pick<Model, "name">>
): RolloutError => {
  const names = [...known.flatMap(({ id, model }) => [id, model]), ...models.map((model) => model.name)]
  const suggestion = didYouMean(name, names)
  return new RolloutError({
    code: "rollout_not_found",
    message: names.includes(name)
      ? `The model ${name} has had no rollout. Start one with: troupe rollout start ${name} --to DEPLOYMENT`
      : `Rollout ${JSON.stringify(cutName(name))} not found.${suggestion} ` +
        (models.length === 0 ? "" : `Models: ${cutList(models.map((model) => model.name))}. `) +
        "GET /admin/rollouts lists the rollouts."
  })
}

/** @param isForeign whether this process does not have its deployment: that of another configuration */
export const alreadyRunning = (
  { candidate, id, model }: Pick<Rollout, "candidate" | "id" | "model">,
  isForeign: boolean
): RolloutError =>
  new RolloutError({
    code: "rollout_running",
    message: `The rollout ${id} of ${model} has not ended. ` + (isForeign
      ? `It is that of a service with another configuration, which shares this storage: ${candidate} is not configured here. ` +
        "Promote or abort it if it may end; to roll out independently, give the services another model name, or each a storage of its own."
      : "Promote or abort it first.")
  })

export const noDeployment = ({ deployments, name }: Model, id: string): RolloutError =>
  new RolloutError({
    code: "deployment_not_found",
    message: `The model ${name} has no deployment ${JSON.stringify(cutName(id))}.${
      didYouMeanId(id, deployments.map((one) => one.id))
    } Its deployments: ${
      deployments.map((one) => one.id).join(", ")
    }. Or name another model of their provider, or another file.`
  })

/** The file that would be rolled out cannot be loaded. */
export const notReadable = (model: Pick<Model, "deployments" | "name">, { message }: ModelFileError): RolloutError =>
  new RolloutError({
    code: "deployment_not_found",
    message: `${message.replace(/\.$/, "")}. A relative path begins at the folder in which the service was started. ` +
      `Deployments of ${model.name}: ${model.deployments.map((one) => one.id).join(", ")}.`
  })

/** No other deployment of the model takes requests. */
export const inUse = ({ id, model }: Deployment): RolloutError =>
  new RolloutError({
    code: "deployment_in_use",
    message: `${id} already takes all requests of ${model}. Roll out to another deployment of the model.`
  })

/** Its callers would get vectors of both models. */
export const otherVectors = ({ id, model }: Deployment, stable: Deployment): RolloutError =>
  new RolloutError({
    code: "rollout_refused",
    message: `${id} embeds texts in other vectors than ${stable.id}, which cannot be compared. ` +
      `Configure it as another model than ${model}, and embed all texts again.`
  })

/** @param reason a sentence, as `RolloutMachine.refusal` gives it */
export const refused = (reason: string): RolloutError => new RolloutError({ code: "rollout_refused", message: reason })
